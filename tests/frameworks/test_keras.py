"""winit_fast.keras compared with Keras; `make test-frameworks` runs this for two backends."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.src.backend.common.dtypes import ALLOWED_DTYPES as KNOWN
from scipy import stats

import winit_fast as wf
import winit_fast.keras as wk
from winit_fast.base import dtypes

BACKEND = keras.backend.backend()
DRAWN = [
    "RandomNormal",
    "TruncatedNormal",
    "RandomUniform",
    "VarianceScaling",
    "GlorotUniform",
    "GlorotNormal",
    "HeUniform",
    "HeNormal",
    "LecunUniform",
    "LecunNormal",
    "Orthogonal",
]
SCALING = DRAWN[3:-1]
SHAPES = [
    (),
    (7,),
    (0,),
    (5, 3),
    (0, 3),
    (784, 256),
    (3, 16, 32),
    (3, 3, 64, 128),
    (2, 3, 4, 5, 6),
]
FLOATS = [name for name in dtypes.NAMES if name in KNOWN]

# Keras reads PyTorch's arrays while it saves; JAX has no 64-bit types by default.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:.*float64.* is not available:UserWarning",
)


def numbers(tensor):
    """Read a backend's tensor as float64."""
    if BACKEND == "torch":
        return tensor.detach().double().numpy()
    return np.asarray(tensor).astype(np.float64)


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def outcome(call, *args, **kwargs):
    """Make a call; return the type and text of its error, or the shape and type of the result."""
    try:
        result = call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)
    return tuple(result.shape), dtype_of(result)


class Recorder:
    """Replaces Keras's random functions, and records what they are asked to draw."""

    def __init__(self, monkeypatch):
        self.calls = []
        module = sys.modules[keras.initializers.HeNormal.__module__]
        for name in ("normal", "uniform", "truncated_normal"):
            monkeypatch.setattr(module.random, name, self._record(name))

    def _record(self, name):
        def record(shape, dtype=None, seed=None, **parameters):
            self.calls.append((name, parameters))

        return record


def distribution(scheme, shape):
    """Describe the distribution of one of our schemes with the names of Keras's parameters."""
    if isinstance(scheme, wf.RandomUniform):
        return "uniform", {"minval": scheme.minval, "maxval": scheme.maxval}
    if isinstance(scheme, wf.RandomNormal):
        return "normal", {"mean": scheme.mean, "stddev": scheme.stddev}
    if isinstance(scheme, wf.TruncatedNormal):
        assert (scheme.low, scheme.high) == (-2, 2)
        return "truncated_normal", {"mean": scheme.mean, "stddev": scheme.stddev}
    deviation = scheme.stddev(shape)
    if scheme.distribution == "uniform":
        limit = math.sqrt(3) * deviation
        return "uniform", {"minval": -limit, "maxval": limit}
    if scheme.distribution == "truncated_normal":
        deviation /= 0.87962566103423978
    return scheme.distribution, {"mean": 0.0, "stddev": deviation}


VARIANTS = [
    *((name, {}) for name in DRAWN if name != "Orthogonal"),
    ("RandomNormal", {"mean": 1.5, "stddev": 2}),
    ("TruncatedNormal", {"mean": -1, "stddev": 0.3}),
    ("RandomUniform", {"minval": 0, "maxval": 1}),
    *(
        ("VarianceScaling", {"scale": scale, "mode": mode, "distribution": kind})
        for scale in (0.5, 2)
        for mode in ("fan_in", "fan_out", "fan_avg")
        for kind in ("uniform", "normal", "Truncated_Normal", "untruncated_normal")
    ),
]
AXES = [
    {"input_axes": [0], "output_axes": [1]},
    {"input_axes": (1,), "output_axes": (-1,)},
    {"input_axes": [0, 1], "output_axes": []},
    {"input_axes": [0]},  # Keras ignores this
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=str)
def test_draws_what_keras_draws(name, parameters, shape, monkeypatch):
    """Bounds and deviations equal those that Keras passes to its own random functions."""
    scheme = getattr(wk, name)(**parameters)._scheme(shape)
    recorder = Recorder(monkeypatch)
    getattr(keras.initializers, name)(**parameters)(shape)
    ((kind, theirs),) = recorder.calls
    ours, parameters = distribution(scheme, shape)
    assert ours == kind
    if math.prod(shape):  # without elements, the fans of 0 do not matter
        assert parameters == pytest.approx(theirs, rel=1e-15, abs=0)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", SCALING)
