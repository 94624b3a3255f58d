"""Schemes other than plain draws: values, boxes, closed forms and rejected arguments."""

import json
import math
import pickle
import tracemalloc
from dataclasses import FrozenInstanceError
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import signal
from strategies import NARROW

import winit_fast as wf
from winit_fast.base import dtypes
from winit_fast.checkpoint import write_checkpoint
from winit_fast.initializers import pretrained, scaled, sparse, stft
from winit_fast.models.tensor_spec import TensorSpec

DTYPES = dtypes.NAMES
# An example of every scheme. Tests of all schemes, also those of the adapters, read this list.
EXAMPLES = [
    (wf.Zeros(), (24, 16)),
    (wf.Ones(), (24, 16)),
    (wf.Constant(0.25), (24, 16)),
    (wf.Identity(2.0), (24, 16)),
    (wf.RandomUniform(-1.0, 3.0), (24, 16)),
    (wf.RandomNormal(1.0, 0.5), (24, 16)),
    (wf.TruncatedNormal(0.0, 0.02, -3.0, 3.0), (24, 16)),
    (wf.VarianceScaling(2.0, "fan_geo_avg", "uniform", (0, 1), 2, ()), (24, 16, 8)),
    (wf.GlorotUniform(), (24, 16)),
    (wf.GlorotNormal(distribution="truncated_normal"), (24, 16, 3)),
    (wf.HeUniform(in_axis=1, out_axis=0), (24, 16, 3)),
    (wf.HeNormal(fan_in=512), (24, 16)),
    (wf.LecunUniform(), (24, 16)),
    (wf.LecunNormal(), (24, 16)),
    (wf.HeNormal(nonlinearity="leaky_relu", param=0.2), (24, 16)),
    (wf.HeUniform("fan_out", nonlinearity="gelu"), (24, 16)),
    (wf.Orthogonal(2.0), (24, 16)),
    (wf.DeltaOrthogonal(), (5, 5, 5)),
    (wf.Dirac(), (3, 5, 4, 6)),
    (wf.Dirac(2, 0.5, in_axis=1, out_axis=0), (6, 4, 2)),
    (wf.Dirac(in_axis=0, out_axis=2), (3, 2, 7, 4, 1)),
    (wf.Sparse(0.3, 0.5), (24, 16)),
    (wf.Sparse(1), (5, 3)),
    (wf.Sparse(0.0), (5, 3)),
    (wf.STFT(), (32, 1, 17)),
    (wf.STFT("imag", "blackman", "spectrum", True), (9, 1, 40)),
    (wf.STFT("imag", (0.5, 1.0, 0.25), None), (3, 1, 4)),
    (wf.STFT(window=None), (12, 1, 5)),
    (wf.XavierSimple(), (24, 16)),
    (wf.HeNormal(nonlinearity="mish", in_axis=1, out_axis=0), (24, 16)),
    (wf.Scaled("he_uniform", 0.5), (24, 16)),
    (wf.Scaled(wf.TruncatedNormal(), "1 / sqrt(2 * (i + 1))", {"i": 3}), (24, 16)),
    (wf.Scaled(wf.STFT(), 0.1), (32, 1, 17)),
    (wf.Scaled(wf.Scaled(wf.Sparse(0.5), 0.5), 0.25), (7, 5)),
    (wf.Pretrained("w.npy"), (9, 5)),
    (wf.Pretrained("w.npy", fallback=wf.RandomNormal()), (12, 4)),
    (wf.Pretrained("w.safetensors", "a.weight", "glorot_normal"), (7, 8)),
    (wf.Scaled(wf.Pretrained("w.safetensors", "a.weight"), 0.5), (9, 5)),
    (wf.RowsLike(wf.Pretrained("w.npy"), 0.5), (13, 5)),
    (wf.Computed([[0.5, 1.0, -2.0], [0.25, 3.0, 4.0]]), (2, 3)),
    (wf.Parts([((0, 0), (8, 3), "he_normal"), ((8, 0), (12, 3), wf.Zeros())]), (12, 3)),
    (wf.Expression("exp(x) + arange(0)", {"x": wf.RandomNormal()}), (9, 5)),
    (
        wf.Expression(
            "y = abs(a * b); -y", [("a", wf.Sparse(0.5)), ("b", "zeros", (1, 5), "own")], "float64"
        ),
        (9, 5),
    ),
    (
        wf.Parts(
            [
                ((0, 0), (9, 8), wf.RandomNormal()),
                ((2, 0), (3, 8), wf.Zeros()),
                ((4, 1), (9, 6), wf.Sparse(0.5), "own"),
                ((0, 6), (2, 8), wf.Identity()),
            ]
        ),
        (9, 8),
    ),
]
OLD = np.linspace(-3, 3, 45).reshape(9, 5)
each = pytest.mark.parametrize(
    ("initializer", "shape"),
    EXAMPLES,
    ids=lambda value: repr(value),
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write the files that the examples read into the working directory."""
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", OLD)
    save_file({"a.weight": OLD.astype(np.float32), "b": np.zeros(3)}, "w.safetensors")


# except Computed, whose array cannot be JSON: see test_plan.py
@pytest.mark.parametrize(
    ("initializer", "shape"),
    [example for example in EXAMPLES if not isinstance(example[0], wf.Computed)],
    ids=repr,
)
def test_value(initializer, shape):
    cls = type(initializer)
    config = initializer.get_config()
    for copy in (
        cls.from_config(config),
        cls.from_config(json.loads(json.dumps(config))),
        eval(repr(initializer), vars(wf)),
        pickle.loads(pickle.dumps(initializer)),
    ):
        assert copy == initializer and hash(copy) == hash(initializer)
    for field in config:
        with pytest.raises(FrozenInstanceError):
            setattr(initializer, field, 0.1)
    assert sum(initializer == other for other, _ in EXAMPLES) == 1


@pytest.mark.parametrize(
    (
        "initializer",
        "shape",
    ),  # boxes of orthogonal matrices agree up to rounding: see test_orthogonal.py
    [example for example in EXAMPLES if "Orthogonal" not in repr(example)],
    ids=lambda value: repr(value),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_boxes_are_cut_from_the_whole(initializer, shape, dtype, monkeypatch, files):
    whole = initializer(shape, seed=3, name="w", dtype=dtype)
    assert whole.shape == shape and whole.dtype == np.dtype(dtype)
    for module in (sparse, pretrained, scaled, stft):
        monkeypatch.setattr(module, "_CUT", 20)  # several cuts, some of one column
    parts = [slice(None), slice(1, None), slice(0, 1), 0, -1, slice(1, 1)]
    for axis in range(len(shape)):
        for part in parts:
            index = (slice(None),) * axis + (part,)
            made = initializer(shape, seed=3, name="w", dtype=dtype, index=index)
            assert made.shape == whole[index].shape and made.tobytes() == whole[index].tobytes()
    out = np.full(shape, 7, dtype)
    assert initializer.fill(out, seed=3, name="w") is out and out.tobytes() == whole.tobytes()
    middle = tuple(slice(size // 3, size - size // 4) for size in shape)
    out = np.full([2 * size for size in whole[middle].shape], 7, dtype)
    part = out[tuple(slice(None, None, -2) for _ in shape)]
    initializer.fill(part, seed=3, name="w", shape=shape, index=middle, num_threads=3)
    assert part.tobytes() == whole[middle].tobytes()
    assert np.count_nonzero(out != 7) <= part.size


# --------------------------------------------------------------------------------------------------
# Dirac
# --------------------------------------------------------------------------------------------------


def _dirac(groups, shape):
    """The definition, in torch's layout: (outputs, inputs of a group, *kernel)."""
    out = np.zeros(shape, np.float32)
    per_group = shape[0] // groups
    centre = tuple(size // 2 for size in shape[2:])
    for group in range(groups):
        for d in range(min(per_group, shape[1])):
            out[(group * per_group + d, d, *centre)] = 1
    return out


@pytest.mark.parametrize(
    ("groups", "shape"),
    [(1, (3, 5, 3)), (1, (5, 3, 4)), (2, (6, 5, 3, 2)), (3, (12, 2, 1, 1)), (2, (4, 2, 2, 3, 4))],
)
def test_dirac(groups, shape):
    expected = _dirac(groups, shape)
    assert (wf.Dirac(groups, in_axis=1, out_axis=0)(shape) == expected).all()
    last = np.moveaxis(expected, (1, 0), (-2, -1))
    assert (wf.Dirac(groups)(last.shape) == last).all()
    assert (wf.Dirac(groups, 0.1)(last.shape) == np.float32(0.1) * last).all()


def test_a_dirac_convolution_passes_its_input_on():
    image = wf.Stream(0, "image").normal(shape=(9, 9, 4))
    kernel = wf.Dirac()((3, 3, 4, 4))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    assert (np.einsum("xyikl,klio->xyo", windows, kernel) == image).all()


@pytest.mark.parametrize(
    ("arguments", "shape", "error", "message"),
    [
        ({"groups": 0}, None, ValueError, "groups must be at least 1, got 0"),
        ({"groups": 1.5}, None, TypeError, "groups must be an integer, got 1.5"),
        ({"gain": math.inf}, None, ValueError, "gain must be finite, got inf"),
        ({"in_axis": "x"}, None, TypeError, "in_axis must be an integer, got 'x'"),
        ({}, (3, 3), ValueError, r"tensors of three to five axes, got shape \(3, 3\)"),
        ({}, (1,) * 6, ValueError, "tensors of three to five axes"),
        ({"groups": 3}, (3, 4, 8), ValueError, "groups=3 and 8 outputs"),
        ({"out_axis": -2}, (3, 4, 8), ValueError, "must be different axes, got -2 and -2"),
        ({"out_axis": 3}, (3, 4, 8), ValueError, "out_axis is 3, but shape"),
        ({"gain": 1e300}, (3, 4, 8), ValueError, "gain must fit float32, got 1e\\+300"),
    ],
)
def test_dirac_refuses(arguments, shape, error, message):
    with pytest.raises(error, match=message):
        wf.Dirac(**arguments)(shape)


# --------------------------------------------------------------------------------------------------
# Sparse
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.95, 1])
def test_sparse(rows, sparsity):
    """The number of zeros, the other elements (normal numbers), and the mask's definition."""
    columns, zeros = 13, math.ceil(sparsity * rows)
    w = wf.Sparse(sparsity, 0.5)((rows, columns), seed=5, name="fc")
    normal = wf.RandomNormal(0.0, 0.5)((rows, columns), seed=5, name="fc")
    assert ((w == 0).sum(axis=0) == zeros).all()
    assert (w == np.where(w == 0, 0, normal)).all()

    words = wf.Stream(5, "fc\0mask").bits((rows, columns), dtype="uint64").tolist()
    low = (rows - 1).bit_length()
    for column in range(columns):
        keys = [(words[row][column] >> low << low) + row for row in range(rows)]
        assert len(set(keys)) == rows
        expected = sorted(range(rows), key=keys.__getitem__)[:zeros]
        assert set(np.flatnonzero(w[:, column] == 0)) == set(expected)


