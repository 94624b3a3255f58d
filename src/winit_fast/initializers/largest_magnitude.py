"""The largest magnitude that a scheme's elements can have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant, Identity, Ones, Zeros
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.parts import Parts
from winit_fast.initializers.pretrained import Pretrained
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import get
from winit_fast.initializers.scaled import Scaled
from winit_fast.initializers.sparse import Sparse
from winit_fast.initializers.truncation_correction import TRUNCATED_AT, corrected
from winit_fast.initializers.variance_scaling import VarianceScaling


def largest_magnitude(
    initializer: Initializer, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> float | None:
    """Return a bound of the magnitude of a scheme's elements, whatever the seed.

    Existing weights are read for it.

    A normal has one too: the radius of the Box-Muller transform is sqrt(-2 ln u), where u is at
    least 2^-32, or 2^-64 in float64. So no element is farther from the mean than 6.66 standard
    deviations, or 9.42.

    Parameters
    ----------
    initializer : Initializer
    shape : tuple of int
        The logical shape.
    dtype : numpy.dtype
        The type in which the elements are drawn.

    Returns
    -------
    float or None
        Up to the rounding of the elements; None if the scheme has no known bound.

    Examples
    --------
    >>> import winit_fast as wf
    >>> float32, float64 = np.dtype("float32"), np.dtype("float64")
    >>> scheme = wf.RandomNormal(0.0, 1.0)
    >>> [round(largest_magnitude(scheme, (8, 8), dtype), 3) for dtype in (float32, float64)]
    [6.66, 9.419]
    >>> largest_magnitude(wf.RandomUniform(-3.0, 1.0), (8, 8), float32)
    3.0
    """
    match initializer:
        case Zeros():
            return 0.0
        case Ones():
            return 1.0
        case Constant(value=float(value)):
            return abs(value)
        case Identity(gain=gain) | Dirac(gain=gain):
            return abs(gain)
        case Orthogonal(gain=gain) | DeltaOrthogonal(gain=gain):
            return abs(gain)
        case RandomNormal(mean=mean, stddev=stddev):
            return abs(mean) + stddev * _reach(dtype)
        case RandomUniform(minval=low, maxval=high):
            return max(abs(low), abs(high))
        case TruncatedNormal(mean=mean, stddev=stddev, low=low, high=high):
            return _truncated(mean, stddev, low, high, dtype)
        case Sparse(stddev=stddev):
            return stddev * _reach(dtype)
        case VarianceScaling(distribution=distribution):
            stddev = initializer.stddev(shape)
            if distribution == "uniform":
                return math.sqrt(3.0) * stddev
            if distribution == "normal":
                return stddev * _reach(dtype)
            return TRUNCATED_AT * corrected(stddev)
        case Scaled(initializer=Initializer() as own):
            inside = largest_magnitude(own, shape, dtype)
            return None if inside is None else inside * initializer.value
        case Pretrained(fallback=fallback):
            rest = 0.0 if fallback is None else largest_magnitude(get(fallback), shape, dtype)
            return None if rest is None else max(initializer.magnitude(), rest)
        case Computed(values=values) if values.size:
            return float(np.abs(values.astype(np.float64)).max())
        case Parts(parts=parts):
            bounds = [largest_magnitude(part.initializer, part.box.tensor, dtype) for part in parts]
            known = [each for each in bounds if each is not None]
            return max(known) if len(known) == len(bounds) else None
    return None


def _reach(dtype: np.dtype[Any]) -> float:
    """Return the largest radius of the Box-Muller transform: sqrt(-2 ln u) of the smallest u."""
    return math.sqrt(2 * math.log(2) * (64 if dtype == np.float64 else 32))


def _truncated(
    mean: float, stddev: float, low: float, high: float, dtype: np.dtype[Any]
) -> float | None:
    """Bound a truncated normal: by its window, and by the smallest probability of a word.

    A window that holds zero and reaches beyond the radius of a normal has half of all probability.
    So its farthest element has a tail of at least 2^-34 (2^-66 in float64), and is nearer to zero
    than that radius.
    """
    if low <= 0 <= high:
        low, high = max(low, -_reach(dtype)), min(high, _reach(dtype))
    if math.isinf(low) or math.isinf(high):
        return None
    return max(abs(mean + low * stddev), abs(mean + high * stddev))
