"""Tensors of float8 with a scale, and the bounds that the scales follow from."""

import math
import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import box_muller32, box_muller64

import winit_fast as wf
from winit_fast.checkpoint import verify, write_checkpoint
from winit_fast.initializers.bounds import bound
from winit_fast.models.float8 import LARGEST, quantised
from winit_fast.models.tensor_spec import TensorSpec

FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
SHAPE = (96, 130)

SCHEMES = {
    "normal": wf.RandomNormal(0.0, 0.02),
    "normal with a mean": wf.RandomNormal(-3.0, 0.5),
    "uniform": wf.RandomUniform(-0.0721, 0.0721),
    "uniform to one side": wf.RandomUniform(-0.03, 300.0),
    "truncated": wf.TruncatedNormal(0.0, 0.02),
    "truncated far away": wf.TruncatedNormal(0.0, 0.02, -100.0, 100.0),
    "one side": wf.TruncatedNormal(1.0, 0.02, -1.0, math.inf),
    "he normal": wf.HeNormal(),
    "he uniform": wf.HeUniform(),
    "lecun": wf.LecunNormal(),
    "truncated scaling": wf.VarianceScaling(),
    "orthogonal": wf.Orthogonal(0.7),
    "sparse": wf.Sparse(0.5),
    "identity": wf.Identity(-5.0),
    "zeros": wf.Zeros(),
    "ones": wf.Ones(),
    "constant": wf.Constant(-1e-4),
    "scaled": wf.Scaled(wf.RandomUniform(-0.02, 0.02), "1 / sqrt(L)", {"L": 7}),
    "computed": wf.Computed(np.linspace(-3, 9, math.prod(SHAPE)).reshape(SHAPE)),
    "parts": wf.Parts(
        [((0, 0), (96, 100), wf.RandomUniform(0.0, 3.0)), ((0, 100), (96, 130), wf.HeNormal())]
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_weight_is_the_tensor_after_one_rounding(scheme, tmp_path):
    """Bit for bit the rounded quotient, in a file too; nothing overflows, nothing is 16 bits."""
    tensor = TensorSpec("w", SHAPE, scheme, dtype="bfloat16", drawn_in="bfloat16")
    weight, scale = quantised(tensor, "w_scale_inv", (3, 2))
    step = scale.array(seed=1)
    assert step.dtype == np.float32 and step.shape == (3, 2) and np.all(step == step[0, 0])
    assert math.frexp(step[0, 0])[0] == 0.5  # a power of two
    for seed in range(3):
        drawn = scheme(SHAPE, seed=seed, name="w")
        own = weight.array(seed)
        assert own.dtype == FLOAT8
        expected = (drawn / step[0, 0]).astype(FLOAT8)
        assert np.array_equal(own.view(np.uint8), expected.view(np.uint8))
        assert np.isfinite(own.astype(np.float32)).all()
        error = np.abs(own.astype(np.float32) * step[0, 0] - drawn)
        assert np.all(error <= np.maximum(np.abs(drawn) * 2.0**-4, step[0, 0] * 2.0**-10))
        limit = bound(scheme, SHAPE, drawn.dtype)
        assert np.abs(drawn).max() <= limit * (1 + 2e-7)
    write_checkpoint(tmp_path, [weight, scale], seed=2)
    assert verify(tmp_path).fresh


def test_a_tensor_of_float64_is_drawn_in_float64():
    scheme = wf.RandomUniform(-0.1, 0.1)
    weight, scale = quantised(TensorSpec("w", SHAPE, scheme, dtype="float64"), "s", ())
    drawn = scheme(SHAPE, seed=1, name="w", dtype="float64")
    expected = (drawn / float(scale.array(seed=1))).astype(FLOAT8)
    assert np.array_equal(weight.array(1).view(np.uint8), expected.view(np.uint8))


@given(st.floats(1e-30, 1e30), st.sampled_from([1.0, 1 + 2**-50, 1 - 2**-50]))
def test_the_scale_is_the_smallest_power_of_two_that_covers_the_bound(largest, factor):
    for value in (largest, LARGEST * 2.0 ** math.floor(math.log2(largest)) * factor):
        weight, scale = quantised(TensorSpec("w", (1,), wf.Constant(value)), "s", ())
        step = float(scale.array(seed=0))
        assert math.frexp(step)[0] == 0.5
        assert LARGEST * step / 2 < value <= LARGEST * step
        assert weight.array(0).astype(np.float64)[0] * step == pytest.approx(value, rel=2**-4)


def test_the_bound_of_a_normal_is_that_of_its_farthest_words():
    """The radius word 0 with the angle 0 gives it."""
    for kind, box_muller in ((np.float32, box_muller32), (np.float64, box_muller64)):
        word = np.zeros(1, np.uint32 if kind == np.float32 else np.uint64)
        farthest = float(np.max(box_muller(word, word)))
        limit = bound(wf.RandomNormal(0.0, 1.0), (2, 2), np.dtype(kind))
        assert farthest == pytest.approx(limit, rel=1e-6)
        assert limit < farthest * (1 + 1e-6)


@pytest.mark.parametrize(
    "scheme",
    [wf.STFT(), wf.TruncatedNormal(0.0, 1.0, 4.0, math.inf), wf.RandomNormal(0.0, 1e42)],
    ids=["unknown", "far tail", "too large"],
)
def test_a_scheme_without_a_bound_is_refused(scheme):
    tensor = TensorSpec("h.w", SHAPE, scheme)
    message = f"tensor 'h.w' cannot be float8: .* known bound.*{re.escape(repr(scheme))}"
    with pytest.raises(ValueError, match=message):
        quantised(tensor, "h.w_scale", ())