def test_the_mask_is_the_same_in_every_type():
    masks = [wf.Sparse(0.4, 1.0)((30, 20), seed=1, name="x", dtype=dtype) == 0 for dtype in DTYPES]
    # The other zeros: small numbers that float8_e4m3fn rounds to 0.
    assert all((masks[0] <= mask).all() for mask in masks)
    assert sum((masks[0] != mask).any() for mask in masks) <= 2


def test_masks_of_streams():
    shape = (50, 40)

    def mask(seed, name):
        return wf.Sparse(0.5)(shape, seed=seed, name=name) == 0

    masks = [mask(0, "a"), mask(1, "a"), mask(0, "b"), mask(0, 7), mask(0, None)]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert 700 < (one == other).sum() < 1300  # 1000 +- 13 standard deviations
    assert (mask(0, None) == mask(0, 0)).all()  # None is stream 0
    assert wf.Stream(0, 7).part("mask").name.encode() == bytes.fromhex("00 37 00 6d 61 73 6b")


def test_every_row_is_as_likely_a_zero():
    """Chi-squared test of 2^14 columns: P(chi2(15) > 60) = 2e-7 is the rate of false alarms."""
    zero = wf.Sparse(0.25)((16, 1 << 14), seed=0, name="fair") == 0
    assert zero.sum() == 4 << 14
    # The columns are independent, but the 16 rows of a column sum to 4: hence the factor 15/16.
    expected = (1 << 14) / 4
    variance = (1 << 14) * 0.25 * 0.75
    chi2 = ((zero.sum(axis=1) - expected) ** 2).sum() / variance * 15 / 16
    assert chi2 < 60


