"""winit_fast.jax against jax.nn.initializers: the same functions, with this package's numbers."""

import inspect
import math
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers as peer
from scipy import stats

import winit_fast as wf
import winit_fast.jax as ours
from winit_fast.base import dtypes
from winit_fast.jax import arrays

KEY = jax.random.key(7)
KEYS = jax.random.split(KEY, 6)
TRUNCATED = 0.87962566103423978
P_VALUE = 1e-6  # false alarms of one test; of all tests of this file together: one in 5,000 seeds

# Every function, with parameters and a shape of three axes.
SCHEMES = {
    "normal": (0.02,),
    "uniform": (0.3,),
    "truncated_normal": (2.0,),
    "variance_scaling": (1.5, "fan_out", "normal"),
    "glorot_uniform": (),
    "glorot_normal": (),
    "xavier_uniform": (),
    "xavier_normal": (),
    "lecun_uniform": (),
    "lecun_normal": (),
    "he_uniform": (),
    "he_normal": (),
    "kaiming_uniform": (),
    "kaiming_normal": (),
    "orthogonal": (),
    "delta_orthogonal": (),
}
DTYPES = [name for name in dtypes.NAMES if name != "float64"]
SHAPE = (3, 8, 16)


def _bits(array):
    array = np.asarray(array)
    return array.view(f"u{array.itemsize}")


def assert_same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(_bits(a), _bits(b))


def test_the_whole_surface_is_there():
    names = {name for name in dir(peer) if name[0] != "_" and name != "Initializer"}
    assert names | {"from_initializer"} == set(ours.__all__)
    for name in SCHEMES:
        theirs, own = (inspect.signature(getattr(module, name)) for module in (peer, ours))
        assert list(theirs.parameters) == list(own.parameters)
        for parameter in theirs.parameters:
            assert theirs.parameters[parameter].default == own.parameters[parameter].default
        made = [getattr(module, name)(*SCHEMES[name]) for module in (peer, ours)]
        assert str(inspect.signature(made[1])).count("=") == 2
        assert list(inspect.signature(made[0]).parameters) == list(
            inspect.signature(made[1]).parameters
        )
        assert isinstance(made[1], peer.Initializer)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_eager_jit_and_vmap_agree_bit_for_bit(name, dtype):
    init = getattr(ours, name)(*SCHEMES[name])
    eager = init(KEY, SHAPE, dtype)
    assert isinstance(eager, jax.Array) and eager.dtype == dtype and eager.shape == SHAPE
    assert_same_bits(jax.jit(init, static_argnums=(1, 2))(KEY, SHAPE, dtype), eager)
    loop = jnp.stack([init(key, SHAPE, dtype) for key in KEYS])
    for vmap in (jax.vmap, lambda f: jax.jit(jax.vmap(f))):
        assert_same_bits(vmap(lambda key: init(key, SHAPE, dtype))(KEYS), loop)
    nested = jax.vmap(jax.vmap(lambda key: init(key, SHAPE, dtype)))(KEYS.reshape(2, 3))
    assert_same_bits(nested.reshape(6, *SHAPE), loop)


def test_other_transformations():
    init = ours.lecun_normal()
    loop = jnp.stack([init(key, SHAPE) for key in KEYS])
    assert_same_bits(jax.lax.map(lambda key: init(key, SHAPE), KEYS), loop)
    scanned = jax.lax.scan(lambda carry, key: (carry, init(key, SHAPE)), 0, KEYS)[1]
    assert_same_bits(scanned, loop)
    assert jax.grad(lambda s: (s * init(KEY, SHAPE)).sum())(2.0) == init(KEY, SHAPE).sum()
    grad = jax.jit(jax.grad(lambda s, key: (s * init(key, SHAPE)).sum()))(2.0, KEY)
    np.testing.assert_allclose(grad, init(KEY, SHAPE).sum(), rtol=1e-5)
    assert_same_bits(jax.jit(lambda: init(jax.random.key(7), SHAPE))(), init(KEY, SHAPE))
    assert_same_bits(jax.checkpoint(lambda key: init(key, SHAPE))(KEY), init(KEY, SHAPE))
    with jax.disable_jit():
        assert_same_bits(jax.jit(init, static_argnums=1)(KEY, SHAPE), init(KEY, SHAPE))


