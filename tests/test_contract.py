"""Every type and distribution compared with the reference, on every instruction set."""

import math
import re
from functools import cache

import mpmath
import numpy as np
import pages
import pytest
import reference
from draws import DRAWS, INF, WINDOWS
from reference import DTYPES, NARROW
from strategies import depth

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.streams import distributions, truncation

SEED, NAME = 0x9E3779B97F4A7C15, "blocks.11.mlp.up"
STREAM = reference.stream_id(NAME)
WIDE = ["float32", "float64"]

# A run that fills whole vectors, the first and last blocks of the index space, the carries of the
# block number of the 32-bit types and of float64, and a start inside a block.
RUNS = [(0, depth(1500)), (5, 70), (2**33 - 35, 70), (2**34 - 35, 70), (2**63 - 71, 71)]
INDEX = np.concatenate(
    [np.arange(count, dtype=np.uint64) + np.uint64(start) for start, count in RUNS]
)


def draw(kind: str, dtype: str, *parameters: float) -> np.ndarray:
    """Draw the elements of INDEX."""
    method = getattr(wf.Stream(SEED, NAME), kind)
    return np.concatenate(
        [
            method(*parameters, (start + count,), dtype=dtype, index=np.s_[start:])
            for start, count in RUNS
        ]
    )


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.dtype.itemsize}")


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(bits(got), bits(expected))


# --------------------------------------------------------------------------------------------------
# The program in docs/contract.md
# --------------------------------------------------------------------------------------------------


def test_program_of_the_page():
    sources = [source for _, source in pages.examples(pages.DOCS / "contract.md")]
    assert len(sources[0].splitlines()) <= 40
    program: dict = {}
    for source in sources:
        if not source.startswith(">>>"):
            exec(source, program)
    index = INDEX[-200:]
    for dtype, width in ("float32", 32), ("float64", 64):
        x = [program["uniform"](SEED, NAME, int(i), -0.3, 0.7, width) for i in index]
        assert_same_bits(
            np.array(x, dtype), reference.uniform(DTYPES[dtype], SEED, STREAM, index, -0.3, 0.7)
        )
        for kind, standard in reference.STANDARD.items():
            shape = DRAWS[kind].wide[2:]
            z = [program[kind](SEED, NAME, int(i), 0.0, 1.0, *shape, width) for i in index]
            exact = standard.z(DTYPES[dtype], SEED, STREAM, index, *shape).astype(float)
            np.testing.assert_allclose(z, exact, rtol=1e-12, atol=1e-14)


# --------------------------------------------------------------------------------------------------
# Words and uniform: bit for bit
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, number",
    [(None, 0), (0, 0), (2**64 - 1, 2**64 - 1), ("", None), ("fc.weight\0mask", None)],
)
def test_words(isa, name, number):
    stream = wf.Stream(SEED, name)
    number = reference.stream_id(name) if number is None else number
    for start, count in RUNS:
        index = np.arange(count, dtype=np.uint64) + np.uint64(start)
        assert_same_bits(stream.bits(count, offset=start), reference.words32(SEED, number, index))
        words = stream.bits(count, offset=start, dtype="uint64")
        assert_same_bits(words, reference.words64(SEED, number, index))