def test_memory_of_a_sparse_shard():
    """Three columns of 2^36 elements need only a few times the memory of their own words."""
    shape, rows = (1 << 16, 1 << 20), 1 << 16
    tracemalloc.start()
    try:
        part = wf.Sparse(0.9)(shape, seed=0, name="big", index=np.s_[:, 77:80])
        assert tracemalloc.get_traced_memory()[1] < 3 * rows * 8 * 5
    finally:
        tracemalloc.stop()
    assert ((part == 0).sum(axis=0) == math.ceil(0.9 * rows)).all()


@pytest.mark.parametrize(
    ("arguments", "shape", "error", "message"),
    [
        ((1.5,), None, ValueError, "sparsity must be from 0 to 1, got 1.5"),
        ((-0.1,), None, ValueError, "sparsity must be from 0 to 1, got -0.1"),
        ((0.5, -1.0), None, ValueError, "stddev must be >= 0, got -1.0"),
        (("x",), None, TypeError, "sparsity must be a real number, got 'x'"),
        ((0.5,), (3, 3, 3), ValueError, r"Sparse is for matrices, got shape \(3, 3, 3\)"),
    ],
)
def test_sparse_refuses(arguments, shape, error, message):
    with pytest.raises(error, match=message):
        wf.Sparse(*arguments)(shape)


