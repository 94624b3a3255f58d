"""A tensor that consists of boxes, each with its own scheme."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from winit_fast._core import Distribution
from winit_fast.base.arguments import integer, utf8
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, whole
from winit_fast.initializers.protocol import Elementwise, Initializer, described
from winit_fast.initializers.registry import get
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Stream


class Part(NamedTuple):
    """One box of a tensor.

    Attributes
    ----------
    starts, stops : tuple of int
        Its first position along every axis, and the one after its last.
    initializer : Initializer
        Its fans are computed from the shape of the box.
    stream : str, optional
        The name of its stream, if it is not the tensor's. Indices then count from 0 in the box.
    of : (tuple of int, tuple of int), optional
        If the elements are a box of another tensor, which has that stream: its shape, and where the
        box starts in it. Indices and fans are then those of the other tensor.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    initializer: Initializer
    stream: str | None = None
    of: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent along every axis."""
        return tuple(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    @property
    def box(self) -> Box:
        """The elements as a box of the tensor in which indices count."""
        shape, starts = (self.shape, (0,) * len(self.starts)) if self.of is None else self.of
        return Box(shape, starts, self.shape, tuple(range(len(shape))))


class Share(NamedTuple):
    """What a box of a tensor has of one part.

    Attributes
    ----------
    at : tuple of slice
        Its place in the box, with all axes.
    initializer : Initializer
    box : Box
        The elements, in the tensor in which the part's indices count.
    stream : Stream
    distribution : Distribution or None
        Drawn instead of `initializer`, whose fans are not those of ``box.tensor``.
    """

    at: tuple[slice, ...]
    initializer: Initializer
    box: Box
    stream: Stream
    distribution: Distribution | None = None


@dataclass(frozen=True, repr=False)
class Parts(Initializer, names=("parts",)):
    """Boxes of one tensor, each with its own scheme, as for fused layers, experts, a padding row.

    Parameters
    ----------
    parts : sequence of Part
        Each ``(starts, stops, initializer[, stream[, of]])``. Where two overlap, the later one
        applies. Together they must cover the tensor.

    Notes
    -----
    An elementwise scheme of a part without a stream of its own uses the tensor's stream at the
    elements' indices in the tensor. For other schemes (orthogonal, sparse) indices count from 0 in
    the box, and the stream's name is the tensor's name, a NUL character and the box:
    ``"fc.weight\\0[0:8,0:4]"``.

    Examples
    --------
    >>> import winit_fast as wf
    >>> rows = wf.RandomNormal(0.0, 0.02)
    >>> scheme = Parts([((0, 0), (9, 4), rows), ((2, 0), (3, 4), wf.Zeros())])
    >>> w = scheme((9, 4), seed=0, name="words.weight")
    >>> bool((w[2] == 0).all()), bool((w[3] == rows((9, 4), seed=0, name="words.weight")[3]).all())
    (True, True)
    """

    parts: Sequence[Any]

    def __post_init__(self) -> None:
        checked = []
        for part in _listed(self.parts, "a sequence of Part"):
            if not isinstance(part, (tuple, list)) or not 3 <= len(part) <= 5:
                raise TypeError(
                    f"parts must be (starts, stops, initializer[, stream[, of]]), got {part!r}"
                )
            starts, stops = (
                tuple(integer("parts", at) for at in _listed(ends, "boxes")) for ends in part[:2]
            )
            if len(starts) != len(stops) or any(
                not 0 <= start <= stop for start, stop in zip(starts, stops, strict=False)
            ):
                raise ValueError(f"parts must stop after they start, got {starts} and {stops}")
            stream = part[3] if len(part) > 3 else None
            if not (stream is None or isinstance(stream, str)):
                raise TypeError(f"the stream of a part in parts must be a name, got {stream!r}")
            if stream is not None:
                utf8("the stream of a part in parts", stream)
            made = Part(starts, stops, get(part[2]), stream)
            checked.append(made if len(part) < 5 or part[4] is None else _of(made, part[4]))
        if not checked:
            raise ValueError("parts must hold at least one part, got none")
        object.__setattr__(self, "parts", tuple(checked))

    def get_config(self) -> dict[str, Any]:
        parts = [
            (starts, stops, described(initializer), stream, *([] if of is None else [of]))
            for starts, stops, initializer, stream, of in self.parts
        ]
        return {"parts": parts}

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape that the parts exceed or do not cover, and what a part refuses."""
        parts: tuple[Part, ...] = tuple(self.parts)
        for part in parts:
            if len(part.stops) != len(shape) or any(
                stop > extent for stop, extent in zip(part.stops, shape, strict=True)
            ):
                raise ValueError(
                    f"parts must lie in the tensor, got {part.starts} to {part.stops} "
                    f"for shape {shape}"
                )
        if not covers([part[:2] for part in parts], whole(shape)):
            raise ValueError(f"parts must cover the tensor of shape {shape}, got {self!r}")
        for part in parts:
            part.initializer.check(part.box.tensor, dtype)

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Refuse the box if a part refuses its share of it."""
        for part, cut in self._within(box):
            part.initializer.check_box(_own(part, cut), dtype)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill the box's share of every part, in the order of the parts."""
        expanded = box.expand(out)
        for at, initializer, own, its, distribution in self.shares(box, stream, out.dtype):
            if distribution is not None:
                fill(distribution, its.seed, its.id, expanded[at], own, num_threads)
            else:
                initializer.fill_box(expanded[at], own, its, num_threads)

    def shares(self, box: Box, stream: Stream, dtype: np.dtype[Any]) -> Iterator[Share]:
        """Yield what a box has of every part, in the order of the parts."""
        for part, cut in self._within(box):
            at = tuple(
                slice(start - first, start - first + size)
                for start, first, size in zip(cut.starts, box.starts, cut.sizes, strict=True)
            )
            yield _share(part, at, cut, stream, dtype)

    def _within(self, box: Box) -> Iterator[tuple[Part, Box]]:
        """Yield each part with its intersection with a box of the tensor."""
        for part in self.parts:
            starts = tuple(map(max, part.starts, box.starts))
            ends = (start + size for start, size in zip(box.starts, box.sizes, strict=True))
            sizes = tuple(
                min(stop, end) - start
                for stop, end, start in zip(part.stops, ends, starts, strict=True)
            )
            if min(sizes, default=1) > 0:
                yield part, Box(box.tensor, starts, sizes, tuple(range(len(box.tensor))))

    def with_streams(self, renamed: Callable[[str], str]) -> "Parts":
        """Rename the streams of the parts."""
        parts = [
            part._replace(
                initializer=part.initializer.with_streams(renamed),
                stream=None if part.stream is None else renamed(part.stream),
            )
            for part in self.parts
        ]
        return Parts(parts)

    def scaled(self, factor: float) -> Initializer | None:
        """Scale every part, or return None if some part cannot be scaled."""
        parts = []
        for part in self.parts:
            scaled = part.initializer.scaled(factor)
            if scaled is None:
                return None
            parts.append(part._replace(initializer=scaled))
        return Parts(tuple(parts))


