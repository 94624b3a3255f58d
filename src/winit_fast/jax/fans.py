"""Fans as JAX computes them."""

import math
from collections.abc import Iterable
from fractions import Fraction

from winit_fast.initializers.fans import Axes


def fans(
    shape: tuple[int, ...], in_axis: Axes, out_axis: Axes, batch_axis: Axes
) -> tuple[Fraction, Fraction]:
    """Compute fans as JAX does: an axis may be given twice, and fans need not be integers.

    Examples
    --------
    >>> fans((1000, 64), -2, 0, ())  # Flax' Embed
    (Fraction(64, 1), Fraction(64, 1))
    """
    sizes = []
    for argument, axes in ("in_axis", in_axis), ("out_axis", out_axis), ("batch_axis", batch_axis):
        try:
            extents = [shape[axis] for axis in (axes if isinstance(axes, Iterable) else (axes,))]
        except TypeError:
            raise TypeError(
                f"{argument} must be an integer or a sequence of them, got {axes!r}"
            ) from None
        except IndexError:
            raise IndexError(
                f"{argument} is {axes!r}, but shape {shape} has {len(shape)} axes"
            ) from None
        sizes.append(math.prod(extents))
    inputs, outputs, batch = sizes
    size = math.prod(shape)
    return Fraction(size, outputs * batch), Fraction(size, inputs * batch)