def test_nothing_is_made_in_the_abstract():
    """A hundred terabytes: inside jax.eval_shape nothing is made, even if the key is not traced."""
    shape = (1 << 20, 1 << 25)
    for made in (
        jax.eval_shape(lambda key: ours.he_normal()(key, shape, "bfloat16"), KEY),
        jax.eval_shape(lambda: ours.he_normal()(KEY, shape, "bfloat16")),
    ):
        assert made.shape == shape and made.dtype == jnp.bfloat16


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("number", [0, 42, 0xFFFFFFFF])
def test_keys_of_every_kind(impl, number):
    key = jax.random.key(number, impl=impl)
    words = [int(word) for word in jax.random.key_data(key)]
    assert words[:2] == [0, number]
    stream = words[2] << 32 | words[3] if len(words) == 4 else 0
    expected = wf.RandomNormal(0.0, 1.0)((50,), seed=number, name=stream)
    assert_same_bits(ours.normal(1.0)(key, (50,)), expected)
    with jax.default_prng_impl(impl):
        raw = jax.random.key_data(key)
        for same in (raw, np.asarray(raw), jax.random.PRNGKey(number)):
            assert_same_bits(ours.normal(1.0)(same, (50,)), expected)
        assert_same_bits(jax.jit(lambda raw: ours.normal(1.0)(raw, (50,)))(raw), expected)
        both = jax.vmap(lambda raw: ours.normal(1.0)(raw, (50,)))(jnp.stack([raw, raw]))
        assert_same_bits(both, np.stack([expected, expected]))


def test_all_the_words_of_a_key_count():
    made = set()
    for at in range(4):
        raw = np.zeros(4, np.uint32)
        raw[at] = 5
        key = jax.random.wrap_key_data(raw, impl="rbg")
        made.add(np.asarray(ours.normal()(key, (8,))).tobytes())
    assert len(made) == 4
    high = jax.random.wrap_key_data(np.array([3, 9], np.uint32))
    expected = wf.RandomNormal(0.0, 1e-2)((8,), seed=3 << 32 | 9)
    assert_same_bits(ours.normal()(high, (8,)), expected)


# Shapes and axes, with the fans that JAX computes. The last two use an axis twice, as
# flax.linen.Embed does.
FANS = [
    ((300, 500), {}, 300, 500),
    ((3, 3, 64, 128), {}, 576, 1152),
    ((5, 64, 32), {"batch_axis": 0}, 64, 32),
    ((64, 4, 16, 8), {"in_axis": (0, 1), "out_axis": (2, 3)}, 256, 128),
    ((128, 64, 3, 3), {"in_axis": 1, "out_axis": 0}, 576, 1152),
    ((7, 5, 64, 32), {"in_axis": [-2], "out_axis": -1, "batch_axis": [0, 1]}, 64, 32),
    ((1000, 64), {"out_axis": 0}, 64, 64),
    ((4000,), {"in_axis": 0}, 1, 1),
]
MODES = {
    "fan_in": lambda i, o: i,
    "fan_out": lambda i, o: o,
    "fan_avg": lambda i, o: (i + o) / 2,
    "fan_geo_avg": lambda i, o: math.sqrt(i * o),
}


