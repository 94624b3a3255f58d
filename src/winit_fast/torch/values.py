"""The recorded value of a tensor: a draw, a constant, or an expression of these.

Values are immutable: a write to a tensor makes a new value from the old one. So after a full
overwrite nothing of the previous value remains.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.torch.nested import instances
from winit_fast.torch.seeding import Name


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of the logical index along every axis, in C order.

    Examples
    --------
    >>> c_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


class Region(NamedTuple):
    """The elements of a view, in order, with strides of the logical index.

    Attributes
    ----------
    sizes, strides : tuple of int
    offset : int
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def is_whole(self, shape: tuple[int, ...]) -> bool:
        """Return whether these are all elements of a tensor, in their order."""
        if self.offset or math.prod(self.sizes) != math.prod(shape):
            return False
        expected = c_strides(self.sizes)
        return all(
            size <= 1 or own == step
            for size, own, step in zip(self.sizes, self.strides, expected, strict=True)
        )

    def box(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return start and stop of the region along every axis, or None if it is not a box.

        Examples
        --------
        >>> Region((2,), (3,), 4).box((3, 3)), Region((2,), (4,), 4).box((3, 3))
        (((1, 1), (3, 2)), None)
        """
        digits = [decompose(step, shape, c_strides(shape)) for step in self.strides]
        starts = decompose(self.offset, shape, c_strides(shape))
        sizes = [1] * len(shape)
        for size, digit in zip(self.sizes, digits, strict=True):
            if size == 1:
                continue
            axes = [axis for axis, step in enumerate(digit) if step]
            if len(axes) != 1 or digit[axes[0]] != 1 or sizes[axes[0]] != 1:
                return None
            sizes[axes[0]] = size
        stops = tuple(start + size for start, size in zip(starts, sizes, strict=True))
        if any(stop > extent for stop, extent in zip(stops, shape, strict=True)):
            return None
        return tuple(starts), stops

    def in_order(self) -> bool:
        """Return whether the elements come in the order of their logical indices, axis by axis."""
        steps = [step for size, step in zip(self.sizes, self.strides, strict=True) if size > 1]
        return steps == sorted(steps, reverse=True)


def decompose(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """Decompose an offset in memory into steps along the axes, largest strides first."""
    steps = [0] * len(shape)
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    for axis in sorted(axes, key=lambda axis: -strides[axis]):
        if strides[axis]:
            steps[axis], offset = divmod(offset, strides[axis])
    return steps


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """The elements of a tensor of some shape and type."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Held(Value):
    """The value of a named tensor before the recording."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Constant(Value):
    """One number everywhere."""

    number: float | int | bool | complex


@dataclass(frozen=True, eq=False, slots=True)
class Stored(Value):
    """Known elements, computed without random numbers."""

    tensor: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Draw(Value):
    """Random numbers by one scheme. Two draws are never the same, whatever their schemes.

    Attributes
    ----------
    scheme : Initializer or None
        None if the package has none for the operation.
    operation : str
        The operation that drew the numbers.
    home : str, optional
        The named tensor into which they were drawn.
    own : tuple of (int, str or int), optional
        Key and name, if the call itself gave them.
    """

    scheme: Initializer | None
    operation: str
    home: str | None = None
    own: tuple[int, Name] | None = None

    @property
    def is_elementwise(self) -> bool:
        """Return whether each element depends only on its own index."""
        return isinstance(self.scheme, Elementwise)


@dataclass(frozen=True, eq=False, slots=True)
class View(Value):
    """Some elements of another value."""

    base: Value
    region: Region


@dataclass(frozen=True, eq=False, slots=True)
class Patch(Value):
    """A value in which a region has been overwritten."""

    base: Value
    region: Region
    value: Value


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Value):
    """Another value, cast to a dtype and broadcast to a shape."""

    value: Value


@dataclass(frozen=True, eq=False, slots=True)
class Call(Value):
    """A result of an operation of torch on other values.

    Attributes
    ----------
    function : OpOverload
    args, kwargs
        The arguments, with values in place of tensors.
    position : int
        Index of the result among the operation's results and written arguments.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    position: int


def view(value: Value, region: Region) -> Value:
    """Return a region of a value as a value."""
    if isinstance(value, Constant):
        return Constant(region.sizes, value.dtype, value.number)
    if region.is_whole(value.shape):
        if region.sizes == value.shape:
            return value
        if isinstance(value, View) and value.region.is_whole(value.base.shape):
            return view(value.base, region)
        return View(region.sizes, value.dtype, value, region)
    if isinstance(value, Patch):
        if value.region == region:
            return value.value
        if _apart(value.region, region, value.shape):
            return view(value.base, region)
    return View(region.sizes, value.dtype, value, region)


def _apart(first: Region, second: Region, shape: tuple[int, ...]) -> bool:
    """Return whether two regions are boxes without a common element."""
    boxes = first.box(shape), second.box(shape)
    if boxes[0] is None or boxes[1] is None:
        return False
    (starts, stops), (others, ends) = boxes[0], boxes[1]
    return any(
        stop <= other or end <= start
        for start, stop, other, end in zip(starts, stops, others, ends, strict=True)
    )


def patch(base: Value, region: Region, value: Value) -> Value:
    """Return a value in which a region is overwritten."""
    if region.is_whole(base.shape):
        if value.shape == base.shape:
            return value
        return view(value, Region(base.shape, c_strides(base.shape), 0))
    if isinstance(value, View) and value.base.shape == base.shape and value.region == region:
        covers = math.prod(region.sizes) == math.prod(base.shape) and 0 not in region.strides
        if covers and region.box(base.shape) is not None:
            return value.base  # the whole tensor, with its axes in another order
    if isinstance(base, Patch) and base.region == region:
        base = base.base
    return Patch(base.shape, base.dtype, base, region, value)


def parts(value: Value) -> Iterator[Value]:
    """Iterate over the values that a value consists of, in the order of use."""
    stack = [value]
    while stack:
        one = stack.pop()
        yield one
        if isinstance(one, View):
            stack.append(one.base)
        elif isinstance(one, Patch):
            stack += [one.value, one.base]
        elif isinstance(one, Cast):
            stack.append(one.value)
        elif isinstance(one, Call):
            stack += reversed(list(instances(Value, (one.args, one.kwargs))))


def elements(value: Value) -> Tensor:
    """Return the elements of a known value; a constant uses no memory."""
    if isinstance(value, Constant):
        return torch.full((), value.number, dtype=value.dtype).expand(value.shape)
    assert isinstance(value, Stored)
    return value.tensor
