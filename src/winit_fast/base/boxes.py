"""Shapes of logical tensors, and their boxes: the part of a tensor that a shard holds."""

import math
import operator
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from types import EllipsisType
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from winit_fast.base.arguments import integer
from winit_fast.base.arrays import Array

Shape = SupportsIndex | Iterable[SupportsIndex]


Index = SupportsIndex | slice | EllipsisType | tuple[SupportsIndex | slice | EllipsisType, ...]


MAX_SIZE = 1 << 63
"""Most elements of a logical tensor: an index is a signed 64-bit integer."""


def logical_shape(shape: Shape, argument: str = "shape") -> tuple[int, ...]:
    """Check the shape of a logical tensor; errors name the argument that it comes from.

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
    if type(shape) is tuple:  # as nearly all are
        size = 1
        for extent in shape:
            if type(extent) is not int or extent <= 0:
                break
            size *= extent
        else:
            if size <= MAX_SIZE:
                return shape
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
    """A rectangular part of a logical tensor.

    Attributes
    ----------
    tensor : tuple of int
        Shape of the logical tensor.
    starts, sizes : tuple of int
        First position and extent along every axis of the tensor.
    kept : tuple of int
        The axes of the tensor that the box has too: an axis indexed by an integer is dropped.
    """

    tensor: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box, which is that of the destination."""
        return tuple(self.sizes[axis] for axis in self.kept)

    @property
    def tensor_strides(self) -> tuple[int, ...]:
        """Increment of the logical index along each axis of the tensor, in C order."""
        strides = [1]
        for size in reversed(self.tensor[1:]):
            strides.append(strides[-1] * size)
        return tuple(reversed(strides)) if self.tensor else ()

    @property
    def first(self) -> int:
        """Logical index of the first element of the box."""
        return sum(map(operator.mul, self.starts, self.tensor_strides))

    @property
    def index_strides(self) -> tuple[int, ...]:
        """Increment of the logical index along each axis of the box."""
        strides = self.tensor_strides
        return tuple(strides[axis] for axis in self.kept)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index of the tensor, with all axes.

        Examples
        --------
        >>> box((4, 5), np.s_[1:3, 2]).slices
        (slice(1, 3, None), slice(2, 3, None))
        """
        ends = map(operator.add, self.starts, self.sizes)
        return tuple(map(slice, self.starts, ends))

    def expand(self, array: Array) -> Array:
        """Return a view of a destination with the dropped axes restored, each with extent 1."""
        dropped = set(range(len(self.tensor))) - set(self.kept)
        return np.expand_dims(array, tuple(dropped))

    def with_axis(self, size: int) -> "Box":
        """Append an axis to the tensor, of which the box holds all positions."""
        axes = len(self.tensor)
        return Box((*self.tensor, size), (*self.starts, 0), (*self.sizes, size), (*self.kept, axes))

    def cut(self, slices: tuple[slice, ...]) -> "Box":
        """Take a box of this box, with all axes; the slices are positions within this box."""
        return Box(
            self.tensor,
            tuple(start + part.start for start, part in zip(self.starts, slices, strict=True)),
            tuple(part.stop - part.start for part in slices),
            tuple(range(len(self.tensor))),
        )


def whole(shape: tuple[int, ...]) -> Box:
    """Return the box that is the whole of a logical tensor."""
    return Box(shape, (0,) * len(shape), shape, tuple(range(len(shape))))


def box(shape: tuple[int, ...], index: Index | None = None) -> Box:
    """Take a box of a logical tensor, with the syntax of NumPy's basic indexing.

    Parameters
    ----------
    shape : tuple of int
        The logical shape, as `logical_shape` returns it.
    index : tuple of slice, int or Ellipsis, or None
        Slices must have step 1; an integer drops its axis; negative positions count from the end;
        axes that are not indexed are taken whole. None is the whole tensor.

    Returns
    -------
    Box

    Raises
    ------
    IndexError
        If the index is out of bounds or has too many axes. Unlike NumPy, a slice that ends beyond
        its axis is an error: such a shard is a mistake.
    TypeError, ValueError
        If the index contains anything else, or a step other than 1.

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
    """Expand an index so that it has one entry for each axis of the tensor."""
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
    """Split an array lazily, along its first axes or a given one, into parts of bounded size.

    Parameters
    ----------
    shape : tuple of int
    limit : int
        Most elements of a part. A part has at least one position of ``axis``, however many
        elements these are.
    axis : int, optional
        The only axis to split.

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


def slices(stop: int, size: int) -> Iterator[slice]:
    """Split the range from 0 to ``stop`` into slices of ``size``; the last may be shorter.

    Examples
    --------
    >>> [*slices(5, 2)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(*ends) for ends in pairwise([*range(0, stop, size), stop]))


def _all_of(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, extent) for extent in shape)
