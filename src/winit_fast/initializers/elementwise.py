"""Independent draws from one distribution: uniform, normal, truncated normal."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import winit_fast._core as _core
from winit_fast.base.arguments import finite, not_negative, real
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.streams import distributions


@dataclass(frozen=True, repr=False)
class RandomUniform(Elementwise, names=("random_uniform", "uniform")):
    """Uniform on [minval, maxval), in every dtype.

    Parameters
    ----------
    minval, maxval : float
        Finite, minval < maxval. The defaults are those of Keras.

    Examples
    --------
    >>> w = RandomUniform(-1.0, 1.0)((4, 4), seed=0)
    >>> bool((-1 <= w).all() and (w < 1).all())
    True
    """

    minval: float = -0.05
    maxval: float = 0.05

    def __post_init__(self) -> None:
        self._parse(finite, "minval", "maxval")
        if not self.minval < self.maxval:
            raise ValueError(f"minval must be < maxval, got {self.minval!r} and {self.maxval!r}")

    def draws_from(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _core.Distribution:
        """Make the uniform distribution, the same for every shape."""
        return distributions.uniform(dtype, self.minval, self.maxval, ("minval", "maxval"))

    def scaled(self, factor: float) -> Initializer:
        return RandomUniform(factor * self.minval, factor * self.maxval)


@dataclass(frozen=True, repr=False)
class RandomNormal(Elementwise, names=("random_normal", "normal")):
    """Normal with the given mean and standard deviation.

    Numbers beyond the range of a narrow dtype become infinite, or NaN in float8_e4m3fn.

    Parameters
    ----------
    mean : float
    stddev : float
        Finite, at least 0. The defaults are those of Keras.

    Examples
    --------
    >>> RandomNormal(stddev=0.02)((4, 4), seed=0, name="wte").dtype
    dtype('float32')
    """

    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        self._parse(finite, "mean")
        self._parse(not_negative, "stddev")

    def draws_from(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _core.Distribution:
        """Make the normal distribution, the same for every shape."""
        return distributions.normal(dtype, self.mean, self.stddev, ("mean", "stddev"))

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return normal parts with half the variance, each with this mean, as in torch."""
        return RandomNormal(self.mean, self.stddev / math.sqrt(2.0))

    def scaled(self, factor: float) -> Initializer:
        return RandomNormal(factor * self.mean, factor * self.stddev)


@dataclass(frozen=True, repr=False)
class TruncatedNormal(Elementwise, names=("truncated_normal", "trunc_normal")):
    """Normal, truncated to [mean + low * stddev, mean + high * stddev].

    Parameters
    ----------
    mean : float
    stddev : float
        Standard deviation of the normal before truncation, as in Keras, JAX and torch; finite, at
        least 0. The defaults are those of Keras.
    low, high : float
        The bounds, in standard deviations. (In torch, ``a`` and ``b`` are absolute bounds:
        ``mean + low * stddev`` and ``mean + high * stddev``.)

    Examples
    --------
    >>> w = TruncatedNormal(stddev=0.02)((64, 64), seed=0, dtype="bfloat16")
    >>> float(abs(w).max()) <= 0.04
    True
    """

    mean: float = 0.0
    stddev: float = 0.05
    low: float = -2.0
    high: float = 2.0

    def __post_init__(self) -> None:
        self._parse(finite, "mean")
        self._parse(not_negative, "stddev")
        self._parse(real, "low", "high")
        if not self.low < self.high:
            raise ValueError(f"low must be < high, got {self.low!r} and {self.high!r}")

    def draws_from(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _core.Distribution:
        """Make the truncated normal distribution, the same for every shape."""
        parameters = self.mean, self.stddev, self.low, self.high
        return distributions.truncated_normal(dtype, *parameters, ("mean", "stddev"))

    def scaled(self, factor: float) -> Initializer:
        return replace(self, mean=factor * self.mean, stddev=factor * self.stddev)
