"""Normal numbers by the Box-Muller transform, as in csrc/normal-inl.h."""

import triton
import triton.language as tl

from winit_fast.gpu.elementary import (
    log_u2_f32,
    log_u2_f64,
    number,
    sincos_u2_f32,
    sincos_u2_f64,
)
from winit_fast.gpu.tables import MINUS_TWO_LOG_F32, MINUS_TWO_LOG_F64


@triton.jit
def normal_f32(radius: tl.tensor, angle: tl.tensor, d: tl.tuple) -> tl.tensor:
    """Make two elements of two words."""
    scale, loc, _, _ = d
    u = (radius >> 1).to(tl.int32, bitcast=True).to(tl.float32)
    u = tl.fma(u, number(2.0**-31, u), number(2.0**-32, u))  # in (0, 1]
    r = tl.sqrt_rn(log_u2_f32(u, -2.0, MINUS_TWO_LOG_F32, None))
    sin, cos = sincos_u2_f32(angle)
    return tl.fma(r * cos, scale, loc), tl.fma(r * sin, scale, loc)


@triton.jit
def normal_f64(radius: tl.tensor, angle: tl.tensor, d: tl.tuple) -> tl.tensor:
    """Make two elements of two words of 64 bits."""
    scale, loc, _, _ = d
    u = (radius >> 1).to(tl.float64)
    u = tl.fma(u, number(2.0**-63, u), number(2.0**-64, u))
    r = tl.sqrt(log_u2_f64(u, -2.0, MINUS_TWO_LOG_F64, None))  # of float64 always rounded once
    sin, cos = sincos_u2_f64(angle)
    return tl.fma(r * cos, scale, loc), tl.fma(r * sin, scale, loc)