def test_axes(name, axes, monkeypatch):
    shape = (4, 6, 10)
    scheme = getattr(wk, name)(**axes)._scheme(shape)
    recorder = Recorder(monkeypatch)
    getattr(keras.initializers, name)(**axes)(shape)
    ((kind, theirs),) = recorder.calls
    ours, parameters = distribution(scheme, shape)
    assert ours == kind and parameters == pytest.approx(theirs, rel=1e-15, abs=0)


NATIVE = {
    "RandomNormal": wf.RandomNormal(),
    "TruncatedNormal": wf.TruncatedNormal(),
    "RandomUniform": wf.RandomUniform(),
    "VarianceScaling": wf.VarianceScaling(),
    "GlorotUniform": wf.GlorotUniform(),
    "GlorotNormal": wf.GlorotNormal(distribution="truncated_normal"),
    "HeUniform": wf.HeUniform(),
    "HeNormal": wf.HeNormal(distribution="truncated_normal"),
    "LecunUniform": wf.LecunUniform(),
    "LecunNormal": wf.LecunNormal(distribution="truncated_normal"),
    "Orthogonal": wf.Orthogonal(),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", DRAWN)
def test_bits_are_those_of_the_stream(name, dtype):
    """The last shape has at least a megabyte: JAX then uses the buffer without a copy."""
    for shape in [(4, 4), (0, 3), (3, 3, 4, 8), (1024, 1024)]:
        if name == "Orthogonal" and shape[0] == 1024 and dtype != "bfloat16":
            continue  # one large matrix is enough, because it takes a while
        tensor = getattr(wk, name)(seed=2**40 + 1, name="fc")(shape, dtype)
        expected = NATIVE[name](shape, seed=2**40 + 1, name="fc", dtype=dtype)
        if BACKEND == "jax" and dtype == "float64":
            expected = expected.astype(np.float32)  # JAX converts to float32 unless x64 is enabled
        assert tuple(tensor.shape) == shape and dtype_of(tensor) == expected.dtype.name
        np.testing.assert_array_equal(numbers(tensor), expected.astype(np.float64))


def test_shapes_and_types_as_keras():
    for shape in ((), (7,), [2, 3], np.array([2, 3])):
        for dtype in (None, "float16", "float32"):
            make = wk.HeNormal(seed=0)(tuple(shape), dtype)
            assert tuple(make.shape) == tuple(shape) and dtype_of(make) == (dtype or "float32")
    keras.config.set_floatx("bfloat16")
    try:
        assert dtype_of(wk.HeNormal(seed=0)((2, 2))) == "bfloat16"
    finally:
        keras.config.set_floatx("float32")


# Two samples of 20000 numbers; false alarms: 1e-6 for each test. The seeds are fixed.
@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=str)
def test_distribution_is_keras(name, parameters):
    shape = (100, 200)
    ours = numbers(getattr(wk, name)(**parameters, seed=1)(shape)).ravel()
    theirs = numbers(getattr(keras.initializers, name)(**parameters, seed=2)(shape)).ravel()
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-6
    assert max(abs(ours)) <= max(abs(theirs)) * (1.01 if "Normal" not in name else 1.5)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (3, 3, 8, 16)], ids=str)
def test_orthogonal(shape):
    """Rows or columns of the matrix are orthogonal, as in Keras, which decides its shape."""
    for module in (wk, keras.initializers):
        q = numbers(module.Orthogonal(gain=2.0, seed=0)(shape)).reshape(-1, shape[-1])
        gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=2e-5)


def test_what_draws_nothing_is_keras_own():
    for name in ("Zeros", "Ones", "Constant", "Identity", "STFT"):
        assert getattr(wk, name) is getattr(keras.initializers, name)


# Seeds


