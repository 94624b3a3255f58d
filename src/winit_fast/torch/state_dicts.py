"""Sharded tensors without a module: what each rank holds of a plan's tensors, as DTensors."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.base.names import located, unknown
from winit_fast.base.patterns import Matcher
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import NON_PERSISTENT, PARAMETER, TensorSpec
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.filling import Fills, uncollected
from winit_fast.torch.names import Named
from winit_fast.torch.placements import local_shape

Placements = Sequence[Any] | None
"""One placement for each axis of the mesh; None for a plain tensor, which every rank holds."""


def state_dict(
    plan: Plan,
    mesh: Any,
    placements: Placements | Mapping[str, Placements] | Callable[[TensorSpec], Placements],
    *,
    seed: Seed,
) -> dict[str, Tensor]:
    """Make this rank's part of all tensors of a plan, as DTensors, without a module.

    Nothing is communicated, and a rank holds no more than its parts.

    Parameters
    ----------
    plan : winit_fast.Plan
    mesh : torch.distributed.device_mesh.DeviceMesh
        A rank outside of it gets DTensors without elements.
    placements : sequence of Placement, mapping, callable or None
        One placement for each axis of the mesh: ``[Shard(0)]``, for example. A mapping has patterns
        of names, as in rules; the first that matches counts, and every tensor needs one. A callable
        takes a `winit_fast.models.TensorSpec`. None in place of a sequence makes plain tensors.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
        The same on all ranks.

    Returns
    -------
    dict of str to torch.Tensor
        All parameters and persistent buffers, on the device of the mesh. A tied tensor has an item
        under each of its names.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, or placements do not fit a tensor; the message names it. Nothing
        has been allocated then.

    Examples
    --------
    A group of one rank:

    >>> import torch.distributed as dist
    >>> from torch.distributed.device_mesh import init_device_mesh
    >>> from torch.distributed.tensor import Shard
    >>> import winit_fast.torch
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> mesh = init_device_mesh("cpu", (1,))
    >>> plan = winit_fast.torch.record(lambda: torch.nn.Linear(4, 6))
    >>> own = winit_fast.torch.state_dict(plan, mesh, [Shard(0)], seed=0)
    >>> bool((own["bias"].to_local().numpy() == plan["bias"].array(seed=0)).all())
    True
    >>> dist.destroy_process_group()
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, got {plan!r}")
    if seed is None:
        raise ValueError("seed must be given, got None: every rank would draw numbers of its own")
    if not hasattr(mesh, "get_coordinate"):
        raise TypeError(f"mesh must be a DeviceMesh, got {mesh!r:.200}")
    key = seed_number(seed)
    wanted = [tensor for tensor in plan if tensor.kind != NON_PERSISTENT]
    chosen = _chosen(wanted, placements)
    shapes = []
    for tensor, own in zip(wanted, chosen, strict=True):
        tensor.check()
        shapes.append(_local_shape(tensor, mesh, own))
    made: dict[str, Tensor] = {}
    fills = Fills()
    with uncollected():
        for tensor, own, shape in zip(wanted, chosen, shapes, strict=True):
            empty = _empty(tensor, mesh, own, shape)
            named = Named(tensor.name, empty, Module(), "", tensor.kind == PARAMETER, True)
            fills.add_spec(named, tensor)
            made |= dict.fromkeys((tensor.name, *tensor.tied), empty)
        fills.run(key)
    return made


def _chosen(tensors: Sequence[TensorSpec], placements: Any) -> list[Placements]:
    """Find the placements of every tensor."""
    if callable(placements):
        return [_checked(placements(tensor), tensor) for tensor in tensors]
    if not isinstance(placements, Mapping):
        return [_checked(placements, tensor) for tensor in tensors]
    matcher = Matcher(placements.items())
    found = []
    for tensor in tensors:
        match = matcher.find(tensor.name)
        if match is None:
            raise ValueError(f"no pattern of placements matches tensor {tensor.name!r}")
        found.append(_checked(match.value, tensor))
    names = [tensor.name for tensor in tensors]
    for pattern in matcher.idle(names):
        raise ValueError(unknown("a pattern in placements", pattern.text, names))
    return found


def _checked(placements: Any, tensor: TensorSpec) -> Placements:
    from torch.distributed.tensor.placement_types import Placement

    if placements is None:
        return None
    if not isinstance(placements, Sequence) or not all(
        isinstance(one, Placement) for one in placements
    ):
        raise TypeError(
            f"placements must be a sequence of torch's placements, got {placements!r:.200} "
            f"for tensor {tensor.name!r}"
        )
    return tuple(placements)


def _local_shape(tensor: TensorSpec, mesh: Any, placements: Placements) -> tuple[int, ...]:
    """Return the shape of this rank's part, and refuse placements that do not fit."""
    if placements is None:
        return tensor.shape
    if len(placements) != mesh.ndim:
        raise ValueError(
            f"placements must have one for each of the {mesh.ndim} axes of the mesh, "
            f"got {placements} for tensor {tensor.name!r}"
        )
    coordinate = mesh.get_coordinate()
    try:
        shape = local_shape(tensor.shape, placements, mesh.shape, coordinate or (0,) * mesh.ndim)
    except (TypeError, ValueError) as error:
        raise located(error, f"tensor {tensor.name!r} of shape {tensor.shape}") from None
    return shape if coordinate is not None else (0,)


def _empty(tensor: TensorSpec, mesh: Any, placements: Placements, local: tuple[int, ...]) -> Tensor:
    from torch.distributed.tensor import DTensor

    dtype = getattr(torch, tensor.dtype)
    if placements is None:
        return torch.empty(tensor.shape, dtype=dtype, device=mesh.device_type)
    strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
    return DTensor.from_local(
        torch.empty(local, dtype=dtype, device=mesh.device_type),
        mesh,
        placements,
        run_check=False,
        shape=torch.Size(tensor.shape),
        stride=tuple(strides),
    )