def _of(part: Part, given: Any) -> Part:
    """Check of which box of another tensor a part consists."""
    try:
        shape, starts = (tuple(integer("of", at) for at in _listed(one, "of")) for one in given)
    except (TypeError, ValueError):
        raise TypeError(
            f"of, in parts, must be a shape and the start of a box, got {given!r}"
        ) from None
    if part.stream is None:
        raise ValueError(f"a part in parts with of={given!r} must have a stream, got None")
    if not len(shape) == len(starts) == len(part.shape) or any(
        not 0 <= start <= extent - size
        for start, extent, size in zip(starts, shape, part.shape, strict=True)
    ):
        raise ValueError(
            f"of, in parts, must hold a box of shape {part.shape}, got shape {shape} and "
            f"start {starts}"
        )
    return part._replace(of=(shape, starts))


def _listed(value: Any, wanted: str) -> list[Any]:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return list(value)  # raises TypeError for an array without axes, although it is iterable
    except TypeError:
        raise TypeError(f"parts must be {wanted}, got {value!r}") from None


def _own(part: Part, cut: Box) -> Box:
    """Convert a box of the tensor to one of the tensor in which the part's indices count."""
    whole = part.box
    starts = tuple(
        at - first + own
        for at, first, own in zip(cut.starts, part.starts, whole.starts, strict=True)
    )
    return Box(whole.tensor, starts, cut.sizes, cut.kept)


def _share(
    part: Part, at: tuple[slice, ...], cut: Box, stream: Stream, dtype: np.dtype[Any]
) -> Share:
    """Describe the elements of a part that lie in a box of the tensor."""
    if part.stream is not None:
        stream = Stream(stream.seed, part.stream)
    elif isinstance(part.initializer, Elementwise):
        distribution = part.initializer.draws_from(part.shape, dtype)
        return Share(at, part.initializer, cut, stream, distribution)
    elif part.shape != cut.tensor:
        ends = zip(part.starts, part.stops, strict=True)
        stream = stream.part(f"[{','.join(f'{start}:{stop}' for start, stop in ends)}]")
    return Share(at, part.initializer, _own(part, cut), stream)


def covers(boxes: list[Any], rest: Box) -> bool:
    """Return whether the union of boxes covers another box.

    The faces of the boxes cut space into the cells of a grid, of which each is covered or not.

    Examples
    --------
    >>> covers([((0, 0), (2, 4)), ((2, 0), (3, 3))], whole((3, 3)))
    True
    >>> covers([((0, 0), (2, 4)), ((2, 0), (3, 2))], whole((3, 3)))
    False
    """
    if 0 in rest.sizes:
        return True
    ends = [start + size for start, size in zip(rest.starts, rest.sizes, strict=True)]
    inside = [
        [
            (min(high, max(low, start)), max(low, min(high, stop)))
            for low, high, start, stop in zip(rest.starts, ends, starts, stops, strict=True)
        ]
        for starts, stops in boxes
    ]
    places = []
    for axis, (low, high) in enumerate(zip(rest.starts, ends, strict=True)):
        cuts = {low, high}.union(*(box[axis] for box in inside))
        places.append({cut: place for place, cut in enumerate(sorted(cuts))})
    grid = np.zeros([len(place) - 1 for place in places], bool)
    for box in inside:
        cells = [
            slice(place[start], place[stop])
            for place, (start, stop) in zip(places, box, strict=True)
        ]
        grid[tuple(cells)] = True
    return bool(grid.all())