# --------------------------------------------------------------------------------------------------
# STFT
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", stft._WINDOWS)
def test_windows_are_those_of_scipy(name):
    for size in (1, 2, 3, 4, 5, 64, 65):
        for periodic in (False, True):
            window = stft.window_values(name, size, periodic)
            expected = signal.get_window(name, size, periodic)
            np.testing.assert_allclose(window, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
@pytest.mark.parametrize("window", [None, "hann", tuple(range(1, 25))])
def test_stft_is_the_transform_of_the_frame(window, scaling):
    """Compare with NumPy's FFT of the frame's length, and of a longer one."""
    frame = np.ones(24)
    if window is not None:
        frame = signal.get_window("hann", 24, False) if window == "hann" else np.array(window)
        norms = {"density": np.sqrt((frame**2).sum()), "spectrum": frame.sum(), None: 1}
        frame = frame / norms[scaling]
    for bins in (13, 14, 40):
        # Row t of the diagonal matrix holds only sample t: its FFT is row t of the kernel.
        transform = np.fft.rfft(np.diag(frame), 2 * (bins - 1), axis=1)
        for side in ("real", "imag"):
            made = wf.STFT(side, window, scaling)((24, 1, bins), dtype="float64")[:, 0]
            expected = getattr(transform, side)
            np.testing.assert_allclose(made, expected, rtol=0, atol=1e-14 * frame.max())


def test_zeros_of_the_stft_are_exact_however_long_the_frame():
    w = wf.STFT("imag", None)((1 << 16, 1, 5))
    assert not w[:, 0, [0, 4]].any() and not w[::4].any()
    assert set(np.unique(wf.STFT("real", None)((1 << 16, 1, 3)))) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "shape", "error", "message"),
    [
        ({"side": "left"}, None, ValueError, "side must be one of real, imag, got 'left'"),
        ({"window": "han"}, None, ValueError, "window must be .* did you mean 'hann'"),
        ({"window": 3}, None, TypeError, "window must be a name, a sequence of numbers or None"),
        ({"window": [1, math.nan]}, None, ValueError, "window must be finite, got nan"),
        ({"window": b"hann"}, None, TypeError, "window must be a name, a sequence of numbers"),
        ({"side": ["real"]}, None, ValueError, r"side must be one of .* got \['real'\]"),
        ({"scaling": "L2"}, None, ValueError, "scaling must be one of density, spectrum, got 'L2'"),
        ({}, (8, 5), ValueError, r"kernels of shape .* got shape \(8, 5\)"),
        ({}, (8, 2, 5), ValueError, r"got shape \(8, 2, 5\)"),
        ({}, (8, 1, 1), ValueError, "at least two bins"),
        ({"window": [1, 2]}, (8, 1, 5), ValueError, "the frame's length 8, got 2 values"),
        ({}, (2, 1, 5), ValueError, "window must not be 0 everywhere, got 'hann' of 2"),
    ],
)
def test_stft_refuses(arguments, shape, error, message):
    with pytest.raises(error, match=message):
        wf.STFT(**arguments)(shape)


