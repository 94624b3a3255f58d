"""The schemes beyond plain draws: values, boxes, closed forms and refusals."""

import json
import math
import pickle
import tracemalloc
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy import signal

import winit_fast as wf
from winit_fast import dtypes, patterns, stft

DTYPES = [kind.name for kind in dtypes.FLOATS.values()]
EXAMPLES = [
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
]
each = pytest.mark.parametrize(("initializer", "shape"), EXAMPLES, ids=lambda value: repr(value))


@each
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


@each
@pytest.mark.parametrize("dtype", DTYPES)
def test_boxes_are_cut_from_the_whole(initializer, shape, dtype, monkeypatch):
    whole = initializer(shape, seed=3, name="w", dtype=dtype)
    assert whole.shape == shape and whole.dtype == np.dtype(dtype)
    for module in (patterns, stft):
        monkeypatch.setattr(module, "_BLOCK", 20)  # several blocks, some of one column
    parts = [slice(None), slice(1, None), slice(0, 1), 0, -1, slice(1, 1)]
    for axis in range(len(shape)):
        for part in parts:
            index = (slice(None),) * axis + (part,)
            made = initializer(shape, seed=3, name="w", dtype=dtype, index=index)
            assert made.shape == whole[index].shape and made.tobytes() == whole[index].tobytes()
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
        ({"gain": 1e300}, (3, 4, 8), ValueError, "value must fit float32, got 1e\\+300"),
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
    """The zeros counted, the others those of the plain normal, the mask from its definition."""
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
    # A number of float8_e4m3fn may itself round to 0.
    assert all((masks[0] <= mask).all() for mask in masks)
    assert sum((masks[0] != mask).any() for mask in masks) <= 2


def test_masks_of_streams():
    shape = (50, 40)

    def mask(seed, name):
        return wf.Sparse(0.5)(shape, seed=seed, name=name) == 0

    masks = [mask(0, "a"), mask(1, "a"), mask(0, "b"), mask(0, 7), mask(0, None)]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert 700 < (one == other).sum() < 1300  # 1000 +- 13 deviations
    assert (mask(0, None) == mask(0, 0)).all()  # equal streams


def test_every_row_is_as_likely_a_zero():
    """Chi squared of 2^14 columns: P(chi2(15) > 60) = 2e-7 is the rate of false alarms."""
    zero = wf.Sparse(0.25)((16, 1 << 14), seed=0, name="fair") == 0
    assert zero.sum() == 4 << 14
    # Each count is a sum of independent columns; rows sum to 4 in each: hence 15/16.
    expected = (1 << 14) / 4
    variance = (1 << 14) * 0.25 * 0.75
    chi2 = ((zero.sum(axis=1) - expected) ** 2).sum() / variance * 15 / 16
    assert chi2 < 60


def test_memory_of_a_sparse_shard():
    """Of 2^36 elements, three columns: no more than a few times their own words."""
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
    """Against NumPy's FFT: as long as the frame, and longer."""
    frame = np.ones(24)
    if window is not None:
        frame = signal.get_window("hann", 24, False) if window == "hann" else np.array(window)
        norms = {"density": np.sqrt((frame**2).sum()), "spectrum": frame.sum(), None: 1}
        frame = frame / norms[scaling]
    for bins in (13, 14, 40):
        # Row t of the diagonal has the frame's sample t alone: its transform is the kernel's row.
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
