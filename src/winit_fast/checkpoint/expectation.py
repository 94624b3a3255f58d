"""The expected mean and standard deviation of a scheme's elements."""

from __future__ import annotations

import math

from winit_fast.initializers.constants import Constant, Identity, Ones, Zeros
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.sparse import Sparse
from winit_fast.initializers.variance_scaling import VarianceScaling


def moments(initializer: Initializer, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Return the expected mean and standard deviation of a scheme's elements.

    Parameters
    ----------
    initializer : Initializer
    shape : tuple of int
        The logical shape.

    Returns
    -------
    mean, deviation : float
        None if they are not known for the scheme.

    Examples
    --------
    >>> moments(RandomUniform(-6.0, 6.0), (8,)) == (0.0, 12 / math.sqrt(12))
    True
    >>> round(moments(TruncatedNormal(0.0, 1.0, -2.0, 2.0), (8,))[1], 6)
    0.879626
    """
    match initializer:
        case Zeros():
            return 0.0, 0.0
        case Ones():
            return 1.0, 0.0
        case Constant(value=value) if math.isfinite(value):
            return value, 0.0
        case RandomNormal(mean=mean, stddev=stddev):
            return mean, stddev
        case RandomUniform(minval=low, maxval=high):
            return low + (high - low) / 2, (high - low) / math.sqrt(12)
        case TruncatedNormal(mean=mean, stddev=stddev, low=low, high=high):
            centre, deviation = _truncated(low, high)
            return mean + stddev * centre, stddev * deviation
        case VarianceScaling():
            return 0.0, initializer.stddev(shape)
        case Sparse(sparsity=sparsity, stddev=stddev):
            rows = shape[0]
            return 0.0, stddev * math.sqrt(1 - math.ceil(sparsity * rows) / rows) if rows else 0.0
        case Orthogonal(gain=gain) if len(shape) == 2 and max(shape):
            return 0.0, abs(gain) / math.sqrt(max(shape))
        case Identity(gain=gain) if math.prod(shape):
            part = min(shape) / math.prod(shape)
            return gain * part, abs(gain) * math.sqrt(part * (1 - part))
    return None


def _truncated(low: float, high: float) -> tuple[float, float]:
    """Return mean and standard deviation of the standard normal, truncated to two bounds."""
    inside = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    if inside < 1e-6:  # far in a tail, where these formulas lose all digits
        return math.nan, math.nan
    ends = [math.exp(-(end**2) / 2) / math.sqrt(2 * math.pi) for end in (low, high)]
    edges = [end * weight if weight else 0.0 for end, weight in zip((low, high), ends, strict=True)]
    mean = (ends[0] - ends[1]) / inside
    return mean, math.sqrt(max(0.0, 1 + (edges[0] - edges[1]) / inside - mean**2))
