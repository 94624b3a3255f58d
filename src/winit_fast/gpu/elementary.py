"""ln, sin and cos, as in csrc/math-inl.h: the same operations in the same order.

Every addition, multiplication, fma and root is rounded once. Where C writes an fma, ``tl.fma`` is
written here, and the compiler is told not to make others. The error bound is in the name: ``_u2``
means at most 2 ulp.
"""

import triton
import triton.language as tl

from winit_fast.gpu.tables import (
    COS_F32,
    COS_F64,
    LN2_F32,
    LN2_F64,
    SIN_F32,
    SIN_F64,
    SIN_HEAD_F32,
    SIN_HEAD_F64,
)


@triton.jit
def number(VALUE: tl.constexpr, like: tl.tensor) -> tl.tensor:
    """Return a constant of the type of a tensor; Triton's own choice for 0.1 is float32."""
    return tl.full((), VALUE, like.dtype)


@triton.jit
def horner(x: tl.tensor, COEFFICIENTS: tl.constexpr) -> tl.tensor:
    """Evaluate a polynomial, of which the coefficient of the lowest power comes first."""
    p = number(COEFFICIENTS[len(COEFFICIENTS) - 1], x)
    for k in tl.static_range(len(COEFFICIENTS) - 2, -1, -1):
        p = tl.fma(p, x, number(COEFFICIENTS[k], x))
    return p


@triton.jit
def log_u2_f32(
    x: tl.tensor, FACTOR: tl.constexpr, COEFFICIENTS: tl.constexpr, shift: tl.tensor
) -> tl.tensor:
    """Compute FACTOR ln(2^shift x) for normal x > 0, where shift counts in units of 2^-23."""
    bits = x.to(tl.int32, bitcast=True)
    e = (bits - 0x3F2AAAAB) & -0x800000  # x = m 2^e with m in [2/3, 4/3)
    m = (bits - e).to(tl.float32, bitcast=True)
    g = tl.fma(m, number(FACTOR, x), number(-FACTOR, x))
    p = horner(g, COEFFICIENTS)
    exponent = e.to(tl.float32)
    if shift is not None:
        exponent = exponent + shift
    return tl.fma(exponent, number(FACTOR * 2.0**-23 * LN2_F32[0], x), tl.fma(g * g, p, g))


@triton.jit
def log_u2_f64(
    x: tl.tensor, FACTOR: tl.constexpr, COEFFICIENTS: tl.constexpr, shift: tl.tensor
) -> tl.tensor:
    """Compute FACTOR ln(2^shift x) for normal x > 0, where shift counts in units of 2^-52."""
    bits = x.to(tl.int64, bitcast=True)
    e = (bits - 0x3FE5555555555555) & -0x10000000000000
    m = (bits - e).to(tl.float64, bitcast=True)
    g = tl.fma(m, number(FACTOR, x), number(-FACTOR, x))
    p = horner(g, COEFFICIENTS)
    exponent = e.to(tl.float64)
    if shift is not None:
        exponent = exponent + shift
    return tl.fma(exponent, number(FACTOR * 2.0**-52 * LN2_F64[0], x), tl.fma(g * g, p, g))


@triton.jit
def sincos_u2_f32(a: tl.tensor) -> tl.tensor:
    """Compute sin and cos of 2 pi a / 2^32: in quarter turns a is q + x, x in [-1/2, 1/2)."""
    x = (a << 2).to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-32
    y = x * x
    s = tl.fma(x, number(SIN_HEAD_F32[0], x), x * horner(y, SIN_F32))
    c = tl.fma(y, horner(y, COS_F32), number(1.0, x))
    q = tl.add(a, tl.full((), 0x20000000, tl.uint32), sanitize_overflow=False)
    after = tl.add(q, tl.full((), 0x40000000, tl.uint32), sanitize_overflow=False)
    odd = (q & 0x40000000) != 0
    sin = tl.where(odd, c, s).to(tl.uint32, bitcast=True) ^ (q & 0x80000000)
    cos = tl.where(odd, s, c).to(tl.uint32, bitcast=True) ^ (after & 0x80000000)
    return sin.to(tl.float32, bitcast=True), cos.to(tl.float32, bitcast=True)


@triton.jit
def sincos_u2_f64(a: tl.tensor) -> tl.tensor:
    """Compute sin and cos of 2 pi a / 2^64."""
    x = (a << 2).to(tl.int64, bitcast=True).to(tl.float64) * 2.0**-64
    y = x * x
    s = tl.fma(x, number(SIN_HEAD_F64[0], x), x * horner(y, SIN_F64))
    c = tl.fma(y, horner(y, COS_F64), number(1.0, x))
    q = a + 0x2000000000000000
    after = q + 0x4000000000000000
    odd = (q & 0x4000000000000000) != 0
    sin = tl.where(odd, c, s).to(tl.uint64, bitcast=True) ^ (q & 0x8000000000000000)
    cos = tl.where(odd, s, c).to(tl.uint64, bitcast=True) ^ (after & 0x8000000000000000)
    return sin.to(tl.float64, bitcast=True), cos.to(tl.float64, bitcast=True)