# --------------------------------------------------------------------------------------------------
# Scaled
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaled", "direct"),
    [
        (wf.Constant(3.0), wf.Constant(1.5)),
        (wf.Zeros(), wf.Zeros()),
        (wf.Ones(), wf.Constant(0.5)),
        (wf.Identity(3.0), wf.Identity(1.5)),
        (wf.RandomUniform(-1.0, 3.0), wf.RandomUniform(-0.5, 1.5)),
        (wf.RandomNormal(1.0, 0.5), wf.RandomNormal(0.5, 0.25)),
        (wf.TruncatedNormal(1.0, 0.5, -1, 3), wf.TruncatedNormal(0.5, 0.25, -1, 3)),
        (wf.VarianceScaling(2.0, "fan_out"), wf.VarianceScaling(0.5, "fan_out")),
        (wf.HeUniform(fan_in=7), wf.VarianceScaling(0.5, "fan_in", "uniform", fan_in=7)),
        (wf.Orthogonal(3.0, column_axis=0), wf.Orthogonal(1.5, column_axis=0)),
        (wf.Sparse(0.5, 1.0), wf.Sparse(0.5, 0.5)),
        (wf.Scaled(wf.RandomNormal(), 3.0), wf.RandomNormal(stddev=0.075)),
    ],
    ids=repr,
)
def test_scaled_has_the_bits_of_the_scheme_itself(scaled, direct):
    for dtype in ("float32", "bfloat16"):
        options = {"seed": 4, "name": "x", "dtype": dtype}
        expected = direct((8, 8), **options)
        assert wf.Scaled(scaled, 0.5)((8, 8), **options).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "scheme",
    [wf.Dirac(2, 3.0), wf.DeltaOrthogonal(3.0), wf.STFT(), wf.Pretrained(np.ones((4, 1, 8)))],
)
def test_scaled_kernels(scheme):
    w = scheme((4, 1, 8), seed=0)
    np.testing.assert_allclose(wf.Scaled(scheme, 0.5)((4, 1, 8), seed=0), w / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("factor", "numbers", "expected"),
    [
        ("1 / sqrt(2 * L)", {"L": 48}, 1 / math.sqrt(96)),
        ("1 / sqrt(2 * (i + 1))", {"i": 5}, 1 / math.sqrt(12)),
        ("(8 * N) ** -(1 / 4)", {"N": 24}, 192**-0.25),
        ("0.67 * N ** -(1 / 4)", {"N": 6}, 0.67 * 6**-0.25),
        ("width_mult ** -(1 / 2)", {"width_mult": 8}, 8**-0.5),
        ("((N ** 4) * M) ** -(1 / 16) * 0.87", {"N": 18, "M": 6}, 0.87 * (18**4 * 6) ** -0.0625),
    ],
)
def test_factors(factor, numbers, expected):
    scheme = wf.Scaled("normal", factor, numbers)
    assert math.isclose(scheme.value, expected, rel_tol=1e-15)
    assert scheme == wf.Scaled(wf.RandomNormal(), factor, tuple(numbers.items()))
    w = scheme((64, 64), seed=0, name="w")
    direct = wf.RandomNormal(stddev=0.05 * scheme.value)((64, 64), seed=0, name="w")
    assert (w == direct).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("he_norml",), ValueError, "did you mean 'he_normal'"),
        ((3,), TypeError, "identifier must be a name, a mapping .*, got 3"),
        (("normal", 0.0), ValueError, "factor must be more than 0, got 0.0"),
        (("normal", "-1 / L", {"L": 2}), ValueError, "more than 0, got '-1 / L' with {'L': 2}"),
        (("normal", math.nan), ValueError, "factor must be finite, got nan"),
        (("normal", "1 / L", {"L": 0}), ValueError, "factor cannot be computed, got '1 / L' with"),
        (("normal", "1 / K", {"L": 1}), ValueError, "did you mean 'L'"),
        (("normal", "__import__('os')"), ValueError, "is not arithmetic"),
        (("normal", "1", {"L": "x"}), TypeError, "numbers must be a mapping of names to finite"),
        (("normal", "1", 3), TypeError, "numbers must be a mapping of names to finite"),
        (("normal", "1", {1: 2}), TypeError, "numbers must be a mapping of names to finite"),
    ],
)
def test_scaled_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        wf.Scaled(*arguments)


