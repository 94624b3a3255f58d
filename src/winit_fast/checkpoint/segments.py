"""Segments: what is filled, and then written to a file, in one call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from winit_fast.base import boxes
from winit_fast.base.boxes import Box, whole
from winit_fast.base.dtypes import find_any
from winit_fast.checkpoint.layout import Shard
from winit_fast.initializers.protocol import Filler
from winit_fast.models.tensor_spec import TensorSpec

SEGMENT_BYTES = 1 << 20
"""Bytes that are filled and then written in one call.

A segment is written from the L2 cache of the core that filled it. So it must fit into that cache,
and be long enough that the overhead of the two calls is negligible.
"""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Cut(NamedTuple):
    """A contiguous box of a tensor: the function that fills it, its dtype and its bytes."""

    fill: Filler
    box: Box
    dtype: np.dtype[Any]
    nbytes: int


class Segment(NamedTuple):
    """Cuts that are adjacent in a file."""

    file: int
    offset: int
    cuts: tuple[Cut, ...]

    def fill(self, memory: Bytes) -> int:
        """Fill the cuts one after another, and return the number of bytes."""
        end = 0
        for fill, box, dtype, nbytes in self.cuts:
            begin, end = end, end + nbytes
            fill(memory[begin:end].view(dtype).reshape(box.sizes), box, 1)
        return end


def of_shards(shards: Sequence[Shard], seed: int, limit: int) -> Iterator[Segment]:
    """Split the tensors of all files into segments, in the order of the files.

    Parameters
    ----------
    shards : sequence of Shard
    seed : int
    limit : int
        Most bytes of a segment.

    Yields
    ------
    Segment
    """
    for file, shard in enumerate(shards):
        cuts = (cut for tensor in shard.tensors for cut in cuts_of(tensor, seed, limit))
        yield from packed(cuts, file, len(shard.header), limit)


def cuts_of(tensor: TensorSpec, seed: int, limit: int) -> Iterator[Cut]:
    """Split a tensor into cuts of at most ``limit`` bytes, in C order."""
    dtype = find_any(tensor.dtype)
    fill = tensor.filler(seed)
    for slices in boxes.cuts(tensor.shape, limit // dtype.itemsize):
        box = whole(tensor.shape).cut(slices)
        yield Cut(fill, box, dtype, math.prod(box.sizes) * dtype.itemsize)


def packed(cuts: Iterable[Cut], file: int, offset: int, limit: int) -> Iterator[Segment]:
    """Join adjacent cuts of a file, from ``offset`` on, to segments of at most ``limit`` bytes.

    A cut that is larger is a segment of its own.
    """
    joined, filled = list[Cut](), 0
    for cut in cuts:
        if joined and filled + cut.nbytes > limit:
            yield Segment(file, offset, tuple(joined))
            offset, joined, filled = offset + filled, [], 0
        joined.append(cut)
        filled += cut.nbytes
    yield Segment(file, offset, tuple(joined))
