"""Sharded tensors: which boxes of the logical tensor a rank holds, and where they lie locally.

A `DTensor` says how its logical tensor is cut: a placement for every axis of a mesh of ranks. All
of that is reduced here to a list of boxes, before a number is drawn. Nothing is asked of other
ranks.
"""

import itertools
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from winit_fast.base.boxes import Box

Run = tuple[int, int]
"""Positions along an axis, from the first to before the second."""


class Place(NamedTuple):
    """Where a box of the logical tensor lies in a rank's local tensor.

    Attributes
    ----------
    box : Box
        Of the logical tensor, with all its axes.
    local : tuple of slice
        Index of the local tensor, one for each axis.
    """

    box: Box
    local: tuple[slice, ...]


def is_sharded(tensor: object) -> bool:
    """Tell whether an object is a `DTensor`, without an import of what takes long.

    Examples
    --------
    >>> is_sharded(torch.empty(3))
    False
    """
    if type(tensor) is Tensor or type(tensor) is Parameter:
        return False
    module = sys.modules.get("torch.distributed.tensor")  # before it is imported there are none
    return module is not None and isinstance(tensor, module.DTensor)


def places(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    order: Iterable[int] | None = None,
) -> list[Place]:
    """List the boxes that one rank holds of a logical tensor.

    Parameters
    ----------
    shape : sequence of int
        Of the logical tensor.
    placements : sequence of Placement
        One for each axis of the mesh.
    mesh_shape, coordinate : sequence of int
        Of the mesh of ranks, and of the rank in it.
    order : iterable of int, optional
        The axes of the mesh in the order in which they cut; by default from the first to the last.

    Returns
    -------
    list of Place
        They do not overlap, and fill the local tensor; there are none if it has no elements.

    Raises
    ------
    TypeError
        If a placement is none of Shard, Replicate and _StridedShard: what a rank then holds is not
        a part of the logical tensor.

    Examples
    --------
    Rank (1, 0) of a mesh of 2 x 2, as FSDP2 on top of tensor parallelism cuts the first axis:

    >>> from torch.distributed.tensor.placement_types import Shard, _StridedShard
    >>> cut = [_StridedShard(0, split_factor=4), Shard(0)]
    >>> for box, local in places((8, 3), cut, (2, 2), (1, 0)):
    ...     print(box.starts, box.sizes, local[0])
    (1, 0) (1, 3) slice(0, 1, None)
    (3, 0) (1, 3) slice(1, 2, None)
    """
    runs = _runs(shape, placements, mesh_shape, coordinate, order)
    found = []
    for chosen in itertools.product(*map(_with_local, runs)):
        starts = tuple(run[0] for run, _ in chosen)
        sizes = tuple(run[1] - run[0] for run, _ in chosen)
        box = Box(tuple(shape), starts, sizes, tuple(range(len(sizes))))
        found.append(Place(box, tuple(local for _, local in chosen)))
    return found