# --------------------------------------------------------------------------------------------------
# Pretrained
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_pretrained_is_the_source_rounded(files, dtype):
    expected = OLD.astype(np.float64 if dtype == "float64" else np.float32).astype(dtype)
    for scheme in (wf.Pretrained(OLD), wf.Pretrained("w.npy"), wf.Pretrained(OLD.astype(">f8"))):
        assert scheme((9, 5), dtype=dtype).tobytes() == expected.tobytes()
    single = OLD.astype(np.float32)
    expected = single.astype(dtype)
    assert (wf.Pretrained("w.safetensors", "a.weight")((9, 5), dtype=dtype) == expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pretrained_from_what_this_package_writes(tmp_path, dtype):
    """Every type, in one file and in several with an index, bit for bit."""
    tensors = [
        TensorSpec("a", (30, 20), wf.RandomNormal()),
        TensorSpec("b.c", (7,), wf.RandomUniform()),
        TensorSpec("sparse", (9, 5), wf.Sparse(0.4)),
        TensorSpec("none", (0, 3), wf.Zeros()),
    ]
    for folder, size in (("one", 1 << 20), ("several", 100)):
        write_checkpoint(tmp_path / folder, tensors, dtype=dtype, seed=3, max_shard_size=size)
        index = tmp_path / folder / "model.safetensors.index.json"
        path = index if index.exists() else index.with_name("model.safetensors")
        assert index.exists() == (folder == "several")
        for tensor in tensors:
            expected = tensor.initializer(tensor.shape, seed=3, name=tensor.name, dtype=dtype)
            made = wf.Pretrained(path, tensor.name)(tensor.shape, dtype=dtype)
            assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(9, 5), (12, 5), (4, 9), (3, 2), (0, 5), (20, 20)])
def test_fallback_where_there_is_no_source(shape):
    fallback = wf.HeNormal()
    w = wf.Pretrained(OLD, fallback=fallback)(shape, seed=2, name="wte")
    expected = fallback(shape, seed=2, name="wte")
    rows, columns = min(9, shape[0]), min(5, shape[1])
    expected[:rows, :columns] = OLD[:rows, :columns]
    assert (w == expected).all()


def test_memory_of_a_pretrained_shard(tmp_path):
    """A sparse file of a gigabyte: only the needed part is read."""
    path, shape = tmp_path / "big.npy", (1 << 14, 1 << 14)
    np.lib.format.open_memmap(path, "w+", np.float32, shape)[77] = 5
    tracemalloc.start()
    try:
        part = wf.Pretrained(path)(shape, dtype="float16", index=np.s_[70:80, 3:9])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert (part[7] == 5).all() and not part[8:].any()


