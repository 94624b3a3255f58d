"""The kernel, as in csrc/loops-inl.h: from indices to words, and from words to memory.

A program fills a tile of rows and blocks. A row is a run of consecutive logical indices; its blocks
are those of Philox, so the first and the last may lie in it only in part. A thread makes all
elements of a block, and stores those that lie in the row.
"""

import triton
import triton.language as tl

from winit_fast.gpu.narrow import narrow
from winit_fast.gpu.normal import normal_f32, normal_f64
from winit_fast.gpu.philox import double_word, philox
from winit_fast.gpu.truncated import central_f32, truncated_f32, truncated_f64
from winit_fast.gpu.uniform import inside_f32, uniform_f32, uniform_f64

AXES = 4
"""The kernel's loops outside of a row; fill.py does the others."""


@triton.jit
def real(word: tl.tensor, DOUBLE: tl.constexpr) -> tl.tensor:
    """Return the number that an argument stands for: floats are passed as their bits."""
    if DOUBLE:
        return word.to(tl.uint64).to(tl.float64, bitcast=True)
    else:
        return word.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def transform_f32(
    w: tl.tensor, d: tl.tuple, window: tl.tuple, KERNEL: tl.constexpr, OCTAVES: tl.constexpr
) -> tl.tensor:
    """Make an element of a word, by a kernel that takes words one by one."""
    if KERNEL == "uniform":
        return uniform_f32(w, d)
    elif KERNEL == "inside":
        return inside_f32(w, d)
    elif KERNEL == "truncated":
        return truncated_f32(w, d, window, OCTAVES)
    else:
        tl.static_assert(KERNEL == "central")
        return central_f32(w, d, window)


@triton.jit
def transform_f64(
    w: tl.tensor, d: tl.tuple, window: tl.tuple, KERNEL: tl.constexpr, OCTAVES: tl.constexpr
) -> tl.tensor:
    """The same for words of 64 bits; the central windows differ only in their octaves."""
    if KERNEL == "uniform" or KERNEL == "inside":
        return uniform_f64(w, d)
    else:
        tl.static_assert(KERNEL == "truncated" or KERNEL == "central")
        return truncated_f64(w, d, window, OCTAVES)


@triton.jit
def quads(
    w0: tl.tensor,
    w1: tl.tensor,
    w2: tl.tensor,
    w3: tl.tensor,
    d: tl.tuple,
    window: tl.tuple,
    KERNEL: tl.constexpr,
    TYPE: tl.constexpr,
    OCTAVES: tl.constexpr,
) -> tl.tensor:
    """Make the four elements of a block, of any type but float64."""
    if KERNEL == "normal":
        w0, w1 = normal_f32(w0, w1, d)
        w2, w3 = normal_f32(w2, w3, d)
    elif KERNEL != "bits":
        w0 = transform_f32(w0, d, window, KERNEL, OCTAVES)
        w1 = transform_f32(w1, d, window, KERNEL, OCTAVES)
        w2 = transform_f32(w2, d, window, KERNEL, OCTAVES)
        w3 = transform_f32(w3, d, window, KERNEL, OCTAVES)
    return narrow(w0, TYPE), narrow(w1, TYPE), narrow(w2, TYPE), narrow(w3, TYPE)


@triton.jit
def pairs(
    w0: tl.tensor,
    w1: tl.tensor,
    d: tl.tuple,
    window: tl.tuple,
    KERNEL: tl.constexpr,
    OCTAVES: tl.constexpr,
) -> tl.tensor:
    """Make the two elements of a block, of float64."""
    if KERNEL == "normal":
        w0, w1 = normal_f64(w0, w1, d)
    elif KERNEL != "bits":
        w0 = transform_f64(w0, d, window, KERNEL, OCTAVES)
        w1 = transform_f64(w1, d, window, KERNEL, OCTAVES)
    return narrow(w0, "float64"), narrow(w1, "float64")


DATA = range(1, 35)
"""The arguments after the pointer: their values select no code, so none is compiled into it."""


