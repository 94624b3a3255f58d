"""Distributions: parameters checked and made ready for the kernels."""

from functools import lru_cache

from winit_fast import _core
from winit_fast._core import Distribution
from winit_fast.arguments import finite, not_negative, real
from winit_fast.dtypes import FLOATS

NAMES = {kind.code: kind.name for kind in FLOATS.values()}


def _bounds(low: float, high: float) -> tuple[float, float]:
    a, b = real("low", low), real("high", high)
    if not a < b:
        raise ValueError(f"low must be below high, got low={low!r} and high={high!r}")
    return a, b


@lru_cache(maxsize=2)
def bits(width: int) -> Distribution:
    """Raw words of 32 or 64 bits."""
    return _core.bits(_core.F64 if width == 64 else _core.F32)


def uniform(code: int, low: float, high: float) -> Distribution:
    """Uniform numbers in [low, high)."""
    a, b = _bounds(finite("low", low), finite("high", high))
    status, distribution = _core.uniform(code, a, b)
    if status == _core.NOT_FINITE:
        raise ValueError(
            f"high - low must be finite in {NAMES[code]}, got low={low!r} and high={high!r}"
        )
    if status == _core.NO_VALUE:
        raise ValueError(f"{NAMES[code]} has no value in [low, high) = [{low!r}, {high!r})")
    return distribution


def normal(code: int, loc: float, scale: float) -> Distribution:
    """Normal numbers with mean loc and standard deviation scale."""
    status, distribution = _core.normal(code, finite("loc", loc), not_negative("scale", scale))
    if status == _core.NOT_FINITE:
        raise ValueError(
            f"loc and scale must be finite in {NAMES[code]}, got loc={loc!r} and scale={scale!r}"
        )
    return distribution


def truncated_normal(code: int, loc: float, scale: float, low: float, high: float) -> Distribution:
    """Normal numbers kept between low and high, which count in standard deviations from loc."""
    from winit_fast.truncation import window  # exact arithmetic, whose modules take a while

    mean, deviation = finite("loc", loc), not_negative("scale", scale)
    a, b = _bounds(low, high)
    if deviation == 0:  # there is no window
        return normal(code, mean, deviation)
    status, distribution = _core.truncated_normal(
        code, mean, deviation, a, b, window(a, b, 64 if code == _core.F64 else 32)
    )
    if status == _core.NOT_FINITE:
        raise ValueError(
            f"loc and scale must be finite in {NAMES[code]}, got loc={loc!r} and scale={scale!r}"
        )
    if status == _core.NO_VALUE:
        raise ValueError(
            f"{NAMES[code]} has no value between loc + low*scale and loc + high*scale, "
            f"got loc={loc!r}, scale={scale!r}, low={low!r}, high={high!r}"
        )
    return distribution
