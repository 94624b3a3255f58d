"""Sharded tensors: which boxes of the logical tensor a rank holds, and where they are locally.

A `DTensor` describes how its logical tensor is cut, by one placement for every axis of a mesh of
ranks. This module converts the placements to a list of boxes, before a number is drawn and without
communication.
"""

import itertools
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from winit_fast.base.boxes import Box, whole

Run = tuple[int, int]
"""Start and stop of a range along an axis."""

_MAX_AXES = 64
"""Most axes of a tensor, in torch and in the kernels."""


class Place(NamedTuple):
    """A box of the logical tensor, and its place in a rank's local tensor.

    Attributes
    ----------
    box : Box
        Box of the logical tensor, with all axes.
    local : tuple of slice
        Index into the local tensor, one slice for each axis.
    """

    box: Box
    local: tuple[slice, ...]


def is_sharded(tensor: object) -> bool:
    """Return whether an object is a `DTensor`, without importing torch.distributed.tensor.

    Examples
    --------
    >>> is_sharded(torch.empty(3))
    False
    """
    if type(tensor) is Tensor or type(tensor) is Parameter:
        return False
    module = sys.modules.get("torch.distributed.tensor")  # without this import there is no DTensor
    return module is not None and isinstance(tensor, module.DTensor)


def places(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    order: Iterable[int] | None = None,
) -> list[Place]:
    """List the boxes of a logical tensor that one rank holds.

    Parameters
    ----------
    shape : sequence of int
        The logical shape.
    placements : sequence of Placement
        One for each axis of the mesh.
    mesh_shape, coordinate : sequence of int
        The shape of the mesh, and the coordinate of the rank in it.
    order : iterable of int, optional
        The axes of the mesh in the order of the cuts; by default from first to last.

    Returns
    -------
    list of Place
        The boxes do not overlap and fill the local tensor; empty if it has no elements.

    Raises
    ------
    TypeError
        If a placement is not Shard, Replicate or _StridedShard: the rank's elements are then not a
        part of the logical tensor.

    Examples
    --------
    Rank (1, 0) of a 2 x 2 mesh, where FSDP2 with tensor parallelism cuts the first axis:

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


def local_shape(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
) -> tuple[int, ...]:
    """Return the shape of one rank's part; the arguments are those of `places`.

    Examples
    --------
    >>> from torch.distributed.tensor import Shard
    >>> local_shape((5, 3), [Shard(0)], (4,), (2,))
    (1, 3)
    """
    runs = _runs(shape, placements, mesh_shape, coordinate, None)
    return tuple(sum(stop - start for start, stop in own) for own in runs)


def _runs(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    order: Iterable[int] | None,
) -> list[list[Run]]:
    """List, for every axis, the runs that one rank holds, in the order of its local tensor."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    runs: list[list[Run]] = [[(0, size)] if size else [] for size in shape]
    for at in range(len(placements)) if order is None else order:
        placement, ranks, rank = placements[at], mesh_shape[at], coordinate[at]
        kind = type(placement)  # not isinstance: a derived class may cut differently
        if kind is Replicate:
            continue
        if kind is not Shard and kind is not _StridedShard:
            raise TypeError(
                f"placement {placement!r} along axis {at} of the mesh makes no part of the logical "
                "tensor of what a rank holds: it must be Shard, Replicate or _StridedShard"
            )
        axis = placement.dim + len(shape) * (placement.dim < 0)
        if not 0 <= axis < len(shape):
            raise ValueError(f"placement {placement!r} is outside of shape {tuple(shape)}")
        # A strided shard results if the cuts are not made in the order of the mesh's axes: the rank
        # holds its share of every one of `split_factor` chunks.
        chunks = [runs[axis]] if kind is Shard else _chunks(runs[axis], placement.split_factor)
        runs[axis] = _joined(run for chunk in chunks for run in _chunk(chunk, ranks, rank))
    return runs


def _chunks(runs: list[Run], count: int) -> list[list[Run]]:
    return [_chunk(runs, count, number) for number in range(count)]


def _chunk(runs: list[Run], count: int, number: int) -> list[Run]:
    """Return one of `count` chunks, as `torch.chunk` makes them: the last ones may be empty."""
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
    """Join adjacent runs."""
    found: list[Run] = []
    for start, stop in runs:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, stop))
    return found


def _with_local(runs: list[Run]) -> list[tuple[Run, slice]]:
    """Pair the runs of an axis with their slices of the local tensor, one after another."""
    ends = list(itertools.accumulate(stop - start for start, stop in runs))
    starts = [0, *ends[:-1]]
    return list(zip(runs, map(slice, starts, ends), strict=True))


def parts(tensor: Tensor, what: str = "tensor") -> list[tuple[Tensor, Box]]:
    """List this rank's parts of a `DTensor`: views of its memory, and their boxes.

    Parameters
    ----------
    tensor : DTensor
    what : str
        Description for error messages, such as ``"parameter 'fc.weight'"``.

    Returns
    -------
    list of (Tensor, Box)
        Empty for a rank outside the mesh and for an empty shard.

    Raises
    ------
    TypeError
        If the local tensor is not a part of the logical tensor (Partial), or not a plain tensor.
    ValueError
        If the shape of the local tensor contradicts the placements, or the rank is outside the mesh
        but has elements.
    """
    local, held = _held(tensor, what)
    return _views(local, held.places)


