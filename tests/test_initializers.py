"""The catalogue: parameters, names, and the distribution that each scheme draws from."""

import json
import math
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import winit_fast as wf
from winit_fast.initializers.fans import TORCH, fans
from winit_fast.initializers.truncation_correction import TRUNCATED_STDDEV

STREAM = wf.Stream(11, "fc")


def _made(initializer, shape, **options):
    return initializer(shape, seed=STREAM.seed, name=STREAM.name, **options)


def test_repr_shows_what_is_not_the_default():
    assert repr(wf.HeNormal()) == "HeNormal()"
    assert repr(wf.HeNormal(fan_in=3)) == "HeNormal(fan_in=3)"


def test_numbers_of_numpy_are_written_as_pythons():
    for initializer, shown in (
        (wf.RandomNormal(0, np.float32(0.5)), "RandomNormal(stddev=0.5)"),
        (wf.Dirac(np.int64(2)), "Dirac(groups=2)"),
        (
            wf.Scaled("ones", "1 / L", {"L": np.int64(4)}),
            "Scaled(initializer=Ones(), factor='1 / L', numbers=(('L', 4),))",
        ),
    ):
        assert repr(initializer) == shown
        config = json.loads(json.dumps(initializer.get_config()))
        assert type(initializer).from_config(config) == initializer


@pytest.mark.parametrize(
    ("scheme", "fan", "scale", "uniform"),
    [
        (wf.GlorotUniform(), (300 + 100) / 2, 1.0, True),
        (wf.GlorotNormal(), (300 + 100) / 2, 1.0, False),
        (wf.HeUniform(), 300, 2.0, True),
        (wf.HeNormal(), 300, 2.0, False),
        (wf.LecunUniform(), 300, 1.0, True),
        (wf.LecunNormal(), 300, 1.0, False),
        (wf.VarianceScaling(3.0, "fan_out", "normal"), 100, 3.0, False),
        (wf.XavierSimple(), 300, 1 / 3, True),
        (wf.HeNormal(nonlinearity="leaky_relu", param=0.5), 300, 1.6, False),
        (wf.HeUniform("fan_out", nonlinearity="gelu"), 100, wf.gain("gelu") ** 2, True),
        (wf.VarianceScaling(1.0, "fan_geo_avg", "uniform"), math.sqrt(300 * 100), 1.0, True),
    ],
    ids=repr,
)
def test_formulas(scheme, fan, scale, uniform):
    stddev = math.sqrt(scale / fan)
    if uniform:
        limit = math.sqrt(3.0) * stddev
        expected = STREAM.uniform(-limit, limit, (300, 100))
    else:
        expected = STREAM.normal(0.0, stddev, (300, 100))
    assert (_made(scheme, (300, 100)) == expected).all()


def test_truncated_variance_is_corrected():
    scheme = wf.HeNormal(distribution="truncated_normal")
    stddev = math.sqrt(2 / 300)
    expected = STREAM.truncated_normal(0.0, stddev / TRUNCATED_STDDEV, -2.0, 2.0, (300, 100))
    assert (_made(scheme, (300, 100)) == expected).all()
    # How the constant is defined: the standard deviation of a standard normal truncated at +-2.
    density, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert math.isclose(TRUNCATED_STDDEV, math.sqrt(1 - 4 * density / mass), rel_tol=1e-15)


def test_plain_draws():
    shape = (5, 7)
    assert (_made(wf.RandomUniform(-1, 3), shape) == STREAM.uniform(-1, 3, shape)).all()
    assert (_made(wf.RandomNormal(1, 0.5), shape) == STREAM.normal(1, 0.5, shape)).all()
    made = _made(wf.TruncatedNormal(1, 0.5, -1, 3), shape)
    assert (made == STREAM.truncated_normal(1, 0.5, -1, 3, shape)).all()


def test_scale_of_zero():
    for distribution in ("uniform", "normal", "truncated_normal"):
        assert not wf.VarianceScaling(0.0, "fan_in", distribution)((8, 8), seed=0).any()