@pytest.mark.parametrize(("shape", "axes", "fan_in", "fan_out"), FANS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_variance_scaling_is_the_closed_form(shape, axes, fan_in, fan_out, mode, distribution):
    stddev = math.sqrt(2.5 / MODES[mode](fan_in, fan_out))
    arguments = (2.5, mode, distribution)
    made = np.asarray(ours.variance_scaling(*arguments, **axes)(KEY, shape), np.float64).ravel()
    theirs = np.asarray(peer.variance_scaling(*arguments, **axes)(KEY, shape), np.float64).ravel()
    law = {
        "uniform": stats.uniform(-math.sqrt(3) * stddev, 2 * math.sqrt(3) * stddev),
        "normal": stats.norm(0, stddev),
        "truncated_normal": stats.truncnorm(-2, 2, scale=stddev / TRUNCATED),
    }[distribution]
    assert law.std() == pytest.approx(stddev, rel=1e-12)
    low, high = law.support()
    assert low * (1 + 1e-7) <= made.min() and made.max() <= high * (1 + 1e-7)
    for numbers in made, theirs:
        assert stats.kstest(numbers, law.cdf).pvalue > P_VALUE
    expected = {
        "uniform": lambda: wf.RandomUniform(-math.sqrt(3) * stddev, math.sqrt(3) * stddev),
        "normal": lambda: wf.RandomNormal(0.0, stddev),
        "truncated_normal": lambda: wf.TruncatedNormal(0.0, stddev / TRUNCATED),
    }[distribution]()
    assert_same_bits(made.astype(np.float32), expected(shape, seed=7).ravel())


NAMED = {
    "glorot_uniform": (1, "fan_avg", "uniform"),
    "glorot_normal": (1, "fan_avg", "truncated_normal"),
    "lecun_uniform": (1, "fan_in", "uniform"),
    "lecun_normal": (1, "fan_in", "truncated_normal"),
    "he_uniform": (2, "fan_in", "uniform"),
    "he_normal": (2, "fan_in", "truncated_normal"),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_schemes(name):
    for axes in {}, {"in_axis": 0, "out_axis": 1, "batch_axis": (2,)}:
        made = getattr(ours, name)(**axes)(KEY, (20, 30, 40))
        assert_same_bits(made, ours.variance_scaling(*NAMED[name], **axes)(KEY, (20, 30, 40)))
        theirs = getattr(peer, name)(**axes)(KEY, (20, 30, 40))
        assert stats.ks_2samp(np.ravel(made), np.ravel(theirs)).pvalue > P_VALUE
        np.testing.assert_allclose(np.std(made), np.std(theirs), rtol=0.05)  # > 7 sigma
        np.testing.assert_allclose(abs(made).max(), abs(theirs).max(), rtol=0.05)
    assert ours.xavier_uniform is ours.glorot_uniform and ours.kaiming_normal is ours.he_normal
    assert ours.xavier_normal is ours.glorot_normal and ours.kaiming_uniform is ours.he_uniform


@pytest.mark.parametrize(
    ("name", "arguments", "law"),
    [
        ("normal", (0.5,), stats.norm(0, 0.5)),
        ("uniform", (3.0,), stats.uniform(0, 3)),
        ("truncated_normal", (0.5,), stats.truncnorm(-2, 2, scale=0.5)),
        ("truncated_normal", (0.5, None, -1.0, 3.0), stats.truncnorm(-1, 3, scale=0.5)),
    ],
)
@pytest.mark.parametrize("shape", [(50_000,), (), (20, 50, 50)])
def test_plain_distributions(name, arguments, law, shape):
    for module in peer, ours:
        numbers = np.ravel(getattr(module, name)(*arguments)(KEY, shape))
        assert stats.kstest(numbers, law.cdf).pvalue > P_VALUE
        assert law.support()[0] <= numbers.min() and numbers.max() <= law.support()[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_never_reaches_its_end(dtype):
    made = ours.uniform(1.0)(KEY, (100_000,), dtype).astype("float32")
    assert made.min() >= 0 and made.max() < 1


def test_scale_of_nothing():
    for init in (
        ours.uniform(0.0),
        ours.normal(0.0),
        ours.truncated_normal(0.0),
        *(ours.variance_scaling(0.0, "fan_in", d) for d in ("uniform", "normal")),
    ):
        assert not init(KEY, (3, 4)).any()


@pytest.mark.parametrize("shape", [(8, 8), (32, 8), (8, 32), (3, 4, 5, 24), (4, 6)])
@pytest.mark.parametrize("column_axis", [-1, 0, 1])
def test_orthogonal(shape, column_axis):
    for module in peer, ours:
        made = np.asarray(module.orthogonal(2.0, column_axis)(KEY, shape))
        matrix = np.moveaxis(made, column_axis, -1).reshape(-1, shape[column_axis])
        matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        np.testing.assert_allclose(matrix.T @ matrix, 4 * np.eye(matrix.shape[1]), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 4, 8), (3, 4, 2, 5), (3, 3, 3, 2, 2)])
@pytest.mark.parametrize("column_axis", [-2, -1, 0, 1])
def test_delta_orthogonal(shape, column_axis):
    for module in peer, ours:
        made = np.array(module.delta_orthogonal(2.0, column_axis)(KEY, shape))
        centre = tuple((n - 1) // 2 for n in shape[:-2])
        tap = made[centre]
        np.testing.assert_allclose(tap @ tap.T, 4 * np.eye(shape[-2]), atol=1e-5)
        made[centre] = 0
        assert not made.any()


def test_deterministic_ones_are_jaxs():
    assert ours.zeros is peer.zeros and ours.ones is peer.ones
    assert ours.constant is peer.constant


def test_default_types():
    for name, arguments in SCHEMES.items():
        init = getattr(ours, name)(*arguments)
        assert init(KEY, SHAPE).dtype == init(KEY, SHAPE, float).dtype == jnp.float32
        narrow = getattr(ours, name)(*arguments, dtype=jnp.bfloat16)
        assert narrow(KEY, SHAPE).dtype == jnp.bfloat16
        assert narrow(KEY, SHAPE, jnp.float16).dtype == jnp.float16
        for module in peer, ours:
            init = getattr(module, name)(*arguments)
            with pytest.warns(UserWarning, match="float64 .* will be truncated to dtype float32"):
                assert init(KEY, SHAPE, "float64").dtype == jnp.float32
        with jax.enable_x64(True):
            init = getattr(ours, name)(*arguments)
            made = init(KEY, SHAPE)
            assert made.dtype == jnp.float64
            assert_same_bits(jax.jit(lambda key, init=init: init(key, SHAPE))(KEY), made)
    with jax.enable_x64(True):
        expected = wf.RandomNormal(0.0, 1.0)(9, seed=7, dtype="float64")
        assert_same_bits(ours.normal(1.0)(KEY, (9,)), expected)


def test_shapes_as_jax_takes_them():
    expected = ours.normal()(KEY, (3, 4))
    for shape in ([3, 4], np.array([3, 4]), (np.int64(3), 4)):
        assert_same_bits(ours.normal()(KEY, shape), expected)
    assert ours.normal()(KEY, 3).shape == (3,)
    assert ours.normal()(KEY, (3, 0)).shape == peer.normal()(KEY, (3, 0)).shape
    assert ours.orthogonal()(KEY, (3, 0)).shape == (3, 0)


@pytest.mark.parametrize("name", ["normal", "he_uniform", "he_normal", "orthogonal"])
def test_complex_numbers_are_jaxs_own(name):
    made, theirs = (getattr(module, name)()(KEY, (4, 5), "complex64") for module in (ours, peer))
    assert made.dtype == jnp.complex64
    np.testing.assert_array_equal(made, theirs)


GOOD = (KEY, (3, 4, 4))
BAD = {
    "integers": (*GOOD, "int32"),
    "bool": (*GOOD, bool),
    "no such type": (*GOOD, "float33"),
    "an array as type": (*GOOD, jnp.zeros(3)),
    "no key": (None, (3, 4, 4)),
    "a number as key": (7, (3, 4, 4)),
    "a list as key": ([0, 1], (3, 4, 4)),
    "many keys": (KEYS, (3, 4, 4)),
    "many raw keys": (jax.random.key_data(KEYS), (3, 4, 4)),
    "raw key too long": (np.zeros(4, np.uint32), (3, 4, 4)),
    "raw key of another type": (np.zeros(2, np.int32), (3, 4, 4)),
    "fractions": (KEY, (3, 4.5, 4)),
    "text": (KEY, "abc"),
    "no axes": (KEY, ()),
    "one axis": (KEY, (4,)),
    "a number as shape": (KEY, 4),
    "no elements": (KEY, (3, 0, 4)),
    "a negative extent": (KEY, (3, -4, 4)),
    "more inputs than outputs": (KEY, (3, 5, 4)),
    "too many axes": (KEY, (1, 1, 1, 1, 2, 2)),
    "a sharding without a mesh": (*GOOD, "float32", jax.sharding.PartitionSpec("x")),
    "no sharding": (*GOOD, "float32", "x"),
}


def _refusal(init, arguments):
    try:
        init(*arguments)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("mistake", BAD)
def test_refused_with_errors_of_the_same_type(name, mistake):
    arguments = SCHEMES[name]
    theirs = _refusal(getattr(peer, name)(*arguments), BAD[mistake])
    own = _refusal(getattr(ours, name)(*arguments), BAD[mistake])
    # JAX does not support this argument; ours rejects wrong values
    if theirs is NotImplementedError and "sharding" in mistake:
        assert own in (TypeError, ValueError)
    else:
        assert own is theirs


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: m.variance_scaling(1.0, "fan", "normal"), ValueError, "mode|fan"),
        (lambda m: m.variance_scaling(1.0, "fan_in", "gamma"), ValueError, "distribution"),
        (lambda m: m.he_normal(in_axis=5), IndexError, "index out of range|in_axis is 5, .* 3 ax"),
        (lambda m: m.he_normal(batch_axis=(0, 7)), IndexError, "range|batch_axis is .0, 7., but"),
        (lambda m: m.orthogonal(1.0, 3), IndexError, "range|column_axis is 3"),
        (lambda m: m.delta_orthogonal(1.0, 2), IndexError, "range|column_axis is 2"),
    ],
)
def test_parameters_refused(make, error, message):
    for module in peer, ours:
        with pytest.raises(error, match=message):
            make(module)(*GOOD)
        with pytest.raises(error, match=message):
            jax.eval_shape(lambda key, module=module: make(module)(key, GOOD[1]), KEY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ours.normal(-1.0), "stddev must be >= 0, got -1.0"),
        (lambda: ours.uniform(-1.0), "scale must be >= 0, got -1.0"),
        (lambda: ours.he_normal()(jax.random.key(0), (3,)), "shape .3,.|1-dimensional"),
        (
            lambda: ours.truncated_normal(1.0, lower=2.0, upper=1.0),
            "lower must be < upper, got 2.0",
        ),
        (lambda: ours.variance_scaling(-1.0, "fan_in", "normal"), "scale must be >= 0, got -1.0"),
        (lambda: ours.variance_scaling(1.0, "fan_inn", "normal"), "did you mean 'fan_in'"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_traced_calls_refuse_before_they_run():
    with pytest.raises(ValueError, match="at least as many outputs as inputs"):
        jax.eval_shape(lambda key: ours.delta_orthogonal()(key, (3, 5, 4)), KEY)
    with pytest.raises(ValueError, match="at least a 2D shape"):
        jax.eval_shape(lambda key: ours.orthogonal()(key, (4,)), KEY)


def test_large_arrays_are_not_copied():
    array = arrays.on_host(wf.Ones(), (256, 1024), np.dtype("bfloat16"), 0, None)
    placed = arrays.placed(array, KEY)
    address = array.view(np.uint16).__array_interface__["data"][0]
    assert placed.unsafe_buffer_pointer() == address and (placed == 1).all()


def test_a_large_array_may_be_donated():
    w = ours.he_normal()(KEY, (512, 512))
    expected = 2 * np.array(w)
    np.testing.assert_array_equal(jax.jit(lambda x: 2 * x, donate_argnums=0)(w), expected)
    np.testing.assert_array_equal(2 * ours.he_normal()(KEY, (512, 512)), expected)


def test_compiled_ahead_of_time():
    init = jax.jit(lambda key: ours.he_normal()(key, SHAPE))
    compiled = init.lower(KEY).compile()
    for key in KEYS:
        assert_same_bits(compiled(key), ours.he_normal()(key, SHAPE))


def test_export_refuses_what_calls_the_host():
    with pytest.raises(NotImplementedError, match="host_callbacks"):
        jax.export.export(jax.jit(lambda key: ours.normal()(key, SHAPE)))(KEY)
    w = ours.normal()(KEY, SHAPE)  # an initializer's result can be an argument of a traced function
    exported = jax.export.export(jax.jit(lambda w: 2 * w))(w)
    np.testing.assert_array_equal(exported.call(w), 2 * w)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, lambda f: jax.vmap(f, axis_size=2)])