def test_value_of_arrays():
    first, same, other = wf.Pretrained(OLD), wf.Pretrained(OLD.copy()), wf.Pretrained(OLD + 1)
    assert first == same and hash(first) == hash(same) and first != other
    assert first != wf.Pretrained(OLD, fallback="zeros") and first != wf.Zeros()
    assert repr(first) == "Pretrained(source=<float64 array of shape (9, 5)>)"
    assert wf.Pretrained.from_config(first.get_config()) == first
    assert pickle.loads(pickle.dumps(first)) == first
    with pytest.raises(ValueError, match="read-only"):
        first.source[0] = 1
    assert OLD.flags.writeable  # the caller's array is not changed
    nan = np.array([np.nan, -0.0])
    assert wf.Pretrained(nan) == wf.Pretrained(nan.copy()) != wf.Pretrained(np.array([np.nan, 0.0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("w.bin",), ValueError, "source must end in .npy, .* got 'w.bin'"),
        (
            ("w.safetensors",),
            TypeError,
            "tensor must be the name of a tensor in 'w.safetensors', got None",
        ),
        (("w.npy", "a"), ValueError, "tensor is for safetensors files, got 'a' for 'w.npy'"),
        ((np.arange(3),), TypeError, "source must have one of the types .*, got int64"),
        ((None,), TypeError, "source must have one of the types .*, got object"),
        (([[1.0, 2.0], [3.0]],), ValueError, "source must be a file or an array: "),
        ((np.ones(3), None, "zeroes"), ValueError, "did you mean 'zeros'"),
    ],
)
def test_pretrained_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        wf.Pretrained(*arguments)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (wf.Pretrained("w.npy"), r"the tensor's shape .* got \(9, 5\) for \(9, 6\)"),
        (
            wf.Pretrained(np.ones(3), fallback="zeros"),
            r"as many axes as the tensor, got shape \(3,",
        ),
        (wf.Pretrained("w.safetensors", "a.wight"), "got 'a.wight'; did you mean 'a.weight'"),
        (wf.Pretrained("w.safetensors", "__metadata__"), "tensor must be one of the 2 tensors in"),
        (
            wf.Pretrained("cut.safetensors", "a.weight"),
            "not a complete safetensors file: tensor 'a.weight'",
        ),
        (wf.Pretrained("head.safetensors", "a"), "its header is cut off"),
        (wf.Pretrained("junk.safetensors", "a"), "junk.safetensors is not a safetensors file"),
        (wf.Pretrained(np.full((9, 6), 7e4)), r"source must fit float16, got 70000.0"),
    ],
)
def test_pretrained_refuses_before_it_writes(files, scheme, message):
    whole = Path("w.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-100])
    Path("head.safetensors").write_bytes(whole[:20])
    Path("junk.safetensors").write_bytes(b"\x08" + bytes(7) + b"not json")
    out = np.full((9, 6), 7, np.float16)
    with pytest.raises(ValueError, match=message):
        scheme.fill(out)
    assert (out == 7).all()


def save_raw(path, tag, shape, offsets, data):
    """Write a safetensors file by hand, which may be invalid."""
    header = json.dumps({"w": {"dtype": tag, "shape": shape, "data_offsets": offsets}}).encode()
    Path(path).write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize("offsets", [[-8, 0], [0, 4], [4, 12], [0, 16], [8, 0]])
def test_offsets_that_are_not_of_the_file(files, offsets):
    """A negative offset would return bytes of the header as numbers."""
    save_raw("w.safetensors", "F32", [2], offsets, bytes(8))
    out = np.full(2, 7, np.float32)
    with pytest.raises(ValueError, match=r"w.safetensors is not a safetensors file: tensor 'w'"):
        wf.Pretrained("w.safetensors", "w").fill(out)
    assert (out == 7).all()


@pytest.mark.parametrize("dtype", [name for name in NARROW if name != "bfloat16"])
def test_a_wide_exponent_does_not_fit_a_narrow_one(files, dtype):
    """bfloat16 has fewer bits than float16 in the significand, and more in the exponent."""
    source = np.array([1, 1e30], ml_dtypes.bfloat16)
    save_raw("w.safetensors", "BF16", [2], [0, 4], source.tobytes())
    for scheme in (wf.Pretrained("w.safetensors", "w"), wf.Pretrained(source)):
        out = np.full(2, 7, dtype)
        with pytest.raises(ValueError, match=rf"source must fit {dtype}, got 1.0\d*e\+30"):
            scheme.fill(out)
        assert (out.astype(float) == 7).all()


@pytest.mark.parametrize("dtype", NARROW)
def test_float64_is_rounded_by_way_of_float32(dtype):
    """Just above a tie: float32 rounds to the tie itself, which then rounds to even, 1."""
    value = 1 + float(ml_dtypes.finfo(dtype).eps) / 2 + 2**-40
    for scheme in (wf.Pretrained(np.array([value])), wf.Constant(value), wf.Identity(value)):
        made = scheme((1, 1) if isinstance(scheme, wf.Identity) else 1, dtype=dtype)
        assert made.astype(float).item() == 1


def test_numbers_of_scaled_in_any_order():
    first, second = (wf.Scaled("normal", "a / b", n) for n in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert first == second and hash(first) == hash(second)
    assert first == wf.Scaled("normal", "a / b", [("b", 2), ("a", 1)])


def test_other_errors_of_files(files):
    with pytest.raises(FileNotFoundError, match="gone.npy"):
        wf.Pretrained("gone.npy")((9, 5))
    save_file({"whole": np.arange(4)}, "ints.safetensors")
    with pytest.raises(TypeError, match="'whole' in ints.safetensors must have one .* got I64"):
        wf.Pretrained("ints.safetensors", "whole")(4)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0)])