def test_fans_of_the_logical_shape():
    """A shard of a quarter of the inputs keeps the standard deviation of the whole tensor."""
    whole = _made(wf.HeNormal(), (64, 32))
    part = np.empty((16, 32), np.float32)
    wf.HeNormal().fill(part, seed=11, name="fc", shape=(64, 32), index=np.s_[16:32])
    assert (part == whole[16:32]).all()


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((784, 256), {}, (784, 256)),
        ((3, 3, 64, 128), {}, (576, 1152)),
        ((256, 784), {"in_axis": 1, "out_axis": 0}, (784, 256)),
        ((128, 64, 3, 3), {"in_axis": 1, "out_axis": 0}, (576, 1152)),
        ((12, 64, 8, 100), {"in_axis": 1, "out_axis": (2, 3), "batch_axis": 0}, (64, 800)),
        ((7, 5, 4), {"batch_axis": 0}, (5, 4)),
        ((256,), {}, (256, 256)),
        ((0, 4), {}, (0, 4)),
    ],
)
def test_fans(shape, axes, expected):
    assert fans(shape, **axes) == expected


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((), {}, r"in_axis is -2, but shape \(\) has 0 axes"),
        ((5,), {"in_axis": 1, "out_axis": 0}, r"in_axis is 1, but shape \(5,\) has 1 axes"),
        ((5, 4), {"batch_axis": 2}, r"batch_axis is 2, but shape \(5, 4\) has 2 axes"),
        ((5, 4), {"in_axis": 1, "out_axis": -1}, "must be different axes, got 1, -1"),
    ],
)
def test_no_fans(shape, axes, message):
    with pytest.raises(ValueError, match=message):
        fans(shape, **axes)


def test_one_axis_and_given_fans():
    assert (_made(wf.LecunNormal(), 64) == STREAM.normal(0.0, 1 / 8, 64)).all()
    assert (_made(wf.HeNormal(fan_in=50), 64) == STREAM.normal(0.0, 0.2, 64)).all()
    assert _made(wf.GlorotNormal(fan_in=2, fan_out=2), ()).shape == ()
    with pytest.raises(ValueError, match="has 0 axes"):
        wf.HeNormal()(())


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_identity(shape):
    assert (wf.Identity(0.5)(shape) == 0.5 * np.eye(*shape)).all()


def test_constants_are_rounded_from_float32():
    assert wf.Constant(0.1)(1, dtype="float64")[0] == 0.1
    for dtype in ("float32", "float16", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2):
        assert wf.Constant(0.1)(1, dtype=dtype)[0] == np.float32(0.1).astype(dtype)
    out = np.zeros((1000, 3000), np.float32)
    wf.Constant(np.inf).fill(out[::-1, ::2])
    assert (out[:, ::2] == np.inf).all() and (out[:, 1::2] == 0).all()


@pytest.mark.parametrize(
    ("names", "cls"),
    [
        (["zeros", "Zeros", "zeros_", "zero"], wf.Zeros),
        (["ones", "ones_"], wf.Ones),
        (["constant", "constant_", "Constant"], wf.Constant),
        (["identity", "Identity", "eye_"], wf.Identity),
        (["uniform", "uniform_", "random_uniform", "RandomUniform"], wf.RandomUniform),
        (["normal", "normal_", "random_normal", "RandomNormal"], wf.RandomNormal),
        (["truncated_normal", "trunc_normal_", "TruncatedNormal"], wf.TruncatedNormal),
        (["variance_scaling", "VarianceScaling"], wf.VarianceScaling),
        (["glorot_uniform", "xavier_uniform_", "GlorotUniform"], wf.GlorotUniform),
        (["glorot_normal", "xavier_normal", "xavier-normal"], wf.GlorotNormal),
        (["he_uniform", "kaiming_uniform_", "HeUniform"], wf.HeUniform),
        (["he_normal", "kaiming_normal_", "HeNormal"], wf.HeNormal),
        (["lecun_uniform", "LecunUniform"], wf.LecunUniform),
        (["lecun_normal", "LeCunNormal"], wf.LecunNormal),
    ],
)
def test_get(names, cls):
    for name in names:
        assert wf.get(name) == cls()
    assert wf.get(cls()) == cls()


