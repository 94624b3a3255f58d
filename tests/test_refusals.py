"""Wrong arguments: the error shows the value, and nothing is written."""

import contextlib
import ctypes
import math
import os
import re
import struct
import subprocess
import sys
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from draws import DRAWS

import winit_fast as wf

STREAM = wf.Stream(0, "x")


NORMALS = STREAM.normal, wf.RandomNormal().fill
FILLS = *NORMALS, wf.Ones().fill


def _refused(error, message, out, fills=FILLS, **options):
    """Check that neither a stream nor an initializer writes to ``out``."""
    for fill in fills:
        before = bytes(memoryview(_memory(out)))
        target = {"out": out} if fill == STREAM.normal else {}
        with pytest.raises(error, match=message):
            fill(*([] if target else [out]), **target, **options)
        assert bytes(memoryview(_memory(out))) == before


def _memory(out):
    while isinstance(out, np.ndarray) and isinstance(out.base, np.ndarray):
        out = out.base
    return out.view(np.uint8) if isinstance(out, np.ndarray) else out


def test_read_only():
    out = np.zeros(8, np.float32)
    out.flags.writeable = False
    _refused(ValueError, "out must be writable, got a read-only ndarray", out)
    _refused(TypeError, "out must have one of the types .*, got uint8", b"abcdefgh", NORMALS)
    _refused(ValueError, "out must be writable, got a read-only bytes", b"abcdefgh", FILLS[2:])
    with pytest.raises(ValueError, match="read-only memoryview"):
        STREAM.normal(out=memoryview(b"abcdefgh").cast("f"))


def test_overlap():
    row = np.zeros(4, np.float32)
    strided = partial(np.ndarray, dtype=np.float32, buffer=row)
    message = r"out must not have elements that overlap or interleave, got shape .* with strides"
    for shape, strides in (((3, 4), (0, 4)), ((3, 2), (4, 4)), ((2,), (2,)), ((2, 2), (4, 4))):
        _refused(ValueError, message, strided(shape, strides=strides))
        _refused(ValueError, message, strided(shape, strides=strides)[::-1])
    interleaved = np.ndarray((2, 3), np.float32, np.zeros(12, np.float32), strides=(20, 12))
    _refused(ValueError, message, interleaved)
    # Elements must not overlap; a single row cannot overlap itself.
    STREAM.normal(out=strided((1, 4), strides=(0, 4)))
    STREAM.normal(out=strided((0, 4), strides=(0, 4)))


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2"])
def test_foreign_byte_order(dtype):
    out = np.zeros(8, dtype)
    assert not out.dtype.isnative, "this test is for little-endian machines"
    _refused(TypeError, f"got {dtype} of foreign byte order", out)


INTEGERS = "int32", "uint8", "bool"


@pytest.mark.parametrize(
    "dtype", [*INTEGERS, "complex256", "longdouble", ml_dtypes.float8_e4m3, "S4"]
)
def test_types(dtype):
    out = np.zeros(8, dtype)
    message = f"out must have one of the types float64.*got .*{out.dtype}"
    _refused(TypeError, message, out, NORMALS if dtype in INTEGERS else FILLS)
    for make in (STREAM.normal, wf.RandomNormal()):
        with pytest.raises(TypeError, match="dtype must be one of float64, float32"):
            make(shape=8, dtype=dtype)


def test_type_that_was_meant():
    with pytest.raises(TypeError, match="got 'bfloat'; did you mean 'bfloat16'"):
        wf.Zeros()(3, dtype="bfloat")
    with pytest.raises(TypeError, match="dtype must be uint32 or uint64, got 'int32'"):
        STREAM.bits(3, dtype="int32")
    out = np.zeros(3, np.float32)
    for draw in (STREAM.normal, STREAM.uniform):
        with pytest.raises(TypeError, match="dtype is 'float64', but out has float32"):
            draw(out=out, dtype="float64")
    with pytest.raises(TypeError, match="dtype is 'uint32', but out has uint64"):
        STREAM.bits(out=np.zeros(3, np.uint64), dtype="uint32")
    with pytest.raises(TypeError, match="out must have one of the types uint32, uint64, got float"):
        STREAM.bits(out=out)
    assert not out.any()


