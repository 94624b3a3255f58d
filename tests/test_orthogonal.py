"""Orthogonal matrices: equal to the textbook's algorithm, boxes equal to the whole, and errors."""

import hashlib
import itertools
import math
import signal
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from strategies import NARROW, depth

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.initializers import orthogonal
from winit_fast.initializers import reflectors as householder

EPS = {"float64": 2.0**-52, "float32": 2.0**-23}
BOUND = 32  # in eps: the allowed difference from other ways to compute the same matrix


def box_bound(length):
    """The documented difference, in eps, between a box computed by rows and the whole matrix."""
    return 8 + math.sqrt(length)


# One element, one row, one column, one more than a group and than a panel, and primes.
SHAPES = [
    (1, 1),
    (1, 9),
    (9, 1),
    (4, 4),
    (5, 5),
    (8, 3),
    (16, 16),
    (17, 17),
    (31, 37),
    (33, 20),
    (129, 130),
    (257, 257),
    (521, 97),
    (67, 499),
]


def _vectors(m, n, dtype, number=0):
    """Return the Gaussian vectors of one m x n matrix of a batch."""
    shape = (number + 1, min(m, n), max(m, n))
    return wf.Stream(3, "w").normal(0, 1, shape, dtype=dtype)[number].astype(float)


def _textbook(m, n, dtype, number=0):
    """Return Q of the QR factorisation (diag(R) > 0) that has the given reflectors."""
    x = _vectors(m, n, dtype, number)
    width, length = x.shape
    a, product = np.zeros((length, width)), np.eye(length)
    above = np.random.default_rng(0).standard_normal((width, width))
    for j in range(width):
        column = np.concatenate([above[j, :j], x[j, j:]])
        a[:, j] = product @ column
        v = np.concatenate([np.zeros(j), x[j, j:]])
        v[j] += np.copysign(np.linalg.norm(v), v[j])
        product -= np.outer(product @ v, v) * (2 / (v @ v))
    q, r = np.linalg.qr(a)
    q = q * np.sign(np.diag(r))
    return q if m >= n else q.T


