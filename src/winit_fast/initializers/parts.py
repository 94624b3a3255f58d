"""A tensor that is made of boxes, each with a scheme of its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from winit_fast.base.arguments import integer
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, whole
from winit_fast.base.dtypes import FLOATS
from winit_fast.initializers.protocol import Initializer, _Elementwise, get
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Stream


class Part(NamedTuple):
    """One box of a tensor.

    Attributes
    ----------
    starts, stops : tuple of int
        Where it begins and ends along every axis.
    initializer : Initializer
        Its fans are those of the box.
    stream : str, optional
        The name of its numbers, where it is not the tensor's: then indices count from 0 in the box.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    initializer: Initializer
    stream: str | None = None


@dataclass(frozen=True, repr=False)
class Parts(Initializer, names=("parts",)):
    """Boxes of one tensor, each with its own scheme: fused layers, experts, a padding row.

    Parameters
    ----------
    parts : sequence of Part
        Each ``(starts, stops, initializer)`` or ``(starts, stops, initializer, stream)``. Where two
        overlap, the later one counts. Together they must cover the tensor.

    Notes
    -----
    A part without a stream of its own has the tensor's numbers at the elements' own indices in the
    tensor, if its scheme draws element by element. Of other schemes (orthogonal, sparse) the
    indices count from 0 in the box, and the stream is the tensor's name with a NUL character and
    the box after it: ``"fc.weight\\0[0:8,0:4]"``.

    Examples
    --------
    >>> import winit_fast as wf
    >>> rows = wf.RandomNormal(0.0, 0.02)
    >>> scheme = Parts([((0, 0), (9, 4), rows), ((2, 0), (3, 4), wf.Zeros())])
    >>> w = scheme((9, 4), seed=0, name="words.weight")
    >>> bool((w[2] == 0).all()), bool((w[3] == rows((9, 4), seed=0, name="words.weight")[3]).all())
    (True, True)
    """

    parts: Iterable[Any]

    def __post_init__(self) -> None:
        checked = []
        for part in self.parts:
            if not isinstance(part, (tuple, list)) or not 3 <= len(part) <= 4:
                raise TypeError(f"parts must be (starts, stops, initializer[, stream]), got {part!r}")
            starts, stops = (tuple(integer("parts", at) for at in ends) for ends in part[:2])
            if len(starts) != len(stops) or any(
                not 0 <= start <= stop for start, stop in zip(starts, stops, strict=False)
            ):
                raise ValueError(f"parts must stop after they start, got {starts} and {stops}")
            stream = part[3] if len(part) == 4 else None
            if not (stream is None or isinstance(stream, str)):
                raise TypeError(f"the stream of a part must be a name, got {stream!r}")
            checked.append(Part(starts, stops, get(part[2]), stream))
        if not checked:
            raise ValueError("parts must hold at least one part, got none")
        object.__setattr__(self, "parts", tuple(checked))

    def get_config(self) -> dict[str, Any]:
        parts = [
            (
                *part[:2],
                {"class_name": type(part.initializer).__name__, "config": part.initializer.get_config()},
                part.stream,
            )
            for part in self.parts
        ]  # fmt: skip
        return {"parts": parts}

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        self._check(box.tensor)
        expanded = box.expand(out)
        for part in self.parts:
            starts = tuple(map(max, part.starts, box.starts))
            ends = (start + size for start, size in zip(box.starts, box.sizes, strict=True))
            stops = tuple(map(min, part.stops, ends))
            sizes = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
            at = tuple(
                slice(start - first, stop - first)
                for start, stop, first in zip(starts, stops, box.starts, strict=True)
            )
            if min(sizes, default=1) < 0:
                at, sizes = (slice(0, 0),) * len(at), (0,) * len(at)
            self._fill_part(part, expanded[at], Box(box.tensor, starts, sizes, tuple(range(len(at)))),
                            stream, num_threads)  # fmt: skip

    def _fill_part(
        self, part: Part, out: Array, box: Box, stream: Stream, num_threads: int | None
    ) -> None:
        shape = tuple(stop - start for start, stop in zip(part.starts, part.stops, strict=True))
        own = Box(
            shape,
            tuple(at - first for at, first in zip(box.starts, part.starts, strict=True)),
            box.sizes,
            box.kept,
        )
        if 0 in out.shape:
            own = own._replace(starts=(0,) * len(shape), sizes=out.shape)
            box = box._replace(starts=(0,) * len(shape), sizes=out.shape)
        if part.stream is not None:
            part.initializer._fill(out, own, Stream(stream.seed, part.stream), num_threads)
        elif isinstance(part.initializer, _Elementwise):
            distribution = part.initializer._distribution(FLOATS[out.dtype].code, shape)
            fill(distribution, stream.seed, stream.id, out, box, num_threads)
        elif shape == box.tensor:
            part.initializer._fill(out, own, stream, num_threads)
        else:
            ends = zip(part.starts, part.stops, strict=True)
            place = ",".join(f"{start}:{stop}" for start, stop in ends)
            part.initializer._fill(out, own, stream.part(f"[{place}]"), num_threads)

    def _check(self, shape: tuple[int, ...]) -> None:
        for part in self.parts:
            if len(part.stops) != len(shape) or any(
                stop > extent for stop, extent in zip(part.stops, shape, strict=True)
            ):
                raise ValueError(
                    f"parts must lie in the tensor, got {part.starts} to {part.stops} "
                    f"for shape {shape}"
                )
        boxes = [part[:2] for part in self.parts]
        if not covers(boxes, whole(shape)):
            raise ValueError(f"parts must cover the tensor of shape {shape}, got {boxes}")

    def _times(self, factor: float) -> Initializer | None:
        scaled = [(part, part.initializer._times(factor)) for part in self.parts]
        if any(initializer is None for _, initializer in scaled):
            return None
        return Parts(tuple(part._replace(initializer=own) for part, own in scaled))


def covers(boxes: list[Any], rest: Box) -> bool:
    """Tell whether boxes cover another one: what the last leaves of it is cut up for the others."""
    if 0 in rest.sizes:
        return True
    if not boxes:
        return False
    starts, stops = boxes[-1]
    first = rest.starts
    end = tuple(start + size for start, size in zip(first, rest.sizes, strict=True))
    for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if stop <= first[axis] or end[axis] <= start:
            return covers(boxes[:-1], rest)
    for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for low, high in ((first[axis], start), (stop, end[axis])):
            if low < high:
                piece = rest._replace(
                    starts=(*first[:axis], low, *first[axis + 1 :]),
                    sizes=(*rest.sizes[:axis], high - low, *rest.sizes[axis + 1 :]),
                )
                if not covers(boxes[:-1], piece):
                    return False
        low, high = max(first[axis], start), min(end[axis], stop)
        first = (*first[:axis], low, *first[axis + 1 :])
        end = (*end[:axis], high, *end[axis + 1 :])
        rest = rest._replace(
            starts=first, sizes=tuple(b - a for a, b in zip(first, end, strict=True))
        )
    return True
