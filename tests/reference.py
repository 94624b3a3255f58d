"""A reference implementation of stream version 1 in plain NumPy, following docs/contract.md alone.

It is slow and simple on purpose. Words, uniform numbers and everything after the transform are
exact, so a kernel must equal them bit for bit. Normal and truncated normal numbers are the exact
transforms of the same words, with an error far below the one that a kernel may have.

Every function takes an array of logical indices, so that any element can be computed alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import ml_dtypes
import mpmath
import numpy as np
from scipy import special

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}

NARROW = [name for name, dtype in DTYPES.items() if dtype.itemsize < 4]
"""The types that take the float32 value, rounded once."""

MASK = 0xFFFFFFFF
F64 = np.float64
U64 = np.uint64


# --------------------------------------------------------------------------------------------------
# Words
# --------------------------------------------------------------------------------------------------


def stream_id(name: str | int | None) -> int:
    """The 64-bit stream id of a name. An integer is its own id; None is stream 0."""
    if name is None:
        return 0
    if isinstance(name, int):
        return name
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def philox(counter, key) -> tuple[np.ndarray, ...]:
    """Philox4x32-10 of four counter words and two key words, each an integer or an array."""
    c0, c1, c2, c3 = (np.asarray(word, U64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * U64(0xD2511F53), c2 * U64(0xCD9E8D57)
        c0, c1 = (b >> U64(32)) ^ c1 ^ U64(k0), b & U64(MASK)
        c2, c3 = (a >> U64(32)) ^ c3 ^ U64(k1), a & U64(MASK)
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def block_words(seed: int, stream: int, block) -> np.ndarray:
    """The four words of each block, shape (n, 4), as uint64, so that no shift loses a bit."""
    block = np.asarray(block, U64)
    counter = (block & U64(MASK), block >> U64(32), stream & MASK, stream >> 32)
    return np.stack(np.broadcast_arrays(*philox(counter, (seed & MASK, seed >> 32))), axis=-1)


def words32(seed: int, stream: int, index) -> np.ndarray:
    """For every index i, the word w[i & 3] of block i >> 2."""
    index = np.asarray(index, U64)
    words = block_words(seed, stream, index >> U64(2))
    return words[np.arange(len(index)), index & U64(3)].astype(np.uint32)


def block_words64(seed: int, stream: int, block) -> np.ndarray:
    """The two 64-bit words of each block, shape (n, 2)."""
    words = block_words(seed, stream, block)
    return words[:, 0::2] | words[:, 1::2] << U64(32)


def words64(seed: int, stream: int, index) -> np.ndarray:
    """For every index i, the word W[i & 1] of block i >> 1."""
    index = np.asarray(index, U64)
    return block_words64(seed, stream, index >> U64(1))[np.arange(len(index)), index & U64(1)]


# --------------------------------------------------------------------------------------------------
# Rounding
# --------------------------------------------------------------------------------------------------


def fma32(a, b, c) -> np.ndarray:
    """a * b + c in float32 with one rounding.

    The product is exact in float64. The sum of product and c is computed in float64 and rounded to
    odd. Then the second rounding, to float32, gives the correctly rounded result (Boldo &
    Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    with np.errstate(over="ignore"):
        p, c = F64(1) * a * b, np.asarray(c, F64)
        s = p + c
        t = s - p
        error = (p - (s - t)) + (c - t)  # TwoSum: s + error is exact
        even = (s.view(np.int64) & 1) == 0
        s = np.where(even & (error != 0), np.nextafter(s, np.copysign(np.inf, error)), s)
        return s.astype(np.float32)


def fma64(a, b, c) -> np.ndarray:
    """a * b + c in float64 with one rounding, by rational arithmetic."""

    def one(a: float, b: float, c: float) -> float:
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if exact == 0:
            return a * b + c  # for the sign of an exact zero, IEEE 754's rule
        return exact.numerator / exact.denominator  # Python's division of integers rounds once

    return np.array([one(*map(float, abc)) for abc in np.broadcast(a, b, c)])


def fma(dtype: np.dtype, a, b, c) -> np.ndarray:
    return fma64(a, b, c) if dtype == np.float64 else fma32(a, b, c)


def working(dtype: np.dtype) -> np.dtype:
    """The working type: the type in which an element is computed before it is rounded."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def finite_values(dtype: np.dtype) -> np.ndarray:
    """All finite values of a type of at most 16 bits, in ascending order, as float64; one zero."""
    patterns = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    with np.errstate(invalid="ignore"):  # some bit patterns are NaN
        values = patterns.view(dtype).astype(F64)
    return np.unique(values[np.isfinite(values)] + 0.0)


def neighbour(dtype: np.dtype, bound: float, side: str) -> float:
    """The nearest value that is ">=", "<=" or "<" `bound`; an infinity if there is none."""
    if dtype.itemsize <= 2:
        values = finite_values(dtype)
        above = int(np.searchsorted(values, bound, side="right" if side == "<=" else "left"))
        if side == ">=":
            return float(values[above]) if above < len(values) else math.inf
        return float(values[above - 1]) if above > 0 else -math.inf
    largest = float(np.finfo(dtype).max)
    if side == ">=":
        value = dtype.type(np.clip(bound, -largest, largest))
        if float(value) < bound:
            with np.errstate(over="ignore"):
                value = np.nextafter(value, dtype.type(math.inf))
        return float(value) + 0.0
    if side == "<":
        # no value lies between the two, so "<=" of the smaller one is equivalent
        bound = math.nextafter(bound, -math.inf)
    return -neighbour(dtype, -bound, ">=") + 0.0


def clamp_and_round(dtype: np.dtype, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clamp, then round; `low` and `high` are values of `dtype`, so rounding stays inside."""
    low, high = x.dtype.type(low), x.dtype.type(high)
    # if both are equal, the result is the bound, which decides the sign of a zero
    x = np.where(x > low, x, low)
    return np.where(x < high, x, high).astype(dtype)


# --------------------------------------------------------------------------------------------------
# Uniform
# --------------------------------------------------------------------------------------------------


def uniform_bounds(dtype: np.dtype, low: float, high: float) -> tuple[float, float]:
    """The smallest value >= low and the largest value < high, in `dtype`."""
    return neighbour(dtype, low, ">="), neighbour(dtype, high, "<")


def uniform(dtype: np.dtype, seed: int, stream: int, index, low: float, high: float) -> np.ndarray:
    """Uniform numbers in [low, high), bit for bit."""
    wide = working(dtype)
    if wide == np.float64:
        t = ((words64(seed, stream, index).view(np.int64) >> 11) + 0.5) * 2.0**-52
    else:
        t = ((words32(seed, stream, index).view(np.int32) >> 8) + 0.5) * 2.0**-23
    half, mid = wide.type((high - low) / 2), wide.type((high + low) / 2)
    x = fma(wide, t.astype(wide), half, mid)
    return clamp_and_round(dtype, x, *uniform_bounds(dtype, low, high))


# --------------------------------------------------------------------------------------------------
# Normal
# --------------------------------------------------------------------------------------------------


def radius_uniform32(r) -> np.ndarray:
    """u of a radius word; scaling by a power of two is exact: this sum rounds as the fma."""
    half_word = (np.asarray(r, U64) >> U64(1)).astype(np.float32)
    return (half_word + np.float32(0.5)) * np.float32(2.0**-31)


def radius_uniform64(r) -> np.ndarray:
    return ((np.asarray(r, U64) >> U64(1)).astype(F64) + 0.5) * 2.0**-63


def sincos32(a) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of 2 pi a / 2^32 in float64; the reduction to 1/8 turn is exact."""
    a = np.asarray(a, np.int64)
    quarter = (a + (1 << 29)) >> 30
    x = (a - (quarter << 30)) * (2 * math.pi / 2**32)
    s, c = np.sin(x), np.cos(x)
    quarter &= 3
    return np.choose(quarter, [s, c, -s, -c]), np.choose(quarter, [c, -s, -c, s])


def box_muller32(r, a) -> tuple[np.ndarray, np.ndarray]:
    """The pair of a radius word and an angle word in float64: error 1e-8 ulp of float32."""
    radius = np.sqrt(-2 * np.log(radius_uniform32(r).astype(F64)))
    sin, cos = sincos32(a)
    return radius * cos, radius * sin


def box_muller64(r, a) -> tuple[np.ndarray, np.ndarray]:
    """The exact pair of two 64-bit words, as arrays of mpmath numbers."""
    pairs = []
    with mpmath.workprec(160):
        for u, angle in zip(radius_uniform64(r), a, strict=True):
            radius = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(float(u))))
            turns = mpmath.mpf(int(angle)) / 2**63
            pairs.append((radius * mpmath.cospi(turns), radius * mpmath.sinpi(turns)))
    even, odd = np.array(pairs, dtype=object).T
    return even, odd


def normal_z(dtype: np.dtype, seed: int, stream: int, index) -> np.ndarray:
    """The exact standard normal number of every element; mpmath numbers for dtype float64."""
    index = np.asarray(index, U64)
    if working(dtype) == np.float64:
        words = block_words64(seed, stream, index >> U64(1))
        radius, angle = words[:, 0], words[:, 1]
        even, odd = box_muller64(radius, angle)
    else:
        words = block_words(seed, stream, index >> U64(2))
        first = np.arange(len(index)), index & U64(2)
        second = np.arange(len(index)), (index & U64(2)) + U64(1)
        even, odd = box_muller32(words[first], words[second])
    return np.where(index & U64(1), odd, even)


# --------------------------------------------------------------------------------------------------
# Truncated normal
# --------------------------------------------------------------------------------------------------


class Window:
    """The quantile function of the standard normal distribution on [low, high].

    To avoid cancellation, probabilities are counted from the nearer tail, or from the middle near
    zero, never as 1 - p.
    """

    def __init__(self, low: float, high: float):
        # enough bits for the difference of the tails of any two doubles
        with mpmath.workprec(2400):
            low_, high_ = mpmath.mpf(low), mpmath.mpf(high)
            self.left = upper_tail(-low_)  # Phi(low)
            self.right = upper_tail(high_)  # 1 - Phi(high)
            self.mass = upper_tail(low_) - self.right
            if self.mass <= 0:
                raise ValueError(f"no probability in [{low!r}, {high!r}]")
            self.middle = self.left - mpmath.mpf(0.5)  # Phi(low) - 1/2
            self.log_mass = float(mpmath.log(self.mass))
            self.left_ratio = float(self.left / self.mass)
            self.right_ratio = float(self.right / self.mass)
            # Phi(z) - 1/2 = middle + u mass must not cancel. The mass is split into a head of 20
            # bits, whose product with the 33 bits of u is exact, and a tail; middle is split at the
            # same bit.
            grid = mpmath.mpf(2) ** (mpmath.floor(mpmath.log(self.mass, 2)) - 19)
            self.mass_head = float(mpmath.floor(self.mass / grid) * grid)
            self.mass_tail = float(self.mass - self.mass_head)
            grid /= 2**33
            self.middle_head = float(mpmath.floor(self.middle / grid) * grid)
            self.middle_tail = float(self.middle - mpmath.mpf(self.middle_head))
        # Near 1/2 two tails agree in more bits the narrower the window is.
        self.bits = 400 + max(0, -math.frexp(high - low)[1])

    def quantile_of(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """z in float64 of u and v = 1 - u; both are given, so that neither end loses digits."""
        c = self.middle_head + u * self.mass_head + (self.middle_tail + u * self.mass_tail)
        middle = np.abs(c) < 0.25
        left, right = ~middle & (c < 0), ~middle & (c > 0)
        log_left = self.log_mass + np.log(self.left_ratio + u[left])
        log_right = self.log_mass + np.log(self.right_ratio + v[right])
        z = np.empty_like(c)
        z[left] = special.ndtri_exp(log_left)
        z[right] = -special.ndtri_exp(log_right)
        z[middle] = math.sqrt(2) * special.erfinv(2 * c[middle])
        return z

    def quantile32(self, word) -> np.ndarray:
        """The exact z of 32-bit words in float64: error below 1e-5 ulp of float32."""
        u = (np.asarray(word, F64) + 0.5) * 2.0**-32
        return self.quantile_of(u, 1 - u)

    def quantile64(self, word) -> np.ndarray:
        """The exact z of 64-bit words, as mpmath numbers."""
        return self.quantile_exact([2 * int(w) + 1 for w in word], 65)

    def quantile_exact(self, numerators: list[int], bits: int) -> np.ndarray:
        """z of u = numerator / 2^bits in mpmath, by Halley's method from the float64 value."""
        whole = 1 << bits
        u = [n / whole for n in numerators]
        v = [(whole - n) / whole for n in numerators]
        result = []
        with mpmath.workprec(self.bits):
            for n, guess in zip(
                numerators, self.quantile_of(np.array(u), np.array(v)), strict=True
            ):
                near, part = (self.left, n) if guess <= 0 else (self.right, whole - n)
                tail = near + part * self.mass / whole
                x = abs(mpmath.mpf(float(guess)))
                step = (upper_tail(x) - tail) / mpmath.npdf(x)
                x += step / (1 - x * step / 2)
                result.append(-x if guess <= 0 else x)
        return np.array(result, dtype=object)


def upper_tail(x):
    """1 - Phi(x) to full relative precision, for any x."""
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2


def truncated_bounds(
    dtype: np.dtype, loc: float, scale: float, low: float, high: float
) -> tuple[float, float]:
    """The smallest value >= loc + low scale and the largest <= loc + high scale, in `dtype`."""
    return neighbour(dtype, loc + low * scale, ">="), neighbour(dtype, loc + high * scale, "<=")


# --------------------------------------------------------------------------------------------------
# All of a location and a scale
# --------------------------------------------------------------------------------------------------


class Standard(NamedTuple):
    """A distribution whose elements are z scale + loc, rounded once and clamped to bounds.

    Attributes
    ----------
    z : callable
        (dtype, seed, stream, index, *shape) -> the exact z of every element, as floats, or as
    mpmath
        numbers for dtype float64. shape holds the parameters after location and scale.
    bounds : callable
        (dtype, *parameters) -> the smallest and the largest value; infinite if unbounded.
    quantile : callable or None
        (width, words, *shape) -> the exact z of words, if an element uses one word.
    """

    z: Callable[..., np.ndarray]
    bounds: Callable[..., tuple[float, float]]
    quantile: Callable[..., np.ndarray] | None


def without_bounds(dtype: np.dtype, loc: float, scale: float) -> tuple[float, float]:
    return -math.inf, math.inf


def of_one_word(quantile: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """`Standard.z` of a distribution that uses one word for each element."""

    def z(dtype: np.dtype, seed: int, stream: int, index, *shape: float) -> np.ndarray:
        width = 8 * working(dtype).itemsize
        words = words64 if width == 64 else words32
        return quantile(width, words(seed, stream, index), *shape)

    return z


@cache
def window(low: float, high: float) -> Window:
    return Window(low, high)


def truncated_quantile(width: int, words, low: float, high: float) -> np.ndarray:
    of = window(low, high)
    return of.quantile64(words) if width == 64 else of.quantile32(words)


STANDARD = {
    "normal": Standard(normal_z, without_bounds, None),
    "truncated_normal": Standard(
        of_one_word(truncated_quantile), truncated_bounds, truncated_quantile
    ),
}
"""By the name of the method."""


# --------------------------------------------------------------------------------------------------
# Comparison
# --------------------------------------------------------------------------------------------------


def ulp_errors(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|got - exact| in ulp: the spacing of got's type in the binade of `exact`."""
    info = np.finfo(got.dtype)
    smallest = float(info.smallest_normal)
    exponent = np.frexp(np.maximum(np.abs(exact.astype(F64)), smallest))[1] - 1
    spacing = np.ldexp(1.0, exponent - info.nmant)  # 2^exponent <= |exact|
    if exact.dtype != object:
        return np.abs(got.astype(F64) - exact) / spacing
    difference = [abs(mpmath.mpf(float(g)) - e) for g, e in zip(got, exact, strict=True)]
    return np.array([float(d / s) for d, s in zip(difference, spacing, strict=True)])
