"""A model's tensors by layer: a line for those that differ in a number of their name only."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from winit_fast.base.formulas import Number
from winit_fast.initializers.elementwise import TruncatedNormal
from winit_fast.models import Architecture, Rule, Rules, TensorSpec

_NO_NORMAL = 10.0
"""Deviations that no draw of a normal reaches: a bound so far out is meant as a number."""


class Group(NamedTuple):
    """Tensors of the same name but for its numbers, of one shape and by one rule.

    Attributes
    ----------
    times : int
    name : str
        A number is ``{i}`` where the rule calls it i, and ``*`` where it has no part in the rule.
    shape : tuple of int
    initializer : str
        With the rule's formulas.
    """

    times: int
    name: str
    shape: tuple[int, ...]
    initializer: str


def by_layer(rules: Rules, tensors: Iterable[TensorSpec]) -> list[Group]:
    """Group tensors over the layers, in the order in which the first of each comes.

    Examples
    --------
    >>> gpt2, rules = Architecture.load("gpt2"), Rules.load("gpt2")
    >>> by_layer(rules, rules.tensors(gpt2))[6][:2]
    (12, 'h.*.attn.c_proj.weight')
    >>> by_layer(rules, rules.tensors(gpt2))[6].initializer
    'RandomNormal(mean=0.0, stddev=0.02 / sqrt(2 * n_layer))'
    """
    groups: dict[tuple[str, tuple[int, ...], str], tuple[Rule, list[TensorSpec]]] = {}
    for tensor in tensors:
        found = rules.find(tensor.name)
        if found is None:
            raise ValueError(f"rules {rules.name!r} have none for tensor {tensor.name!r}")
        name = re.sub(r"\b\d+\b", "*", found.pattern.template(tensor.name))
        key = name, tensor.shape, found.pattern.text
        groups.setdefault(key, (found.value, []))[1].append(tensor)
    return [
        Group(len(members), name, shape, _scheme(rule, members))
        for (name, shape, _), (rule, members) in groups.items()
    ]


def _scheme(rule: Rule, tensors: Sequence[TensorSpec]) -> str:
    """Write the initializer of several tensors with the rule's formulas."""
    parameters = dict(rule.parameters)
    bounds = _absolute_bounds(tensors)
    if bounds is not None:
        parameters = {k: v for k, v in parameters.items() if k not in ("low", "high")}
    listed = ", ".join(f"{name}={value}" for name, value in parameters.items())
    within = "" if bounds is None else f" within [{bounds[0]:.6g}, {bounds[1]:.6g}]"
    return f"{type(tensors[0].initializer).__name__}({listed}){within}"


def _absolute_bounds(tensors: Sequence[TensorSpec]) -> tuple[float, float] | None:
    """The numbers at which truncated normals are cut, if these are what the bounds mean.

    Authors who give torch's ``trunc_normal_`` bounds of -2 and 2 and a deviation of 0.02 have them
    100 deviations out. They are the same in all layers, whatever the deviation.
    """
    found = []
    for tensor in tensors:
        scheme = tensor.initializer
        if not isinstance(scheme, TruncatedNormal):
            return None
        if max(abs(scheme.low), abs(scheme.high)) < _NO_NORMAL:
            return None
        found.append([scheme.mean + bound * scheme.stddev for bound in (scheme.low, scheme.high)])
    low, high = found[0]
    same = all(math.isclose(a, low) and math.isclose(b, high) for a, b in found)
    return (low, high) if same else None


def numbers_used(rules: Rules, architecture: Architecture) -> dict[str, Number]:
    """The architecture's numbers that the rules' formulas use."""
    formulas = (
        value
        for rule in rules.rules
        for value in rule.parameters.values()
        if isinstance(value, str)
    )
    words = {word for formula in formulas for word in re.findall(r"[^\W\d]\w*", formula)}
    return {name: n for name, n in architecture.numbers.items() if name in words}