def test_what_is_no_buffer():
    for out in ([1.0, 2.0], 3.0, object()):
        with pytest.raises(TypeError, match=f"out must be a NumPy .* got {type(out).__name__}"):
            STREAM.normal(out=out)


@pytest.mark.parametrize("shape", [(1 << 62, 3), (1 << 63, 2), (1 << 21, 1 << 21, 1 << 22)])
def test_sizes_past_2_to_63(shape):
    index = (slice(0, 1),) * len(shape)
    out = np.zeros((1,) * len(shape), np.float32)
    message = "shape must have at most 2\\^63 elements, got"
    _refused(ValueError, message, out, shape=shape, index=index)
    assert STREAM.normal(shape=(1 << 62, 2), index=np.s_[-1:, 1:]).shape == (1, 1)


def test_shapes():
    with pytest.raises(ValueError, match=r"shape must not have negative extents, got \(3, -1\)"):
        STREAM.normal(shape=(3, -1))
    for shape in (2.5, (3, 2.5)):
        with pytest.raises(TypeError, match=r"shape must be an integer, got 2.5"):
            STREAM.normal(shape=shape)
    with pytest.raises(TypeError, match=r"num_threads must be an integer, got 1.5"):
        STREAM.normal(shape=3, num_threads=1.5)
    for method in DRAWS:
        with pytest.raises(TypeError, match="shape must be given, or out"):
            getattr(STREAM, method)()
    out = np.zeros((3, 4), np.float32)
    _refused(ValueError, r"out must have shape \(4, 3\), got \(3, 4\)", out, shape=(4, 3))
    _refused(ValueError, r"out must have shape \(4,\), got \(3, 4\)", out, shape=(5, 4), index=2)
    _refused(ValueError, "needs the shape of the logical tensor", out, index=np.s_[0:3])


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (np.s_[0:5], IndexError, r"index 5 is outside of axis 0 of shape \(4, 6\)"),
        (np.s_[-5:3], IndexError, "index -5 is outside of axis 0"),
        (np.s_[:, 7:], IndexError, "index 7 is outside of axis 1"),
        (4, IndexError, "index 4 is outside of axis 0"),
        (np.s_[..., -7], IndexError, "index -7 is outside of axis 1"),
        (np.s_[0, 0, 0], IndexError, "too many axes"),
        (np.s_[..., 0, ...], IndexError, "at most one Ellipsis"),
        (np.s_[::2], ValueError, "index must have step 1"),
        (np.s_[::-1], ValueError, "index must have step 1"),
        (None, None, None),
        (np.s_[None, 0:2], TypeError, "index must hold slices, integers and one Ellipsis"),
        ([0, 1], TypeError, "index must hold slices"),
        (True, TypeError, "index must hold slices"),
        (1.0, TypeError, "index must hold slices"),
        (np.s_[0.0:2], TypeError, "index must be an integer, got 0.0"),
    ],
)
def test_boxes(index, error, message):
    if error is None:
        assert STREAM.normal(shape=(4, 6), index=index).shape == (4, 6)
        return
    for make in (STREAM.normal, wf.HeNormal(), wf.Zeros()):
        with pytest.raises(error, match=message):
            make(shape=(4, 6), index=index)


def test_seed_and_name_out_of_range():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        wf.Stream(-1)
    for name in (-1, 1 << 64):
        with pytest.raises(ValueError, match=f"name must be from 0 to 2\\^64 - 1, got {name}"):
            wf.Stream(0, name)
    out = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        wf.HeNormal().fill(out, seed=-1)
    assert not out.any()


