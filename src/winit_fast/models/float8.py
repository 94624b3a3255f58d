"""Weights of eight bits with a scale: what a tensor becomes in a quantised checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace

from winit_fast.base import dtypes
from winit_fast.initializers.constants import Constant, Ones
from winit_fast.initializers.elementwise import RandomNormal
from winit_fast.initializers.largest_magnitude import largest_magnitude
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.scaled import Scaled
from winit_fast.models.tensor_spec import TensorSpec

DTYPE = "float8_e4m3fn"

LARGEST = 448.0
"""The largest number of float8_e4m3fn."""

_SUFFIXES = ("_scale_inv", "_scale")
"""What the name of a tensor of scales has after that of its weight."""


def scales_of(name: str, names: Container[str]) -> str | None:
    """Return the name of a weight's tensor of scales, if there is one.

    Examples
    --------
    >>> scales_of("up.weight", ["up.weight", "up.weight_scale_inv"])
    'up.weight_scale_inv'
    """
    return next((name + end for end in _SUFFIXES if name + end in names), None)


def scales_by_weight(tensors: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    """Find the tensors of scales of float8 weights, by the names of these weights.

    Examples
    --------
    >>> import winit_fast as wf
    >>> pair = quantised(TensorSpec("w", (8, 8), wf.RandomNormal()), "w_scale", ())
    >>> scales_by_weight(pair)["w"].name
    'w_scale'
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    found = {}
    for name, tensor in by_name.items():
        scale = scales_of(name, by_name) if tensor.dtype == DTYPE else None
        if scale is not None:
            found[name] = by_name[scale]
    return found


def on_products(
    tensors: Sequence[TensorSpec], change: Callable[[TensorSpec], TensorSpec | None]
) -> list[TensorSpec]:
    """Change tensors; where a weight has scales, it is their product that is changed.

    Parameters
    ----------
    tensors : sequence of TensorSpec
    change : callable
        Takes a tensor, which is float32 in the place of a float8 weight with scales. Returns the
        new one, or None if it stays as it is. It is not called for tensors of scales.

    Returns
    -------
    list of TensorSpec
        In the same order. Scales are those of the new weights.

    Examples
    --------
    >>> import winit_fast as wf
    >>> pair = quantised(TensorSpec("w", (8, 8), wf.RandomNormal()), "w_scale", ())
    >>> new = on_products(pair, lambda tensor: replace(tensor, initializer=wf.Constant(7)))
    >>> [tensor.initializer for tensor in new]
    [Constant(value=448.0), Constant(value=0.015625)]
    """
    scales = scales_by_weight(tensors)
    made: dict[str, TensorSpec] = {tensor.name: tensor for tensor in tensors}
    follow = {scale.name for scale in scales.values()}
    for tensor in tensors:
        if tensor.name in follow:
            continue
        if tensor.name not in scales:
            made[tensor.name] = change(tensor) or tensor
            continue
        scale = scales[tensor.name]
        changed = change(replace(tensor, dtype="float32"))
        if changed is not None:
            weight, new = quantised(changed, scale.name, scale.shape)
            made[weight.name] = weight
            made[scale.name] = replace(scale, initializer=new.initializer, drawn_in=None)
    return [made[tensor.name] for tensor in tensors]


def quantised(
    tensor: TensorSpec, scale_name: str, scale_shape: tuple[int, ...]
) -> tuple[TensorSpec, TensorSpec]:
    """Divide a tensor by a scale and round it to float8_e4m3fn, once.

    The elements are those of the tensor in float32 (float64 if it is drawn in that), divided by the
    scale and rounded: there are no numbers of 16 bits between. So the product with the scale is
    the tensor within one rounding to float8.

    The scale is the smallest power of two with which 448, the largest float8, covers every number
    that the scheme can produce, whatever the seed: see
    `winit_fast.initializers.largest_magnitude.largest_magnitude`. A power of two makes the division
    exact: the scheme with its parameters divided by the scale has exactly the divided elements,
    apart from those near the smallest number of float32. That the range is not used to the last bit
    costs no precision, because float8 has the same number of bits from 2^-6 to 448. The scale
    follows from the plan, before any number is drawn. So one scale stands in the place of every
    block's.

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
    largest = largest_magnitude(own, tensor.shape, dtypes.find(drawn_in).dtype)
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
