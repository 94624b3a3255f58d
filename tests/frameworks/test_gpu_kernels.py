"""The kernels for GPUs, run by Triton's interpreter, give the bits of the CPU.

They need no GPU, but a process of their own: `make test-gpu` sets TRITON_INTERPRET=1.
"""

import itertools
from fractions import Fraction

import exact_fma
import make_hashes
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from draws import DRAWS, FROZEN, WINDOWS

import winit_fast._core as _core
from winit_fast.base import dtypes
from winit_fast.base.boxes import box, whole
from winit_fast.gpu import cases, loops
from winit_fast.gpu import fill as gpu
from winit_fast.gpu.device import unable
from winit_fast.streams import distributions, fill

assert triton.knobs.runtime.interpret, "run these tests by `make test-gpu`"
exact_fma.install()

KEY, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210
INF = float("inf")
METHODS = [each for each in DRAWS if each in dict(cases.DISTRIBUTIONS)]  # others have no kernel


def prepared(method, parameters, dtype):
    return getattr(distributions, method)(np.dtype(dtypes.find(dtype).dtype), *parameters)


def bits(tensor):
    """The bits of a tensor's elements, in C order."""
    carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]
    return tensor.contiguous().view(carrier).numpy()


def on_cpu(distribution, cut, dtype, offset=0, key=KEY, stream=STREAM):
    """A box as the C kernels draw it, as bits."""
    out = np.empty(cut.shape, dtypes.find(dtype).dtype)
    fill.fill(distribution, key, stream, out, cut, 1, offset)
    return out.view({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[out.itemsize])


def on_gpu(distribution, cut, out, offset=0, key=KEY, stream=STREAM):
    with np.errstate(all="ignore"):  # NumPy's warnings of overflow to infinity
        gpu.fill(distribution, key, stream, out, cut, offset)
    return bits(out)


def flat(length, start=0, size=2**63):
    return box((size,), np.s_[start : start + length])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_fma_of_the_interpreter_rounds_once(kind):
    random = np.random.default_rng(1)
    x, y = (random.standard_normal(2000) * 2.0 ** random.integers(-30, 30, 2000) for _ in "xy")
    x[:8], y[:8] = 0, 1e-30
    if kind is np.float64:
        x[8:16], y[8:16] = 1e-170, 1e-160
    x, y = x.astype(kind), y.astype(kind)
    # sums that cancel, that are ties or next to one, and others
    z = np.concatenate([-(x * y)[:1000], ((x * y) * kind(2.0**25 + 1))[1000:]]).astype(kind)
    got = exact_fma.fma(x, y, z)
    steps = np.spacing(abs(got))
    for *numbers, rounded, step in zip(x, y, z, got, steps, strict=True):
        a, b, c, rounded, step = (Fraction(float(each)) for each in (*numbers, rounded, step))
        assert abs(a * b + c - rounded) <= step / 2
    assert (got != x * y + z).any()  # as the interpreter's own does


def parameters_of(method, dtype):
    """Wide and subnormal ones, and those whose hashes are frozen; of two types every window."""
    draw = DRAWS[method]
    yield from [draw.wide, *draw.environments, *draw.frozen.values()]
    if dtype in ("float64", "float32"):
        yield from [draw.standard, *[(*draw.standard[:2], *shape) for shape in draw.shapes]]


def same(distribution, cut, dtype, out, offset=0):
    """Compare a box of both; the tensor around it keeps its values."""
    got, want = on_gpu(distribution, cut, out, offset), on_cpu(distribution, cut, dtype, offset)
    return got.shape == want.shape and bool((got == want).all())


def empty(shape, dtype):
    return torch.empty(shape, dtype=getattr(torch, dtype))


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_distribution_in_every_type(method, dtype):
    for k, parameters in enumerate(parameters_of(method, dtype)):
        try:
            distribution = prepared(method, parameters, dtype)
        except ValueError:  # the type has no number in the interval
            continue
        cut = flat(300 + k, 2**34 - 150)  # the counter's lowest word overflows inside
        assert same(distribution, cut, dtype, empty(cut.shape, dtype)), parameters


EDGES = [0, 1, 2, 127, 128, 255, 256, 2**23, 2**24 - 1, 2**24, 2**29, 2**30 - 1, 2**30]
EDGES += [2**31 - 1, 2**31, 2**31 + 1, 3 * 2**30, 2**32 - 256, 2**32 - 2, 2**32 - 1]


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_words_that_are_seldom_drawn(method, dtype, monkeypatch):
    """Next to zero, to the ends and to the middle; as a radius, as an angle, as either half."""
    words = np.array(list(itertools.product(EDGES, EDGES)), np.uint32).reshape(-1, 4)
    words = np.concatenate([words, words[:, [0, 2, 1, 3]]])

    def given(block, key, stream):
        columns = [block.to(tl.uint32) for _ in range(4)]
        for column, each in zip(columns, words.T, strict=True):
            column.handle.data = each[block.handle.data % len(words)]
        return columns

    monkeypatch.setattr(loops, "philox", given)
    for parameters in parameters_of(method, dtype):
        try:
            distribution = prepared(method, parameters, dtype)
        except ValueError:  # the type has no number in the interval
            continue
        cut = flat(len(words) * (2 if dtype == "float64" else 4))
        got = on_gpu(distribution, cut, empty(cut.shape, dtype))
        assert (got.view(np.uint8) == _core.transform(distribution, words.reshape(-1))).all(), (
            parameters
        )


def test_raw_words():
    for width, names in (32, ("uint32", "int32")), (64, ("uint64", "int64")):
        for name in names:
            cut, out = flat(1003, 2**33 - 501), empty((1003,), name)
            want = np.empty(1003, f"u{width // 8}")
            _core.fill(
                distributions.bits(width), KEY, STREAM, want.ctypes.data, cut.first,
                (1003,), (1,), (width // 8,), False,
            )  # fmt: skip
            assert (on_gpu(distributions.bits(width), cut, out).view(want.dtype) == want).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float8_e5m2"])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 2**32 - 9, 2**34 - 7, 2**63 - 1 - 17])
def test_block_edges(start, dtype):
    distribution = prepared("normal", (0.5, 2.0), dtype)
    for length in [*range(7), 17]:
        cut = flat(length, start)
        assert same(distribution, cut, dtype, empty(cut.shape, dtype)), length


@pytest.mark.parametrize("offset", [1, 2**34, 2**63])
def test_an_offset_is_added_to_every_index(offset):
    distribution = prepared("uniform", (-0.3, 0.7), "float32")
    cut = box((40, 30), np.s_[3:33, 7:20])
    assert same(distribution, cut, "float32", empty(cut.shape, "float32"), offset)


LARGE = (2**20, 2**11, 2**6)
BOXES = [
    ((5, 7, 11), None),
    ((5, 7, 11), np.s_[1:4, 2:7, 3:10]),
    ((64, 32), np.s_[:, 8:24]),  # rows that begin with a block
    ((64, 32), np.s_[:, 9:24]),
    ((3000, 4), np.s_[1::, :2]),
    ((3000, 4), np.s_[:, 2]),  # no row is longer than an element
    ((7, 2050), np.s_[2:5, 1:2049]),
    (LARGE, np.s_[2**20 - 3 :, 5:9, 3:60]),  # past 2^34
    (LARGE, np.s_[2**17 - 2 : 2**17 + 2, -3:, 62:]),
    ((), None),
    ((3, 1, 4), np.s_[:, 0, 1:3]),
    ((4, 0), None),
]


def layouts(shape):
    """Tensors of a shape in every order of their axes, with gaps, and shifted in memory."""
    axes = range(len(shape))
    for order in itertools.permutations(axes):
        for gap, shift in (0, 0), (3, 2):
            large = [shape[axis] + gap for axis in order]
            memory = torch.zeros(int(np.prod(large)) + shift, dtype=torch.int32)[shift:]
            tensor = memory.view(large)[tuple(slice(shape[axis]) for axis in order)]
            yield memory, tensor.permute([order.index(axis) for axis in axes])


@pytest.mark.parametrize("shape, index", BOXES)
def test_boxes_in_every_layout(shape, index):
    distribution, cut = prepared("normal", (0.5, 2.0), "float32"), box(shape, index)
    want = on_cpu(distribution, cut, "float32")
    for memory, tensor in layouts(cut.shape):
        out = tensor.view(torch.float32)
        assert (on_gpu(distribution, cut, out) == want).all()
        tensor.zero_()
        assert not memory.any()  # nothing was written beside the box


def test_more_axes_than_the_kernel_has_loops():
    shape = (2, 3, 2, 3, 2, 3, 5)
    cut = box(shape, np.s_[:, :2, :, :2, :, :2, 1:4])
    out = torch.zeros([extent + 1 for extent in cut.shape])
    out = out[tuple(slice(extent) for extent in cut.shape)]
    assert same(prepared("uniform", (0.0, 1.0), "float32"), cut, "float32", out)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_random_boxes(dtype):
    random = np.random.default_rng(18)
    for _ in range(8):
        axes = random.integers(1, 5)
        shape = tuple(random.integers(1, 14, axes).tolist())
        first = [int(random.integers(0, extent)) for extent in shape]
        last = [int(random.integers(a, b)) + 1 for a, b in zip(first, shape, strict=True)]
        cut = box(shape, tuple(map(slice, first, last)))
        method = METHODS[random.integers(len(METHODS))]
        order = random.permutation(axes).tolist()
        out = empty([cut.shape[axis] * 2 for axis in order], dtype)
        out = out[tuple(slice(0, None, 2) for _ in order)]
        out = out.permute([order.index(axis) for axis in range(axes)])
        distribution = prepared(method, DRAWS[method].wide, dtype)
        assert same(distribution, cut, dtype, out, int(random.integers(2**40)))


def test_frozen_hashes():
    """A part of tests/hashes.txt: the whole table takes a device (bench/gpu.py)."""
    frozen = make_hashes.frozen()
    kinds, offsets = itertools.cycle(cases.DTYPES), itertools.cycle(make_hashes.OFFSETS[::-1])
    for label, (method, parameters) in FROZEN.items():
        if method not in METHODS:
            continue
        dtype, cut = next(kinds), flat(4099, next(offsets))
        out = empty(cut.shape, dtype)
        on_gpu(prepared(method, parameters, dtype), cut, out)
        key = f"{label} {dtype} {cut.first} 4099"
        assert make_hashes.blake2b(bits(out).tobytes()) == frozen[key], key


def test_other_keys_and_streams():
    distribution, cut = prepared("uniform", (0.0, 1.0), "float32"), flat(9)
    for key in 0, 1, 2**31, 2**32, 2**63, 2**64 - 1:
        for stream in 0, 1, 2**32 - 1, 2**64 - 1:
            got = on_gpu(distribution, cut, empty((9,), "float32"), 0, key, stream)
            assert (got == on_cpu(distribution, cut, "float32", 0, key, stream)).all()


def test_a_destination_that_cannot_be_filled_is_refused():
    distribution, cut = prepared("normal", (0.0, 1.0), "float32"), whole((4, 4))
    out = torch.zeros(4, 4)
    with pytest.raises(TypeError, match="type float32, got torch.float64"):
        gpu.fill(distribution, KEY, STREAM, out.double(), cut)
    with pytest.raises(TypeError, match="type int32 or uint32, got torch.float32"):
        gpu.fill(distributions.bits(32), KEY, STREAM, out, cut)
    with pytest.raises(ValueError, match=r"shape \(4, 4\), got \(16,\)"):
        gpu.fill(distribution, KEY, STREAM, out.view(16), cut)
    with pytest.raises(ValueError, match=r"overlap or interleave, .* strides \(0, 1\)"):
        gpu.fill(distribution, KEY, STREAM, out[:1].expand(4, 4), cut)
    with pytest.raises(ValueError, match=r"overlap or interleave"):
        gpu.fill(distribution, KEY, STREAM, out.as_strided((4, 4), (2, 3)), cut)
    with pytest.raises(TypeError, match="negated view"):
        gpu.fill(distribution, KEY, STREAM, torch.zeros(4, 4).to(torch.cfloat).conj().imag, cut)
    assert not out.any()


def test_only_some_devices_can():
    assert unable(torch.device("cpu")) is None  # by the interpreter
    assert unable(torch.device("meta")) == "it is not a CUDA or ROCm device: 'meta'"


@pytest.mark.parametrize("width", [32, 64])
def test_the_octaves_of_a_window_are_enough(width):
    """The launch counts the octaves that the words at the window's ends need, and no fewer."""
    dtype = np.dtype(f"float{width}")
    unit = 2.0**-52 if width == 64 else 2.0**-23
    for low, high in [*WINDOWS, (20.0, INF), (-35.0, -30.0), (-0.1, 9.0)]:
        p = _core.parameters(distributions.truncated_normal(dtype, 0.0, 1.0, low, high))
        ends = [p["tail_start"][0], *([p["tail_start"][1]] if p["kappa"] else [])]
        shift = p["log_shift"] * unit * np.log(2)
        # 1 - t^2 is the tail times 1 + |t|, which is between 1 and 2
        least = max(-np.log(2 * end) - shift for end in ends)
        most = max(-np.log(end) - shift for end in ends)
        octaves = gpu.octaves(p)
        assert most + 4 < 4 * 2**octaves or p["kernel"] == "central"
        assert octaves == 1 or least + 4 > 2**octaves  # at most one more than is needed
