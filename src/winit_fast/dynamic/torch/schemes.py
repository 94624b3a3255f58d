"""The schemes of a module's tensors, and drawing parts of them in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.base.names import located
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import Stream
from winit_fast.torch.expressions import TorchExpression
from winit_fast.torch.memory import FLOATS, as_array, on_host, written
from winit_fast.torch.names import Names, tensors
from winit_fast.torch.placements import held_parts, is_sharded
from winit_fast.torch.recorded import entries_of_module, spec_of
from winit_fast.torch.rules import KEEP, Rules


def schemes(
    module: Module,
    wanted: Collection[str] | None,
    rules: Rules | None,
    names: Names | None,
    prefix: str,
) -> dict[str, TensorSpec]:
    """Find the schemes of tensors, by the author's code or by rules, as `init_` does.

    Parameters
    ----------
    module : torch.nn.Module
    wanted : collection of str, optional
        The names of the tensors; by default all that are filled.
    rules, names, prefix
        As in `winit_fast.torch.init_`.

    Raises
    ------
    ValueError, TypeError
        If a scheme cannot be found, or a tensor is not in memory.
    """
    if wanted is not None and not callable(rules):
        kept = {
            named.name: KEEP
            for named in tensors(module)
            if named.is_parameter and named.name not in wanted
        }
        given: Mapping[Any, Any] = rules or {}
        rules = {**given, **{name: KEEP for name in kept if name not in given}}
    entries = entries_of_module(module, rules, None, names, prefix, True)
    found = {
        named.name: (named.tensor, spec_of(named, reduced))
        for named, reduced in entries.filled
        if wanted is None or named.name in wanted
    }
    specs = {name: spec for name, (_, spec) in found.items()}
    for name in wanted or ():
        if name not in specs:
            raise ValueError(f"the scheme of {name!r} is not known: give a rule for it")
    for name, (tensor, spec) in found.items():
        if isinstance(spec.initializer, TorchExpression):
            raise ValueError(
                f"{name!r} is computed by {spec.initializer!r:.100}, of which no part can be drawn "
                "again: give a rule for it"
            )
        if tensor.is_meta:
            raise TypeError(f"{name!r} must be a tensor in memory, got one on {tensor.device}")
        try:
            spec.check()
        except (TypeError, ValueError) as error:
            raise located(error, name) from None
    return specs


def draw(
    spec: TensorSpec, tensor: Tensor, seed: int, axis: int, runs: Sequence[tuple[int, int]]
) -> None:
    """Draw ranges along an axis in place, with the elements that they have in the whole tensor.

    Of a DTensor, this rank's part of them is drawn.
    """
    kind = FLOATS.get(tensor.dtype)
    stream = Stream(seed, spec.stream)
    known = None if kind is None else spec.scheme.prepared(spec.shape, kind.dtype, stream)
    for part, box in held_parts(tensor.detach()):
        first, stop = box.starts[axis], box.starts[axis] + box.sizes[axis]
        array = as_array(part) if known is not None and on_host(part) else None
        for low, high in runs:
            start, end = max(low, first), min(high, stop)
            if start >= end:
                continue
            cut = [slice(0, size) for size in box.sizes]
            cut[axis] = slice(start - first, end - first)
            own = box.cut(tuple(cut))
            if array is not None and known is not None:  # many ranges may be short
                known(array[tuple(cut)], own, None)
            else:
                fill(spec, part[tuple(cut)], seed, own.slices)
        written(part)
    if is_sharded(tensor):
        written(tensor)


def fill(spec: TensorSpec, view: Tensor, seed: int, index: tuple[slice, ...]) -> None:
    """Fill a view with a box of its tensor, on the host if it is on another device."""
    host = view if view.device.type == "cpu" else torch.empty_like(view, device="cpu")
    spec.scheme.fill(host, seed=seed, name=spec.stream, shape=spec.shape, index=index)
    if host is not view:
        view.copy_(host)
