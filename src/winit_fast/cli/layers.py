"""A model's tensors by layer, with one line for tensors whose names differ only in a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from winit_fast.base.formulas import Number
from winit_fast.models import Applied, Rules, TensorSpec, plan_table
from winit_fast.models.plan_table import Group


def by_layer(applied: Sequence[Applied]) -> list[Group]:
    """Group tensors over the layers, in the order of each group's first tensor.

    Examples
    --------
    >>> from winit_fast.models import Architecture
    >>> gpt2, rules = Architecture.load("gpt2"), Rules.load("gpt2")
    >>> by_layer(rules.applied_to_architecture(gpt2))[6][:2]
    (12, 'h.*.attn.c_proj.weight')
    >>> by_layer(rules.applied_to_architecture(gpt2))[6].initializer
    'RandomNormal(mean=0.0, stddev=std / sqrt(2 * layers))'
    """
    by_name = {one.tensor.name: one for one in applied}

    def formulas(tensor: TensorSpec) -> tuple[str, object, dict[str, Any] | None]:
        one = by_name[tensor.name]
        if one.rule is None:
            return tensor.name, None, None
        return one.template, (one.rule.pattern, one.rule.roles), dict(one.rule.parameters)

    return plan_table.by_layer([one.tensor for one in applied], formulas)


def numbers_used(
    rules: Rules, applied: Sequence[Applied], numbers: Mapping[str, Number]
) -> dict[str, Number]:
    """Return the numbers of a model, and the settings, that formulas of the rules use."""
    formulas = (
        value
        for rule in {id(one.rule): one.rule for one in applied if one.rule is not None}.values()
        for value in rule.parameters.values()
        if isinstance(value, str)
    )
    words = {word for formula in formulas for word in re.findall(r"[^\W\d]\w*", formula)}
    known = {
        **numbers,
        **rules.settings,
        **rules.model_numbers([one.tensor for one in applied], numbers),
    }
    return {name: n for name, n in known.items() if name in words}