@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (ours.normal, "stddev"),
        (ours.uniform, "scale"),
        (ours.truncated_normal, "stddev"),
        (lambda scale: ours.variance_scaling(scale, "fan_in", "normal"), "scale"),
        (ours.orthogonal, "scale"),
        (ours.delta_orthogonal, "scale"),
    ],
)
def test_traced_parameters_are_refused(make, parameter, transform):
    """A gradient with respect to them would be lost; multiply the result instead."""
    numbers = jnp.ones(2) if transform not in (jax.jit, jax.grad) else 1.0
    with pytest.raises(TypeError, match=f"{parameter} must be a real number, got .*Tracer"):
        transform(lambda s: make(s)(KEY, (3, 4, 4)).sum())(numbers)


def test_loops_and_branches():
    keys = [jax.random.fold_in(KEY, at) for at in range(3)]
    init = ours.normal(1.0)

    def step(at, total):
        return total + init(jax.random.fold_in(KEY, at), SHAPE)

    total = jax.lax.fori_loop(0, 3, step, jnp.zeros(SHAPE))
    assert_same_bits(total, init(keys[0], SHAPE) + init(keys[1], SHAPE) + init(keys[2], SHAPE))
    branch = jax.jit(
        lambda yes: jax.lax.cond(yes, lambda: init(KEY, SHAPE), lambda: jnp.zeros(SHAPE))
    )
    assert_same_bits(branch(True), init(KEY, SHAPE))
    assert not branch(False).any()