def test_an_int_repeats_and_none_is_an_int_drawn_once():
    for name in DRAWN:
        cls = getattr(wk, name)
        fixed, drawn = cls(seed=5), cls()
        assert isinstance(drawn.seed, int) and drawn.get_config()["seed"] is None
        for init in (fixed, drawn):
            np.testing.assert_array_equal(numbers(init((4, 4))), numbers(init((4, 4))))
        assert (numbers(cls()((4, 4))) != numbers(drawn((4, 4)))).any()


def test_keras_own_seed_governs_unseeded_initializers():
    keras.utils.set_random_seed(7)
    first = numbers(wk.HeNormal()((4, 4)))
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(numbers(wk.HeNormal()((4, 4))), first)


@pytest.mark.parametrize("seed", [-1, 2**64 + 3, True])
def test_any_int_is_a_seed(seed):
    made = wk.HeNormal(seed=seed)((4, 4))
    expected = NATIVE["HeNormal"]((4, 4), seed=int(seed) % 2**64)
    np.testing.assert_array_equal(numbers(made), expected)


def test_a_seed_generator_moves_on():
    seed = keras.random.SeedGenerator(11)
    init = wk.RandomNormal(seed=seed)
    draws = [numbers(init((4, 4))) for _ in range(3)]
    for count, draw in enumerate(draws):
        expected = wf.RandomNormal()((4, 4), seed=11 + (count << 32))
        np.testing.assert_array_equal(draw, expected)
    np.testing.assert_array_equal(numbers(wk.RandomNormal(seed=11)((4, 4))), draws[0])
    assert np.asarray(seed.state.value).tolist() == [11, 3]
    shared = wk.HeNormal(seed=keras.random.SeedGenerator(11))
    layers = [keras.layers.Dense(4, kernel_initializer=shared) for _ in range(2)]
    for layer in layers:
        layer.build((None, 4))
    assert (numbers(layers[0].kernel.value) != numbers(layers[1].kernel.value)).any()


def test_names():
    one, two = (wk.HeNormal(seed=0, name=name)((4, 4)) for name in ("one", "two"))
    assert (numbers(one) != numbers(two)).any()
    np.testing.assert_array_equal(
        numbers(wk.HeNormal(seed=0)((4, 4))), numbers(wk.HeNormal(seed=0, name=0)((4, 4)))
    )
    with pytest.raises(TypeError, match=r"name must be a str, an integer or None, got 1.5"):
        wk.HeNormal(name=1.5)


# Refusals


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *((name, {"seed": seed}) for name in DRAWN for seed in ("a", 1.5, np.int64(3), [1])),
        *((name, {"stddev": 1.0}) for name in SCALING),
        ("VarianceScaling", {"scale": 0.0}),
        ("VarianceScaling", {"scale": -1.0}),
        ("VarianceScaling", {"mode": "fan_on"}),
        ("VarianceScaling", {"mode": "fan_geo_avg"}),
        ("VarianceScaling", {"distribution": "gauss"}),
        ("VarianceScaling", {"distribution": 1}),
    ],
    ids=str,
)
def test_refused_arguments(name, parameters):
    ours = outcome(lambda: getattr(wk, name)(**parameters)((2, 2)))
    theirs = outcome(lambda: getattr(keras.initializers, name)(**parameters)((2, 2)))
    assert issubclass(theirs[0], Exception) and ours == theirs


@pytest.mark.parametrize("dtype", [None, "int32", "bool", "complex64", "foo", 3])
@pytest.mark.parametrize("shape", [(2, 2), (-2, 2), (2.0, 2), ("a",), 5, None, "ab", (None, 2)])
@pytest.mark.parametrize("name", DRAWN)
def test_refused_shapes_and_types(name, shape, dtype):
    """Where Keras raises an error ours is equal; other types are passed on to Keras."""
    ours = outcome(getattr(wk, name)(seed=0), shape, dtype)
    theirs = outcome(getattr(keras.initializers, name)(seed=0), shape, dtype)
    assert ours == theirs


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_refused_orthogonal(shape):
    ours = outcome(wk.Orthogonal(), shape)
    assert ours[0] is ValueError and ours == outcome(keras.initializers.Orthogonal(), shape)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("RandomUniform", {"minval": 1.0, "maxval": 1.0}),
        ("RandomUniform", {"minval": 1.0, "maxval": 0.0}),
        ("RandomUniform", {"minval": "a"}),
        ("RandomNormal", {"stddev": -1.0}),
        ("RandomNormal", {"stddev": math.nan}),
        ("TruncatedNormal", {"mean": "a"}),
        ("TruncatedNormal", {"stddev": math.inf}),
        ("Orthogonal", {"gain": math.inf}),
        ("VarianceScaling", {"scale": math.inf}),
        ("HeNormal", {"input_axes": [0], "output_axes": [5]}),
    ],
    ids=str,
)
def test_parameters_that_make_no_distribution_are_left_to_keras(name, parameters):
    ours, theirs = (
        outcome(getattr(module, name)(**parameters, seed=0), (2, 2))
        for module in (wk, keras.initializers)
    )
    assert ours == theirs