def _boxes(m, n):
    rows = [(0, m), (m // 3, m // 2 + 1), (m - 1, m)]
    columns = [(0, n), (n // 4, n // 2 + 1), (n - 1, n)]
    return [np.s_[a:b, c:d] for (a, b), (c, d) in itertools.product(rows, columns)]


def _make(shape, dtype="float32", gain=1.0, **options):
    return wf.Orthogonal(gain)(shape, seed=3, name="w", dtype=dtype, **options)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_textbook(shape, dtype, isa):
    q = _make(shape, dtype)
    assert abs(q - _textbook(*shape, dtype)).max() < BOUND * EPS[dtype]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthonormal(shape, dtype):
    q = _make(shape, dtype).astype(float)
    q = q if shape[0] >= shape[1] else q.T
    assert abs(q.T @ q - np.eye(q.shape[1])).max() < BOUND * EPS[dtype]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_boxes(shape, dtype):
    q = _make(shape, dtype)
    for box in _boxes(*shape):
        part = _make(shape, dtype, index=box)
        assert abs(part - q[box]).max() < box_bound(max(shape)) * EPS[dtype]
        # If the box has fewer columns than rows, it is computed by columns, as the whole matrix is.
        rows, columns = part.shape if shape[0] >= shape[1] else part.shape[::-1]
        if columns <= rows:
            assert (part == q[box]).all()


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shape", [(33, 20), (67, 499), (300, 300)], ids=str)
def test_narrow_types_are_float32_rounded(shape, dtype):
    for box in _boxes(*shape):
        wide = _make(shape, index=box)
        assert (_make(shape, dtype, index=box) == wide.astype(dtype)).all()


# Memory for all reflectors, for some groups, for one group, and for alternating parts.
@pytest.mark.parametrize("memory", [1 << 26, 1 << 18, 1 << 13, 1])
@pytest.mark.parametrize("shape", [(300, 300), (521, 97), (67, 499)], ids=str)
def test_memory_changes_no_bit(shape, memory, monkeypatch):
    boxes = _boxes(*shape)
    before = [_make(shape, gain=3.0, index=box) for box in boxes]
    monkeypatch.setattr(householder, "BYTES", memory)
    monkeypatch.setattr(householder, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(householder, "CACHE_BYTES", 1 << 14)
    for box, whole in zip(boxes, before, strict=True):
        assert (_make(shape, gain=3.0, index=box, num_threads=3) == whole).all()
        narrow = _make(shape, "bfloat16", gain=3.0, index=box)
        assert (narrow == whole.astype(ml_dtypes.bfloat16)).all()


@pytest.mark.parametrize("dtype", EPS)
def test_destinations(dtype):
    m, n = 70, 50
    q = _make((m, n), dtype)
    memory = np.zeros((2 * m, 3 * n + 1), dtype)
    raw = np.zeros(m * n * q.itemsize + 1, np.uint8)
    for out in (
        memory[:m, :n],
        memory[::2, 1::3],
        memory[::-2, ::-3][:, :n],
        memory[: 2 * n].reshape(-1)[: m * n].reshape(n, m).T,
        raw[1:].view(dtype).reshape(m, n),
    ):
        memory[:] = 7
        assert wf.Orthogonal().fill(out, seed=3, name="w") is out
        assert (out == q).all()
    assert (memory == 7).sum() in (0, memory.size)


def test_a_place_that_is_not_aligned_is_not_computed_in():
    """C may access a 4-byte number only at a multiple of 4; the sanitizers check this."""
    memory, chosen = np.zeros(4 * 16 + 1, np.uint8), np.arange(4)
    for raw, usable in ((memory[:-1], True), (memory[1:], False)):
        array = raw.view(np.float32).reshape(4, 4)
        to = orthogonal._destination(array, chosen, chosen, (4,), (4,), array.dtype)
        assert (to.place is not None) == usable


@pytest.mark.parametrize("dtype", EPS)
def test_a_vector_of_zeros_counts_as_positive(isa, dtype):
    """It becomes -1 times a unit vector, as does any vector with a single positive element."""
    group = _core.GROUP
    v = np.zeros((group, group), dtype)
    tau, sign = np.full((2, group), 7, dtype)
    packed = np.full(_core.packed_size(group, group), 7, dtype)
    _core.reflectors(v, group, tau, sign, np.empty((group, group), dtype), packed)
    assert (packed.reshape(group, group) == np.eye(group)).all()  # the vectors side by side
    assert (v == np.eye(group)).all() and (tau == 2).all() and (sign == -1).all()


def test_nothing_else_is_written():
    memory = np.full((60, 80), 7, np.float32)
    wf.Orthogonal().fill(memory[5:55:2, 3:70:3], seed=3, name="w")
    memory[5:55:2, 3:70:3] = 7
    assert (memory == 7).all()


def test_bits_are_frozen(isa):
    made = [_make((100, 61), "float32"), _make((61, 300), "float64"), _make((700, 40), "float32")]
    digest = hashlib.sha256(b"".join(q.astype(q.dtype.newbyteorder("<")).tobytes() for q in made))
    assert digest.hexdigest() == "a1af1f8582444c7973e0615a98a7ea6fad0467b5adf7bfc0380e64b2d7fefae6"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(threads):
    q = _make((400, 300), num_threads=1)
    assert (_make((400, 300), num_threads=threads) == q).all()


@pytest.mark.parametrize("shape", [(3, 8, 2, 6), (3, 40, 2, 60), (2, 300, 2, 260)], ids=str)
def test_batches(shape):
    batch = wf.Orthogonal(batch_axis=(0, 2))
    whole = batch(shape, seed=3, name="w", dtype="float64")
    for number, (i, j) in enumerate(np.ndindex(shape[0], shape[2])):
        q = _textbook(shape[1], shape[3], "float64", number)
        assert abs(whole[i, :, j] - q).max() < BOUND * EPS["float64"]
    for box in (np.s_[1:, :, 1], np.s_[:2, 2:5, :, 3:], np.s_[-1, :, 0, 1:4]):
        part = batch(shape, seed=3, name="w", dtype="float64", index=box)
        assert abs(part - whole[box]).max() < box_bound(max(shape)) * EPS["float64"]


@pytest.mark.parametrize("shape", [(2000, 2000), (4096, 512), (512, 4096)], ids=str)
def test_boxes_of_larger_matrices(shape):
    """The first rows of a tall matrix differ most; equal boxes and columns are bit-equal."""
    shape = tuple(depth(extent, 2) for extent in shape)  # `make test` halves both extents
    q = _make(shape)
    tall, turn = (q, lambda box: box) if shape[0] >= shape[1] else (q.T, lambda box: box[::-1])
    for rows, columns in ((np.s_[:64], np.s_[:]), (np.s_[100:164], np.s_[:250])):
        part = _make(shape, index=turn((rows, columns)))
        part = part if shape[0] >= shape[1] else part.T
        assert abs(part - tall[rows, columns]).max() < box_bound(max(shape)) * EPS["float32"]
        again = _make(shape, index=turn((rows, columns)), num_threads=1)
        assert (again == (part if shape[0] >= shape[1] else part.T)).all()
    columns = _make(shape, index=turn((np.s_[:], np.s_[128:200])))
    assert (columns == q[turn((np.s_[:], np.s_[128:200]))]).all()


def test_a_shard_of_matrices_that_do_not_follow_one_another():
    """Matrices 1, 2, 6, 7, 11 and 12, computed together by one thread, equal the whole's."""
    batch = wf.Orthogonal(batch_axis=(0, 1))
    shape = (3, 5, 8, 4)  # as many vectors as a group has: no padding is needed
    whole = batch(shape, seed=3, name="w")
    part = batch(shape, seed=3, name="w", index=np.s_[:, 1:3], num_threads=1)
    assert (part == whole[:, 1:3]).all()


def test_conventions():
    # Keras and JAX: (kernel, in, out) is a matrix (kernel * in, out).
    q = wf.Orthogonal()((3, 3, 5, 32), seed=3, name="w")
    assert (q.reshape(45, 32) == _make((45, 32))).all()
    # torch: (out, in, kernel) is a matrix (out, in * kernel).
    q = wf.Orthogonal(column_axis=0)((32, 5, 3, 3), seed=3, name="w")
    assert (q.reshape(32, 45) == _make((45, 32)).T).all()
    # Several column axes, in any order.
    q = wf.Orthogonal(column_axis=(-1, 1))((7, 4, 6, 5), seed=3, name="w")
    matrix = _make((42, 20)).reshape(7, 6, 4, 5).transpose(0, 2, 1, 3)
    assert (q == matrix).all()


@pytest.mark.parametrize(
    "index", [np.s_[1:, 1:, 2:5, 3:30], np.s_[0], np.s_[:, 1, :, 5], np.s_[2, 2, 4]]
)
@pytest.mark.parametrize("column_axis", [-1, 0, (1, 3)])
def test_boxes_of_tensors(index, column_axis):
    initializer = wf.Orthogonal(column_axis=column_axis)
    q = initializer((3, 3, 5, 32), seed=3, name="w")
    part = initializer((3, 3, 5, 32), seed=3, name="w", index=index)
    assert part.shape == q[index].shape
    assert abs(part - q[index]).max() < box_bound(90) * EPS["float32"]


@pytest.mark.parametrize("gain", [0.0, -1.5, 1e-30, 1e30, 2.0**0.5])
def test_gain(gain):
    q = _make((40, 30), gain=gain)
    np.testing.assert_allclose(q, np.float32(gain) * _make((40, 30)), rtol=2e-7)


def test_empty():
    for shape in ((0, 5), (5, 0), (0, 0)):
        assert _make(shape).shape == shape
    assert _make((5, 4), index=np.s_[2:2]).shape == (0, 4)
    assert wf.Orthogonal(batch_axis=0)((0, 5, 4)).shape == (0, 5, 4)


def test_memory_is_bounded():
    # A shard of columns, a shard of rows, and a type that needs a working type, of a matrix of 256
    # MiB. Beside the result, memory holds the reflectors and the columns in turns.
    shape = (8192, 8192)
    for box, dtype in (
        (np.s_[:, 3:20], "float32"),
        (np.s_[8:25], "float32"),
        (np.s_[:99, :9], "float16"),
    ):
        tracemalloc.start()
        part = _make(shape, dtype, index=box, num_threads=2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - part.nbytes < (64 << 20) + 2 * 128 * 8192 * 4


def test_interrupt():
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            wf.Orthogonal()((20_000, 20_000), index=np.s_[:, -2000:], num_threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("shape", "in_axis", "out_axis", "centre"),
    [
        ((3, 5, 8), -2, -1, (1,)),
        ((4, 3, 5, 8), -2, -1, (1, 1)),
        ((3, 3, 2, 6, 6), -2, -1, (1, 1, 0)),
        ((8, 5, 3, 3), 1, 0, (1, 1)),
    ],
)
def test_delta_orthogonal(shape, in_axis, out_axis, centre):
    initializer = wf.DeltaOrthogonal(2.0, in_axis, out_axis)
    w = initializer(shape, seed=3, name="w")
    taps = np.moveaxis(w, (in_axis, out_axis), (-2, -1))
    expected = np.zeros_like(taps)
    expected[centre] = _make(taps.shape[-2:], gain=2.0)
    assert (taps == expected).all()
    for index in (np.s_[:2], np.s_[..., 1:3], np.s_[1:, 1], np.s_[..., -1]):
        part = initializer(shape, seed=3, name="w", index=index)
        assert abs(part - w[index]).max() < 2 * box_bound(8) * EPS["float32"]


def test_configuration():
    for initializer in (wf.Orthogonal(2.0, (0, 1), 3), wf.DeltaOrthogonal(2.0, 1, 0)):
        assert type(initializer).from_config(initializer.get_config()) == initializer
        assert eval(repr(initializer), vars(wf)) == initializer
        assert len({initializer, initializer}) == 1
    assert wf.Orthogonal(column_axis=[0, 1]) == wf.Orthogonal(column_axis=(0, 1))
    assert wf.get("orthogonal") == wf.get("orthogonal_") == wf.Orthogonal()
    assert wf.get("delta_orthogonal", gain=2.0) == wf.DeltaOrthogonal(2.0)


@pytest.mark.parametrize(
    ("initializer", "shape", "message"),
    [
        (wf.Orthogonal(), (5,), r"at least two axes, got shape \(5,\)"),
        (wf.Orthogonal(), (), r"at least two axes, got shape \(\)"),
        (wf.Orthogonal(column_axis=2), (5, 5), r"column_axis is 2, but shape \(5, 5\) has 2 axes"),
        (wf.Orthogonal(column_axis=(0, -2)), (5, 5), r"different axes, got \(0, -2\)"),
        (wf.Orthogonal(1.0, -1, -1), (5, 5), "column_axis=-1 and batch_axis=-1"),
        (wf.Orthogonal(column_axis=(0, 1)), (5, 5), "leave one for the rows"),
        (wf.Orthogonal(batch_axis=0), (5, 5), "leave one for the rows"),
        (wf.Orthogonal(1e39), (5, 5), r"gain must fit float32, got 1e\+39"),
        (wf.DeltaOrthogonal(1e39), (3, 5, 5), r"gain must fit float32, got 1e\+39"),
        (wf.DeltaOrthogonal(), (5, 5), r"three to five axes, got shape \(5, 5\)"),
        (wf.DeltaOrthogonal(), (1,) * 6, "three to five axes"),
        (wf.DeltaOrthogonal(), (3, 6, 5), "got 6 inputs and 5 outputs"),
        (
            wf.DeltaOrthogonal(in_axis=1, out_axis=1),
            (3, 5, 5),
            "must be different axes, got 1 and 1",
        ),
        (wf.DeltaOrthogonal(in_axis=3), (3, 5, 5), "in_axis is 3"),
    ],
)
def test_refused_before_anything_is_written(initializer, shape, message):
    out = np.full(shape, 7, np.float32)
    with pytest.raises(ValueError, match=message):
        initializer.fill(out, seed=0)
    assert (out == 7).all()


@pytest.mark.parametrize("cls", [wf.Orthogonal, wf.DeltaOrthogonal])
@pytest.mark.parametrize("gain", [np.nan, np.inf, -np.inf])
def test_gain_must_be_finite(cls, gain):
    with pytest.raises(ValueError, match="gain must be finite, got"):
        cls(gain)


def test_axes_must_be_integers():
    with pytest.raises(
        TypeError, match="column_axis must be an int or a sequence of them, got 0.5"
    ):
        wf.Orthogonal(column_axis=0.5)
    with pytest.raises(TypeError, match=r"in_axis must be an integer, got '1'"):
        wf.DeltaOrthogonal(in_axis="1")
