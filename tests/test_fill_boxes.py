"""Any box in any memory has the same bits as the box cut from the whole tensor."""

import array
import math
import tracemalloc
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from draws import DRAWS
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.base import dtypes
from winit_fast.base.boxes import whole
from winit_fast.streams import fill

STREAM = wf.Stream(7, "box")
WIDE = {method: partial(getattr(STREAM, method), *draw.wide) for method, draw in DRAWS.items()}


@st.composite
def boxes(draw):
    """A logical shape, and an index that NumPy also understands."""
    shape = tuple(draw(st.lists(st.integers(1, 12), max_size=3)))
    shape += tuple(draw(st.lists(st.integers(1, 70), max_size=1)))
    index = []
    for extent in shape[: draw(st.integers(0, len(shape)))]:
        start = draw(st.integers(0, extent))
        stop = draw(st.integers(start, extent))
        whole = st.sampled_from([slice(None), slice(start, None), slice(None, stop, 1)])
        inside = st.sampled_from([start, start - extent]) if start < extent else st.nothing()
        negative = st.just(slice(start - extent, stop)) if start < extent else st.nothing()
        index.append(draw(whole | inside | negative | st.just(slice(start, stop))))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(index)))
        # An Ellipsis before other parts would shift them to the last axes, whose extents differ.
        if at == len(index) or len(index) == len(shape):
            index.insert(at, Ellipsis)
    return shape, tuple(index)


