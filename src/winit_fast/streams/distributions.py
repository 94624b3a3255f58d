"""Distributions: checks their parameters and prepares them for the kernels."""

from functools import lru_cache
from typing import Any

import numpy as np

import winit_fast._core as _core
from winit_fast._core import Distribution
from winit_fast.base.arguments import finite, not_negative, real
from winit_fast.base.dtypes import FLOATS, working

Names = tuple[str, str]
"""The caller's names of the first two parameters, for error messages."""


def _given(names: Names, first: float, second: float) -> str:
    return f"got {names[0]}={first!r} and {names[1]}={second!r}"


def _bounds(low: float, high: float, names: Names = ("low", "high")) -> tuple[float, float]:
    a, b = real(names[0], low), real(names[1], high)
    if not a < b:
        raise ValueError(f"{names[0]} must be below {names[1]}, {_given(names, low, high)}")
    return a, b


@lru_cache(maxsize=2)
def bits(width: int) -> Distribution:
    """Raw words of 32 or 64 bits."""
    _, distribution = _core.distribution("bits", _core.F64 if width == 64 else _core.F32)
    return distribution


def uniform(
    dtype: np.dtype[Any], low: float, high: float, names: Names = ("low", "high")
) -> Distribution:
    """Uniform numbers in [low, high)."""
    low_name, high_name = names
    a, b = _bounds(finite(low_name, low), finite(high_name, high), names)
    status, distribution = _core.distribution("uniform", FLOATS[dtype].code, low=a, high=b)
    if status == _core.NOT_FINITE:
        raise ValueError(
            f"({high_name} - {low_name}) / 2 and ({high_name} + {low_name}) / 2, taken in float64, "
            f"must be finite in {working(dtype)}, {_given(names, low, high)}"
        )
    if status == _core.NO_VALUE:
        raise ValueError(
            f"{dtype.name} has no value in [{low_name}, {high_name}) = [{low!r}, {high!r})"
        )
    return distribution


def normal(
    dtype: np.dtype[Any], loc: float, scale: float, names: Names = ("loc", "scale")
) -> Distribution:
    """Normal numbers with mean loc and standard deviation scale."""
    code, mean, deviation = FLOATS[dtype].code, finite(names[0], loc), not_negative(names[1], scale)
    status, distribution = _core.distribution("normal", code, loc=mean, scale=deviation)
    if status == _core.NOT_FINITE:
        raise ValueError(_not_finite(dtype, loc, scale, names))
    return distribution


def truncated_normal(
    dtype: np.dtype[Any],
    loc: float,
    scale: float,
    low: float,
    high: float,
    names: Names = ("loc", "scale"),
) -> Distribution:
    """Normal numbers truncated to [low, high], which count in standard deviations from loc."""
    from winit_fast.streams.truncation import window  # imports decimal, which is slow to import

    mean, deviation = finite(names[0], loc), not_negative(names[1], scale)
    a, b = _bounds(low, high)
    if deviation == 0:  # there is no window
        return normal(dtype, mean, deviation, names)
    status, distribution = _core.distribution(
        "truncated_normal",
        FLOATS[dtype].code,
        loc=mean,
        scale=deviation,
        low=a,
        high=b,
        window=window(a, b, 64 if dtype == np.float64 else 32),
    )
    if status == _core.NOT_FINITE:
        raise ValueError(_not_finite(dtype, loc, scale, names))
    if status == _core.NO_VALUE:
        loc_name, scale_name = names
        raise ValueError(
            f"{dtype.name} has no value between {loc_name} + low*{scale_name} and "
            f"{loc_name} + high*{scale_name}, got {loc_name}={loc!r}, {scale_name}={scale!r}, "
            f"low={low!r}, high={high!r}"
        )
    return distribution


def _not_finite(dtype: np.dtype[Any], loc: float, scale: float, names: Names) -> str:
    first, second = names
    return f"{first} and {second} must be finite in {working(dtype)}, {_given(names, loc, scale)}"