def check_uniform(dtype: str, low: float, high: float) -> None:
    """The bits must equal the contract's, or an error is raised where it defines no values."""
    type_ = DTYPES[dtype]
    smallest, largest = reference.uniform_bounds(type_, low, high)
    with np.errstate(over="ignore"):
        wide = reference.working(type_).type
        finite = np.isfinite([wide((high - low) / 2), wide((high + low) / 2)]).all()
    if not (finite and -np.inf < smallest <= largest < np.inf):
        with pytest.raises(ValueError, match=re.escape(repr(high))):
            draw("uniform", dtype, low, high)
        return
    x = draw("uniform", dtype, low, high)
    assert_same_bits(x, reference.uniform(type_, SEED, STREAM, INDEX, low, high))
    assert (low <= x.astype(float)).all() and (x.astype(float) < high).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "low, high",
    [
        (0.0, 1.0),
        (-1.0, 1.0),
        (-0.3, 0.7),
        (-0.0, 1.0),
        (-1.0, -0.0),
        (0.1, 0.11),
        (-447.3, 448.2),  # beyond the largest float8_e4m3fn
        (-1e6, 7e4),  # beyond the largest float16
        (-3.4e38, 3.4e38),
        (3e38, 3.5e38),  # contains the largest float32
        (-1e308, 7e307),
        (-1e308, 1e308),
        (-1.7e308, 1.7e308),  # high - low is infinite
        (1e-45, 1e-38),  # subnormal in float32
        (-1e-40, 3e-40),
        (-1e-50, 1e-50),  # contains only zero in float32
        (-5e-324, 5e-324),
        (-6e-5, 6.2e-5),  # subnormal in float16
        (-2e-9, 0.01),
        (0.999, 1.001),  # contains one value of the 8-bit types
        (1.0, 1.0 + 2.0**-23),
        (1.0 + 2.0**-24, 1.0 + 2.0**-22),
        (1.0 + 2.0**-30, 1.0 + 2.0**-29),  # contains no value except of float64
        (16.1, 17.9),  # contains no value of the 8-bit types
    ],
)
def test_uniform(isa, dtype, low, high):
    check_uniform(dtype, low, high)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [1.0, -1.0, 0.0, -0.046875, 2.0**-14, 240.0])
def test_uniform_of_one_value(isa, dtype, value):
    low = float(DTYPES[dtype].type(value))
    high = reference.neighbour(DTYPES[dtype], np.nextafter(low, np.inf), ">=")
    high = high if math.isfinite(high) else 2 * low  # beyond the largest value of the type
    check_uniform(dtype, low, high)
    assert (draw("uniform", dtype, low, high).astype(float) == low).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_of_random_intervals(isa, dtype):
    """Bounds from random bit patterns: every exponent of float64 and of the type itself."""
    rng, n = np.random.default_rng(20), depth(20)
    ends = np.concatenate(
        [
            rng.integers(2**64, size=(2 * n, 2), dtype=np.uint64).view(np.float64),
            rng.integers(2**32, size=(2 * n, 2), dtype=np.uint32).view(np.float32).astype(float),
            rng.standard_normal((n, 2)),
            rng.standard_normal((n, 1)) * (1 + rng.standard_normal((n, 2)) * 1e-7),
            np.ldexp(rng.standard_normal((2 * n, 2)), rng.integers(-20, 10, size=(2 * n, 1))),
        ]
    )
    for low, high in np.sort(ends[np.isfinite(ends).all(axis=1)], axis=1).tolist():
        check_uniform(dtype, low, high)


# --------------------------------------------------------------------------------------------------
# Location and scale
# --------------------------------------------------------------------------------------------------

SHAPED = [(kind, shape) for kind in reference.STANDARD for shape in DRAWS[kind].shapes]
UNBOUNDED = [kind for kind in reference.STANDARD if DRAWS[kind].shapes == ((),)]


def assert_within_4_ulp(got: np.ndarray, exact: np.ndarray) -> None:
    error = reference.ulp_errors(got, exact)
    worst = int(np.argmax(error))
    assert error[worst] <= 4, f"{error[worst]} ulp: got {got[worst]!r}, exact {exact[worst]!r}"


@cache
def exact_z(kind: str, dtype: str, *shape: float) -> np.ndarray:
    return reference.STANDARD[kind].z(DTYPES[dtype], SEED, STREAM, INDEX, *shape)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("kind, shape", SHAPED)
def test_the_standard_one(isa, dtype, kind, shape):
    low, high = reference.STANDARD[kind].bounds(DTYPES[dtype], 0.0, 1.0, *shape)
    exact = np.minimum(np.maximum(exact_z(kind, dtype, *shape), low), high)
    assert_within_4_ulp(draw(kind, dtype, 0.0, 1.0, *shape), exact)


@pytest.mark.parametrize("kind", UNBOUNDED)
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(
    "loc, scale",
    [(0.0, 0.02), (-0.7, 3.3), (1e-3, 1e-40), (3.0, 0.0), (-0.0, 0.0), (1e30, 1e37), (0.0, 5e-324)],
)
def test_others_are_an_fma_of_the_standard_one(isa, kind, dtype, loc, scale):
    wide = DTYPES[dtype].type
    z = draw(kind, dtype, 0.0, 1.0)
    expected = reference.fma(DTYPES[dtype], z, wide(scale), wide(loc + 0.0))
    assert_same_bits(draw(kind, dtype, loc, scale), expected)


