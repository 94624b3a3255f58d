"""Uniform numbers in [low, high), as in csrc/uniform-inl.h."""

import triton
import triton.language as tl

from winit_fast.gpu.elementary import number


@triton.jit
def at_least(x: tl.tensor, low: tl.tensor) -> tl.tensor:
    """Return the larger number, and ``low`` if both are equal: a result is never -0 for a 0."""
    return tl.where(x > low, x, low)


@triton.jit
def at_most(x: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Return the smaller number, and ``high`` if both are equal."""
    return tl.where(x < high, x, high)


@triton.jit
def uniform_f32(w: tl.tensor, d: tl.tuple) -> tl.tensor:
    """Make t = (s + 1/2) 2^-23 in (-1, 1), exact and never 0, of the upper 24 bits of a word."""
    scale, loc, low, high = d
    s = (w.to(tl.int32, bitcast=True) >> 8).to(tl.float32)
    t = tl.fma(s, number(2.0**-23, s), number(2.0**-24, s))
    return at_most(at_least(tl.fma(t, scale, loc), low), high)


@triton.jit
def inside_f32(w: tl.tensor, d: tl.tuple) -> tl.tensor:
    """The same where no result is below the lower bound; scale includes the factor 2^-31."""
    scale, loc, _, high = d
    t = ((w & 0xFFFFFF00) | 0x80).to(tl.int32, bitcast=True).to(tl.float32)
    return at_most(tl.fma(t, scale, loc), high)


@triton.jit
def uniform_f64(w: tl.tensor, d: tl.tuple) -> tl.tensor:
    """Make t = (s + 1/2) 2^-52 in (-1, 1) of the upper 53 bits of a word of 64."""
    scale, loc, low, high = d
    s = ((w ^ 0x8000000000000000) >> 11).to(tl.float64)
    t = (s - number(2.0**52 - 0.5, s)) * 2.0**-52
    return at_most(at_least(tl.fma(t, scale, loc), low), high)
