"""Modules on many ranks: whose batches count together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Module

from winit_fast.torch.names import is_wrapper
from winit_fast.torch.placements import is_sharded


def group_of(module: Module, group: Any, tensors: Iterable[Tensor]) -> Any:
    """Return the group of ranks that must do the same: the given one, or that of a wrapper.

    Parameters
    ----------
    module : torch.nn.Module
        With its wrappers.
    group : torch.distributed.ProcessGroup or None
    tensors : iterable of Tensor
        What will be changed.

    Raises
    ------
    ValueError
        If it is not known, although a tensor is cut among ranks.
    """
    if group is None:
        group = _of_wrapper(module)
    if group is None and any(map(is_sharded, tensors)):
        raise ValueError(
            "group must be given, got None: parameters are DTensors, and every rank would change "
            "its part by its own batch"
        )
    return group


def _of_wrapper(module: Module) -> Any:
    """Return the group of a DistributedDataParallel, or None if there is none."""
    for attribute, inner in module._modules.items():
        if inner is not None and is_wrapper(module, attribute):
            return getattr(module, "process_group", None) or _of_wrapper(inner)
    return None
