"""The statistics of a tensor's elements, computed in parts and joined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from winit_fast.base.arrays import Array

_DOT = 1 << 13
"""Elements of a dot product. OpenBLAS would use threads of its own for more than 10,000."""

_TOLERANCE = 0.02
"""Relative difference from the expected deviation that rounding to 8-bit types may cause."""

BINS = 1 << 12
"""Bins of a histogram: sign, exponent and three further bits of a float32."""


@dataclass(frozen=True)
class Statistics:
    """The statistics of one tensor.

    Attributes
    ----------
    name, file : str
    dtype : str
        The name of the dtype in the safetensors format.
    shape : tuple of int
    mean, deviation, minimum, maximum : float or None
        Of the finite elements, to five digits. For complex numbers, of their real and imaginary
        parts together. None if there are no finite elements, or if elements are not whole bytes.
    zeros, not_finite : int or None
        Number of elements that are 0, and that are NaN or infinite.
    expected : float or None
        The standard deviation of the plan's scheme, if it is known.
    histogram : dict of int to int
        If requested, counts of finite elements by the highest 12 bits of their float32.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    mean: float | None = None
    deviation: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    zeros: int | None = None
    not_finite: int | None = None
    expected: float | None = None
    histogram: Mapping[int, int] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_unexpected(self) -> bool:
        """Whether the deviation differs from the expected one by over six standard errors + 2 %."""
        if self.expected is None or self.deviation is None:
            return False
        allowed = self.expected * (_TOLERANCE + 6 / math.sqrt(max(1, self.size)))
        return abs(self.deviation - self.expected) > allowed


class Moments(NamedTuple):
    """Count, mean, sum of squared differences from the mean, and extremes of finite elements."""

    size: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0
    not_finite: int = 0

    def joined(self, other: Moments) -> Moments:
        """Combine the moments of two sets of elements (Chan, Golub and LeVeque 1979)."""
        size = self.size + other.size
        if not size:
            return self._replace(not_finite=self.not_finite + other.not_finite)
        step = other.mean - self.mean
        weight = other.size / size
        return Moments(
            size,
            self.mean + step * weight,
            self.squares + other.squares + step * step * self.size * weight,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.zeros + other.zeros,
            self.not_finite + other.not_finite,
        )


def moments(numbers: Array, mask: Array) -> Moments:
    """Compute the moments of float32 or float64 numbers. They and the mask are overwritten."""
    low, high, not_finite = float(numbers.min()), float(numbers.max()), 0
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN if any element is NaN
        finite = numbers[np.isfinite(numbers)]
        not_finite = numbers.size - finite.size
        if not finite.size:
            return Moments(not_finite=not_finite)
        numbers = finite
        low, high = float(numbers.min()), float(numbers.max())
    zeros = 0
    if low <= 0 <= high:
        zeros = int(np.count_nonzero(np.equal(numbers, 0, out=mask[: numbers.size])))
    if not 1e-15 < max(-low, high) < 1e15:  # the squares would leave the range of float32
        numbers = numbers.astype(np.float64)
    size = numbers.size
    mean, squares = float(np.einsum("i->", numbers)) / size, _squares(numbers)
    if size * mean * mean <= squares / 100:
        squares -= size * mean * mean
    else:  # too much cancellation: first subtract the mean, rounded to the type
        near = numbers.dtype.type(mean)
        numbers -= near
        lack = float(np.einsum("i->", numbers)) / size
        mean, squares = float(near) + lack, _squares(numbers) - size * lack * lack
    return Moments(size, mean, max(0.0, squares), low, high, zeros, not_finite)


def _squares(numbers: Array) -> float:
    """Compute the sum of squares, by dot products."""
    whole = numbers.size // _DOT * _DOT
    rows, rest = numbers[:whole].reshape(-1, 1, _DOT), numbers[whole:]
    return float((rows @ rows.swapaxes(1, 2)).sum(dtype=np.float64)) + float(rest @ rest)


def counts(numbers: Array) -> Array:
    """Count finite numbers by the highest bits of their float32."""
    words = numbers.astype(np.float32, copy=False).view(np.uint32) >> 20
    found = np.bincount(words, minlength=BINS)
    found.reshape(2, 256, 8)[:, 255] = 0  # the bins of infinities and NaN are left out
    return found
