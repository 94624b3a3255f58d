"""Shapes of logical tensors, and boxes of them: what a shard holds."""

import math
import operator
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import EllipsisType
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from winit_fast.base.arguments import integer
from winit_fast.base.arrays import Array

Shape = SupportsIndex | Iterable[SupportsIndex]


Index = SupportsIndex | slice | EllipsisType | tuple[SupportsIndex | slice | EllipsisType, ...]


MAX_SIZE = 1 << 63
"""Elements of a logical tensor: their indices are signed 64-bit numbers."""


def logical_shape(shape: Shape, argument: str = "shape") -> tuple[int, ...]:
    """Check the shape of a logical tensor; errors name the argument that carries it.

    Parameters
    ----------
    shape : int or sequence of int
    argument : str

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        If an extent is negative or there are more than 2^63 elements.

    Examples
    --------
    >>> logical_shape(3), logical_shape([2, 5])
    ((3,), (2, 5))
    """
    if type(shape) is tuple and {int}.issuperset(map(type, shape)):
        checked: tuple[int, ...] = shape  # as nearly all are
    else:
        checked = _read(shape, argument)
    if min(checked, default=0) < 0:
        raise ValueError(f"{argument} must not have negative extents, got {checked}")
    if math.prod(checked) > MAX_SIZE or max(checked, default=0) > MAX_SIZE:
        raise ValueError(f"{argument} must have at most 2^63 elements, got {checked}")
    return checked


def _read(shape: Shape, argument: str) -> tuple[int, ...]:
    extents: tuple[Any, ...] = (shape,)
    if isinstance(shape, Iterable) and not isinstance(shape, (str, bytes)):
        with suppress(TypeError):  # of an array without axes
            extents = tuple(shape)
    return tuple([integer(argument, extent) for extent in extents])


class Box(NamedTuple):
    """A box of a logical tensor.

    Attributes
    ----------
    tensor : tuple of int
        Shape of the logical tensor.
    starts, sizes : tuple of int
        First position and extent along every axis of the tensor.
    kept : tuple of int
        The tensor's axes that the box has too: an axis indexed by an integer is dropped.
    """

    tensor: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box, and so of the destination."""
        return tuple(self.sizes[axis] for axis in self.kept)

    @property
    def tensor_strides(self) -> tuple[int, ...]:
        """Steps of the logical index along every axis of the tensor, in C order."""
        strides = [1]
        for size in reversed(self.tensor[1:]):
            strides.append(strides[-1] * size)
        return tuple(reversed(strides)) if self.tensor else ()

    @property
    def first(self) -> int:
        """Logical index of the box's first element."""
        return sum(map(operator.mul, self.starts, self.tensor_strides))

    @property
    def index_strides(self) -> tuple[int, ...]:
        """Steps of the logical index along the box's own axes."""
        strides = self.tensor_strides
        return tuple(strides[axis] for axis in self.kept)

    def expand(self, array: Array) -> Array:
        """View a destination with the dropped axes put back, each of extent 1."""
        dropped = set(range(len(self.tensor))) - set(self.kept)
        return np.expand_dims(array, tuple(dropped))

    def with_axis(self, size: int) -> "Box":
        """Give the box of a tensor with one more axis, the last one, whole."""
        axes = len(self.tensor)
        return Box((*self.tensor, size), (*self.starts, 0), (*self.sizes, size), (*self.kept, axes))

    def cut(self, slices: tuple[slice, ...]) -> "Box":
        """Cut a box from this one, with all axes: the starts and stops are positions in it."""
        return Box(
            self.tensor,
            tuple(start + part.start for start, part in zip(self.starts, slices, strict=True)),
            tuple(part.stop - part.start for part in slices),
            tuple(range(len(self.tensor))),
        )


def whole(shape: tuple[int, ...]) -> Box:
    """Make the box that is all of a logical tensor."""
    return Box(shape, (0,) * len(shape), shape, tuple(range(len(shape))))


