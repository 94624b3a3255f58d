"""The schemes of a module's tensors, and drawing parts of them in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.base.names import located
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.torch.expressions import TorchExpression
from winit_fast.torch.names import Names, tensors
from winit_fast.torch.placements import is_sharded
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
        If a scheme cannot be found, or a tensor is not in the memory of this process.
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
        if is_sharded(tensor) or tensor.is_meta:
            raise TypeError(
                f"{name!r} must be a tensor in the memory of this process, got "
                f"{type(tensor).__name__} on {tensor.device}"
            )
        try:
            spec.check()
        except (TypeError, ValueError) as error:
            raise located(error, name) from None
    return specs


def draw(spec: TensorSpec, tensor: Tensor, seed: int, box: tuple[slice, ...]) -> None:
    """Draw a box of a tensor in place, with the elements that it has in the whole tensor."""
    part = tensor.detach()[box]
    host = part if part.device.type == "cpu" else torch.empty_like(part, device="cpu")
    spec.scheme.fill(host, seed=seed, name=spec.stream, shape=spec.shape, index=box)
    if host is not part:
        part.copy_(host)
