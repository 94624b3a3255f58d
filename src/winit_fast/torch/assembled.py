"""Tensors that the author's code assembles from several draws, as `torch.cat` does: as parts.

A fused projection may be drawn in several temporaries, whose rows are then interleaved.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product

from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.parts import Part, Parts
from winit_fast.torch.values import Call, Draw, Region, Value, View, c_strides

_MOST = 1 << 12
"""Most parts of a tensor: a description of more would be too long."""

_COPIES = {"aten::clone", "aten::contiguous", "aten::detach", "aten::alias"}


def assembled(value: Value, streams: Mapping[Draw, str]) -> Parts | None:
    """Describe a value that consists of boxes or rows of draws, or return None if it does not.

    Parameters
    ----------
    value : Value
    streams : mapping of Draw to str
        The names of the draws' streams. Indices count in a draw.
    """
    found: list[Part] = []
    row = math.prod(value.shape[1:])
    for region, piece in _pieces(value):
        source = _source(piece)
        if source is None or not row:
            return None
        draw, own = source
        if (
            not isinstance(draw.scheme, (RandomNormal, RandomUniform, TruncatedNormal))
            or draw not in streams
            or draw.dtype != value.dtype
        ):
            return None
        box = region.box(value.shape)
        if box is not None and region.in_order() and own.is_whole(draw.shape):
            found.append(Part(*box, draw.scheme, streams[draw]))
            continue
        # the draw in rows of the value: the same elements, in the same order
        shape = math.prod(draw.shape) // row, *value.shape[1:]
        for at, first, count in _runs(region, own):
            if at % row or first % row or count % row or len(found) == _MOST:
                return None
            starts, origin = ((one // row, *[0] * (len(shape) - 1)) for one in (at, first))
            stops = starts[0] + count // row, *shape[1:]
            found.append(Part(starts, stops, draw.scheme, streams[draw], (shape, origin)))
    return Parts(found) if found else None


def _pieces(value: Value) -> Iterator[tuple[Region, Value]]:
    """List the values of which a value is assembled, with the regions that they fill."""
    while True:
        if isinstance(value, View) and value.region.is_whole(value.base.shape):
            value = value.base  # another shape, with the same elements in the same order
        elif isinstance(value, Call) and value.function._schema.name in _COPIES:
            value = value.args[0]
        else:
            break
    name = value.function._schema.name if isinstance(value, Call) else ""
    if not isinstance(value, Call) or name not in ("aten::cat", "aten::stack"):
        return
    strides, start = c_strides(value.shape), 0
    axis = [*value.args[1:], value.kwargs.get("dim", 0)][0] % len(value.shape)
    for piece in value.args[0]:
        if 0 in piece.shape:
            continue
        own = strides if name == "aten::cat" else (*strides[:axis], *strides[axis + 1 :])
        yield Region(piece.shape, own, start * strides[axis]), piece
        start += piece.shape[axis] if name == "aten::cat" else 1


def _source(value: Value) -> tuple[Draw, Region] | None:
    """Return the draw from which a value is taken, and its region there."""
    if isinstance(value, Draw):
        return value, Region(value.shape, c_strides(value.shape), 0)
    if isinstance(value, View) and isinstance(value.base, Draw):
        return value.base, value.region
    return None


def _runs(first: Region, second: Region) -> Iterator[tuple[int, int, int]]:
    """List the runs of elements that are contiguous in two regions: both starts, and the length."""
    sizes, inner = first.sizes, len(first.sizes)
    count = 1
    while inner and (
        sizes[inner - 1] == 1 or first.strides[inner - 1] == second.strides[inner - 1] == count
    ):
        inner -= 1
        count *= sizes[inner]
    for place in product(*map(range, sizes[:inner])):
        one, other = (
            region.offset
            + sum(at * stride for at, stride in zip(place, region.strides[:inner], strict=True))
            for region in (first, second)
        )
        yield one, other, count
