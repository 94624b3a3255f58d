"""winit_fast.dask: the values of an array do not depend on its chunks."""

import pickle
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

import winit_fast as wf
import winit_fast.dask

SHAPE = (37, 50)
CHUNKS = [
    SHAPE,
    (10, 10),
    (1, 50),
    ((30, 7), (1, 48, 1)),
    "auto",
    -1,
    {0: 5, 1: -1},
]
SCHEMES = [
    wf.HeNormal(),
    wf.GlorotUniform(),
    wf.TruncatedNormal(),
    wf.Constant(0.3),
    wf.Identity(2.0),
    "lecun_normal",
]


def _bits(array):
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_chunks_change_no_bit(chunks, scheme, dtype):
    made = winit_fast.dask.from_initializer(scheme, SHAPE, chunks, dtype, seed=3, name="w")
    expected = wf.get(scheme)(SHAPE, seed=3, name="w", dtype=dtype)
    assert isinstance(made, da.Array) and made.shape == SHAPE and made.dtype == expected.dtype
    assert made.chunks == da.zeros(SHAPE, chunks=chunks, dtype=expected.dtype).chunks
    computed = made.compute()
    assert computed.dtype == expected.dtype
    np.testing.assert_array_equal(_bits(computed), _bits(expected))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_schedulers(scheduler):
    made = winit_fast.dask.from_initializer("he_normal", (300, 200), 64, seed=1)
    expected = wf.HeNormal()((300, 200), seed=1)
    np.testing.assert_array_equal(made.compute(scheduler=scheduler), expected)


@pytest.mark.parametrize("shape", [(), 5, (0, 3), (2, 3, 4, 5)])
def test_shapes(shape):
    made = winit_fast.dask.from_initializer(wf.RandomNormal(), shape, seed=1)
    np.testing.assert_array_equal(made.compute(), wf.RandomNormal()(shape, seed=1))


def test_orthogonal_to_rounding():
    made = winit_fast.dask.from_initializer("orthogonal", (60, 40), 17, seed=1).compute()
    np.testing.assert_allclose(made, wf.Orthogonal()((60, 40), seed=1), atol=1e-5)


def test_only_what_is_needed_is_made():
    """Of an array of a thousand chunks, a gigabyte, only the requested chunk is made."""
    made = winit_fast.dask.from_initializer("he_normal", (1 << 26, 4), 1 << 16, seed=1)[-2:, -2:]
    expected = wf.HeNormal()((1 << 26, 4), seed=1, index=np.s_[-2:, -2:])
    np.testing.assert_array_equal(made.compute(), expected)


def test_names_of_graphs():
    """Equal arrays have equal names in Dask's graph; a seed that is not given is drawn once."""

    def make(**changed):
        arguments = {"initializer": "he_normal", "shape": (8, 8), "seed": 1, "name": "a"}
        return winit_fast.dask.from_initializer(**(arguments | changed))

    assert make().name == make().name
    others = [make(seed=2), make(name="b"), make(shape=(8, 9)), make(dtype="float64")]
    others += [make(initializer="lecun_normal"), make(chunks=3), make(seed=None), make(seed=None)]
    assert len({array.name for array in [make(), *others]}) == 9
    unseeded = make(seed=None)
    np.testing.assert_array_equal(unseeded.compute(), unseeded.rechunk(3).compute())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(make())).compute(), make().compute())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("he_norml", (3, 4)), ValueError, "did you mean 'he_normal'"),
        (("he_normal", (3, -4)), ValueError, "shape must not have negative extents"),
        (("he_normal", (3, 4), -1, "int32"), TypeError, "dtype must be one of .* got 'int32'"),
        (("identity", (3,)), ValueError, "Identity is for matrices, got shape .3,."),
        (("orthogonal", (3,)), ValueError, "at least two axes, got shape .3,."),
        (("he_normal", (3, 4), ((2, 2), (4,))), ValueError, "Chunks do not add up to shape"),
    ],
)
def test_refused_before_anything_is_computed(arguments, error, message):
    with pytest.raises(error, match=message):
        winit_fast.dask.from_initializer(*arguments, seed=1)


def test_names_are_refused_before_anything_is_computed():
    with pytest.raises(TypeError, match=r"name must be a str, an integer or None, got 1.5"):
        winit_fast.dask.from_initializer("he_normal", (3, 4), seed=1, name=1.5)


def test_a_bit_generator_in_dasks_random_arrays_is_refused():
    """Dask gives each chunk a bit generator made from a seed alone, so the stream would be lost."""
    generator = da.random.default_rng(wf.Philox4x32(0, "noise"))
    with pytest.raises(AttributeError, match="cannot draw from a Philox4x32, as it would lose"):
        generator.normal(size=10, chunks=5)
    assert not hasattr(wf, "random")


def test_without_dask():
    program = "import sys; sys.modules['dask.array'] = None; import winit_fast.dask"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: winit_fast.dask needs Dask")
    assert "'winit_fast[dask]'" in message
