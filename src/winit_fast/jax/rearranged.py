"""A tensor of a plan in another layout: axes permuted, split and merged."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any, NamedTuple

from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, Index, box
from winit_fast.base.names import excerpt
from winit_fast.initializers.protocol import Filler

Groups = tuple[tuple[str, ...], ...]
"""One side of a pattern: for every axis, the axes that it is made of."""

Range = tuple[int, int]


@dataclass(frozen=True)
class Rearranged:
    """A tensor of a plan whose axes are permuted, split or merged, in the notation of einops.

    Parameters
    ----------
    tensor : str
        The tensor's name in the plan.
    pattern : str
        The plan's axes, an arrow, the array's axes: ``"o i -> i o"`` transposes a matrix,
        ``"(heads dim) d -> d heads dim"`` also splits its rows. Axes in parentheses are one axis,
        of which the last varies fastest; ``1`` is an axis of extent 1. The extents follow from the
        two shapes.
    index : tuple of slice, int or Ellipsis, optional
        The box of the plan's tensor to take, such as the queries of a fused tensor; by default all
        of it.

    Raises
    ------
    TypeError, ValueError
        If the name is not a str, or the pattern is not of this form.

    Examples
    --------
    >>> import numpy as np
    >>> Rearranged("q_proj.weight", "(heads dim) d -> d heads dim")
    Rearranged(tensor='q_proj.weight', pattern='(heads dim) d -> d heads dim', index=None)
    >>> queries = Rearranged("c_attn.weight", "d (heads dim) -> d heads dim", np.s_[:, :768])
    >>> Rearranged("weight", "o i -> i")
    Traceback (most recent call last):
    ValueError: pattern must have the same axes on both sides, got 'o i -> i'
    """

    tensor: str
    pattern: str
    index: Index | None = field(default=None, hash=False)  # slices have no hash
    _sides: tuple[Groups, Groups] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for argument in ("tensor", "pattern"):
            if not isinstance(getattr(self, argument), str):
                raise TypeError(f"{argument} must be a str, got {getattr(self, argument)!r}")
        sides = self.pattern.split("->")
        if len(sides) != 2:
            raise ValueError(f"pattern must have one arrow, got {excerpt(self.pattern)}")
        plan, array = (_groups(side, self.pattern) for side in sides)
        names = [[name for group in side for name in group] for side in (plan, array)]
        if any(len(set(side)) < len(side) for side in names):
            raise ValueError(f"pattern must have an axis once a side, got {excerpt(self.pattern)}")
        if set(names[0]) != set(names[1]):
            raise ValueError(
                f"pattern must have the same axes on both sides, got {excerpt(self.pattern)}"
            )
        object.__setattr__(self, "_sides", (plan, array))

    def filler(self, tensor: tuple[int, ...], shape: tuple[int, ...], fill: Filler) -> Filler:
        """Return a function that fills boxes of the array, from one that fills the plan's tensor.

        Parameters
        ----------
        tensor, shape : tuple of int
            Shapes of the plan's tensor and of the array.
        fill : callable
            Fills boxes of the plan's tensor.

        Returns
        -------
        callable

        Raises
        ------
        ValueError
            If the two shapes contradict the pattern.
        """
        taken = box(tensor, self.index)
        sizes = self._sizes(taken.shape, shape)
        plan, array = self._sides

        def fill_array(out: Array, cut: Box, num_threads: int | None) -> None:
            view = cut.expand(out)
            ends = [
                (start, start + size) for start, size in zip(cut.starts, cut.sizes, strict=True)
            ]
            parts = [
                list(_ranges([sizes[name] for name in group], *end)) if end[0] < end[1] else []
                for group, end in zip(array, ends, strict=True)
            ]
            for chosen in product(*parts):
                ranges = {
                    name: extent
                    for group, each in zip(array, chosen, strict=True)
                    for name, extent in zip(group, each, strict=True)
                }
                place = tuple(
                    _flat_slice([sizes[name] for name in group], each, start)
                    for group, each, (start, _) in zip(array, chosen, ends, strict=True)
                )
                split = view[place].reshape([b - a for each in chosen for a, b in each])
                order = [name for group in array for name in group]
                turned = split.transpose([order.index(name) for group in plan for name in group])
                for destination, run in _runs(turned, plan, ranges, sizes):
                    starts = list(taken.starts)
                    extents = [1] * len(tensor)
                    for axis, (start, extent) in zip(taken.kept, run, strict=True):
                        starts[axis] += start
                        extents[axis] = extent
                    own = Box(tensor, tuple(starts), tuple(extents), taken.kept)
                    fill(destination, own, num_threads)

        return fill_array

    def _sizes(self, taken: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, int]:
        """Find the extent of every axis of the pattern from the shapes of both sides."""
        sizes: dict[str, int] = {}
        sides = list(zip(self._sides, (taken, shape), strict=True))
        for groups, extents in sides:
            if len(groups) != len(extents):
                raise ValueError(self._contradicted(taken, shape))
            for group, extent in zip(groups, extents, strict=True):
                if len(group) == 1 and sizes.setdefault(group[0], extent) != extent:
                    raise ValueError(self._contradicted(taken, shape))
        for _ in range(2):  # what one side gives may leave one unknown on the other
            for groups, extents in sides:
                for group, extent in zip(groups, extents, strict=True):
                    missing = [name for name in group if name not in sizes]
                    known = math.prod(sizes[name] for name in group if name in sizes)
                    if len(missing) == 1 and known and extent % known == 0:
                        sizes[missing[0]] = extent // known
        for groups, extents in sides:
            for group, extent in zip(groups, extents, strict=True):
                for name in group:
                    if name not in sizes:
                        raise ValueError(
                            f"pattern {self.pattern!r} leaves the extent of {name!r} open "
                            f"for shapes {taken} and {shape}"
                        )
                if math.prod(sizes[name] for name in group) != extent:
                    raise ValueError(self._contradicted(taken, shape))
        return sizes

    def _contradicted(self, taken: tuple[int, ...], shape: tuple[int, ...]) -> str:
        return (
            f"pattern {self.pattern!r} does not turn shape {taken} of the plan's "
            f"{self.tensor!r} into {shape}"
        )


class _Run(NamedTuple):
    """A run of positions of one axis of the plan's tensor."""

    start: int
    size: int