@pytest.mark.parametrize("kind", UNBOUNDED)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("loc, scale", [(0.0, 1.0), (-0.01, 0.02), (1e-6, 1e-7), (100.0, 3e4)])
def test_narrow_ones_are_the_rounded_float32(isa, kind, dtype, loc, scale):
    with np.errstate(over="ignore"):
        expected = draw(kind, "float32", loc, scale).astype(DTYPES[dtype])
    got = draw(kind, dtype, loc, scale)
    nan = np.isnan(expected.astype(float))
    np.testing.assert_array_equal(np.isnan(got.astype(float)), nan)
    assert_same_bits(got[~nan], expected[~nan])


# --------------------------------------------------------------------------------------------------
# Truncated normal
# --------------------------------------------------------------------------------------------------

# Near zero, both tails are about 1/2 and have many digits in common.
TINY_WINDOWS = [
    (-1e-100, 1e-100),
    (-1e-108, 1e-108),
    (1e-113, 1e-112),
    (-1e-120, 1e-120),
    (-3e-125, 1e-125),
    (-1e-200, -1e-201),
    (0.0, 1e-300),
    (-1e-320, 5e-320),
]


@pytest.mark.parametrize("low, high", TINY_WINDOWS)
def test_truncated_normal_of_tiny_windows(isa, low, high):
    exact = exact_z("truncated_normal", "float64", low, high)
    bounds = reference.truncated_bounds(DTYPES["float64"], 0.0, 1.0, low, high)
    assert bounds == (low, high)
    got = draw("truncated_normal", "float64", 0.0, 1.0, low, high)
    assert_within_4_ulp(got, np.minimum(np.maximum(exact, low), high))


@pytest.mark.parametrize("low, high", TINY_WINDOWS)
def test_tiny_windows_have_all_digits(low, high):
    """Even in a tiny window the numbers are the exact ones, rounded."""
    window = truncation.window(low, high, 64)
    with mpmath.workprec(2400):
        mass = reference.upper_tail(mpmath.mpf(low)) - reference.upper_tail(mpmath.mpf(high))
        exact = float(mass * mpmath.mpf(2) ** (window.t_exponent - 63))
    assert abs(window.t_step - exact) <= math.ulp(exact) / 2


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("low, high", [(-2.0, 2.0), (4.0, 6.0), (-INF, 0.5)])
@pytest.mark.parametrize("loc, scale", [(0.0, 0.02), (-0.7, 3.3), (1e3, 1e-3)])
def test_truncated_normal_is_an_fma_of_the_standard_one(isa, dtype, low, high, loc, scale):
    type_ = DTYPES[dtype]
    z = draw("truncated_normal", dtype, 0.0, 1.0, low, high)
    x = reference.fma(type_, z, type_.type(scale), type_.type(loc))
    inside = (z != reference.neighbour(type_, low, ">=")) & (
        z != reference.neighbour(type_, high, "<=")
    )
    assert inside.mean() > 0.99
    bounds = reference.truncated_bounds(type_, loc, scale, low, high)
    expected = reference.clamp_and_round(type_, x, *bounds)
    got = draw("truncated_normal", dtype, loc, scale, low, high)
    assert_same_bits(got[inside], expected[inside])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low, high", WINDOWS)
@pytest.mark.parametrize(
    "loc, scale", [(0.0, 1.0), (0.1, 0.02), (-3.0, 1.7), (0.0, 1e-5), (7.0, 1e3)]
)
def test_truncated_normal_stays_inside(isa, dtype, low, high, loc, scale):
    """Numbers stay in the window in their type; narrow types are rounded float32 values."""
    type_ = DTYPES[dtype]
    smallest, largest = reference.truncated_bounds(type_, loc, scale, low, high)
    if smallest > largest:
        with pytest.raises(ValueError, match=re.escape(repr(high))):
            draw("truncated_normal", dtype, loc, scale, low, high)
        return
    got = draw("truncated_normal", dtype, loc, scale, low, high)
    values = got.astype(float)
    assert (loc + low * scale <= values).all() and (values <= loc + high * scale).all()
    if dtype in NARROW:
        x = draw("truncated_normal", "float32", loc, scale, low, high)
        assert_same_bits(got, reference.clamp_and_round(type_, x, smallest, largest))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loc", [0.1, -0.0, -1000.0, 1e6])  # the last two exceed narrow types