def test_get_with_parameters():
    assert wf.get("normal", stddev=0.02) == wf.RandomNormal(0.0, 0.02)
    with pytest.raises(TypeError, match="stdev"):
        wf.get("normal", stdev=0.02)
    with pytest.raises(TypeError, match="stddev"):
        wf.get(wf.RandomNormal(), stddev=0.02)


def test_axes_that_are_said_stay_and_others_follow_the_convention():
    said = wf.HeNormal(in_axis=-2, out_axis=-1)
    assert said != wf.HeNormal()
    assert said.with_axes(TORCH, 2) == said
    assert wf.HeNormal().with_axes(TORCH, 2) == wf.HeNormal(in_axis=1, out_axis=0)
    assert math.isclose(said.with_axes(TORCH, 2).stddev((64, 4096)), math.sqrt(2 / 64))
    assert math.isclose(said.with_axes(TORCH, 4).stddev((3, 3, 8, 64)), math.sqrt(2 / 72))
    # Default axes are counted without the batch axes.
    batch = wf.HeNormal(batch_axis=0)
    assert math.isclose(batch.with_axes(TORCH, 3).stddev((8, 64, 256)), math.sqrt(2 / 256))
    assert math.isclose(batch.stddev((8, 64, 256)), math.sqrt(2 / 64))
    assert math.isclose(wf.HeNormal(batch_axis=-1).stddev((64, 256, 8)), math.sqrt(2 / 64))
    with pytest.raises(ValueError, match="different axes, got 1, 0 and 0"):
        wf.HeNormal(in_axis=1, out_axis=0, batch_axis=0)((8, 64, 256))
    for scheme in (wf.Dirac(), wf.DeltaOrthogonal()):
        assert scheme.with_axes(TORCH, 3) == replace(scheme, in_axis=1, out_axis=0)
    assert wf.Orthogonal().with_axes(TORCH, 2) == wf.Orthogonal(column_axis=0)
    assert wf.Orthogonal(batch_axis=0).with_axes(TORCH, 3) == wf.Orthogonal(1.0, 1, 0)
    assert wf.Orthogonal(column_axis=-1).with_axes(TORCH, 2) == wf.Orthogonal(column_axis=-1)
    assert wf.Zeros().with_axes(TORCH, 2) == wf.Zeros()
    nested = wf.Scaled(wf.HeNormal(), 0.5)
    assert nested.with_axes(TORCH, 2) == wf.Scaled(wf.HeNormal(in_axis=1, out_axis=0), 0.5)


@pytest.mark.parametrize("dtype", ["complex64", np.complex128, np.dtype("c8")])
def test_complex_tensors_are_pairs_of_their_parts(dtype):
    real = np.dtype(dtype).type(0).real.dtype
    shape, half = (6, 4), math.sqrt(2)
    for scheme, parts in (
        (wf.RandomNormal(0.5, 2.0), wf.RandomNormal(0.5, 2.0 / half)),
        (wf.HeNormal(), wf.RandomNormal(0.0, math.sqrt(2 / 6) / half)),
        (wf.LecunNormal(in_axis=1, out_axis=0), wf.RandomNormal(0.0, math.sqrt(1 / 4) / half)),
        (wf.Scaled(wf.RandomNormal(0, 2.0), 0.5), wf.RandomNormal(0.0, 1.0 / half)),
    ):
        whole = scheme(shape, seed=3, name="w", dtype=dtype)
        assert whole.dtype == np.dtype(dtype)
        pairs = parts((*shape, 2), seed=3, name="w", dtype=real)
        assert whole.real.tobytes() == pairs[..., 0].tobytes()
        assert whole.imag.tobytes() == pairs[..., 1].tobytes()
        index = np.s_[1:4, 2]
        assert (scheme(shape, seed=3, name="w", dtype=dtype, index=index) == whole[index]).all()
        out = np.zeros((8, 12), dtype)[1:7, ::3]
        scheme.fill(out, seed=3, name="w")
        assert (out == whole).all() and not out.base[0].any()
    for scheme, value in ((wf.Zeros(), 0), (wf.Ones(), 1), (wf.Constant(0.25), 0.25)):
        assert (scheme(shape, dtype=dtype) == value).all()
    assert wf.RandomNormal()((0, 3), dtype=dtype).shape == (0, 3)
    for scheme in (wf.RandomUniform(), wf.TruncatedNormal(), wf.GlorotUniform(), wf.Orthogonal()):
        out = np.full(shape, 7, dtype)
        with pytest.raises(TypeError, match=f"{type(scheme).__name__} cannot fill complex types"):
            scheme.fill(out)
        assert (out == 7).all()


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (("double", "fp64", "f64"), "float64"),
        (("float", "single", "fp32", "f32"), "float32"),
        (("half", "fp16", "f16"), "float16"),
        (("bf16",), "bfloat16"),
        (("fp8_e4m3", "float8_e4m3"), "float8_e4m3fn"),
        (("fp8_e5m2",), "float8_e5m2"),
    ],
)
def test_short_names_of_types(names, dtype):
    for name in names:
        assert wf.Zeros()(3, dtype=name).dtype == np.dtype(dtype)


