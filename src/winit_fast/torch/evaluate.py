"""Evaluates recorded values with torch's own operations."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from winit_fast.torch.nested import instances
from winit_fast.torch.values import Call, Cast, Constant, Draw, Patch, Stored, Value, View


def evaluate(value: Value, draws: Mapping[Draw, Callable[[], Tensor]]) -> Tensor:
    """Compute a value's elements: in float64 if it contains draws, otherwise as its author does.

    Parameters
    ----------
    value : Value
    draws : mapping of Draw to callable
        Return the elements of the draws.
    """
    exact = bool(draws)
    known: dict[int, Tensor] = {}

    def widened(tensor: Tensor) -> Tensor:
        return tensor.double() if exact and tensor.is_floating_point() else tensor

    def compute(one: Value) -> Tensor:
        if id(one) not in known:
            known[id(one)] = widened(result(one))
        return known[id(one)]

    def result(one: Value) -> Tensor:
        if isinstance(one, Constant):
            return torch.full(one.shape, one.number, dtype=one.dtype)
        if isinstance(one, Stored):
            return one.tensor.cpu()
        if isinstance(one, Draw):
            return draws[one]()
        if isinstance(one, View):
            return compute(one.base).contiguous().as_strided(*one.region).clone()
        if isinstance(one, Patch):
            new = compute(one.base).clone(memory_format=torch.contiguous_format)
            new.as_strided(*one.region).copy_(compute(one.value))
            return new
        if isinstance(one, Cast):
            inner = compute(one.value).expand(one.shape)
            return inner if exact and one.dtype.is_floating_point else inner.to(one.dtype)
        assert isinstance(one, Call)
        return call(one)

    def argument(item: Any, copied: bool = False) -> Any:
        if isinstance(item, Value):
            return compute(item).clone() if copied else compute(item)
        if isinstance(item, Mapping):
            return {key: argument(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return type(item)([argument(inner, copied) for inner in item])
        if exact and isinstance(item, torch.dtype) and item.is_floating_point:
            return torch.float64
        return torch.device("cpu") if isinstance(item, torch.device) else item

    def call(one: Call) -> Tensor:
        schema = one.function._schema.arguments
        written = [
            at for at, item in enumerate(schema) if item.alias_info and item.alias_info.is_write
        ]
        args = [argument(item, copied=at in written) for at, item in enumerate(one.args)]
        kwargs = {
            key: argument(item, copied=any(schema[at].name == key for at in written))
            for key, item in one.kwargs.items()
        }
        results = one.function(*args, **kwargs)
        if written:
            at = written[one.position]
            chosen: Tensor = args[at] if at < len(args) else kwargs[schema[at].name]
            return chosen
        return list(instances(Tensor, results))[one.position]

    with torch.device("cpu"):  # not the default device
        return compute(value)
