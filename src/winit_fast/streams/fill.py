"""Fills a destination: splits it into pieces, which are distributed to threads."""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import winit_fast._core as _core
from winit_fast.base import threads
from winit_fast.base.arrays import Array, prefer_huge_pages
from winit_fast.base.boxes import Box
from winit_fast.streams.buffers import _Memory

MIN_PIECE = 1 << 17
"""Fewest elements of a piece: 0.1 ms of work, enough to be worth waking a thread."""


MAX_PIECE = 1 << 21
"""Most elements of a piece: Ctrl-C is noticed between pieces, which take up to 0.1 s."""


MAX_PIECE_SCALAR = 1 << 18
"""The same for plain C, whose elements take up to 0.3 microseconds."""


MAX_SPAN = 1 << 25
"""Most bytes from a piece's first element to its last. If few elements lie on each page of new
memory, most of the time is page faults, which take up to 3 seconds per gigabyte."""


STREAMING_BYTES = 1 << 23
"""From this distance between first and last element on, results would be evicted from the caches
before they are read, so non-temporal stores are used."""


FEW_STEPS = 16
"""Steps at most of a loop that is not cut where the tensor has it inside of the others: all three
columns of an (n, 3) array in F order are one piece, since their elements are drawn together."""


class Loop(NamedTuple):
    """One axis of a destination: its extent, and the increments of the index and the address."""

    extent: int
    index_stride: int
    byte_stride: int


Loops = tuple[Loop, ...]


Piece = tuple[int, int, Loops]
"""Address and logical index of the first element, and the loops."""