def held_parts(tensor: Tensor) -> list[tuple[Tensor, Box]]:
    """List the memory of any tensor, with its boxes: a plain tensor is one part.

    Examples
    --------
    >>> [(part, box)] = held_parts(torch.zeros(2))
    >>> part.tolist(), box.sizes
    ([0.0, 0.0], (2,))
    """
    return parts(tensor) if is_sharded(tensor) else [(tensor, whole(tuple(tensor.shape)))]


def joined_parts(tensor: Tensor) -> list[tuple[Tensor, Box]]:
    """List this rank's parts as `parts` does, but boxes at equal distances as one box.

    That box belongs to the logical tensor with one axis split in two, which has the same elements
    in the same order. So the list is for elementwise draws, which depend on the order alone: they
    fill a strided shard at once, in the order of its memory.

    Parameters
    ----------
    tensor : DTensor
    """
    local, held = _held(tensor, "tensor")
    if held.joined is None:
        return _views(local, held.places)
    axis, box = held.joined
    with torch.no_grad():
        return [(local.unflatten(axis, box.sizes[axis : axis + 2]), box)]


class _Held(NamedTuple):
    """What a rank holds: its boxes, and if they can be joined, the split axis and the one box."""

    places: list[Place]
    joined: tuple[int, Box] | None


def _held(tensor: Tensor, what: str) -> tuple[Tensor, _Held]:
    """Return the local tensor and what it holds; check that they agree."""
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
        return local, _Held([], None)
    if type(local) is not Tensor:
        raise TypeError(
            f"{_described(what, tensor)} has a local part that is a {type(local).__name__}: give a "
            "DTensor of plain tensors"
        )
    try:
        held = _known_places(shape, placements, mesh.shape, tuple(coordinate), _order(sharded))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{_described(what, tensor)} cannot be filled: {error}") from None
    # The last place ends at the end of the local tensor.
    expected = tuple([part.stop for part in held.places[-1].local]) if held.places else (0,)
    if tuple(local.shape) != expected and (held.places or local.numel()):
        raise ValueError(
            f"{_described(what, tensor)} has a local part of shape {tuple(local.shape)}, but its "
            f"placements give {expected} at {tuple(coordinate)} of a mesh of {mesh.shape}"
        )
    return local, held


@lru_cache(maxsize=1024)
def _known_places(*arguments: Any) -> _Held:
    found = places(*arguments)
    return _Held(found, _joined_box([place.box for place in found]))


def _views(local: Tensor, held: list[Place]) -> list[tuple[Tensor, Box]]:
    if len(held) == 1:
        return [(local, held[0].box)]
    with torch.no_grad():
        return [(local[index], box) for box, index in held]


def _joined_box(boxes: list[Box]) -> tuple[int, Box] | None:
    """Join boxes that are at equal distances along one axis, which divide its extent.

    Examples
    --------
    >>> from torch.distributed.tensor.placement_types import _StridedShard
    >>> cut = places((3, 8), [_StridedShard(1, split_factor=2)], (2,), (1,))
    >>> [(box.starts, box.sizes) for box, _ in cut]
    [((0, 2), (3, 2)), ((0, 6), (3, 2))]
    >>> axis, box = _joined_box([place.box for place in cut])
    >>> axis, box.tensor, box.starts, box.sizes
    (1, (3, 2, 4), (0, 0, 2), (3, 2, 2))
    """
    if len(boxes) < 2:
        return None
    first, second = boxes[:2]
    axis = next(k for k, start in enumerate(first.starts) if start != second.starts[k])
    start, size, extent = first.starts[axis], first.sizes[axis], first.tensor[axis]
    step = second.starts[axis] - start
    for number, box in enumerate(boxes):
        if box != first._replace(starts=_with(first.starts, axis, start + number * step)):
            return None
    if extent % step or start % step + size > step or len(first.tensor) >= _MAX_AXES:
        return None
    return axis, Box(
        _with(first.tensor, axis, extent // step, step),
        _with(first.starts, axis, *divmod(start, step)),
        _with(first.sizes, axis, len(boxes), size),
        tuple(range(len(first.tensor) + 1)),
    )


def _with(values: tuple[int, ...], axis: int, *own: int) -> tuple[int, ...]:
    """Put one value or more in the place of one value of a tuple."""
    return (*values[:axis], *own, *values[axis + 1 :])


def _described(what: str, tensor: Tensor) -> str:
    sharded: Any = tensor
    return f"{what}, a DTensor of shape {tuple(tensor.shape)} and placements {sharded.placements},"


def _order(sharded: Any) -> tuple[int, ...] | None:
    """Return the mesh's axes in the order of the cuts; None if it is the order of the axes.

    A strided shard already describes its order, so the result is None there too.
    """
    said = getattr(sharded._spec, "shard_order", None) or ()
    axes = [at for entry in said for at in entry.mesh_dims if len(entry.mesh_dims) > 1]
    if axes == sorted(axes):  # the order matters only for mesh axes that cut the same tensor axis
        return None
    placements = sharded.placements
    if any(type(placement).__name__ == "_StridedShard" for placement in placements):
        return None
    return (*axes, *(at for at in range(len(placements)) if at not in axes))
