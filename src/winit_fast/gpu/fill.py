"""Launches the kernels on a tensor of a device: splits a box into rows, and chooses the tiles."""

import math
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

import winit_fast._core as _core
from winit_fast.base.boxes import Box
from winit_fast.gpu.loops import AXES, fill_box

if TYPE_CHECKING:
    from winit_fast._core import Parameters

TILES = {4: 512, 2: 256}
"""Blocks of a tile by the elements of a block: four blocks for each thread, or two of float64, of
which more would not fit into the registers."""

WARPS = 4

VECTOR_BYTES = 16
"""Most bytes that one instruction of a thread stores."""

_CARRIERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Kernels store elements of every type as integers of its width."""

_WORDS = {
    "float32": (torch.uint32, torch.int32),
    "float64": (torch.uint64, torch.int64),
}
"""The types that raw words may be stored in, by the type of their distribution."""


class Loop(NamedTuple):
    """One axis of a destination: its extent, and the increments of the index and in memory."""

    extent: int
    index_stride: int
    stride: int


Loops = tuple[Loop, ...]


def fill(
    distribution: _core.Distribution,
    key: int,
    stream: int,
    out: torch.Tensor,
    box: Box,
    offset: int = 0,
) -> None:
    """Draw a box of a logical tensor into a tensor of a device.

    The numbers are those of `winit_fast.streams.fill.fill`, bit for bit. The kernels are put on the
    device's current stream; nothing waits for them, and nothing passes through the host. The first
    fill of a kind compiles its kernel. Later ones can be captured in a CUDA graph.

    Parameters
    ----------
    distribution : Distribution
        Of the destination's type. Raw words may be stored as signed or unsigned integers.
    key, stream : int
        Of the numbers, 64 bits each.
    out : torch.Tensor
        Of any strides, as long as no elements overlap or interleave, on a device for which
        `winit_fast.gpu.device.unable` returns None. Autograd does not see the fill.
    box : Box
        Which elements of the logical tensor ``out`` holds.
    offset : int
        Added to every logical index.

    Raises
    ------
    TypeError
        If ``out`` has another type than the distribution, or is its memory's negative.
    ValueError
        If its elements overlap or interleave, or its shape is not that of the box.
    """
    p = _core.parameters(distribution)
    names = {str(dtype).removeprefix("torch.") for dtype in _WORDS[p["type"]]} if (
        p["kernel"] == "bits"
    ) else {p["type"]}  # fmt: skip
    if str(out.dtype).removeprefix("torch.") not in names:
        raise TypeError(f"out must have the type {' or '.join(sorted(names))}, got {out.dtype}")
    if out.is_neg():
        raise TypeError("out must hold its values as they are, got a negated view of its memory")
    if tuple(out.shape) != box.shape:
        raise ValueError(f"out must have shape {box.shape}, got {tuple(out.shape)}")
    if out.numel() == 0:
        return
    merged = _core.merged(box.shape, box.index_strides, tuple(out.stride()))
    loops = tuple([Loop(*axis) for axis in merged])
    span = 1
    for loop in reversed(loops):
        if loop.stride < span:
            raise ValueError(
                "out must not have elements that overlap or interleave, "
                f"got shape {tuple(out.shape)} with strides {tuple(out.stride())}"
            )
        span += loop.stride * (loop.extent - 1)
    memory = out.detach().view(_CARRIERS[out.itemsize])
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        for start, index, some in _few(0, offset + box.first, loops):
            _launch(p, key, stream, memory, start, index % (1 << 64), some)


def _few(start: int, index: int, loops: Loops) -> Iterator[tuple[int, int, Loops]]:
    """Split a box so that the kernel has loops enough, besides one that may be a row."""
    if len(loops) <= AXES:
        yield start, index, loops
        return
    shortest = min(loops)
    rest = tuple([loop for loop in loops if loop is not shortest])
    for k in range(shortest.extent):
        yield from _few(start + k * shortest.stride, index + k * shortest.index_stride, rest)


def _launch(
    p: "Parameters",
    key: int,
    stream: int,
    memory: torch.Tensor,
    start: int,
    index: int,
    loops: Loops,
) -> None:
    row = next((loop for loop in loops if loop.index_stride == 1), Loop(1, 1, 1))
    outer = [loop for loop in loops if loop is not row]
    rows = math.prod(loop.extent for loop in outer)
    double, size = p["type"] == "float64", memory.itemsize
    per_block = 2 if double else 4
    dense = row.stride == 1
    # A row that does not begin with a block may have one more.
    aligned = not any(each % per_block for each in [index, *[loop.index_stride for loop in outer]])
    blocks = -(-(row.extent + (0 if aligned else per_block - 1)) // per_block)
    tile_rows, tile_blocks = _tile(rows, blocks, TILES[per_block], dense)
    vector = 1
    if dense and aligned:
        sizes = [start, row.extent, *[loop.stride for loop in outer], VECTOR_BYTES // size]
        vector = math.gcd(*sizes) & -math.gcd(*sizes)  # a power of two
        vector = vector if vector >= per_block else 1
    pieces = -(-blocks // tile_blocks)
    axes = [*outer, *[Loop(1, 0, 0)] * (AXES - len(outer))]
    tail_starts, t_starts = p["tail_start"], p["t_start"]
    reals = [p["tail_step"], *tail_starts, p["t_step"], p["t_step_rest"], *t_starts]
    reals += [p["t_unit"], p["log_shift"]]
    fill_box[(pieces * -(-rows // tile_rows),)](
        torch.as_strided(memory, (1,), (1,), memory.storage_offset() + start),
        index,
        key,
        stream,
        row.extent,
        row.stride,
        rows,
        pieces,
        *[loop.extent for loop in axes],
        *[loop.index_stride for loop in axes],
        *[loop.stride for loop in axes],
        *[_bits(p[name], double) for name in ("scale", "loc", "low", "high")],
        p["flip"],
        p["kappa"],
        *[_bits(each, double) for each in reals],
        KERNEL=p["kernel"],
        TYPE=p["type"],
        OCTAVES=octaves(p),
        LOOPS=len(outer),
        ROWS=tile_rows,
        BLOCKS=tile_blocks,
        DENSE=dense,
        VECTOR=vector,
        num_warps=WARPS,
        enable_fp_fusion=False,
    )


def _tile(rows: int, blocks: int, size: int, dense: bool) -> tuple[int, int]:
    """Choose the rows and blocks of a tile of ``size`` blocks.

    Where rows are dense in memory, it is the widest tile of those that waste least. Elsewhere
    neighbouring threads get neighbouring rows, which often are neighbours in memory; such a tile
    has half the size, since every element's address takes registers.

    Examples
    --------
    >>> _tile(1, 9999, 512, True), _tile(1000, 192, 512, True), _tile(1000, 192, 512, False)
    ((1, 512), (8, 64), (256, 1))
    """
    if not dense:
        tile_rows = min(size // 2, 1 << (rows - 1).bit_length())
        return tile_rows, size // 2 // tile_rows
    tiles = [(1 << k, size >> k) for k in range(size.bit_length())]
    return min(tiles, key=lambda tile: -(-rows // tile[0]) * -(-blocks // tile[1]))


def _bits(value: float, double: bool) -> int:
    """Return the bits of a float64, or of a float32: Triton would pass every float as float32."""
    bits: int
    (bits,) = struct.unpack("<Q" if double else "<I", struct.pack("<d" if double else "<f", value))
    return bits


def octaves(p: "Parameters") -> int:
    """Return how many octaves of w + 4 occur in a window: see csrc/truncated-inl.h.

    w = -ln(1 - t^2) is largest at the window's ends, where 1 - t^2 is at least the tail there.
    """
    if p["kernel"] != "truncated":
        return 1
    unit = 2.0**-52 if p["type"] == "float64" else 2.0**-23
    smallest = min(p["tail_start"]) if p["kappa"] else p["tail_start"][0]
    largest = -math.log(smallest) - p["log_shift"] * unit * math.log(2)
    return int(math.log2(largest + 0.01 + 4)) - 1
