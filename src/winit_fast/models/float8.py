"""Weights of eight bits with a scale: what a tensor becomes in a quantised checkpoint."""

from __future__ import annotations

import math
from dataclasses import replace

from winit_fast.base import dtypes
from winit_fast.initializers.bounds import bound
from winit_fast.initializers.constants import Constant, Ones
from winit_fast.initializers.elementwise import RandomNormal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.scaled import Scaled
from winit_fast.models.tensor_spec import TensorSpec

DTYPE = "float8_e4m3fn"

LARGEST = 448.0
"""The largest number of float8_e4m3fn."""


def quantised(
    tensor: TensorSpec, scale_name: str, scale_shape: tuple[int, ...]
) -> tuple[TensorSpec, TensorSpec]:
    """Divide a tensor by a scale and round it to float8_e4m3fn, once.

    The elements are those of the tensor in float32 (float64 if it is drawn in that), divided by the
    scale and rounded: there are no numbers of 16 bits between. So the product with the scale is
    the tensor within one rounding to float8.

    The scale is the smallest power of two with which 448, the largest float8, covers every number
    that the scheme can produce, whatever the seed: see `winit_fast.initializers.bounds.bound`. A
    power of two makes the division exact: the scheme with its parameters divided by the scale has
    exactly the divided elements, apart from those near the smallest number of float32. That
    the range is not used to the last bit costs no precision, because float8 has the same number of
    bits from 2^-6 to 448. The scale follows from the plan, before any number is drawn. So one scale
    stands in the place of every block's.

    Parameters
    ----------
    tensor : TensorSpec
        Of a floating-point type.
    scale_name : str
        Name of the tensor of scales.
    scale_shape : tuple of int
        One number for each block, or () for the whole tensor.

    Returns
    -------
    weight, scale : TensorSpec
        In float8_e4m3fn and in float32.

    Raises
    ------
    ValueError
        If the scheme has no bound that is known, or one that is beyond float32.

    Examples
    --------
    >>> import winit_fast as wf
    >>> tensor = TensorSpec("up.weight", (256, 64), wf.RandomNormal(0, 0.02))
    >>> weight, scale = quantised(tensor, "up.weight_scale_inv", (2, 1))
    >>> weight.initializer, weight.dtype
    (RandomNormal(stddev=40.96), 'float8_e4m3fn')
    >>> scale.initializer, scale.shape, scale.dtype
    (Constant(value=0.00048828125), (2, 1), 'float32')
    """
    drawn_in = "float64" if "float64" in (tensor.drawn_in, tensor.dtype) else "float32"
    own = tensor.initializer
    largest = bound(own, tensor.shape, dtypes.find(drawn_in).dtype)
    scale = None if largest is None else _scale(largest)
    if scale is None:
        raise ValueError(
            f"tensor {tensor.name!r} cannot be float8: its scheme must have a known bound, which "
            f"its scale follows from, got {own!r:.200}"
        )
    divided = _divided(own, scale)
    weight = replace(
        tensor,
        initializer=divided,
        dtype=DTYPE,
        # a normal of narrow type is that of float32 after one rounding: see docs/contract.md.
        # Others are clamped to the bounds that the narrow type has, so they are drawn in float32
        drawn_in=None if drawn_in == "float32" and isinstance(own, RandomNormal) else drawn_in,
    )
    constant = Ones() if scale == 1 else Constant(scale)
    return weight, TensorSpec(scale_name, scale_shape, constant, kind=tensor.kind)


def _scale(largest: float) -> float | None:
    """Find the smallest power of two that takes a number to at most 448."""
    if not math.isfinite(largest):
        return None
    if largest == 0:
        return 1.0
    # 448 = 0.875 * 2^9, and frexp gives a mantissa in [0.5, 1)
    mantissa, exponent = math.frexp(largest)
    exponent += (mantissa > 0.875) - 9
    return math.ldexp(1.0, exponent) if -126 <= exponent <= 127 else None


def _divided(initializer: Initializer, scale: float) -> Initializer:
    if scale == 1:
        return initializer
    return initializer.scaled(1 / scale) or Scaled(initializer, 1 / scale)
