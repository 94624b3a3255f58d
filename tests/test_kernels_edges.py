"""Edge cases of the kernels that random draws seldom reach."""

import mpmath
import numpy as np
import pytest

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.streams import distributions


@pytest.mark.parametrize("dtype, tie", [("float8_e4m3fn", 1 + 2**-4), ("float8_e5m2", 1 + 2**-3)])
def test_float8_ties_go_to_even(isa, dtype, tie):
    """Halfway between 1, whose last bit is even, and the next number."""
    values = wf.Stream(0).normal(loc=tie, scale=0, shape=(70,), dtype=dtype)
    assert (values.astype(np.float64) == 1).all()


@pytest.mark.parametrize("bound", [2.0, 2.1, 2.5])
def test_symmetric_windows_round_the_central_kernels_limit(isa, bound):
    """Beyond 2 sigma another kernel is used: words of the window, its ends, and the middle."""
    words = np.arange(0, 2**32, 2**32 // 251, dtype=np.uint64)
    words = np.concatenate([words, [2**31 - 1, 2**31, 2**32 - 1]]).astype(np.uint32)
    words = np.pad(words, (0, -len(words) % 4))
    distribution = distributions.truncated_normal(np.dtype(np.float32), 0.0, 1.0, -bound, bound)
    got = _core.transform(distribution, words).view(np.float32)
    with mpmath.workdps(40):
        p, top = mpmath.ncdf(-bound), mpmath.ncdf(bound)
        for word, z in zip(words.tolist(), got.tolist(), strict=True):
            t = 2 * (p + (word + mpmath.mpf(1) / 2) / 2**32 * (top - p)) - 1
            exact = mpmath.sqrt(2) * mpmath.erfinv(t)
            assert abs(z - exact) <= 4 * np.spacing(np.float32(abs(float(exact)))), word


@pytest.mark.parametrize("name", ["avx", "sse2", "", "AVX2", "scalar "])
def test_a_set_that_is_not_supported_raises(name):
    before = _core.isa()
    with pytest.raises(ValueError, match="instruction set must be one of") as error:
        _core.set_isa(name)
    assert repr(name) in str(error.value)
    assert _core.isa() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reflector_of_a_zero_head(isa, dtype):
    """A leading element of 0, of either sign, counts as positive: sign -1. Alone it has tau 2."""
    for tail in ([], [3.0, 4.0]):
        for head in (0.0, -0.0):
            v = np.zeros((4, 1 + len(tail)), dtype)
            v[0] = [head, *tail]
            tau, sign, factors = np.empty(4, dtype), np.empty(4, dtype), np.empty((4, 4), dtype)
            packed = np.empty(_core.packed_size(4, 1 + len(tail)), dtype)
            _core.reflectors(v, 1, tau, sign, factors, packed)
            assert sign[0] == -1
            assert tau[0] == (1 if tail else 2)
            assert v[0].tolist() == [1, *(dtype(x) * dtype(1 / 5) for x in tail)]
