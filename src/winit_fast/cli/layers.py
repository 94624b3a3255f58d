"""A model's tensors by layer, with one line for tensors whose names differ only in a number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from winit_fast.base.formulas import Number
from winit_fast.models import Architecture, Rules, TensorSpec, plan_table
from winit_fast.models.plan_table import Group


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

    def formulas(tensor: TensorSpec) -> tuple[str, object, dict[str, Any]]:
        found = rules.find(tensor.name)
        if found is None:
            raise ValueError(f"rules {rules.name!r} have no rule for tensor {tensor.name!r}")
        name = found.pattern.template(tensor.name)
        return name, found.pattern.text, dict(found.value.parameters)

    return plan_table.by_layer(tensors, formulas)


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
