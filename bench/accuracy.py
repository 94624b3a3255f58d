"""Measures the rounding error of every transform.

    python bench/accuracy.py                 all cases: some minutes on two cores
    python bench/accuracy.py log32 normal64  only these cases

For the 32-bit types, ln, sin and cos are measured on every input that can occur. The normal
distribution is measured on every radius word and on every angle word, each paired with one word of
the other kind. The truncated normal is measured on every word for two windows, and on one word in
64 for the other windows. For float64, the inputs are random words and edge cases.

An error is given in ulp: the distance between adjacent values of the type in the binade of the
exact value. For the 32-bit types the exact values are the float64 results of tests/reference.py;
for float64 they are computed in x86's long double, which has 64 significant bits. The errors of
these exact values are measured first, against mpmath, and printed. The exit status is 1 if an error
exceeds its bound.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mpmath
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import reference

import winit_fast._core as _core
from winit_fast.streams import distributions

F64, U64, LONG = np.float64, np.uint64, np.longdouble
INF = math.inf
PIECE = 1 << 17  # words in one NumPy operation, few enough to stay in the cache
TASK = 1 << 24  # words that a process takes at one time
RANDOM = 10_000_000  # float64 words for each case

# --------------------------------------------------------------------------------------------------
# float32: every word, except that most windows get one word in 64
# --------------------------------------------------------------------------------------------------

# What one step yields: the words, the computed values, the exact values.
Step = tuple[np.ndarray, np.ndarray, np.ndarray]


def interleave(r: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Interleave radius words and angle words, as the words of whole blocks."""
    return np.stack([r, a], axis=-1).reshape(-1).view(np.uint32)


def scattered(k: np.ndarray) -> np.ndarray:
    """Permute the 32-bit words, so that they are no longer in order (Fibonacci hashing)."""
    return k * np.uint32(0x9E3779B1)


def log32(k: np.ndarray) -> Iterator[Step]:
    """Measure ln on half of the radius words: the lowest bit of a radius word is not used."""
    u = reference.radius_uniform32(k << np.uint32(1))
    yield k << np.uint32(1), _core.log_f32(u), np.log(u.astype(F64))


def sincos32(k: np.ndarray) -> Iterator[Step]:
    for got, exact in zip(_core.sincos_f32(k), reference.sincos32(k), strict=True):
        yield k, got, exact


def normal32(k: np.ndarray) -> Iterator[Step]:
    """Measure all radius words and all angle words, each with one word of the other kind."""
    got = transform32(normal("float32"), interleave(k, scattered(k)))
    even, odd = reference.box_muller32(k, scattered(k))
    yield k, got[0::2], even
    yield k, got[1::2], odd


@functools.cache
def normal(dtype: str) -> _core.Distribution:
    return distributions.normal(np.dtype(dtype), 0.0, 1.0)


def transform32(distribution: _core.Distribution, words: np.ndarray) -> np.ndarray:
    return _core.transform(distribution, words).view(np.float32)


def transform64(distribution: _core.Distribution, words: np.ndarray) -> np.ndarray:
    return _core.transform(distribution, words).view(np.float64)


@functools.cache
def window(dtype: str, low: float, high: float):
    """Return the distribution, its exact quantiles, and the values that it is clamped to."""
    return (
        distributions.truncated_normal(np.dtype(dtype), 0.0, 1.0, low, high),
        reference.Window(low, high),
        reference.truncated_bounds(reference.DTYPES[dtype], 0.0, 1.0, low, high),
    )


def truncated32(low: float, high: float, k: np.ndarray) -> Iterator[Step]:
    distribution, exact, bounds = window("float32", low, high)
    yield k, transform32(distribution, k), np.clip(exact.quantile32(k), *bounds)


def truncated32_sample(low: float, high: float, k: np.ndarray) -> Iterator[Step]:
    """Take one word in 64: the first words, the last, those in the middle, and scattered ones."""
    quarter = np.uint32(1 << 24)
    starts = np.array([0, (1 << 31) - (1 << 24), (1 << 32) - (1 << 25)], np.uint32)
    part = k // quarter
    words = np.where(part < 3, k + starts[np.minimum(part, 2)], scattered(k))
    yield from truncated32(low, high, words.astype(np.uint32))


# --------------------------------------------------------------------------------------------------
# float64: long double
# --------------------------------------------------------------------------------------------------


def to_long(x) -> np.longdouble:
    return LONG(mpmath.nstr(x, 30))


PI = LONG("3.14159265358979323846264338328")
ROOT_2PI = LONG("2.50662827463100050241576528481")