def _runs(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    order: Iterable[int] | None,
) -> list[list[Run]]:
    """List, for every axis, what one rank holds of it, in the order of its local tensor."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    runs: list[list[Run]] = [[(0, size)] if size else [] for size in shape]
    for at in range(len(placements)) if order is None else order:
        placement, ranks, rank = placements[at], mesh_shape[at], coordinate[at]
        kind = type(placement)  # one derived from these may cut otherwise
        if kind is Replicate:
            continue
        if kind is not Shard and kind is not _StridedShard:
            raise TypeError(
                f"placement {placement} along axis {at} of the mesh makes no part of the logical "
                "tensor of what a rank holds: it must be Shard, Replicate or _StridedShard"
            )
        axis = placement.dim + len(shape) * (placement.dim < 0)
        if not 0 <= axis < len(shape):
            raise ValueError(f"placement {placement} is outside of shape {tuple(shape)}")
        # A strided shard is what comes of cutting later what the mesh has earlier: the rank's share
        # of every one of so many chunks.
        chunks = [runs[axis]] if kind is Shard else _chunks(runs[axis], placement.split_factor)
        runs[axis] = _joined(run for chunk in chunks for run in _chunk(chunk, ranks, rank))
    return runs


def _chunks(runs: list[Run], count: int) -> list[list[Run]]:
    return [_chunk(runs, count, number) for number in range(count)]


def _chunk(runs: list[Run], count: int, number: int) -> list[Run]:
    """Take one of so many chunks, as `torch.chunk` makes them: the last ones may be empty."""
    size = sum(stop - start for start, stop in runs)
    step = -(-size // count)
    first, last = min(size, number * step), min(size, (number + 1) * step)
    found, before = [], 0
    for start, stop in runs:
        own = max(first - before, 0) + start, min(last - before, stop - start) + start
        if own[0] < own[1]:
            found.append(own)
        before += stop - start
    return found


def _joined(runs: Iterable[Run]) -> list[Run]:
    """Make one of runs that follow each other."""
    found: list[Run] = []
    for start, stop in runs:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return found


def _with_local(runs: list[Run]) -> list[tuple[Run, slice]]:
    """Say where the runs of an axis lie, one after the other."""
    ends = list(itertools.accumulate(stop - start for start, stop in runs))
    starts = [0, *ends[:-1]]
    return list(zip(runs, map(slice, starts, ends), strict=True))


def parts(tensor: Tensor, what: str = "tensor") -> list[tuple[Tensor, Box]]:
    """List what this rank holds of a `DTensor`: views of its memory, and the boxes they are.

    Parameters
    ----------
    tensor : DTensor
    what : str
        What carries it, for the error: ``"parameter 'fc.weight'"``, say.

    Returns
    -------
    list of (Tensor, Box)
        None outside of the mesh, and for an empty shard.

    Raises
    ------
    TypeError
        If what the rank holds is no part of the logical tensor (Partial), or not memory.
    ValueError
        If the local tensor has not the shape that the placements give it, or the rank is not in the
        mesh and has elements nevertheless.
    """
    sharded: Any = tensor
    mesh, placements, shape = sharded.device_mesh, sharded.placements, tuple(tensor.shape)
    local: Tensor = sharded._local_tensor
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        if local.numel():
            raise ValueError(
                f"{_described(what, tensor)} has a local part of shape {tuple(local.shape)} on a "
                f"rank that is not in its {mesh}"
            )
        return []
    if type(local) is not Tensor:
        raise TypeError(
            f"{_described(what, tensor)} has a local part that is a {type(local).__name__}: give a "
            "DTensor of plain tensors"
        )
    try:
        held = _known_places(shape, placements, mesh.shape, tuple(coordinate), _order(sharded))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{_described(what, tensor)} cannot be filled: {error}") from None
    # Places end where the local tensor does.
    expected = tuple([part.stop for part in held[-1].local]) if held else (0,)
    if tuple(local.shape) != expected and (held or local.numel()):
        raise ValueError(
            f"{_described(what, tensor)} has a local part of shape {tuple(local.shape)}, but its "
            f"placements give {expected} at {tuple(coordinate)} of a mesh of {mesh.shape}"
        )
    if len(held) == 1:
        return [(local, held[0].box)]
    with torch.no_grad():
        return [(local[index], box) for box, index in held]


_known_places = lru_cache(maxsize=1024)(places)


def _described(what: str, tensor: Tensor) -> str:
    sharded: Any = tensor
    return f"{what}, a DTensor of shape {tuple(tensor.shape)} and placements {sharded.placements},"


def _order(sharded: Any) -> tuple[int, ...] | None:
    """List the mesh's axes in the order in which they cut, where a tensor says another than theirs.

    Where there is a strided shard, that alone tells the order.
    """
    said = getattr(sharded._spec, "shard_order", None) or ()
    axes = [at for entry in said for at in entry.mesh_dims if len(entry.mesh_dims) > 1]
    if axes == sorted(axes):  # each tensor's axis apart, a stranger order changes nothing
        return None
    placements = sharded.placements
    if any(type(placement).__name__ == "_StridedShard" for placement in placements):
        return None
    return (*axes, *(at for at in range(len(placements)) if at not in axes))