@pytest.mark.parametrize("seed", [1 << 64, (1 << 64) + 7, 1 << 200])
def test_seeds_of_more_than_64_bits_go_through_seed_sequence(seed):
    for given in (seed, np.array(seed, object)[()]):
        assert wf.Stream(given).seed == wf.Stream(np.random.SeedSequence(seed)).seed
    assert wf.Stream((1 << 64) - 1).seed == (1 << 64) - 1


def test_seed_and_name_of_other_types():
    with pytest.raises(TypeError, match="seed must be an integer, a SeedSequence, .* got 1.5"):
        wf.Stream(1.5)
    with pytest.raises(TypeError, match="name must be a str, an integer or None, got b'fc'"):
        wf.Stream(0, b"fc")


@pytest.mark.parametrize("offset", [-1, 1 << 63])
def test_offset(offset):
    with pytest.raises(ValueError, match=f"offset must .*, got {offset}"):
        STREAM.bits(1, offset)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("cls", "parameter"),
    [
        (wf.Identity, "gain"),
        (wf.RandomUniform, "minval"),
        (wf.RandomUniform, "maxval"),
        (wf.RandomNormal, "mean"),
        (wf.RandomNormal, "stddev"),
        (wf.TruncatedNormal, "mean"),
        (wf.TruncatedNormal, "stddev"),
        (wf.VarianceScaling, "scale"),
        (wf.LecunNormal, "scale"),
    ],
)
def test_parameters_that_are_not_finite(cls, parameter, wrong):
    with pytest.raises(ValueError, match=f"{parameter} must be finite, got {wrong}"):
        cls(**{parameter: wrong})


@pytest.mark.parametrize("wrong", ["1", b"1", None, 1j, [1.0], 10**400])
@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (wf.Constant, "value"),
        (wf.Identity, "gain"),
        (wf.Orthogonal, "gain"),
        (wf.RandomUniform, "minval"),
        (wf.RandomNormal, "stddev"),
        (wf.TruncatedNormal, "low"),
        (wf.TruncatedNormal, "high"),
        (wf.LecunNormal, "scale"),
        *(
            (partial(getattr(STREAM, method), shape=3), name)
            for method, draw in DRAWS.items()
            for name in draw.names
        ),
    ],
)
def test_parameters_that_are_no_numbers(make, parameter, wrong):
    error = ValueError if isinstance(wrong, int) else TypeError
    with pytest.raises(error, match=f"^{parameter} must .*got {re.escape(repr(wrong))}"):
        make(**{parameter: wrong})