def sincos_long(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of 2 pi a / 2^64; the reduction to an eighth of a turn is exact."""
    quarter = (a + U64(1 << 61)) >> U64(62)
    x = (a - (quarter << U64(62))).view(np.int64) * (PI * LONG(2.0**-63))
    s, c = np.sin(x), np.cos(x)
    quarter = (quarter & U64(3)).view(np.int64)
    return np.choose(quarter, [s, c, -s, -c]), np.choose(quarter, [c, -s, -c, s])


def log64(words: np.ndarray) -> Iterator[Step]:
    u = reference.radius_uniform64(words)
    yield words, _core.log_f64(u), np.log(u.astype(LONG))


def sincos64(words: np.ndarray) -> Iterator[Step]:
    for got, exact in zip(_core.sincos_f64(words), sincos_long(words), strict=True):
        yield words, got, exact


def box_muller_long(r: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius = np.sqrt(-2 * np.log(reference.radius_uniform64(r).astype(LONG)))
    sin, cos = sincos_long(a)
    return radius * cos, radius * sin


def normal64(words: np.ndarray) -> Iterator[Step]:
    r, a = words, words[::-1].copy()
    got = transform64(normal("float64"), interleave(r, a))
    even, odd = box_muller_long(r, a)
    yield r, got[0::2], even
    yield r, got[1::2], odd


class Mills:
    """Q(x) / phi(x) for x from 1/2 to 40 in long double, by Taylor series at multiples of 1/16.

    M' = x M - 1 gives all derivatives: M^(n+1) = x M^(n) + n M^(n-1).
    """

    STEP, DEGREE = 16, 13

    def __init__(self) -> None:
        rows = []
        with mpmath.workprec(400):
            for j in range(40 * self.STEP + 1):
                x = mpmath.mpf(j) / self.STEP
                m = [reference.upper_tail(x) / mpmath.npdf(x)]
                m.append(x * m[0] - 1)
                for n in range(1, self.DEGREE):
                    m.append(x * m[n] + n * m[n - 1])
                rows.append([to_long(d / mpmath.factorial(n)) for n, d in enumerate(m)])
        self.coefficients = np.array(rows, LONG).T.copy()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        j = np.rint(x * self.STEP).astype(np.intp)
        d = (x - j / F64(self.STEP)).astype(LONG)
        result = self.coefficients[-1][j]
        for row in self.coefficients[-2::-1]:
            result = result * d + row[j]
        return result


@functools.cache
def mills() -> Mills:
    return Mills()


def middle_of_phi(z: np.ndarray) -> np.ndarray:
    """Phi(z) - 1/2 for |z| < 3/4 by its power series, in long double."""
    z = z.astype(LONG)
    h = -z * z / 2
    result = np.zeros_like(z)
    for k in range(16, -1, -1):
        result = result * h + LONG(1) / (math.factorial(k) * (2 * k + 1))
    return result * z / ROOT_2PI


class LongWindow:
    """The distance, in long double, from a float64 to the exact quantile of its word."""

    def __init__(self, exact: reference.Window) -> None:
        with mpmath.workprec(400):
            self.left, self.right = to_long(exact.left), to_long(exact.right)
            self.mass = to_long(exact.mass)
            # Split as in reference.Window, but with 31 bits in the head and the upper 32 bits of u.
            grid = mpmath.mpf(2) ** (mpmath.floor(mpmath.log(exact.mass, 2)) - 30)
            head = mpmath.floor(exact.mass / grid) * grid
            self.mass_head, self.mass_tail = to_long_exactly(head), to_long(exact.mass - head)
            grid /= 2**32
            head = mpmath.floor(exact.middle / grid) * grid
            self.middle_head, self.middle_tail = (
                to_long_exactly(head),
                to_long(exact.middle - head),
            )

    def excess(self, word: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The exact quantile minus z, by one Newton step, whose own error is of second order."""
        unit = LONG(2.0**-64)
        u, v = ((w.astype(LONG) + LONG(0.5)) * unit for w in (word, ~word))
        upper = (word >> U64(32)).astype(LONG) * LONG(2.0**-32)
        lower = ((word & U64(0xFFFFFFFF)).astype(LONG) + LONG(0.5)) * unit
        middle = (self.middle_head + upper * self.mass_head) + (
            self.middle_tail + upper * self.mass_tail + lower * self.mass
        )
        x = np.abs(z).astype(LONG)
        density = np.exp(-x * x / 2) / ROOT_2PI
        ratio = mills()(np.maximum(np.abs(z), 0.5))
        inner = np.abs(z) < 0.7
        near = np.where(inner, z, 0.0)
        return np.where(
            inner,
            (middle - middle_of_phi(near)) / density,
            np.where(
                z < 0,
                (self.left + u * self.mass) / density - ratio,
                ratio - (self.right + v * self.mass) / density,
            ),
        )


def to_long_exactly(x) -> np.longdouble:
    """Convert a number of at most 64 significant bits."""
    mantissa, exponent = mpmath.frexp(x)
    whole = int(mpmath.ldexp(mantissa, 64))
    value = LONG(abs(whole) >> 32) * LONG(2.0**32) + LONG(abs(whole) & 0xFFFFFFFF)
    return np.ldexp(value if whole >= 0 else -value, int(exponent) - 64)


@functools.cache
def long_window(low: float, high: float) -> LongWindow:
    return LongWindow(reference.Window(low, high))


def truncated64(low: float, high: float, words: np.ndarray) -> Iterator[Step]:
    distribution, quantiles, (smallest, largest) = window("float64", low, high)
    got = transform64(distribution, words.view(np.uint32))
    exact = got.astype(LONG) + long_window(low, high).excess(words, got)
    # Very close to zero, what remains of `middle` is smaller than the last bit of a long double.
    zero = np.abs(got) < 2.0**-24 * min(high - low, 1.0)
    exact[zero] = [to_long(z) for z in quantiles.quantile64(words[zero])]
    yield words, got, np.clip(exact, LONG(smallest), LONG(largest))


# --------------------------------------------------------------------------------------------------
# The measurement
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One transform: the function that measures it, how many words, and the bound of its error."""

    steps: Callable[[np.ndarray], Iterator[Step]]
    words: int
    ulp: float
    absolute: float = 0.0  # a larger error in ulp is allowed up to this absolute error
    double: bool = False


NEAR_ZERO = 2.0**-24  # for the 32-bit types: absolute bound where the exact value crosses zero

FULL_WINDOWS = [(-2.0, 2.0), (-100.0, 100.0)]
WINDOWS = [
    (-1.0, 3.0),
    (4.0, 6.0),
    (-30.0, -29.0),
    (37.0, 38.0),
    (0.0, INF),
    (-INF, 0.5),
    (-3.0, 0.0),
    (-8.0, 2.5),
    (-0.5, 0.1),
    (1.0, 1.0000001),
    (-1e-3, 1e-3),
    (-1e-7, 3e-8),
    (2.4, 2.6),
    (-0.68, -0.67),
    (-0.7, INF),
    (-1.0, 1.0),
    (-0.1, 0.1),
    (1e-30, 1.0),
    (-0.001, 5.0),
    (-5.0, -1e-9),
]
# Windows close to zero, which only float64 resolves.
TINY_WINDOWS = [(-1e-108, 1e-108), (1e-113, 1e-112), (-3e-125, 1e-125), (0.0, 1e-300)]
CASES = {
    "log32": Case(log32, 1 << 31, 2),
    "sincos32": Case(sincos32, 1 << 32, 2),
    "normal32": Case(normal32, 1 << 32, 4, NEAR_ZERO),
    **{
        f"truncated32[{low!r},{high!r}]": Case(
            functools.partial(truncated32, low, high), 1 << 32, 4, NEAR_ZERO
        )
        for low, high in FULL_WINDOWS
    },
    **{
        f"truncated32[{low!r},{high!r}]": Case(
            functools.partial(truncated32_sample, low, high), 1 << 26, 4, NEAR_ZERO
        )
        for low, high in WINDOWS
    },
    "log64": Case(log64, RANDOM, 2, double=True),
    "sincos64": Case(sincos64, RANDOM, 2, double=True),
    "normal64": Case(normal64, RANDOM, 4, double=True),
    **{
        f"truncated64[{low!r},{high!r}]": Case(
            functools.partial(truncated64, low, high), RANDOM, 4, double=True
        )
        for low, high in FULL_WINDOWS + WINDOWS + TINY_WINDOWS
    },
}


@dataclass(frozen=True)
class Worst:
    """The largest error, and the word that gives it."""

    ulp: float
    word: int
    got: float
    exact: str
    absolute: float  # largest absolute error of the words whose error in ulp exceeds the bound

    def breaks(self, case: Case) -> bool:
        return self.ulp > case.ulp and self.absolute > case.absolute

    def __str__(self) -> str:
        note = f", at most {self.absolute:.3g} absolute" if self.absolute else ""
        return f"{self.ulp:.4f} ulp at word {self.word:#x}: {self.got!r}, exact {self.exact}{note}"


def worst_of(found: list[Worst]) -> Worst:
    worst = max(found, key=lambda w: w.ulp)
    return replace(worst, absolute=max(w.absolute for w in found))


def examine(case: Case, words: np.ndarray) -> Worst:
    """Find the largest error on these words."""
    digits, smallest = (52, -1022) if case.double else (23, -126)
    found = []
    for word, got, exact in case.steps(words):
        binade = (exact.astype(F64).view(np.int64) & (0x7FF << 52)).view(F64)
        error = np.abs((got - exact).astype(F64))
        ulp = error / (np.maximum(binade, 2.0**smallest) * 2.0**-digits)
        ulp[~(ulp >= 0)] = INF  # NaN counts as an infinite error
        at = int(np.argmax(ulp))
        shown = np.format_float_scientific(exact[at], precision=20, unique=False)
        absolute = float(error[ulp > case.ulp].max(initial=0.0))
        found.append(Worst(float(ulp[at]), int(word[at]), float(got[at]), shown, absolute))
    return worst_of(found)


def edge_words64() -> np.ndarray:
    """Both ends, the powers of two and the multiples of 2^61 (1/8 turn), and their neighbours."""
    centres = [0, *(1 << k for k in range(64)), *(k << 61 for k in range(8))]
    words = sorted({(c + d) % 2**64 for c in centres for d in range(-8, 9)})
    return np.array(words[: len(words) // 2 * 2], U64)


def random_words64(seed: int, count: int) -> np.ndarray:
    """Random words, edge words first and last: normals pair a first word with a last one."""
    rng, edges = np.random.default_rng(seed), edge_words64()
    words = rng.integers(2**64, size=count, dtype=U64)
    words[: len(edges)], words[-len(edges) :] = edges, rng.permutation(edges)
    return words


def run(name: str, isa: str, start: int) -> Worst:
    """Find the largest error of one process's share of the words."""
    _core.set_isa(isa)
    case, found = CASES[name], []
    for begin in range(start, min(start + TASK, case.words), PIECE):
        count = min(PIECE, case.words - begin)
        if case.double:
            words = random_words64(begin, count)
        else:
            words = (np.arange(count, dtype=U64) + U64(begin)).astype(np.uint32)
        found.append(examine(case, words))
    return worst_of(found)


def measure(name: str, isa: str, processes: int) -> Worst:
    starts = range(0, CASES[name].words, TASK)
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return worst_of(pool.map(functools.partial(run, name, isa), starts, chunksize=1))


def report_reference() -> None:
    """Print the errors of the exact values, against mpmath, in ulp of the measured types."""
    rng = np.random.default_rng(9)
    r, a = rng.integers(2**32, size=(2, 2000), dtype=np.uint32)
    with mpmath.workprec(160):
        u = [mpmath.mpf(float(x)) for x in reference.radius_uniform32(r)]
        cos = [mpmath.cospi(mpmath.mpf(int(x)) / 2**31) for x in a]
        exact = np.array([mpmath.sqrt(-2 * mpmath.log(x)) * c for x, c in zip(u, cos, strict=True)])
        error = relative(reference.box_muller32(r, a)[0], exact) * 2.0**24
        print(f"reference normal32: {error:.1e} ulp")
        r, a = rng.integers(2**64, size=(2, 2000), dtype=U64)
        error = relative(box_muller_long(r, a)[0], reference.box_muller64(r, a)[0]) * 2.0**53
        print(f"reference normal64: {error:.1e} ulp")
        for low, high in FULL_WINDOWS + WINDOWS + TINY_WINDOWS:
            exact = reference.Window(low, high)
            words = rng.integers(2**32, size=400, dtype=np.uint32)
            z = exact.quantile_exact([2 * int(w) + 1 for w in words], 33)
            narrow_error = relative(exact.quantile32(words), z) * 2.0**24
            wide = rng.integers(2**64, size=400, dtype=U64)
            z = exact.quantile64(wide)
            near = z.astype(F64)
            long = near.astype(LONG) + LongWindow(exact).excess(wide, near)
            wide_error = relative(long, z) * 2.0**53
            print(
                f"reference truncated [{low!r}, {high!r}]: "
                f"{narrow_error:.1e} ulp of float32, {wide_error:.1e} ulp of float64"
            )


def relative(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest relative error of float64 or long double numbers."""
    error = 0.0
    for g, e in zip(got, exact, strict=True):
        high = float(g)
        error = max(error, float(abs((mpmath.mpf(high) + float(g - high) - e) / e)))
    return error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--isa", default=_core.isa(), choices=_core.supported_isas())
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [
        n
        for n in CASES
        if not arguments.cases or n in arguments.cases or n.split("[")[0] in arguments.cases
    ]
    report_reference()
    failed = False
    for name in chosen:
        begin = time.perf_counter()
        worst = measure(name, arguments.isa, arguments.processes)
        broken = worst.breaks(CASES[name])
        failed |= broken
        seconds = time.perf_counter() - begin
        verdict = "BROKEN" if broken else "ok"
        print(f"{verdict:6} {name}: {worst}  [{seconds:.0f} s]", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
