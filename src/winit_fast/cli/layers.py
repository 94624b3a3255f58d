"""A model's tensors by layer, with one line for tensors whose names differ only in a number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from winit_fast.base.formulas import Number
from winit_fast.initializers.elementwise import TruncatedNormal
from winit_fast.models import Architecture, Rule, Rules, TensorSpec

_NO_NORMAL = 10.0
"""Standard deviations that no normal draw reaches: a bound beyond it was meant to be absolute."""


class Group(NamedTuple):
    """Tensors whose names differ only in numbers, with the same shape and the same rule.

    Attributes
    ----------
    times : int
    name : str
        A number is shown as ``{i}`` if the rule names it i, as ``*`` if the rule does not use it.
    shape : tuple of int
    initializer : str
        The initializer, with the formulas of the rule.
    """

    times: int
    name: str
    shape: tuple[int, ...]
    initializer: str


def by_layer(rules: Rules, tensors: Iterable[TensorSpec]) -> list[Group]:
    """Group tensors over the layers, in the order of each group's first tensor.

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
    """Return the initializer of several tensors as text, with the formulas of the rule."""
    parameters = dict(rule.parameters)
    bounds = _absolute_bounds(tensors)
    if bounds is not None:
        parameters = {k: v for k, v in parameters.items() if k not in ("low", "high")}
    listed = ", ".join(f"{name}={value}" for name, value in parameters.items())
    within = "" if bounds is None else f" within [{bounds[0]:.6g}, {bounds[1]:.6g}]"
    return f"{type(tensors[0].initializer).__name__}({listed}){within}"


def _absolute_bounds(tensors: Sequence[TensorSpec]) -> tuple[float, float] | None:
    """Return the absolute bounds of truncated normals, if the bounds were meant to be absolute.

    Authors who call torch's ``trunc_normal_`` with bounds -2 and 2 and a standard deviation of 0.02
    truncate at 100 standard deviations. These bounds are equal in all layers, whatever the
    standard deviation.
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
    """Return the numbers of the architecture that formulas of the rules use."""
    formulas = (
        value
        for rule in rules.rules
        for value in rule.parameters.values()
        if isinstance(value, str)
    )
    words = {word for formula in formulas for word in re.findall(r"[^\W\d]\w*", formula)}
    return {name: n for name, n in architecture.numbers.items() if name in words}
