"""Distributions, tails and independence, each with its rate of false alarms.

Seeds are fixed, so a test that passes always passes. The rate is the probability that a correct
generator fails with a newly chosen seed. All instruction sets give the same bits
(tests/test_hashes.py), so these tests run on one of them.
"""

import numpy as np
import pytest
import reference
from draws import DRAWS
from scipy import special, stats
from strategies import depth

import winit_fast as wf

ALPHA = 1e-6
MANY = depth(10_000_000)


def distance_from_uniform(p: np.ndarray) -> tuple[float, float]:
    """p-values of Kolmogorov-Smirnov and Anderson-Darling tests of sorted numbers in (0, 1)."""
    n = len(p)
    rank = np.arange(1, n + 1)
    distance = max((rank / n - p).max(), (p - (rank - 1) / n).max())
    square = -n - np.mean((2 * rank - 1) * (np.log(p) + np.log1p(-p[::-1])))
    return float(stats.kstwobign.sf(distance * np.sqrt(n))), anderson_darling_tail(square)


def anderson_darling_tail(square: float) -> float:
    """P(A^2 > square) for a fully known distribution, by the asymptotic tail.

    Marsaglia & Marsaglia, "Evaluating the Anderson-Darling distribution", 2004: their approximation
    for z >= 2, which has an error of 2e-6; beyond z = 8 the leading term exp(-z), scaled so that
    both agree at 8.
    """
    z = min(square, 8.0)
    if z < 2:
        return 1.0  # p > 0.09, far from any bound
    inner = 0.0003146 * z
    poly = 1.0776 - (2.30695 - (0.43424 - (0.082433 - (0.008056 - inner) * z) * z) * z) * z
    return float(-np.expm1(-np.exp(poly)) * np.exp(z - square))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kind, parameters, cdf",
    [(kind, *one) for kind, draw in DRAWS.items() for one in draw.distributions],
)
def test_distribution(kind, parameters, cdf, dtype):
    """Rate: 2 in 10^6. Rounding to float32 moves p by at most 1e-7; an error of 1e-3 is noticed."""
    x = getattr(wf.Stream(1, kind), kind)(*parameters, (MANY,), dtype=dtype)
    x.sort()
    p = np.clip(cdf(x.astype(np.float64)), 1e-12, 1 - 1e-12)
    kolmogorov, anderson = distance_from_uniform(p)
    assert kolmogorov > ALPHA
    assert anderson > ALPHA


@pytest.mark.parametrize("dtype", reference.NARROW)
def test_narrow_normal(dtype):
    """The frequency of each value follows from its rounding interval. Rate: 1 in 10^6."""
    x = wf.Stream(2, dtype).normal(0.0, 1.0, (MANY,), dtype=dtype)
    values = reference.finite_values(x.dtype)
    counts = np.bincount(np.searchsorted(values, x.astype(np.float64)), minlength=len(values))
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    expected = MANY * np.where(
        values < 0, np.diff(special.ndtr(edges)), -np.diff(special.ndtr(-edges))
    )
    # values in the tails and, in types with fine spacing, near zero: counted as one class
    rare = expected < 50
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    chi2 = np.sum((observed - expected) ** 2 / np.maximum(expected, 1e-9))
    assert stats.chi2.sf(chi2, len(expected) - 1) > ALPHA


def test_tails():
    """How many of 10^9 numbers exceed 4, 4.25, ... 6 sigma, on either side. Rate: 1 in 10^6."""
    edges = np.arange(4.0, 6.01, 0.25)
    stream, size, chunk = wf.Stream(3, "tails"), 10**9, 1 << 22
    buffer = np.empty(chunk, np.float32)
    tail = []
    for start in range(0, size, chunk):
        count = min(chunk, size - start)
        part = stream.normal(
            0.0, 1.0, (size,), index=np.s_[start : start + count], out=buffer[:count]
        )
        tail.append(part[np.abs(part) >= 4])
    beyond = np.concatenate(tail).astype(np.float64)
    observed = [np.histogram(side, np.append(edges, np.inf))[0] for side in (beyond, -beyond)]
    expected = size * -np.diff(np.append(special.ndtr(-edges), 0))
    chi2 = sum(np.sum((o - expected) ** 2 / expected) for o in observed)
    assert expected.min() > 0.9 and np.abs(beyond).max() < 6.67
    assert stats.chi2.sf(chi2, 2 * len(expected)) > ALPHA


def correlations(streams: list[wf.Stream], size: int) -> np.ndarray:
    """The correlation of every pair of streams, in standard errors."""
    x = np.stack([s.normal(0.0, 1.0, (size,)) for s in streams]).astype(np.float64)
    product = x @ x.T / np.sqrt(size)
    return product[np.triu_indices(len(streams), 1)]


def names() -> list[wf.Stream]:
    base = "model.layers.10.mlp.up_proj.weight"
    changed = [base[:i] + chr(ord(base[i]) ^ 1) + base[i + 1 :] for i in range(len(base))]
    return [wf.Stream(4, name) for name in [base, *changed]]


def seeds() -> list[wf.Stream]:
    return [wf.Stream(seed, "w") for seed in [5, *(5 ^ 1 << bit for bit in range(64))]]


def numbers() -> list[wf.Stream]:
    return [wf.Stream(6, number) for number in [9, *(9 ^ 1 << bit for bit in range(64))]]


@pytest.mark.parametrize("streams", [names, seeds, numbers])
def test_neighbouring_streams_are_independent(streams):
    """Names that differ in one character, and seeds and stream numbers that differ in one bit.

    Rate: 2 in 10^6 for each: for the largest correlation, and for the sum of their squares.
    """
    r = correlations(streams(), 200_000)
    assert stats.norm.sf(np.abs(r).max()) * 2 * len(r) > ALPHA
    assert stats.chi2.sf(np.sum(r**2), len(r)) > ALPHA


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 64, 4096, 2**32, 2**34])
def test_elements_of_one_stream_are_independent(lag):
    """The correlation of elements at a fixed distance, and of their squares. Rate: 2 in 10^6."""
    size, stream = 1_000_000, wf.Stream(7, "lag")
    logical = (lag + size,)
    x = stream.normal(0.0, 1.0, logical, index=np.s_[:size], dtype="float64")
    y = stream.normal(0.0, 1.0, logical, index=np.s_[lag:], dtype="float64")
    for a, b in (x, y), ((x**2 - 1) / np.sqrt(2), (y**2 - 1) / np.sqrt(2)):
        assert 2 * stats.norm.sf(abs(np.sum(a * b)) / np.sqrt(size)) > ALPHA


def test_bits_of_words():
    """Each bit is set half of the time, and no two bits are correlated. Rate: 2 in 10^6."""
    words = wf.Stream(8, "bits").bits(2_000_000)
    size = words.size
    sums, products = np.zeros(32), np.zeros((32, 32))
    # fits into the cache; the sums of so few are exact in float32
    for part in words.reshape(-1, 4000):
        ones = np.unpackbits(part.view(np.uint8).reshape(-1, 4), axis=1).astype(np.float32) * 2 - 1
        sums += ones.sum(axis=0)
        products += ones.T @ ones
    assert stats.chi2.sf(np.sum(sums**2) / size, 32) > ALPHA
    pairs = products[np.triu_indices(32, 1)] / np.sqrt(size)
    assert stats.chi2.sf(np.sum(pairs**2), len(pairs)) > ALPHA