@st.composite
def memories(draw, shape, dtype):
    """Memory and an array in it: any order of axes, reversed, with gaps, at any byte."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in shape]
    extents = [shape[axis] * abs(steps[axis]) for axis in order]
    lead = draw(st.integers(0, 9))
    memory = np.full(lead + math.prod(extents) * dtype.itemsize + 5, 0xA5, np.uint8)

    def view(memory):
        whole = memory[lead:-5].view(dtype).reshape(extents)
        whole = whole.transpose([order.index(axis) for axis in range(len(shape))])
        return whole[(..., *(slice(None, None, step) for step in steps))]

    return memory, view


@examples(400)
@given(st.data())
def test_box_equals_cut(data):
    shape, index = data.draw(boxes())
    kind = data.draw(st.sampled_from(list(dtypes.FLOATS.values())))
    draw = WIDE[data.draw(st.sampled_from(list(WIDE)))]
    whole = draw(shape=shape, dtype=kind.name)
    cut = whole[index if Ellipsis in index else (*index, ...)]
    memory, view = data.draw(memories(cut.shape, kind.dtype))
    expected = memory.copy()
    view(expected)[...] = cut
    with pytest.MonkeyPatch.context() as patch:  # pieces so small that a box has several
        patch.setattr(fill, "MIN_PIECE", data.draw(st.sampled_from([2, 8, 64])))
        patch.setattr(fill, "MAX_SPAN", data.draw(st.sampled_from([16, 256, fill.MAX_SPAN])))
        patch.setattr(fill, "STREAMING_BYTES", data.draw(st.sampled_from([0, 1 << 40])))
        threads = data.draw(st.integers(1, 4))
        draw(out=view(memory), shape=shape, index=index, num_threads=threads)
    # Compare all of the memory: the bytes between and around the elements must not change.
    np.testing.assert_array_equal(memory, expected)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("dtype", [kind.name for kind in dtypes.FLOATS.values()])
def test_layouts_on_every_isa(isa, name, dtype):
    shape = (33, 5, 67)
    whole = WIDE[name](shape=shape, dtype=dtype)
    for out in (
        np.empty(shape, whole.dtype),
        np.empty(shape, whole.dtype, order="F"),
        np.empty((67, 33, 5), whole.dtype).transpose(1, 2, 0),
        np.empty((33, 5, 134), whole.dtype)[:, ::-1, ::-2],
    ):
        WIDE[name](out=out)
        np.testing.assert_array_equal(_bytes(out), _bytes(whole))


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("dtype", [kind.name for kind in dtypes.FLOATS.values()])
def test_boxes_on_every_isa(isa, name, dtype):
    """Boxes that are not contiguous use runs into a buffer, lists of blocks, or columns."""
    shape = (23, 29, 13)
    whole = WIDE[name](shape=shape, dtype=dtype)
    for index in (
        # a column: its elements are more than a block apart, at odd and even indices
        np.s_[:, :, 5],
        np.s_[:, 3, 7:9],  # rows far apart
        np.s_[:, 2:27, 1:4],  # short rows close together
        np.s_[1:, :, :12],  # rows that leave few gaps
        np.s_[:, 4:6, :],
    ):
        cut = whole[index]
        for order in "C", "F":
            out = np.empty(cut.shape, whole.dtype, order=order)
            WIDE[name](out=out, shape=shape, index=index)
            np.testing.assert_array_equal(_bytes(out), _bytes(cut))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_boxes_larger_than_any_buffer(isa, dtype):
    """Tiles, lists and columns that need several parts, of which the last is shorter."""
    whole = STREAM.normal(shape=(1009, 17), dtype=dtype)
    for index in np.s_[:, 4], np.s_[:, 4:7], np.s_[:, 1:16], np.s_[:, :]:
        for order in "C", "F":
            out = np.empty(whole[index].shape, dtype, order=order)
            STREAM.normal(out=out, shape=whole.shape, index=index)
            np.testing.assert_array_equal(out, whole[index])


@pytest.mark.parametrize("name", WIDE)
def test_long_columns(isa, name):
    """Columns whose elements are adjacent in memory are written directly, except the last ones."""
    for dtype in dtypes.FLOATS:
        for width in 5, 6, 8:  # every second, every or no element is the first of its pair
            whole = WIDE[name](shape=(1999, width), dtype=dtype)
            for gap in 1, 3:
                out = np.zeros((1999, gap), dtype)
                WIDE[name](out=out[:, 0], shape=whole.shape, index=np.s_[:, 3])
                np.testing.assert_array_equal(_bytes(out[:, 0]), _bytes(whole[:, 3]))
                assert not _bytes(out[:, 1:]).any()


def test_columns_across_the_upper_word_of_a_block_number():
    """In block 2^32 the lower counter word is 0 again: lists must use the upper word too."""
    shape = (1 << 33, 3, 8)
    rows = np.s_[715827862:715827903]  # the middle row contains element 2^34
    whole = STREAM.normal(shape=shape, index=rows)
    for column in np.s_[:, 1, 3], np.s_[:, 1, 4], np.s_[:, 1, 3:5], np.s_[:, :, 5]:
        part = STREAM.normal(shape=shape, index=(rows, *column[1:]))
        np.testing.assert_array_equal(part, whole[column])


@pytest.mark.parametrize("width", [40, 128, 1000])
@pytest.mark.parametrize("offset", [-200, -3, 0, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_across_the_upper_word_of_a_block_number(isa, dtype, offset, width):
    """Rows that are made together have different upper words, and each may cross one."""
    past = (4 if dtype == np.float32 else 2) << 32  # elements before block 2^32
    shape = 5, past + 2048
    index = np.s_[:, past + offset : past + offset + width]
    stream = wf.Stream(3, "rows")
    rows = stream.normal(0.0, 1.0, shape, index=index, dtype=dtype)
    for k, row in enumerate(rows):
        single = [
            stream.normal(0.0, 1.0, shape, index=(k, past + offset + i), dtype=dtype)
            for i in (0, 3, width // 2, width - 1)
        ]
        assert [row[0], row[3], row[width // 2], row[-1]] == single


def test_rows_that_follow_one_another_in_memory_but_not_in_the_tensor():
    """More than one piece, so that axes may be merged; these axes must not be."""
    whole = STREAM.normal(shape=(300, 700))
    part = STREAM.normal(shape=(300, 700), index=np.s_[:, 3:600])
    assert part.size > fill.MIN_PIECE
    np.testing.assert_array_equal(part, whole[:, 3:600])


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_bits_box_equals_cut(isa, dtype):
    whole = STREAM.bits((9, 31), 5, dtype=dtype)
    part = STREAM.bits((9, 31), 5, dtype=dtype, index=np.s_[2:4, 3:])
    np.testing.assert_array_equal(part, whole[2:4, 3:])
    np.testing.assert_array_equal(STREAM.bits(31, 5 + 31, dtype=dtype), whole[1])


def test_shards_of_a_tensor_past_2_to_33_elements():
    shape = (1 << 20, 1 << 14)
    rows = STREAM.normal(shape=shape, index=np.s_[-2:, :])
    columns = STREAM.normal(shape=shape, index=np.s_[-2:, -3:])
    np.testing.assert_array_equal(columns, rows[:, -3:])
    element = STREAM.normal(shape=shape, index=(shape[0] - 1, shape[1] - 1))
    assert element.shape == () and element == rows[-1, -1]


def test_narrow_is_the_rounded_float32():
    single = STREAM.normal(shape=10_000)
    for kind in dtypes.FLOATS.values():
        if kind.dtype.itemsize < 4:
            narrow = STREAM.normal(shape=10_000, dtype=kind.name)
            np.testing.assert_array_equal(_bytes(narrow), _bytes(single.astype(kind.dtype)))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1)])
def test_shapes_of_no_or_one_element(shape):
    out = np.full(shape, 9.0, np.float32)
    assert STREAM.normal(out=out) is out
    assert (out != 9.0).all()
    assert wf.Zeros()(shape).shape == wf.HeNormal(fan_in=1)(shape).shape == shape


def test_buffer_protocol():
    expected = STREAM.normal(shape=6)
    out = array.array("f", [0.0] * 6)
    assert STREAM.normal(out=out) is out
    assert list(out) == expected.tolist()
    memory = memoryview(bytearray(24)).cast("f", (2, 3))
    wf.RandomNormal(0.0, 1.0).fill(memory, seed=7, name="box")
    assert memory.tolist() == expected.reshape(2, 3).tolist()


def test_dlpack_of_numpy():
    """DLPack capsules of NumPy, through an object that only supports DLPack."""

    class Exported:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __dlpack__(self, **versions):
            return self.array.__dlpack__(**versions)

    expected = STREAM.normal(shape=(4, 6))
    out = np.zeros((4, 12), np.float32)
    STREAM.normal(out=Exported(out[:, ::-2]), shape=(4, 6))
    np.testing.assert_array_equal(out[:, ::-2], expected)
    assert (out[:, ::2] == 0).all()


def test_pieces_are_lazy_and_lie_apart():
    """Pieces of a box of 3 * 10^9 elements are made only when they are taken."""
    sizes = fill.MAX_PIECE, fill.MAX_SPAN
    contiguous = fill.pieces(0, 0, (fill.Loop(3 * 10**9, 1, 2),), *sizes)
    first, second = next(contiguous), next(contiguous)
    assert first == (0, 0, (fill.Loop(fill.MAX_PIECE, 1, 2),))
    assert second[:2] == (2 * fill.MAX_PIECE, fill.MAX_PIECE)
    # A transposed array is cut along the axis that is outermost in memory, not along the first.
    axes = fill.Loop(64, 1, 4096), fill.Loop(1024, 64, 4)
    pieces = list(fill.pieces(0, 0, axes, 1 << 12, fill.MAX_SPAN))
    assert [address for address, _, _ in pieces] == [4096 * 4 * at for at in range(16)]


def test_axes_are_sorted_and_joined():
    axes = (3, 4, 1, 2), (4, 1, 1 << 63, 12), (16, 4, 0, 96)
    assert _core.merged(*axes) == [(2, 12, 96), (12, 1, 4)]
    assert _core.merged((5, 1), (1, 1), (-4, 4)) == [(5, 1, -4)]
    assert _core.merged((), (), ()) == _core.merged((1,), (1,), (4,)) == []
    # Adjacent in memory but not in the tensor, and the reverse.
    assert _core.merged((2, 3), (5, 1), (12, 4)) == [(2, 5, 12), (3, 1, 4)]
    assert _core.merged((2, 3), (3, 1), (16, 4)) == [(2, 3, 16), (3, 1, 4)]


@pytest.mark.parametrize("columns", [3, 16, 17])
def test_few_columns_in_f_order_are_cut_together(columns):
    """Columns whose elements are adjacent in the tensor are slow to draw one at a time."""
    out = np.empty((1 << 20, columns), np.uint8, order="F")
    extents = []

    def work(piece):
        extents.append({axis.index_stride: axis.extent for axis in piece[2]})

    fill.share_out(work, out, whole(out.shape), None)
    assert len(extents) > 1
    together = {axes.get(1) == columns for axes in extents}
    assert together == {columns <= fill.FEW_STEPS}


def _extents(axes, limit=fill.MAX_PIECE):
    pieces = fill.pieces(0, 0, axes, limit, fill.MAX_SPAN)
    return [[axis.extent for axis in axes] for _, _, axes in pieces]


def test_pieces_span_little_memory():
    """A piece spans few memory pages, because Ctrl-C has to wait until a piece is done."""
    assert fill.MAX_SPAN == 1 << 25
    columns = fill.Loop(1 << 20, 1024, 4096), fill.Loop(8, 1, 4)  # 8 of 1024 columns in float32
    assert _extents(columns) == [[1 << 13, 8]] * 128
    assert _extents((fill.Loop(1 << 14, 1, 1 << 14),)) == [[1 << 11]] * 8
    # Elements further apart than MAX_SPAN get a piece each; so do rows that far apart.
    assert _extents((fill.Loop(3, 1, 1 << 27),)) == [[1]] * 3
    assert _extents((fill.Loop(2, 9, -1 << 30), fill.Loop(9, 1, 8))) == [[9]] * 2
    # Contiguous memory is cut by the number of elements alone.
    for itemsize in (1, 2, 4, 8):
        run = (fill.Loop(10 << 21, 1, itemsize),)
        assert _extents(run) == [[1 << 21]] * 10
    assert (
        _extents((fill.Loop(1 << 12, 1 << 10, 8 << 10), fill.Loop(1 << 10, 1, 8)))
        == [[1 << 11, 1 << 10]] * 2
    )


@pytest.mark.parametrize("rows", [1 << 13, 1 << 16])  # few elements, and many
def test_fills_are_cut_by_the_memory_they_span(rows):
    out = np.empty((rows, 1 << 14), np.uint8)[:, :8]  # the pages are never touched
    spans = []

    def work(piece):
        _, _, axes = piece
        spans.append(sum((axis.extent - 1) * abs(axis.byte_stride) for axis in axes))

    fill.share_out(work, out, whole(out.shape), None)
    assert len(spans) == rows >> 11
    assert max(spans) <= fill.MAX_SPAN


def test_memory_of_a_fill():
    out = np.empty(1 << 24, ml_dtypes.float8_e5m2)
    STREAM.normal(out=out)
    tracemalloc.start()
    try:
        STREAM.normal(out=out)
        wf.Ones().fill(out)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _bytes(array):
    return np.ascontiguousarray(array).view(np.uint8)