def test_without_keras():
    program = (
        "import sys\nsys.modules['keras'] = None\nimport winit_fast\n"
        "try:\n    import winit_fast.keras\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.startswith("ImportError ") and "winit_fast[keras]" in run.stdout, run.stderr


# Configurations


def _seeds():
    return [None, 3, keras.random.SeedGenerator(4)]


@pytest.mark.parametrize("name", DRAWN)
def test_serialise_and_clone(name):
    cls, theirs = getattr(wk, name), getattr(keras.initializers, name)
    assert issubclass(cls, theirs)
    for seed in _seeds():
        init = cls(seed=seed, name="fc")
        config = init.get_config()
        assert config.keys() == {*theirs().get_config(), "name"}
        copies = [
            init.clone(),
            cls.from_config(config),
            keras.initializers.deserialize(keras.initializers.serialize(init)),
            keras.initializers.get(keras.initializers.serialize(init)),
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(init)),
        ]
        expected = numbers(init((4, 4))) if seed is not None else None
        for copy in copies:
            assert type(copy) is cls and copy.get_config() == config
            if seed is not None:
                np.testing.assert_array_equal(numbers(copy((4, 4))), expected)
    assert keras.initializers.get(init) is init
    assert type(keras.initializers.get(cls)) is cls
    assert type(keras.initializers.get(f"winit_fast>{name}")) is cls


def _plain(init):
    """Return a configuration without the number that Keras adds to shared seeds when it saves."""
    config = init.get_config()
    if isinstance(config["seed"], dict):
        config["seed"].pop("shared_object_id", None)
    return config


def _model(seed):
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, kernel_initializer=wk.HeNormal(seed=seed, name="conv")),
            keras.layers.Flatten(),
            keras.layers.Dense(
                5,
                kernel_initializer=wk.Orthogonal(0.5, seed=seed),
                bias_initializer=wk.RandomUniform(seed=seed),
            ),
        ]
    )


