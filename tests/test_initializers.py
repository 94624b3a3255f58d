"""The catalogue: parameters, names, and which distribution each scheme draws from."""

import json
import math
import pickle
from dataclasses import FrozenInstanceError

import ml_dtypes
import numpy as np
import pytest

import winit_fast as wf
from winit_fast.initializers.fans import fans
from winit_fast.initializers.variance_scaling import TRUNCATED_STDDEV

STREAM = wf.Stream(11, "fc")
EXAMPLES = [
    wf.Zeros(),
    wf.Ones(),
    wf.Constant(0.25),
    wf.Identity(2.0),
    wf.RandomUniform(-1.0, 3.0),
    wf.RandomNormal(1.0, 0.5),
    wf.TruncatedNormal(0.0, 0.02, -3.0, 3.0),
    wf.VarianceScaling(2.0, "fan_geo_avg", "uniform", in_axis=(0, 1), out_axis=2, batch_axis=()),
    wf.GlorotUniform(),
    wf.GlorotNormal(distribution="truncated_normal"),
    wf.HeUniform(in_axis=1, out_axis=0),
    wf.HeNormal(fan_in=512),
    wf.LecunUniform(),
    wf.LecunNormal(),
    wf.HeNormal(nonlinearity="leaky_relu", param=0.2),
    wf.HeUniform("fan_out", nonlinearity="gelu"),
    wf.XavierSimple(),
]


def _made(initializer, shape, **options):
    return initializer(shape, seed=STREAM.seed, name=STREAM.name, **options)


@pytest.mark.parametrize("initializer", EXAMPLES, ids=repr)
def test_value(initializer):
    cls = type(initializer)
    config = initializer.get_config()
    assert cls.from_config(config) == initializer
    assert cls.from_config(json.loads(json.dumps(config))) == initializer
    assert eval(repr(initializer), vars(wf)) == initializer
    assert pickle.loads(pickle.dumps(initializer)) == initializer
    assert hash(cls.from_config(config)) == hash(initializer)
    for field in config:
        with pytest.raises(FrozenInstanceError):
            setattr(initializer, field, 0.1)
    assert len({*EXAMPLES, initializer}) == len(EXAMPLES)


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


@pytest.mark.parametrize("initializer", EXAMPLES, ids=repr)
def test_call_fill_and_shards_agree(initializer):
    shape = (24, 16, 8) if initializer.get_config().get("in_axis") == (0, 1) else (24, 16)
    for dtype in ("float32", "bfloat16", "float64", "float8_e4m3fn"):
        whole = _made(initializer, shape, dtype=dtype)
        assert whole.shape == shape and whole.dtype == np.dtype(dtype)
        out = np.full(shape, 7, dtype)
        assert initializer.fill(out, seed=11, name="fc") is out
        assert out.tobytes() == whole.tobytes()
        for index in (np.s_[3:9, 2:], np.s_[..., 5], np.s_[-1], np.s_[4:4]):
            part = _made(initializer, shape, dtype=dtype, index=index)
            assert part.tobytes() == whole[index].tobytes() and part.shape == whole[index].shape
            out = np.full(part.shape, 7, dtype)
            initializer.fill(out, seed=11, name="fc", shape=shape, index=index)
            assert out.tobytes() == part.tobytes()


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
    # The definition of the constant: variance of a standard normal cut at +-2.
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
    """A shard of a quarter of the inputs keeps the deviation of the whole tensor."""
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