def test_scalars_that_are_no_python_floats():
    """Their value is read at each call: an object that may change is no key of the cache."""

    class Changing:
        def __float__(self):
            return self.number

    loc = Changing()
    for loc.number in (1.0, 5.0):
        expected = STREAM.normal(loc.number, 0.5, 8)
        for same in (loc, np.array(loc.number), np.float32(loc.number)):
            np.testing.assert_array_equal(STREAM.normal(same, 0.5, 8), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: STREAM.normal(shape=np.array(2.5)), "shape must be an integer, got array"),
        (lambda: STREAM.normal(shape=(0, 1 << 64)), "shape must have at most 2\\^63 elements"),
        (lambda: STREAM.normal(shape=1 << 62), r"shape must be .*4611686018427387904,\): array is"),
        (lambda: wf.Zeros()((1,) * 65), "shape must be .*: maximum supported dimension"),
        (lambda: wf.Stream(0, "\ud800"), r"name must be text .* got '\\ud800'"),
        (lambda: wf.Zeros()(3, dtype=None), "dtype must be one of .*, got None"),
        (lambda: wf.Zeros()(3, dtype="f4,,"), "dtype must be one of .*, got 'f4,,'"),
        (lambda: STREAM.bits(3, dtype="word"), "dtype must be uint32 or uint64, got 'word'"),
        (lambda: wf.get(None), "identifier must be a name, a mapping .*, got None"),
        (lambda: STREAM.bits(), "^n must be given, or out"),
        (lambda: STREAM.bits((2, -1)), r"^n must not have negative extents, got \(2, -1\)"),
        (lambda: STREAM.bits(out=np.zeros(2, "u4"), n=1.5), "^n must be an integer, got 1.5"),
        (lambda: STREAM.bits(out=np.zeros(2, "u4"), index=0), "logical tensor: give n="),
        (
            lambda: wf.get("he_normal", moed=1),
            "HeNormal must be .* got 'moed'; did you mean 'mode'",
        ),
        (
            lambda: wf.RandomNormal.from_config({"std": 3}),
            "parameters of RandomNormal must be one of mean, stddev, got 'std'.* mean 'stddev'",
        ),
        (lambda: wf.get("zeros", value=3), "Zeros has no parameters, got 'value'"),
        (
            lambda: wf.VarianceScaling(in_axis=1.5),
            "^in_axis must be an int or a sequence of them, got 1.5",
        ),
        (lambda: wf.HeNormal(batch_axis=(0, None)), "^batch_axis must be an integer, got None"),
        (lambda: wf.HeNormal(mode=["fan_in"]), r"mode must be one of .* got \['fan_in'\]"),
        (lambda: wf.HeNormal(fan_in=1 << 64), "fan_in must be at most 2\\^63, got 1844"),
    ],
)
def test_what_only_odd_arguments_meet(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("code", ["c_longdouble", "c_void_p"])
def test_buffers_that_numpy_cannot_read(code):
    with pytest.raises(TypeError, match=f"out must be a NumPy array, .* got {code}_Array_3: "):
        STREAM.normal(out=(getattr(ctypes, code) * 3)())
    view = memoryview(bytearray(16)).cast("f")
    view.release()
    with pytest.raises(TypeError, match="got memoryview: operation forbidden on released"):
        STREAM.normal(out=view)


@pytest.mark.parametrize("dtype", ["float16", "float8_e4m3fn"])
def test_a_gain_that_does_not_fit_leaves_the_buffer_alone(dtype):
    out = np.zeros((3, 4, 4), dtype)
    for initializer in (wf.Orthogonal(1e6, batch_axis=0), wf.DeltaOrthogonal(1e6)):
        with pytest.raises(ValueError, match=f"gain must fit {dtype}, got 1000000.0"):
            initializer.fill(out)
    assert not out.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wf.RandomNormal(0.0, -1.0), "stddev must be >= 0, got -1.0"),
        (lambda: wf.TruncatedNormal(0.0, -1.0), "stddev must be >= 0, got -1.0"),
        (lambda: wf.VarianceScaling(-1.0), "scale must be >= 0, got -1.0"),
        (lambda: wf.RandomUniform(1.0, 1.0), "minval must be < maxval, got 1.0 and 1.0"),
        (lambda: wf.TruncatedNormal(0, 1, 2, -2), "low must be < high, got 2.0 and -2.0"),
        (lambda: wf.TruncatedNormal(0, 1, math.nan, 2), "low must be < high, got nan and 2.0"),
        (lambda: wf.HeNormal(mode="fan_inn"), "got 'fan_inn'; did you mean 'fan_in'"),
        (
            lambda: wf.VarianceScaling(distribution="untruncated_normal"),
            "got 'untruncated_normal'; did you mean 'truncated_normal'",
        ),
        (lambda: wf.HeNormal(fan_in=0), "fan_in must be at least 1, got 0"),
        (lambda: wf.get("he_norml"), "got 'he_norml'; did you mean 'he_normal'"),
        (lambda: wf.get("KaimingNormall"), "did you mean 'kaiming_normal'"),
        (lambda: wf.Identity()((3, 3, 3)), r"Identity is for matrices, got shape \(3, 3, 3\)"),
        (lambda: wf.Constant(1e6)(3, dtype="float16"), "value must fit float16, got 1000000.0"),
        (lambda: STREAM.normal(0.0, -1.0, 3), "scale must be >= 0.*-1.0"),
        (lambda: STREAM.normal(math.nan, 1.0, 3), "loc must be finite.*nan"),
        (lambda: STREAM.uniform(1.0, 0.0, 3), "low.* high.*1.0.*0.0"),
        (lambda: STREAM.truncated_normal(0, 1, 2.0, 1.0, 3), "low.* high.*2.0.*1.0"),
    ],
)
def test_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: STREAM.normal(1e39, 1, 3, dtype="float16"),
            "loc and scale must be finite in float32, got loc=1e+39 and scale=1",
        ),
        (
            lambda: wf.RandomNormal(stddev=1e300)(3),
            "mean and stddev must be finite in float32, got mean=0.0 and stddev=1e+300",
        ),
        (
            lambda: wf.TruncatedNormal(1e39)(3),
            "mean and stddev must be finite in float32, got mean=1e+39 and stddev=0.05",
        ),
        (
            lambda: wf.TruncatedNormal(1 + 2**-30, 1e-12)(3),
            (
                "float32 has no value between mean + low*stddev and mean + high*stddev, "
                "got mean=1.0000000009313226, stddev=1e-12, low=-2.0, high=2.0"
            ),
        ),
        (
            lambda: wf.RandomUniform(3.5e38, 3.6e38)(3),
            (
                "(maxval - minval) / 2 and (maxval + minval) / 2, taken in float64, must be finite "
                "in float32, got minval=3.5e+38 and maxval=3.6e+38"
            ),
        ),
        (
            lambda: STREAM.uniform(-1e308, 1.7e308, 3, dtype="float64"),
            (
                "(high - low) / 2 and (high + low) / 2, taken in float64, must be finite in "
                "float64, got low=-1e+308 and high=1.7e+308"
            ),
        ),
        (
            lambda: wf.RandomUniform(1 + 2**-30, 1 + 2**-29)(3),
            "float32 has no value in [minval, maxval) = [1.0000000009313226, 1.0000000018626451)",
        ),
        *(
            (
                lambda kind=kind: wf.VarianceScaling(1e300, distribution=kind, fan_in=4)(3),
                (
                    "scale must give a standard deviation that fits float32, got 1e+300, "
                    "which gives 5e+149"
                ),
            )
            for kind in ("normal", "uniform", "truncated_normal")
        ),
    ],
)
def test_parameters_that_a_type_refuses(make, message):
    """The errors show the names and the values that the caller used."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_what_is_no_scheme():
    with pytest.raises(
        NotImplementedError, match="Initializer cannot fill a tensor: it has no method fill_box"
    ):
        wf.Initializer()(3)


def test_a_constant_that_does_not_fit_leaves_the_buffer_alone():
    out = np.zeros((3, 3), np.float16)
    for initializer in (wf.Constant(1e6), wf.Identity(1e6)):
        with pytest.raises(ValueError, match="(value|gain) must fit float16"):
            initializer.fill(out)
    assert not out.any()


def test_an_instruction_set_that_this_processor_lacks():
    run = subprocess.run(
        [sys.executable, "-c", "import winit_fast"],
        env=os.environ | {"WINIT_FAST_ISA": "avx1024"},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0 and "avx1024" in run.stderr


class _Reshapes:
    """A number that changes the shape of a destination, or tries to, when it is read."""

    def __init__(self, out, number):
        self.out, self.number = out, number

    def __float__(self):
        return float(self.__index__())

    def __index__(self):
        with contextlib.suppress(ValueError):  # resize raises this if there is another reference
            self.out.resize((1,), refcheck=True)
        self.out.shape = self.out.shape[::-1]
        return self.number


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # NumPy 2.5
@pytest.mark.parametrize("where", ["loc", "scale", "shape", "index", "num_threads", "seed", "name"])
def test_an_argument_that_reshapes_out(where):
    """All numbers are read before the buffer is taken, so nothing is written outside of it."""
    room = np.full(3 * 4000, 7, np.float32)
    out = room[4000:8000].reshape(40, 100)
    numbers = {key: _Reshapes(out, value) for key, value in (("loc", 0), ("scale", 1))}
    arguments = {
        "loc": {"loc": numbers["loc"]},
        "scale": {"scale": numbers["scale"]},
        "shape": {"shape": (_Reshapes(out, 40), 100)},
        "index": {"shape": (80, 100), "index": (slice(_Reshapes(out, 40), 80), slice(None))},
        "num_threads": {"num_threads": _Reshapes(out, 2)},
    }
    with contextlib.suppress(ValueError, TypeError):
        if where in ("seed", "name"):
            wf.RandomNormal().fill(out, **{where: _Reshapes(out, 3)})
        else:
            STREAM.normal(out=out, **arguments[where])
    assert (room[:4000] == 7).all() and (room[8000:] == 7).all()
    if where in ("shape", "index", "num_threads"):
        out = room[4000:8000].reshape(40, 100)
        with contextlib.suppress(ValueError, TypeError):
            wf.RandomNormal().fill(out, **arguments[where])
    assert (room[:4000] == 7).all() and (room[8000:] == 7).all()


class _Liar(np.ndarray):
    shape = property(lambda self: (4000, 4000))
    strides = property(lambda self: (16000, 4))
    size = property(lambda self: 16_000_000)
    nbytes = property(lambda self: 64_000_000)
    flags = property(lambda self: np.zeros(1).flags)


def test_an_array_that_lies_about_itself():
    room = np.full(300, 7, np.float32)
    out = room[100:200].view(_Liar)
    for fill in (STREAM.normal, wf.RandomNormal().fill, wf.Orthogonal().fill, wf.Zeros().fill):
        with contextlib.suppress(ValueError):
            fill(out=out)
        assert (room[:100] == 7).all() and (room[200:] == 7).all()
    read_only = np.full(4, 7, np.float32)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writable, got a read-only _Liar"):
        wf.Zeros().fill(read_only.view(_Liar))
    assert (read_only == 7).all()


class _Forged:
    """A DLPack tensor of float32 with any shape and strides, which may be wrong."""

    def __init__(self, shape, strides):
        words = ctypes.c_int64 * max(1, len(shape))
        self.memory = (ctypes.c_float * 4)()
        self.shape, self.strides = words(*shape), words(*strides)
        # struct DLManagedTensor of dlpack.h: data, device, ndim, dtype, shape, strides, offset.
        fields = struct.pack(
            "=QiiiBBHQQQQQ",
            *(ctypes.addressof(self.memory), 1, 0, len(shape), 2, 32, 1),
            *(ctypes.addressof(self.shape), ctypes.addressof(self.strides), 0, 0, 0),
        )
        self.tensor = ctypes.create_string_buffer(fields, len(fields))

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2, 2), (1 << 62, 1)),
        ((1 << 40, 1 << 40), (1, 1 << 40)),
        ((2,), (-(1 << 63),)),
        ((-1, 2), (2, 1)),
        ((3, 3), (1 << 60, 1 << 60)),
    ],
)
def test_dlpack_that_is_no_memory(shape, strides):
    forged = _Forged(shape, strides)
    for fill in (
        wf.Pretrained,
        lambda out: wf.Zeros().fill(out),
        lambda out: STREAM.normal(out=out),
    ):
        with pytest.raises(ValueError, match="must have a valid layout"):
            fill(forged)
    assert not any(forged.memory)


def test_dlpack_of_a_forged_tensor_that_is_memory():
    read = wf.Pretrained(_Forged((2, 2), (2, 1)))
    assert (read((2, 2)) == 0).all()
