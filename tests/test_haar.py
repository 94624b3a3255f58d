"""Orthogonal matrices are Haar-distributed; the tests would notice if the signs D were left out.

Statistics with a known expectation are averaged over independent matrices and compared in units of
their standard error. A test fails beyond 6 standard errors (1 in 5e8 for a normal mean). Seeds are
fixed, so it always passes or always fails. There are about 150 comparisons: a new seed gives a
false alarm once in 3 million.

Moments: Collins and Sniady, "Integration with respect to the Haar measure on unitary, orthogonal
and symplectic group", 2006. Traces of powers: Diaconis and Shahshahani, "On the eigenvalues of
random matrices", 1994. The effect of missing signs: Mezzadri, "How to generate random matrices from
the classical compact groups", 2007.
"""

from functools import cache

import numpy as np
import pytest
from scipy import stats

import winit_fast as wf

DRAWS = 40_000
LIMIT = 6.0


@cache
def _haar(n):
    """Draw many n x n matrices."""
    return wf.Orthogonal(batch_axis=0)((DRAWS, n, n), seed=5, name=f"haar{n}", dtype="float64")


@cache
def _without_signs(n):
    """Draw the same products of reflectors without D."""
    x = wf.Stream(5, f"haar{n}").normal(0, 1, (DRAWS, n, n), dtype="float64")
    signs = np.where(np.einsum("kjj->kj", x) < 0, 1.0, -1.0)
    return _haar(n) * signs[:, None, :]


@cache
def _not_gaussian(n):
    """Draw matrices from vectors that are not Gaussian, with the right signs."""
    q, r = np.linalg.qr(np.random.default_rng(5).random((DRAWS, n, n)))
    return q * np.sign(np.einsum("kjj->kj", r))[:, None, :]


def _errors(samples, expectation):
    """Measure the distance between means over draws and an expectation, in standard errors."""
    samples = np.asarray(samples, float)
    deviation = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.abs(samples.mean(axis=0) - expectation) / np.maximum(deviation, 1e-12)


def _even_moments(q):
    n = q.shape[1]
    norm = (n - 1) * n * (n + 2)
    yield q**2, 1 / n
    yield q**4, 3 / (n * (n + 2))
    yield q[:, 0, 0] ** 2 * q[:, 0, 1] ** 2, 1 / (n * (n + 2))
    yield q[:, 0, 0] ** 2 * q[:, 1, 1] ** 2, (n + 1) / norm
    yield q[:, 0, 0] * q[:, 0, 1] * q[:, 1, 0] * q[:, 1, 1], -1 / norm
    yield q[:, -2, 0] * q[:, -2, -1] * q[:, -1, 0] * q[:, -1, -1], -1 / norm


def _odd_moments(q):
    n = q.shape[1]
    yield q, 0
    yield q[:, :1, :1] * q[:, 1:, 1:], 0  # entries of different rows and columns
    yield q[:, -1:, -1:] * q[:, :-1, :-1], 0
    yield np.prod(np.einsum("kjj->kj", q)[:, :3], axis=1), 0
    yield np.trace(q, axis1=1, axis2=2) ** 2, 1
    yield np.einsum("kij,kji->k", q, q), 1
    yield q[:, 0, 0] ** 3 * q[:, 1, 1], 0
    assert n >= 4


def _determinants(q):
    yield np.linalg.det(q), 0


def _traces_of_powers(q):
    # For 2p <= n, tr Q^p has mean 1 (even p) or 0 (odd p) and variance p, because the angles of the
    # eigenvalues repel each other. If they were independent, the variance would be near n.
    power = q
    for p in range(1, q.shape[1] // 2 + 1):
        trace = np.trace(power, axis1=1, axis2=2)
        even = p % 2 == 0
        yield trace, even
        yield trace**2, p + even
        power = power @ q


def _angles(q):
    # For even n, the density of the angles in (0, pi) is (n - 1 + sin((n - 1) t) / sin t) / 2pi if
    # det = 1 and (n - 1 - sin((n - 1) t) / sin t) / 2pi if det = -1; their average is uniform.
    n, bins = q.shape[1], 12
    angles = np.angle(np.linalg.eigvals(q))
    genuine = (angles > 1e-7) & (angles < np.pi - 1e-7)
    for low, high in np.pi / bins * np.array([[i, i + 1] for i in range(bins)]):
        counts = np.sum(genuine & (low <= angles) & (angles < high), axis=1)
        yield counts, (n - 1) / (2 * bins)


def _columns(q):
    # Columns are exchangeable: any two columns have the same joint distribution.
    half = len(q) // 2
    for a, b in ((0, -1), (0, 1), (1, -2)):
        yield np.sort(q[:half], axis=1)[:, 0, a] - np.sort(q[half:], axis=1)[:, 0, b], 0
        yield q[:half, 0, a] * q[:half, 1, 0] - q[half:, 0, b] * q[half:, 1, 0], 0


SEE_SIGNS = [_odd_moments, _determinants, _traces_of_powers, _angles, _columns]


def _worst(test, q):
    return max(_errors(samples, expected).max() for samples, expected in test(q))


@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("test", [_even_moments, *SEE_SIGNS])
def test_haar(test, n):
    assert _worst(test, _haar(n)) < LIMIT


@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("test", SEE_SIGNS)
def test_sees_missing_signs(test, n):
    assert _worst(test, _without_signs(n)) > LIMIT


@pytest.mark.parametrize("n", [4, 8])
def test_even_moments_see_other_faults_but_not_signs(n):
    # These moments do not change if a column changes its sign.
    assert _worst(_even_moments, _without_signs(n)) == _worst(_even_moments, _haar(n))
    assert _worst(_even_moments, _not_gaussian(n)) > LIMIT


def _entry_p(q, i, j):
    # The square of an entry is Beta(1/2, (n - 1)/2), and both signs are equally likely.
    n = q.shape[1]
    cdf = stats.beta(0.5, (n - 1) / 2).cdf
    x = q[:, i, j]
    return stats.kstest(0.5 + 0.5 * np.sign(x) * cdf(x**2), "uniform").pvalue


@pytest.mark.parametrize(("i", "j"), [(0, 0), (3, 0), (0, 3), (2, 2)])
def test_distribution_of_an_entry(i, j):
    # Kolmogorov-Smirnov test at level 1e-8 of four entries.
    assert _entry_p(_haar(4), i, j) > 1e-8


@pytest.mark.parametrize(("i", "j"), [(0, 0), (2, 2), (3, 3)])
def test_distribution_of_an_entry_sees_missing_signs(i, j):
    assert _entry_p(_without_signs(4), i, j) < 1e-8


def test_one_by_one_is_either_sign():
    signs = wf.Orthogonal(batch_axis=0)((DRAWS, 1, 1), seed=5, name="one", dtype="float64")
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert _errors(signs, 0).max() < LIMIT


def test_large_matrices_are_haar_too():
    # One large matrix has enough entries for the mean of their 4th powers, and for the trace. Its
    # size makes the last panel and the last group of reflectors incomplete.
    n = 700
    q = wf.Orthogonal()((n, n), seed=5, name="large", dtype="float64")
    assert abs(np.mean(q**4) * n * (n + 2) / 3 - 1) < 0.01
    assert abs(np.trace(q)) < LIMIT
    assert abs(np.trace(q @ q) - 1) < LIMIT * np.sqrt(2)