def _groups(side: str, pattern: str) -> Groups:
    groups: list[tuple[str, ...]] = []
    for token in re.findall(r"\([^()]*\)|[^\s()]+|[()]", side):
        names = tuple(token[1:-1].split()) if token.startswith("(") and token != "(" else (token,)
        if names == ("1",):
            names = ()
        for name in names:
            if not name.isidentifier():
                raise ValueError(f"pattern must hold names of axes, got {excerpt(pattern)}")
        groups.append(names)
    return tuple(groups)


def _ranges(sizes: Sequence[int], start: int, stop: int) -> Iterator[tuple[Range, ...]]:
    """Split a range of a merged axis into boxes of the axes that it is made of, in order.

    Examples
    --------
    >>> list(_ranges([3, 4], 2, 12))
    [((0, 1), (2, 4)), ((1, 3), (0, 4))]
    """
    if len(sizes) <= 1:
        yield ((start, stop),) if sizes else ()
        return
    inner = math.prod(sizes[1:])
    first, last = -(-start // inner), stop // inner  # the rows that are whole
    if first > last:  # the whole range is within one row
        for rest in _ranges(sizes[1:], start - last * inner, stop - last * inner):
            yield ((last, last + 1), *rest)
        return
    if start < first * inner:
        for rest in _ranges(sizes[1:], start - (first - 1) * inner, inner):
            yield ((first - 1, first), *rest)
    if first < last:
        yield ((first, last), *((0, size) for size in sizes[1:]))
    if last * inner < stop:
        for rest in _ranges(sizes[1:], 0, stop - last * inner):
            yield ((last, last + 1), *rest)


def _flat_slice(sizes: Sequence[int], ranges: Sequence[Range], origin: int) -> slice:
    """Return where a box from `_ranges` lies in a destination that begins at ``origin``."""
    first = 0
    for size, (start, _) in zip(sizes, ranges, strict=True):
        first = first * size + start
    count = math.prod(stop - start for start, stop in ranges)
    return slice(first - origin, first - origin + count)


def _runs(
    view: Array, plan: Groups, ranges: dict[str, Range], sizes: dict[str, int]
) -> Iterator[tuple[Array, tuple[_Run, ...]]]:
    """Split a destination, whose axes are the pattern's in the plan's order, into boxes of it."""
    choices: list[list[tuple[tuple[Any, ...], _Run]]] = []
    at = 0
    for group in plan:
        extents = view.shape[at : at + len(group)]
        strides = view.strides[at : at + len(group)]
        full = [ranges[name] == (0, sizes[name]) for name in group]
        tail = len(group)  # the axes from here on are one run, in the plan and in memory
        while tail > 0 and (
            tail == len(group)
            or (full[tail] and _is_one_axis(extents[tail - 1 :], strides[tail - 1 :]))
        ):
            tail -= 1
        rows: list[tuple[tuple[Any, ...], _Run]] = []
        size = math.prod(extents[tail:])
        for places in product(*(range(extent) for extent in extents[:tail])):
            start = 0
            for number, name in enumerate(group):
                offset = places[number] if number < tail else 0
                start = start * sizes[name] + ranges[name][0] + offset
            rows.append(((*places, *[slice(None)] * (len(group) - tail)), _Run(start, size)))
        choices.append(rows)
        at += len(group)
    for chosen in product(*choices):
        index = tuple(part for places, _ in chosen for part in places)
        runs = tuple(run for _, run in chosen)
        yield view[index].reshape([run.size for run in runs]), runs


def _is_one_axis(extents: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether axes can be merged to one without a copy."""
    long = [(size, step) for size, step in zip(extents, strides, strict=True) if size > 1]
    return all(outer == size * step for (_, outer), (size, step) in pairwise(long))
