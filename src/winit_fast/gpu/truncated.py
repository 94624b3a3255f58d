"""Truncated normal numbers by inversion, as in csrc/truncated-inl.h, which explains the constants.

Each octave of w + 4 has a polynomial. How many octaves can occur in a window is known when a fill
is launched (fill.py), and is a compile-time constant: in most windows one or two.
"""

import triton
import triton.language as tl

from winit_fast.gpu.elementary import horner, log_u2_f32, log_u2_f64, number
from winit_fast.gpu.tables import (
    MINUS_LOG_F32,
    MINUS_LOG_F64,
    QUANTILE_F32,
    QUANTILE_F64,
    QUANTILE_HEAD_F32,
    QUANTILE_HEAD_F64,
    ROOT_F32,
    ROOT_HEAD_F32,
)
from winit_fast.gpu.uniform import at_least, at_most


@triton.jit
def octave(
    t: tl.tensor, x: tl.tensor, TABLE: tl.constexpr, HEAD: tl.constexpr, OCTAVE: tl.constexpr
) -> tl.tensor:
    """Compute t P(x) for one octave, where P is a constant plus a polynomial in x."""
    p = number(TABLE[len(TABLE) - 8 + OCTAVE], x)
    for row in tl.static_range(len(TABLE) // 8 - 2, -1, -1):
        p = tl.fma(p, x, number(TABLE[8 * row + OCTAVE], x))
    return tl.fma(t, number(HEAD[OCTAVE], t), t * p)


@triton.jit
def inverse(
    t: tl.tensor,
    k: tl.tensor,
    x: tl.tensor,
    TABLE: tl.constexpr,
    HEAD: tl.constexpr,
    OCTAVES: tl.constexpr,
) -> tl.tensor:
    """Compute z = t P(x) with the polynomial of octave k.

    All that can occur are evaluated: this takes fewer instructions than to look up coefficients.
    """
    z = octave(t, x, TABLE, HEAD, 0)
    for each in tl.static_range(1, OCTAVES):
        z = tl.where(k == each, octave(t, x, TABLE, HEAD, each), z)
    return z


@triton.jit
def inverse_f32(t: tl.tensor, w: tl.tensor, OCTAVES: tl.constexpr) -> tl.tensor:
    """Compute z = t P(w), for w >= 0: w + 4 = m 2^(k + 2)."""
    y = (w + 4.0).to(tl.int32, bitcast=True)
    m = ((y & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    return inverse(t, (y >> 23) - 129, m - 1.0, QUANTILE_F32, QUANTILE_HEAD_F32, OCTAVES)


@triton.jit
def inverse_f64(t: tl.tensor, w: tl.tensor, OCTAVES: tl.constexpr) -> tl.tensor:
    """Compute z = t P(w), for w >= 0."""
    y = (w + 4.0).to(tl.int64, bitcast=True)
    m = ((y & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).to(tl.float64, bitcast=True)
    k = (y >> 52).to(tl.int32) - 1025
    return inverse(t, k, m - 1.0, QUANTILE_F64, QUANTILE_HEAD_F64, OCTAVES)


@triton.jit
def place(z: tl.tensor, d: tl.tuple) -> tl.tensor:
    """Compute z scale + loc, clamped to the bounds."""
    scale, loc, low, high = d
    return at_most(at_least(tl.fma(z, scale, loc), low), high)


@triton.jit
def truncated_f32(
    word: tl.tensor, d: tl.tuple, window: tl.tuple, OCTAVES: tl.constexpr
) -> tl.tensor:
    """Make an element of a word, in any window."""
    flip, kappa, tail_step, tail_starts, t_step, t_step_rest, t_starts, t_unit, log_shift = window
    flip, kappa = flip.to(tl.uint32), kappa.to(tl.uint32)
    w = word ^ flip
    below = w < kappa
    turn = tl.where(below, tl.full((), 0xFFFFFFFF, tl.uint32), tl.full((), 0, tl.uint32))
    # number of words from this word to the window's end on its side, and to zero
    to_end = (w ^ turn ^ 0xFFFFFFFF).to(tl.float32)
    to_zero = (tl.sub(w, kappa, sanitize_overflow=False) ^ turn).to(tl.float32)
    v = tl.fma(to_end, tail_step, tl.where(below, tail_starts[1], tail_starts[0]))
    t = tl.fma(to_zero, t_step_rest, tl.where(below, t_starts[1], t_starts[0]))
    t = tl.fma(to_zero, t_step, t)
    u = v * tl.fma(t, t_unit, number(1.0, t))  # 1 - t^2
    u = at_least(log_u2_f32(u, -1.0, MINUS_LOG_F32, log_shift), number(0.0, t))
    z = inverse_f32(t, u, OCTAVES).to(tl.uint32, bitcast=True)
    return place((z ^ ((turn ^ flip) & 0x80000000)).to(tl.float32, bitcast=True), d)


@triton.jit
def central_f32(w: tl.tensor, d: tl.tuple, window: tl.tuple) -> tl.tensor:
    """Make an element of a word in a symmetric window within 2 sigma, where kappa is 2^31."""
    _, _, tail_step, tail_starts, t_step, _, t_starts, _, _ = window
    word = w.to(tl.int32, bitcast=True)
    above = word >> 31  # all bits, or none
    to_end = (word ^ above).to(tl.float32)
    to_zero = (word ^ above ^ 0x7FFFFFFF).to(tl.float32)
    v = tl.fma(to_end, tail_step, tail_starts[0])
    t = tl.fma(to_zero, t_step, t_starts[0])
    x = tl.sqrt_rn(v * (t + 1.0)) - 0.625
    z = tl.fma(t, number(ROOT_HEAD_F32[0], t), t * horner(x, ROOT_F32))
    z = z.to(tl.uint32, bitcast=True) ^ ((w ^ 0xFFFFFFFF) & 0x80000000)
    return place(z.to(tl.float32, bitcast=True), d)


@triton.jit
def truncated_f64(
    word: tl.tensor, d: tl.tuple, window: tl.tuple, OCTAVES: tl.constexpr
) -> tl.tensor:
    """Make an element of a word of 64 bits, in any window."""
    flip, kappa, tail_step, tail_starts, t_step, t_step_rest, t_starts, t_unit, log_shift = window
    w = word ^ flip
    below = w < kappa
    turn = tl.where(below, tl.full((), 0xFFFFFFFFFFFFFFFF, tl.uint64), tl.full((), 0, tl.uint64))
    to_end = (w ^ turn ^ 0xFFFFFFFFFFFFFFFF).to(tl.float64)
    to_zero = ((w - kappa) ^ turn).to(tl.float64)
    v = tl.fma(to_end, tail_step, tl.where(below, tail_starts[1], tail_starts[0]))
    t = tl.fma(to_zero, t_step_rest, tl.where(below, t_starts[1], t_starts[0]))
    t = tl.fma(to_zero, t_step, t)
    u = v * tl.fma(t, t_unit, number(1.0, t))
    u = at_least(log_u2_f64(u, -1.0, MINUS_LOG_F64, log_shift), number(0.0, t))
    z = inverse_f64(t, u, OCTAVES).to(tl.uint64, bitcast=True)
    return place((z ^ ((turn ^ flip) & 0x8000000000000000)).to(tl.float64, bitcast=True), d)