@pytest.mark.parametrize("seed", [3, "generator"])
def test_save_load_and_clone_a_model(seed, tmp_path):
    model = _model(3 if seed == 3 else keras.random.SeedGenerator(3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numbers(ours.value), numbers(theirs.value))
    for layer, copy in zip(model.layers, loaded.layers, strict=True):
        if hasattr(layer, "kernel_initializer"):
            assert type(copy.kernel_initializer) is type(layer.kernel_initializer)
            assert _plain(copy.kernel_initializer) == _plain(layer.kernel_initializer)
    clone = keras.models.clone_model(model)
    if seed == 3:
        for ours, theirs in zip(model.weights, clone.weights, strict=True):
            np.testing.assert_array_equal(numbers(ours.value), numbers(theirs.value))


# Shapes that are inferred, graphs and layouts


class Lazy(keras.Model):
    """A model that makes its weights in its first call: Keras infers shapes before that."""

    def __init__(self, seed):
        super().__init__()
        self.hidden = keras.layers.Dense(600, kernel_initializer=wk.HeNormal(seed=seed))
        self.out = keras.layers.Dense(600, kernel_initializer=wk.HeNormal(seed=seed))

    def call(self, inputs):
        return self.out(self.hidden(inputs))


@pytest.mark.parametrize("seed", [3, "generator"])
def test_inferring_shapes(seed, monkeypatch):
    """While Keras infers shapes, the placeholders of the kernels (1 MB each) are not filled."""
    fills, fill = [], wf.VarianceScaling.fill_box
    monkeypatch.setattr(
        wf.VarianceScaling, "fill_box", lambda *arguments: fills.append(fill(*arguments))
    )
    model = Lazy(3 if seed == 3 else keras.random.SeedGenerator(3))
    model(keras.ops.zeros((1, 600)))
    assert len(fills) == 2
    kernels = [numbers(layer.kernel.value) for layer in (model.hidden, model.out)]
    first = NATIVE["HeNormal"]((600, 600), seed=3)
    if seed == 3:
        np.testing.assert_array_equal(kernels, [first, first])
    else:
        assert (kernels[0] != kernels[1]).any()


if BACKEND == "torch":

    def test_meta():
        seed = keras.random.SeedGenerator(3)
        with keras.device("meta"):
            tensor = wk.HeNormal(seed=seed)((1024, 1024), "bfloat16")
        assert tensor.is_meta and tuple(tensor.shape) == (1024, 1024)
        assert seed.state.value.tolist() == [3, 0]


if BACKEND == "jax":
    import jax

    @pytest.mark.parametrize("shape", [(4, 4), (1024, 512)], ids=str)
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    def test_inside_jit(shape, dtype):
        init = wk.HeNormal(seed=3)
        made = jax.jit(lambda: init(shape, dtype))()
        np.testing.assert_array_equal(numbers(made), numbers(init(shape, dtype)))

    def test_a_seed_generator_inside_jit():
        seed = keras.random.SeedGenerator(3)
        init = wk.HeNormal(seed=seed)

        @jax.jit
        def draw(state):
            with keras.StatelessScope(state_mapping=[(seed.state, state)]) as scope:
                return init((4, 4)), scope.get_current_value(seed.state)

        state = seed.state.value
        for count in range(2):
            made, state = draw(state)
            expected = NATIVE["HeNormal"]((4, 4), seed=3 + (count << 32))
            np.testing.assert_array_equal(numbers(made), expected)

    def test_buffers_that_were_taken_over_may_be_donated():
        made = wk.HeNormal(seed=3)((1024, 1024))
        doubled = jax.jit(lambda x: 2 * x, donate_argnums=0)(made)
        expected = 2 * NATIVE["HeNormal"]((1024, 1024), seed=3)
        np.testing.assert_array_equal(numbers(doubled), expected)

    LAYOUT = """
import jax, keras, numpy as np
import winit_fast as wf, winit_fast.keras as wk

boxes = []
make = wf.Initializer.__call__
def record(self, shape, **arguments):
    boxes.append(arguments["index"])
    return make(self, shape, **arguments)
wf.Initializer.__call__ = record

mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), keras.distribution.list_devices())
layouts = keras.distribution.LayoutMap(mesh)
layouts[".*kernel"] = (None, "model")
keras.distribution.set_distribution(
    keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
)
for cls in (wk.HeNormal, wk.Orthogonal):
    layer = keras.layers.Dense(64, kernel_initializer=cls(seed=keras.random.SeedGenerator(3)))
    layer.build((None, 256))
    kernel = layer.kernel.value
    shards = [shard.data.shape for shard in kernel.addressable_shards]
    assert shards == [(256, 32)] * 4, shards
    assert {box[1].stop - box[1].start for box in boxes} == {32}
    expected = make(cls()._scheme((256, 64)), (256, 64), seed=3)
    np.testing.assert_array_equal(np.asarray(kernel), expected)
layout = keras.distribution.TensorLayout(("batch", None), mesh)
made = wk.RandomUniform(1.0, 1.0, seed=0)((4, 4), layout=layout)  # Keras makes it
assert [shard.data.shape for shard in made.addressable_shards] == [(2, 4)] * 4
print("done")
"""

    def test_every_device_makes_its_own_shard():
        flags = "--xla_force_host_platform_device_count=4"
        run = subprocess.run(
            [sys.executable, "-c", LAYOUT],
            env={**os.environ, "XLA_FLAGS": flags},
            capture_output=True,
            text=True,
        )
        assert run.stdout == "done\n", run.stderr


# Initializers that Keras does not have


def _own():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {
        "xavier": (wk.XavierSimple(seed=3), wf.XavierSimple(), (6, 4)),
        "delta": (wk.DeltaOrthogonal(2.0, seed=3), wf.DeltaOrthogonal(2.0), (3, 3, 4, 8)),
        "sparse": (wk.Sparse(0.5, 0.1, seed=3), wf.Sparse(0.5, 0.1), (10, 6)),
        "dirac": (wk.Dirac(2, 0.5), wf.Dirac(2, 0.5), (3, 4, 8)),
        "scaled": (
            wk.Scaled(wk.HeNormal(seed=3), "1 / sqrt(2 * L)", {"L": 8}),
            wf.Scaled(NATIVE["HeNormal"], 0.25),
            (6, 4),
        ),
        "scaled name": (
            wk.Scaled(keras.initializers.LecunNormal(seed=3), 0.5),
            wf.Scaled(NATIVE["LecunNormal"], 0.5),
            (6, 4),
        ),
        "scaled identity": (wk.Scaled("identity", 2), wf.Identity(2.0), (3, 4)),
        "pretrained": (
            wk.Pretrained(array, fallback=wk.RandomNormal(seed=3)),
            wf.Pretrained(array, fallback=wf.RandomNormal()),
            (4, 3),
        ),
        "pretrained zeros": (
            wk.Pretrained(array, fallback="zeros"),
            wf.Pretrained(array, fallback=wf.Zeros()),
            (3, 5),
        ),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", _own())
def test_own_schemes(name, dtype):
    init, scheme, shape = _own()[name]
    expected = scheme(shape, seed=3, dtype=dtype).astype(np.float64)
    for copy in (
        init,
        init.clone(),
        keras.initializers.deserialize(keras.initializers.serialize(init)),
    ):
        assert type(copy) is type(init)
        made = copy(shape, dtype)
        assert dtype_of(made) == dtype
        np.testing.assert_array_equal(numbers(made), expected)


def _named():
    """Initializers with a name, except Keras's own, which are compared with the stream above."""
    drawn = {"seed": 3, "name": "fc"}
    sparse = wk.Sparse(0.4, 0.5, **drawn)
    return [
        (wk.XavierSimple(**drawn), wf.XavierSimple(), (24, 16)),
        (wk.DeltaOrthogonal(**drawn), wf.DeltaOrthogonal(), (3, 16, 24)),
        (sparse, wf.Sparse(0.4, 0.5), (24, 16)),
        (wk.Dirac(name="fc"), wf.Dirac(), (3, 16, 24)),
        (wk.Scaled(sparse, 0.3), wf.Scaled(wf.Sparse(0.4, 0.5), 0.3), (24, 16)),
        (
            wk.Scaled(wk.Scaled(wk.HeNormal(**drawn), 0.5), 0.5),
            wf.Scaled(NATIVE["HeNormal"], 0.25),
            (24, 16),
        ),
        (
            wk.Pretrained(np.ones((4, 3), np.float32), fallback=sparse),
            wf.Pretrained(np.ones((4, 3), np.float32), fallback=wf.Sparse(0.4, 0.5)),
            (24, 16),
        ),
        # A megabyte: JAX uses the buffer without a copy.
        (wk.Sparse(0.4, 0.5, **drawn), wf.Sparse(0.4, 0.5), (512, 512)),
    ]


def test_every_scheme_is_held_to_the_stream():
    drawn = {cls for cls in vars(wk).values() if isinstance(cls, type) and hasattr(cls, "_scheme")}
    public = {cls.__name__ for cls in drawn if not cls.__name__.startswith("_")}
    assert public == set(DRAWN) | {type(init).__name__ for init, _, _ in _named()}


@pytest.mark.parametrize(
    ("init", "scheme", "shape"), _named(), ids=lambda value: type(value).__name__
)
def test_own_schemes_take_the_name_as_outside_keras(init, scheme, shape):
    expected = scheme(shape, seed=3, name="fc")
    copy = keras.initializers.deserialize(keras.initializers.serialize(init))
    for made in (init(shape), init.clone()(shape), copy(shape)):
        np.testing.assert_array_equal(numbers(made), expected.astype(np.float64))


def test_own_schemes_in_a_saved_model(tmp_path):
    np.save(tmp_path / "old.npy", np.ones((3, 4), np.float32))
    kernel = wk.Scaled(wk.GlorotUniform(seed=keras.random.SeedGenerator(1)), 0.5)
    old = wk.Pretrained(tmp_path / "old.npy", fallback=wk.RandomNormal(seed=1))
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(4, kernel_initializer=kernel),
            keras.layers.Dense(4, kernel_initializer=old),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(layer.kernel_initializer) for layer in loaded.layers] == [
        wk.Scaled,
        wk.Pretrained,
    ]
    np.testing.assert_array_equal(
        numbers(loaded.layers[1].kernel_initializer((4, 4))), numbers(old((4, 4)))
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: wk.Dirac(0), ValueError, "groups must be at least 1, got 0"),
        (lambda: wk.Dirac()((3, 3)), ValueError, "three to five axes, got shape"),
        (lambda: wk.DeltaOrthogonal()((3, 8, 4)), ValueError, "as many outputs as inputs"),
        (lambda: wk.Sparse(1.5), ValueError, "sparsity must be from 0 to 1, got 1.5"),
        (lambda: wk.Sparse(0.5)((4, 4), "int32"), TypeError, "dtype must be one of"),
        (lambda: wk.Sparse(0.5, seed="a"), ValueError, "`seed` argument should be an instance"),
        (lambda: wk.Scaled("zeros", -1.0), ValueError, "factor must be more than 0"),
        (lambda: wk.Scaled(lambda shape, dtype=None: 0), TypeError, "initializer must be an"),
        (lambda: wk.Pretrained("old.txt"), ValueError, "source must end in .npy"),
    ],
)
def test_own_schemes_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Files, in a fresh process

