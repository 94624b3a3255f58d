"""Runs a module on a batch without leaving a trace of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.torch.refusals import is_gathered


@contextmanager
def undisturbed(module: Module, seed: int = 0) -> Iterator[None]:
    """Restore a module's flags and buffers and torch's generators afterwards.

    Within the context the generators begin at a seed, so dropout is the same every time, and all
    floating-point parameters require gradients. Afterwards no parameter of ``fully_shard`` is
    gathered.

    Parameters
    ----------
    module : torch.nn.Module
    seed : int
        Of torch's generators within the context.

    Examples
    --------
    >>> norm = torch.nn.BatchNorm1d(3)
    >>> with undisturbed(norm):
    ...     output = norm(torch.randn(8, 3))
    >>> int(norm.num_batches_tracked), norm.running_mean.tolist()
    (0, [0.0, 0.0, 0.0])
    """
    inside = list(module.modules())
    flags = [(one, one.training) for one in inside]
    buffers = [(one, dict(one._buffers)) for one in inside]
    tensors = {id(held): held for _, own in buffers for held in own.values() if held is not None}
    copies = [(held, held.detach().clone()) for held in tensors.values()]
    required = [(one, one.requires_grad) for one in module.parameters()]
    devices = {one.device.index for one, _ in required if one.device.type == "cuda"}
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(sorted(devices)):
        torch.manual_seed(seed)
        torch.backends.mha.set_fastpath_enabled(False)  # it would run without any hook
        try:
            for parameter, _ in required:
                if parameter.is_floating_point() or parameter.is_complex():
                    parameter.requires_grad_(True)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            reshard(module)
            for parameter, was in required:
                parameter.requires_grad_(was)
            for one, was in flags:
                one.training = was
            for one, own in buffers:
                one._buffers.clear()
                one._buffers.update(own)
            with torch.no_grad():
                for held, copy in copies:
                    held.copy_(copy)


def reshard(module: Module) -> None:
    """Drop parameters that ``fully_shard`` has gathered: only its shards are kept and trained."""
    for one in module.modules():
        if is_gathered(one):
            one.reshard()


def call(module: Module, batch: Any) -> Any:
    """Run a module on a batch: a tensor, a tuple or list of arguments, or a dict of them.

    Raises
    ------
    TypeError
        If the batch is none of these.
    ValueError
        If the module does not accept it; the message has the module's own.
    """
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    if isinstance(batch, Tensor):
        arguments = (batch,)
    elif isinstance(batch, Mapping):
        named = dict(batch)
    elif isinstance(batch, (tuple, list)):
        arguments = tuple(batch)
    else:
        raise TypeError(f"batch must be a tensor, a tuple or a dict, got {type(batch).__name__}")
    try:
        return module(*arguments, **named)
    except (TypeError, RuntimeError, IndexError) as error:
        raise ValueError(f"batch does not fit the module, which raises: {error}") from error


def floats(output: Any) -> list[Tensor]:
    """List the floating-point tensors in what a module returns, in order.

    Examples
    --------
    >>> [tuple(one.shape) for one in floats({"a": torch.zeros(2), "b": (torch.ones(3), 4)})]
    [(2,), (3,)]
    """
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        output = list(output.values())
    elif is_dataclass(output):
        output = list(vars(output).values())
    if isinstance(output, (tuple, list)):
        return [one for part in output for one in floats(part)]
    return []