def test_pretrained_of_no_or_one_element(shape):
    source = np.full(shape, 2.5)
    for scheme in (wf.Pretrained(source), wf.Scaled(wf.Pretrained(source), 1.0)):
        made = scheme(shape, dtype="float16")
        assert made.shape == shape and (made == 2.5).all()
    element = wf.Pretrained(OLD)(OLD.shape, index=(3, 2))
    assert element.shape == () and element == np.float32(OLD[3, 2])


def test_infinities_are_kept():
    source = np.array([np.inf, -np.inf, np.nan, 1.0])
    made = wf.Pretrained(source)(4, dtype="float16")
    np.testing.assert_array_equal(made, source.astype(np.float16))


# --------------------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------------------

NAMES = {
    wf.Zeros: "zeros zeros_ Zeros zero",
    wf.Ones: "ones ones_ Ones one",
    wf.Constant: "constant constant_ Constant",
    wf.Computed: "computed Computed",
    wf.RowsLike: "rows_like RowsLike",
    wf.Identity: "eye_ eye identity Identity IdentityInitializer identity_initializer",
    wf.RandomUniform: "uniform uniform_ random_uniform RandomUniform",
    wf.RandomNormal: "normal normal_ random_normal RandomNormal",
    wf.TruncatedNormal: "trunc_normal_ truncated_normal TruncatedNormal",
    wf.VarianceScaling: "variance_scaling VarianceScaling",
    wf.GlorotUniform: "glorot_uniform GlorotUniform xavier_uniform xavier_uniform_",
    wf.GlorotNormal: "glorot_normal GlorotNormal xavier_normal xavier_normal_",
    wf.HeUniform: "he_uniform HeUniform kaiming_uniform kaiming_uniform_",
    wf.HeNormal: "he_normal HeNormal kaiming_normal kaiming_normal_",
    wf.LecunUniform: "lecun_uniform LecunUniform",
    wf.LecunNormal: "lecun_normal LecunNormal",
    wf.Orthogonal: "orthogonal orthogonal_ Orthogonal OrthogonalInitializer",
    wf.DeltaOrthogonal: "delta_orthogonal",
    wf.Dirac: "dirac dirac_",
    wf.Sparse: "sparse sparse_",
    wf.STFT: "stft STFT STFTInitializer",
    wf.XavierSimple: "xavier_simple",
    wf.Scaled: "scaled",
    wf.Pretrained: "pretrained",
    wf.Parts: "parts",
    wf.Computed: "computed",
    wf.Expression: "expression",
}
NEEDED = {
    wf.Sparse: {"sparsity": 0.1},
    wf.Scaled: {"initializer": "zeros"},
    wf.Pretrained: {"source": "w.npy"},
    wf.RowsLike: {"old": wf.Pretrained("w.npy")},
    wf.Parts: {"parts": [((0,), (3,), "zeros")]},
    wf.Computed: {"values": [1.0, 2.0]},
    wf.Expression: {"text": "2.0"},
}


def test_every_name_of_the_peers():
    for cls, names in NAMES.items():
        needed = NEEDED.get(cls, {})
        for name in names.split():
            assert wf.get(name, **needed) == cls(**needed)


def test_every_scheme_is_exported_and_has_a_name():
    schemes = {cls for cls in vars(wf).values() if isinstance(cls, type)}
    schemes = {cls for cls in schemes if issubclass(cls, wf.Initializer)}
    schemes -= {wf.Initializer, wf.Elementwise}
    assert schemes == set(NAMES) == {type(initializer) for initializer, _ in EXAMPLES}
    assert {cls.__name__ for cls in schemes} <= set(wf.__all__)


def test_get_of_a_config():
    for initializer, _ in EXAMPLES:
        config = {"class_name": type(initializer).__name__, "config": initializer.get_config()}
        assert wf.get(config) == initializer
    assert wf.get({"class_name": "zeros"}) == wf.Zeros()


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [("sparce_", "sparse"), ("kaiming_nrmal_", "kaiming_normal"), ("ortogonal", "orthogonal")],
)
def test_the_nearest_name(typo, nearest):
    with pytest.raises(ValueError, match=f"got '{typo}'; did you mean '{nearest}'"):
        wf.get(typo)


@pytest.mark.parametrize(
    "identifier",
    [None, 3, {"config": {}}, {"class_name": 3}, {"class_name": "zeros", "config": 3}, wf.Zeros],
)
def test_get_refuses(identifier):
    with pytest.raises(TypeError, match="identifier must be a name, a mapping"):
        wf.get(identifier)