def test_from_initializer_refuses_before_it_makes_anything():
    filled = []

    class Watched(wf.Initializer):
        def _fill(self, out, box, stream, num_threads):
            filled.extend([box] * bool(out.size))

        fill_box = _fill

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for wrong in (
        {"name": 1.5},
        {"dtype": "int32"},
        {"seed": -1},
        {"shape": (-1, 2)},
        {"sharding": "x"},
    ):
        arguments = {"shape": (4, 4), "sharding": device, "seed": 0} | wrong
        with pytest.raises((TypeError, ValueError)):
            ours.from_initializer(Watched(), **arguments)
    assert not filled
    ours.from_initializer(Watched(), (4, 4), device, seed=0)
    assert len(filled) == 1


def test_fans_that_are_no_whole_numbers():
    """JAX divides twice by an axis that is both an output axis and a batch axis."""
    axes = {"out_axis": 0, "batch_axis": 0}
    made = np.asarray(ours.variance_scaling(3.0, "fan_in", "normal", **axes)(KEY, (7, 90, 4)))
    expected = wf.RandomNormal(0.0, math.sqrt(3.0 / (7 * 90 * 4 / 49)))((7, 90, 4), seed=7)
    np.testing.assert_allclose(made, expected, rtol=3e-7)
    theirs = peer.variance_scaling(3.0, "fan_in", "normal", **axes)(KEY, (7, 90, 4))
    assert stats.ks_2samp(made.ravel(), np.ravel(theirs)).pvalue > P_VALUE