def box(shape: tuple[int, ...], index: Index | None = None) -> Box:
    """Cut a box from a logical tensor, as NumPy's basic indexing does.

    Parameters
    ----------
    shape : tuple of int
        The logical shape, checked.
    index : tuple of slice, int or Ellipsis, or None
        Slices of step 1; an integer drops its axis; negative positions count from the end; axes
        that are not named are whole. None is the whole tensor.

    Returns
    -------
    Box

    Raises
    ------
    IndexError
        If the index reaches out of the tensor or has too many axes. Unlike NumPy's, slices are not
        cut at the end: a shard that hangs over is a mistake.
    TypeError, ValueError
        If the index holds anything else, or another step.

    Examples
    --------
    >>> cut = box((4096, 1024), np.s_[1024:2048, -1])
    >>> cut.shape, cut.first == 1024 * 1024 + 1023
    ((1024,), True)
    """
    if index is None:
        return whole(shape)
    starts, sizes, kept = [], [], []
    for axis, (part, extent) in enumerate(zip(_every_axis(shape, index), shape, strict=True)):
        if isinstance(part, slice):
            start, stop = _bounds(part, extent, axis, shape)
            kept.append(axis)
        else:
            start = _position(part, extent, axis, shape, last=extent - 1)
            stop = start + 1
        starts.append(start)
        sizes.append(max(0, stop - start))
    return Box(shape, tuple(starts), tuple(sizes), tuple(kept))


def _every_axis(shape: tuple[int, ...], index: Index) -> list[SupportsIndex | slice]:
    """Spell an index out: one part for each axis of the tensor."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for part in parts:
        if isinstance(part, (bool, np.bool_)) or not (
            isinstance(part, (slice, EllipsisType)) or hasattr(part, "__index__")
        ):
            raise TypeError(f"index must hold slices, integers and one Ellipsis, got {index!r}")
    ellipses = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError(f"index must hold at most one Ellipsis, got {index!r}")
    missing = len(shape) - (len(parts) - len(ellipses))
    if missing < 0:
        raise IndexError(f"index {index!r} has too many axes for shape {shape}")
    at = ellipses[0] if ellipses else len(parts)
    parts[at : at + 1] = [slice(None)] * missing
    return parts  # type: ignore[return-value]  # no Ellipsis is left


def _bounds(part: slice, extent: int, axis: int, shape: tuple[int, ...]) -> tuple[int, int]:
    if part.step is not None and integer("index", part.step) != 1:
        raise ValueError(f"index must have step 1, got {part} for axis {axis} of shape {shape}")
    start = 0 if part.start is None else _position(part.start, extent, axis, shape, last=extent)
    stop = extent if part.stop is None else _position(part.stop, extent, axis, shape, last=extent)
    return start, stop


def _position(
    value: SupportsIndex, extent: int, axis: int, shape: tuple[int, ...], last: int
) -> int:
    position = integer("index", value)
    if not -extent <= position <= last:
        raise IndexError(f"index {position} is outside of axis {axis} of shape {shape}")
    return position + extent if position < 0 else position


def cuts(
    shape: tuple[int, ...], limit: int, axis: int | None = None
) -> Iterator[tuple[slice, ...]]:
    """Cut an array lazily, along its first axes or a given one, into parts of bounded size.

    Parameters
    ----------
    shape : tuple of int
    limit : int
        Elements in a part at most, but one position of ``axis`` at least.
    axis : int, optional
        The only axis to cut.

    Yields
    ------
    tuple of slice
        One for each axis.

    Examples
    --------
    >>> [[(part.start, part.stop) for part in cut] for cut in cuts((3, 4), 8)]
    [[(0, 2), (0, 4)], [(2, 3), (0, 4)]]
    >>> len(list(cuts((3, 4), 3))), len(list(cuts((3, 4), 3, axis=1)))
    (6, 4)
    """
    if math.prod(shape) <= limit:
        yield _all_of(shape)
        return
    cut = 0 if axis is None else axis
    step = max(1, limit * shape[cut] // math.prod(shape))
    before, after = _all_of(shape[:cut]), shape[cut + 1 :]
    for first in range(0, shape[cut], step):
        part = slice(first, min(shape[cut], first + step))
        for rest in cuts(after, limit) if axis is None and step == 1 else [_all_of(after)]:
            yield (*before, part, *rest)


def _all_of(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, extent) for extent in shape)
