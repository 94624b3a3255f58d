"""Rounds float32 to the narrow types, as in csrc/narrow-inl.h: to nearest even; never from NaN."""

import triton
import triton.language as tl


@triton.jit
def to_bf16(x: tl.tensor) -> tl.tensor:
    """Round to bfloat16 in integers: an addition carries into the exponent, and to infinity."""
    u = x.to(tl.uint32, bitcast=True)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).to(tl.uint16)


@triton.jit
def to_8(
    x: tl.tensor, MANTISSA: tl.constexpr, BIAS: tl.constexpr, OVERFLOW: tl.constexpr
) -> tl.tensor:
    """Round to 8 bits; ``OVERFLOW`` is the code after the largest number.

    A result below the smallest normal number is rounded by adding a float whose last bit has the
    value of the smallest subnormal.
    """
    u = x.to(tl.uint32, bitcast=True)
    sign, a = (u >> 24) & 0x80, u & 0x7FFFFFFF
    SHIFT: tl.constexpr = 23 - MANTISSA
    rounded = a + ((1 << (SHIFT - 1)) - 1) + ((a >> SHIFT) & 1)
    normal = tl.sub(rounded >> SHIFT, (127 - BIAS) << MANTISSA, sanitize_overflow=False)
    UNIT: tl.constexpr = 127 + 24 - BIAS - MANTISSA
    unit = tl.full((), UNIT << 23, tl.uint32)
    shifted = a.to(tl.float32, bitcast=True) + unit.to(tl.float32, bitcast=True)
    subnormal = shifted.to(tl.uint32, bitcast=True) - unit
    small = tl.where(a < ((128 - BIAS) << 23), subnormal, normal)
    return (tl.minimum(small, tl.full((), OVERFLOW, tl.uint32)) | sign).to(tl.uint8)


@triton.jit
def narrow(x: tl.tensor, TYPE: tl.constexpr) -> tl.tensor:
    """Round results to the type of the elements, and return them as unsigned integers."""
    if TYPE == "float64":
        return x.to(tl.uint64, bitcast=True)
    elif TYPE == "float32":
        return x.to(tl.uint32, bitcast=True)
    elif TYPE == "float16":
        return x.to(tl.float16).to(tl.uint16, bitcast=True)
    elif TYPE == "bfloat16":
        return to_bf16(x)
    elif TYPE == "float8_e4m3fn":
        return to_8(x, 3, 7, 0x7F)
    else:
        tl.static_assert(TYPE == "float8_e5m2")
        return to_8(x, 2, 15, 0x7C)