# Schemes that raise an error for shape (3, 1, 5) or for the type, for any box.
REFUSED = [
    (wf.Constant(1e6), "float16"),
    (wf.Identity(), "float32"),
    (wf.Dirac(gain=1e6), "float16"),
    (wf.Orthogonal(1e6), "float16"),
    (wf.DeltaOrthogonal(1e6), "float16"),
    (wf.STFT(window=(1e300, 1e300, 1e300), scaling=None), "float32"),
    (wf.RandomNormal(1e300), "float32"),
    (wf.RandomUniform(1 + 1e-12, 1 + 2e-12), "float32"),
    (wf.TruncatedNormal(0.0, 1e300), "float32"),
    (wf.HeNormal(in_axis=7), "float32"),
    (wf.Sparse(0.5), "float32"),
    (wf.Pretrained(np.ones((3, 2, 5))), "float32"),
    (wf.Pretrained(np.ones((2, 1, 5)), fallback=wf.Constant(1e300)), "float32"),
    (wf.Pretrained(np.ones((2, 1, 5)), fallback=wf.Sparse(0.5)), "float32"),
    (wf.Parts([((0, 0, 0), (2, 1, 5), wf.Ones())]), "float32"),
    (
        wf.Parts([((0,) * 3, (3, 1, 5), wf.Ones()), ((1, 0, 0), (3, 1, 5), wf.Sparse(0.5))]),
        "float32",
    ),
]
# Schemes that raise an error because of a value inside the box.
REFUSED_VALUES = [
    (
        wf.Parts(
            [
                ((0, 0, 0), (2, 1, 5), wf.Ones()),
                ((2, 0, 0), (3, 1, 5), wf.Pretrained(np.full((1, 1, 5), 1e300))),
            ]
        ),
        "float32",
    ),
    (wf.Pretrained(np.full((3, 1, 5), 1e300)), "float32"),
    (wf.Pretrained(np.full((2, 1, 5), 1e300), fallback=wf.Ones()), "float32"),
    (
        wf.Pretrained(np.ones((2, 1, 5)), fallback=wf.Pretrained(np.full((3, 1, 5), 1e300))),
        "float32",
    ),
]


@pytest.mark.parametrize("scheme, dtype", REFUSED + REFUSED_VALUES, ids=lambda one: str(one)[:60])
@pytest.mark.parametrize("times", [1, 0.5, 0.25])
def test_nothing_is_written_before_a_refusal(scheme, dtype, times):
    refused = scheme if times == 1 else wf.Scaled(scheme, times)
    out = np.full((3, 1, 5), 7, dtype)
    with pytest.raises((TypeError, ValueError)):
        refused.fill(out)
    assert (out == 7).all()
    if (scheme, dtype) in REFUSED:
        with pytest.raises((TypeError, ValueError)):
            refused((3, 1, 5), dtype=dtype, index=np.s_[0:0])
