"""Streaming stores and unaligned destinations change neither the bits nor other bytes."""

import numpy as np
import pytest
from draws import DRAWS
from reference import DTYPES

import winit_fast._core as _core
from winit_fast.streams import distributions

GUARD = 256


def filled(distribution, index, shape, strides, item, *, shift, streaming):
    """Return the bytes of a box, at any alignment, and the guard bytes around it."""
    size = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + item
    room = np.full(GUARD + 64 + size + GUARD, 0xA5, np.uint8)
    start = GUARD + (-room.ctypes.data - GUARD) % 64 + shift
    index_strides = tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
    address = room.ctypes.data + start
    _core.fill(distribution, 1, 2, address, index, shape, index_strides, strides, streaming)
    return room[start : start + size].tobytes(), room[:start].tobytes() + room[
        start + size :
    ].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", DRAWS)
def test_streaming(isa, method, dtype):
    parameters = next(iter(DRAWS[method].frozen.values()))
    distribution = getattr(distributions, method)(DTYPES[dtype], *parameters)
    item = DTYPES[dtype].itemsize
    boxes = [
        (5, (20_011,), (item,)),  # one long run of odd length
        (5, (37, 531), (600 * item, item)),  # rows with gaps between them
        (8, (37, 128), (128 * item, item)),  # short rows of whole groups, one after the other
        (8, (37, 132), (136 * item, item)),  # short rows whose ends share lines with the gaps
        (5, (700, 8), (96 * item, item)),  # a shard of a few columns
        (8, (701, 8), (96 * item, item)),  # the same in whole blocks, the last list not full
        (5, (531, 37), (item, 531 * item)),  # transposed
    ]
    for index, shape, strides in boxes:
        box = distribution, index, shape, strides, item
        expected, _ = filled(*box, shift=0, streaming=False)
        for shift in (0, 1, item, 3 * item, 16, 64 - item, 61):
            for streaming in (False, True):
                got, guards = filled(*box, shift=shift, streaming=streaming)
                assert got == expected
                assert set(guards) == {0xA5}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", DRAWS)
def test_rows_of_whole_groups(isa, method, dtype):
    """Rows of whole vectors are drawn by a loop of their own, unless their blocks' upper words
    differ: every row has the bits that it has alone."""
    parameters = next(iter(DRAWS[method].frozen.values()))
    distribution = getattr(distributions, method)(DTYPES[dtype], *parameters)
    item, stride, rows = DTYPES[dtype].itemsize, 1024, 29
    upper = 16 // max(item, 4) << 32  # the first index whose block's number needs 33 bits
    for index in (64, 66, upper - 15 * stride, upper - 64):
        for columns in (16, 48, 128, 368):
            one = np.empty((rows, columns * item), np.uint8)
            for row, own in enumerate(one):
                first = index + row * stride
                address = own.ctypes.data
                _core.fill(distribution, 1, 2, address, first, (columns,), (1,), (item,), False)
            for gap, streaming in ((0, False), (0, True), (64, True), (16, True), (item, True)):
                size = columns * item + gap
                got = np.zeros(rows * size + 64, np.uint8)
                got = got[-got.ctypes.data % 64 :][: rows * size].reshape(rows, size)
                _core.fill(
                    distribution,
                    1,
                    2,
                    got.ctypes.data,
                    index,
                    (rows, columns),
                    (stride, 1),
                    (size, item),
                    streaming,
                )
                np.testing.assert_array_equal(got[:, : columns * item], one)
                assert not got[:, columns * item :].any()