DEVICES = """
    import jax, jax.numpy as jnp, numpy as np
    import winit_fast as wf, winit_fast.jax as ours
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

    assert jax.device_count() == 8
    same = lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    auto, explicit = (
        jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
        for kind in (AxisType.Auto, AxisType.Explicit)
    )
    specs = [P(), P("x"), P(None, "y"), P("x", "y"), P(("y", "x")), P("y", "x")]
    key, shape, init = jax.random.key(3), (16, 24), ours.he_normal()
    whole = init(key, shape)
"""

# Programs that need eight devices; one process runs all of them.
ON_EIGHT_DEVICES = {
    "each shard is made alone": """
        class Watched(wf.HeNormal):
            def fill_box(self, out, box, stream, num_threads):
                filled.append(box.sizes)
                super().fill_box(out, box, stream, num_threads)
        for spec in specs:
            filled = []
            sharding = NamedSharding(auto, spec)
            made = ours.from_initializer(Watched(), shape, sharding, "bfloat16", seed=5, name="w")
            assert made.sharding == sharding and made.dtype == jnp.bfloat16
            same(made, wf.HeNormal()(shape, seed=5, name="w", dtype="bfloat16"))
            assert set(filled) - {(0, 0)} == {sharding.shard_shape(shape)}  # that one is the check
    """,
    "large shards too": """
        sharding = NamedSharding(auto, P("x", "y"))
        made = ours.from_initializer("lecun_uniform", (1024, 512), sharding, seed=5)
        same(made, wf.LecunUniform()((1024, 512), seed=5))
    """,
    "orthogonal to rounding": """
        q = ours.from_initializer("orthogonal", (64, 32), NamedSharding(auto, P("x", "y")), seed=1)
        np.testing.assert_allclose(q, wf.Orthogonal()((64, 32), seed=1), atol=1e-5)
    """,
    "out_sharding, eager": """
        for mesh in (auto, explicit):
            for spec in specs:
                made = init(key, shape, jnp.float32, NamedSharding(mesh, spec))
                assert made.sharding == NamedSharding(mesh, spec)
                same(made, whole)
    """,
    "out_sharding, in jit, each shard alone": """
        with jax.set_mesh(explicit):
            for spec in specs:
                made = jax.jit(lambda k: init(k, shape, jnp.float32, spec))(key)
                assert made.sharding.is_equivalent_to(NamedSharding(explicit, spec), 2)
                same(made, whole)
                same(init(key, shape, jnp.float32, spec), whole)
            text = jax.jit(lambda k: init(k, shape, jnp.float32, P("x", "y"))).lower(key).as_text()
            assert "4x12xf32" in text and "16x24xf32>, tensor" not in text
            same(jax.jit(lambda k: init(k, shape))(key), whole)
    """,
    "inside shard_map, each device with a key of its own": """
        keys = jax.random.split(key, 4)
        made = jax.jit(jax.shard_map(
            lambda k: init(k[0], shape)[None], mesh=auto, in_specs=P("x"), out_specs=P("x"),
            check_vma=False,
        ))(keys)
        same(made, np.stack([init(k, shape) for k in keys]))
    """,
    "out_shardings of jit": """
        for spec in specs:
            made = jax.jit(lambda k: init(k, shape), out_shardings=NamedSharding(auto, spec))(key)
            same(made, whole)
    """,
    "uneven": """
        try:
            jax.jit(lambda k: init(k, (15, 24), None, NamedSharding(explicit, P("x"))))(key)
        except ValueError as error:
            assert "out_sharding must cut shape (15, 24) evenly" in str(error)
        else:
            raise AssertionError
    """,
    "where the key is": """
        for where in (jax.devices()[5], NamedSharding(auto, P())):
            there = jax.device_put(key, where)
            for module in (ours, jax.nn.initializers):
                made = module.he_normal()(there, shape)
                assert made.sharding.device_set == there.sharding.device_set
            same(ours.he_normal()(there, shape), whole)
        with jax.default_device(jax.devices()[2]):
            assert init(jax.random.key(3), shape).devices() == {jax.devices()[2]}
    """,
}


def test_on_eight_devices():
    checks = [textwrap.dedent(DEVICES)] + [
        f"# {name}\n{textwrap.dedent(check)}" for name, check in ON_EIGHT_DEVICES.items()
    ]
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    program = f"import os\nos.environ |= {environment}\n" + "\n".join(checks) + "\nprint('done')"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "done\n", run.stderr[-3000:]


def test_without_jax():
    program = "import sys; sys.modules['jax'] = None; import winit_fast.jax"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: winit_fast.jax needs JAX") and "'winit_fast[jax]'" in last