def pieces(address: int, index: int, loops: Loops, limit: int, span: int) -> Iterator[Piece]:
    """Split a box lazily, along the outermost loops, into pieces of limited size.

    Parameters
    ----------
    address, index : int
        Of the first element.
    loops : tuple of Loop
        Outermost in memory first, so that no two pieces are interleaved; then those of `FEW_STEPS`.
    limit : int
        Most elements of a piece; a power of two, so that contiguous runs split at its multiples.
    span : int
        Most bytes from a piece's first element to its last, approximately: counts the steps along
        its outermost loop.

    Yields
    ------
    Piece

    Examples
    --------
    >>> rows = Loop(3, 4, 1000), Loop(4, 1, 4)
    >>> for address, index, loops in pieces(0, 0, rows, limit=8, span=1 << 20):
    ...     print(address, index, [loop.extent for loop in loops])
    0 0 [2, 4]
    2000 8 [1, 4]
    >>> [index for _, index, _ in pieces(0, 0, rows, limit=1 << 20, span=1000)]
    [0, 4, 8]
    """
    (extent, index_stride, byte_stride), *inner = loops
    each = math.prod(loop.extent for loop in inner)
    if extent * each <= limit and (extent - 1) * abs(byte_stride) <= span:
        yield address, index, loops
        return
    step = max(1, min(limit // each, span // abs(byte_stride)))
    for first in range(0, extent, step):
        outer = Loop(min(step, extent - first), index_stride, byte_stride)
        yield from pieces(
            address + first * byte_stride,
            index + first * index_stride,
            (outer, *inner) if step > 1 or not inner else tuple(inner),
            limit,
            span,
        )


def _spread(array: Array) -> int:
    """Count the bytes of memory from the first element to the last one."""
    if array.flags.c_contiguous:
        return array.nbytes
    last = map(operator.mul, map(abs, array.strides), (extent - 1 for extent in array.shape))
    spread: int = sum(last, array.itemsize)
    return spread


def _together(loop: Loop, nearest: Loop) -> bool:
    return loop.extent <= FEW_STEPS and loop.index_stride < nearest.index_stride


def share_out(
    work: Callable[[Piece], object], out: Array, box: Box, num_threads: int | None
) -> None:
    """Do ``work`` on the pieces of a destination, on several threads if it is large enough."""
    small = out.size <= MIN_PIECE and _spread(out) <= MAX_SPAN
    if small and num_threads is None:
        num_threads = 1  # saves the time of resolving num_threads
    num_threads = threads.resolve(num_threads)
    if out.size == 0:
        return
    if small:
        loops = tuple(map(Loop, box.shape, box.index_strides, out.strides))
        work((out.__array_interface__["data"][0], box.first, loops or (Loop(1, 0, 0),)))
        return
    prefer_huge_pages(out)
    merged = _core.merged(box.shape, box.index_strides, out.strides)
    loops = tuple(map(Loop._make, merged)) or (Loop(1, 0, 0),)
    nearest = loops[-1]
    loops = tuple(sorted(loops, key=lambda loop: _together(loop, nearest)))
    # Four pieces per thread balance the load; with a power of two pieces begin at round positions.
    limit = 1 << (out.size // (4 * num_threads)).bit_length()
    largest = MAX_PIECE_SCALAR if _core.isa() == "scalar" else MAX_PIECE
    limit = min(max(limit, MIN_PIECE), largest)
    work_on = pieces(out.__array_interface__["data"][0], box.first, loops, limit, MAX_SPAN)
    threads.run(work, work_on, min(num_threads, -(-out.size // limit)))


def fill(
    distribution: _core.Distribution,
    seed: int,
    stream: int,
    out: Array,
    box: Box,
    num_threads: int | None = None,
    offset: int = 0,
) -> None:
    """Draw a box of a logical tensor into a destination.

    Parameters
    ----------
    distribution : Distribution
        Of the destination's type.
    seed, stream : int
        Key and stream of the numbers, 64 bits each.
    out : numpy.ndarray
        Checked by `destination`.
    box : Box
        Which elements of the logical tensor ``out`` holds.
    num_threads : int, optional
        `threads.get_num_threads` by default. It changes no bit.
    offset : int
        Added to every logical index.
    """

    def work(piece: Piece) -> None:
        address, index, loops = piece
        streaming = _spread(out) >= STREAMING_BYTES  # `out` in the closure keeps the memory alive
        extents, index_strides, byte_strides = zip(*loops, strict=True)
        _core.fill(
            distribution, seed, stream, address, offset + index,
            extents, index_strides, byte_strides, streaming,
        )  # fmt: skip

    share_out(work, out, box, num_threads)


def rounded(value: float, dtype: np.dtype[Any], argument: str = "value") -> Array:
    """Round a number to a floating-point type: to the narrow ones from float32, like all draws.

    An integer type must have the number itself.

    Raises
    ------
    ValueError
        If the number is finite and its rounding is not; the message names the argument.

    Examples
    --------
    >>> rounded(0.1, np.dtype("bfloat16"))
    array(0.100098, dtype=bfloat16)
    """
    if dtype.kind in "iub":
        if not (math.isfinite(value) and _fits(value, dtype)):
            raise ValueError(f"{argument} must fit {dtype}, got {value!r}")
        return np.asarray(int(value), dtype)
    with np.errstate(over="ignore"):
        single = np.asarray(value, np.float64 if dtype == np.float64 else np.float32)
        element = single.astype(dtype)
    if math.isfinite(value) and not np.isfinite(element):
        raise ValueError(f"{argument} must fit {dtype}, got {value!r}")
    return element


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "b":
        return value in (0, 1)
    bounds = np.iinfo(dtype)
    return value == int(value) and bounds.min <= value <= bounds.max


def constant(value: float, out: Array, box: Box, num_threads: int | None = None) -> None:
    """Set every element of a destination to one number, as `rounded` does.

    Parameters
    ----------
    value : float
    out, box, num_threads
        As in `fill`.
    """
    bits = rounded(value, out.dtype).view(f"u{out.itemsize}")

    def work(piece: Piece) -> None:
        address, _, loops = piece
        extents, _, byte_strides = zip(*loops, strict=True)
        np.asarray(_Memory(address, extents, byte_strides, out.itemsize, out)).fill(bits)

    share_out(work, out, box, num_threads)