WRITE = """
import sys, keras, numpy as np
import winit_fast.keras as wk
init = wk.HeNormal(seed=0, name="w")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=init)])
model.save(sys.argv[1])
"""
READ = """
import sys, keras, numpy as np
import winit_fast as wf, winit_fast.keras as wk
init = keras.models.load_model(sys.argv[1]).layers[0].kernel_initializer
assert type(init) is wk.HeNormal
expected = wf.HeNormal(distribution="truncated_normal")((4, 3), seed=0, name="w")
np.testing.assert_array_equal(keras.ops.convert_to_numpy(init((4, 3))), expected)
print("read")
"""
READ_WITHOUT_US = """
import sys, keras
keras.models.load_model(sys.argv[1])
"""


def test_a_file_is_read_in_a_fresh_process(tmp_path):
    """If the package is missing, loading is an error; it never uses Keras's own numbers."""

    def run(program):
        arguments = [sys.executable, "-c", program, str(tmp_path / "model.keras")]
        return subprocess.run(arguments, capture_output=True, text=True)

    assert run(WRITE).returncode == 0
    read = run(READ)
    assert read.stdout == "read\n", read.stderr
    alone = run(READ_WITHOUT_US)
    assert alone.returncode == 1 and "could not be deserialized" in alone.stderr


def test_files_name_the_public_module():
    for name in wk.__all__:
        cls = getattr(wk, name)
        theirs = getattr(keras.initializers, name, None)
        assert cls is theirs or cls.__module__ == "winit_fast.keras"
    config = keras.initializers.serialize(wk.HeNormal(seed=0))
    assert (config["module"], config["registered_name"]) == (
        "winit_fast.keras",
        "winit_fast>HeNormal",
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_mixed_precision(policy):
    """A variable has the type of the policy's variables, whatever type the layer computes in."""
    layer = keras.layers.Dense(3, dtype=policy, kernel_initializer=wk.HeNormal(seed=0, name="w"))
    layer.build((None, 4))
    dtype = keras.DTypePolicy(policy).variable_dtype
    expected = NATIVE["HeNormal"]((4, 3), seed=0, name="w", dtype=dtype)
    assert dtype_of(layer.kernel.value) == dtype
    np.testing.assert_array_equal(numbers(layer.kernel.value), expected.astype(np.float64))