@triton.jit(do_not_specialize=DATA)
def fill_box(
    out: tl.tensor,
    index: tl.uint64,  # of the first element
    key: tl.uint64,
    stream: tl.uint64,
    length: tl.int64,  # elements of a row
    step: tl.int64,  # from one to the next, in elements of memory
    rows: tl.int64,
    pieces: tl.int64,  # tiles along a row
    extent0: tl.int64,
    extent1: tl.int64,
    extent2: tl.int64,
    extent3: tl.int64,
    index_stride0: tl.int64,
    index_stride1: tl.int64,
    index_stride2: tl.int64,
    index_stride3: tl.int64,
    stride0: tl.int64,
    stride1: tl.int64,
    stride2: tl.int64,
    stride3: tl.int64,
    scale: tl.uint64,
    loc: tl.uint64,
    low: tl.uint64,
    high: tl.uint64,
    flip: tl.uint64,
    kappa: tl.uint64,
    tail_step: tl.uint64,
    tail_start0: tl.uint64,
    tail_start1: tl.uint64,
    t_step: tl.uint64,
    t_step_rest: tl.uint64,
    t_start0: tl.uint64,
    t_start1: tl.uint64,
    t_unit: tl.uint64,
    log_shift: tl.uint64,
    KERNEL: tl.constexpr,
    TYPE: tl.constexpr,
    OCTAVES: tl.constexpr,
    LOOPS: tl.constexpr,  # number of axes outside of a row
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    DENSE: tl.constexpr,  # the elements of a row are adjacent in memory
    VECTOR: tl.constexpr,  # rows begin with a block, and all rows and lengths are multiples of this
) -> None:
    DOUBLE: tl.constexpr = TYPE == "float64"
    PER_BLOCK: tl.constexpr = 2 if DOUBLE else 4
    d = (real(scale, DOUBLE), real(loc, DOUBLE), real(low, DOUBLE), real(high, DOUBLE))
    window = (
        flip.to(tl.uint64),
        kappa.to(tl.uint64),
        real(tail_step, DOUBLE),
        (real(tail_start0, DOUBLE), real(tail_start1, DOUBLE)),
        real(t_step, DOUBLE),
        real(t_step_rest, DOUBLE),
        (real(t_start0, DOUBLE), real(t_start1, DOUBLE)),
        real(t_unit, DOUBLE),
        real(log_shift, DOUBLE),
    )
    extents = (extent0, extent1, extent2, extent3)
    index_strides = (index_stride0, index_stride1, index_stride2, index_stride3)
    strides = (stride0, stride1, stride2, stride3)

    # the rows of this tile: the index of their first elements, and where these are in memory
    piece = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS).to(tl.int64)
    if LOOPS > 0:
        row += (piece // pieces) * ROWS
        piece = piece % pieces
    first = tl.full((ROWS,), 0, tl.uint64) + index.to(tl.uint64)
    start = tl.full((ROWS,), 0, tl.int64)
    left = row
    for axis in tl.static_range(LOOPS - 1, -1, -1):
        position = left % extents[axis] if axis else left
        first += (position * index_strides[axis]).to(tl.uint64)
        start += position * strides[axis]
        left = left // extents[axis]
    if VECTOR > 1:
        start = tl.multiple_of(start, VECTOR)

    # the blocks of this tile, counted from the first of each row
    column = piece * BLOCKS + tl.arange(0, BLOCKS)
    block = (first // PER_BLOCK)[:, None] + column.to(tl.uint64)[None, :]
    w0, w1, w2, w3 = philox(block, key.to(tl.uint64), stream.to(tl.uint64))
    if DOUBLE:
        w0, w1 = double_word(w0, w1), double_word(w2, w3)
        made = pairs(w0, w1, d, window, KERNEL, OCTAVES)
    else:
        made = quads(w0, w1, w2, w3, d, window, KERNEL, TYPE, OCTAVES)

    skip = (first % PER_BLOCK).to(tl.int64)  # elements of the first block before the row
    inside = (row < rows)[:, None]
    if DENSE:
        if DOUBLE:
            elements = tl.interleave(made[0], made[1])
        else:
            elements = tl.interleave(
                tl.interleave(made[0], made[2]), tl.interleave(made[1], made[3])
            )
        at = piece * (BLOCKS * PER_BLOCK) + tl.arange(0, BLOCKS * PER_BLOCK)[None, :]
        if VECTOR > 1:
            inside = inside & (at // VECTOR < length // VECTOR)
        else:
            at = at - skip[:, None]
            inside = inside & (at >= 0) & (at < length)
        tl.store(out + (start[:, None] + at), elements, inside)
    else:
        for k in tl.static_range(PER_BLOCK):
            at = (column * PER_BLOCK + k)[None, :] - skip[:, None]
            mask = inside & (at >= 0) & (at < length)
            tl.store(out + (start[:, None] + at * step), made[k], mask)