@pytest.mark.parametrize("low, high", [(-2.0, 2.0), (-INF, INF), (1.0, INF), (50.0, 60.0)])
def test_truncated_normal_of_scale_zero(isa, dtype, loc, low, high):
    """With scale 0 every number is loc, whatever the bounds are."""
    expected = draw("normal", dtype, loc, 0.0)
    assert_same_bits(draw("truncated_normal", dtype, loc, 0.0, low, high), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low, high", [(39.0, 40.0), (-41.0, -40.0), (100.0, INF), (-INF, -60.0)])
def test_window_without_probability(isa, dtype, low, high):
    with pytest.raises(ValueError, match=re.escape(repr(high))):
        draw("truncated_normal", dtype, 0.0, 1.0, low, high)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "low, high", [(2.0, 2.0), (3.0, 1.0), (np.nan, 1.0), (0.0, np.nan), (INF, INF), (-INF, -INF)]
)
def test_window_without_width(isa, dtype, low, high):
    for scale in (1.0, 0.0):
        with pytest.raises(ValueError, match=r"low must be below high"):
            draw("truncated_normal", dtype, 0.0, scale, low, high)


# --------------------------------------------------------------------------------------------------
# Words at the edges, which no short run of a stream would meet
# --------------------------------------------------------------------------------------------------


def edge_words(width: int) -> list[int]:
    """Both ends, the powers of two and the multiples of 1/8 turn, and their neighbours."""
    centres = [0, *(1 << k for k in range(width)), *(k << width - 3 for k in range(8))]
    near = {c + d for c in centres for d in (-3, -2, -1, 0, 1, 2, 3)}
    return sorted({word % (1 << width) for word in near})


def split(words: list[int], width: int) -> np.ndarray:
    """Split words into the 32-bit words of whole blocks."""
    per_block = 128 // width
    words = words + words[: -len(words) % per_block]
    return np.array(words, f"<u{width // 8}").view(np.uint32)


def transform(distribution: _core.Distribution, dtype: str, words: np.ndarray) -> np.ndarray:
    """The elements that are computed from these words."""
    return _core.transform(distribution, words).view(DTYPES[dtype])


@pytest.mark.parametrize("dtype, width", [("float32", 32), ("float64", 64)])
def test_normal_of_edge_words(isa, dtype, width):
    edges = edge_words(width)
    angles = edges if width == 32 else edges[::40]
    pairs = [word for r in edges for a in angles for word in (r, a)]
    distribution = distributions.normal(np.dtype(dtype), 0.0, 1.0)
    got = transform(distribution, dtype, split(pairs, width))[: len(pairs)]
    radius, angle = np.array(pairs, f"u{width // 8}").reshape(-1, 2).T
    exact = getattr(reference, f"box_muller{width}")(radius, angle)
    for half, expected in zip((got[0::2], got[1::2]), exact, strict=True):
        assert_within_4_ulp(half, expected)


@cache
def exact_quantiles(kind: str, width: int, *shape: float) -> np.ndarray:
    """The exact elements of the edge words."""
    edges = np.array(edge_words(width), f"u{width // 8}")
    return reference.STANDARD[kind].quantile(width, edges, *shape)


@pytest.mark.parametrize("dtype, width", [("float32", 32), ("float64", 64)])
@pytest.mark.parametrize(
    "kind, shape", [case for case in SHAPED if reference.STANDARD[case[0]].quantile]
)
def test_edge_words_of_one_word_an_element(isa, dtype, width, kind, shape):
    edges = edge_words(width)
    distribution = getattr(distributions, kind)(np.dtype(dtype), 0.0, 1.0, *shape)
    got = transform(distribution, dtype, split(edges, width))[: len(edges)]
    low, high = reference.STANDARD[kind].bounds(DTYPES[dtype], 0.0, 1.0, *shape)
    exact = np.minimum(np.maximum(exact_quantiles(kind, width, *shape), low), high)
    assert_within_4_ulp(got, exact)
