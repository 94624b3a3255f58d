"""Random orthogonal matrices as products of Householder reflectors, whole or in part.

Every matrix here is *tall*: length x width with length >= width. Q = H_0 H_1 ... H_{width-1} E D,
where E has the first columns of the identity and D the signs that make Q Haar-distributed. A wide
matrix is the transpose of a tall one. docs/orthogonal.md has the mathematics.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import winit_fast._core as _core
from winit_fast.base import threads
from winit_fast.base.arrays import Array, aligned, empty_in_huge_pages
from winit_fast.base.boxes import slices
from winit_fast.streams import distributions

BYTES = 64 << 20
"""Memory for the reflectors that exist at one time. If intermediate vectors must be kept and the
destination cannot hold them, a third of this memory holds vectors instead."""

CACHE_BYTES = 3 << 17
"""Bytes of the panels that a thread processes at one time and that stay in its core's L2 cache."""

LONG_PANELS = 4
"""Panels that a thread processes at one time if fewer than two fit in ``CACHE_BYTES``. All of them
read the same reflectors, so the more there are, the less is read from L3 and from memory."""

WORTH_A_THREAD = 1 << 25
"""A matrix that needs fewer multiply-adds than this is computed by one thread."""

PIECE = 1 << 17
"""Elements of the normals that are processed at one time; Ctrl-C is noticed in between."""


class GaussianMatrix(NamedTuple):
    """The Gaussian vectors of one tall matrix: a width x length matrix of a stream's normals.

    Attributes
    ----------
    seed, stream : int
        Key and stream of the numbers, 64 bits each.
    offset : int
        Index of the first number in the stream.
    length, width : int
        Rows and columns of the tall matrix. Vector j is row j of the normals, from column j on.
    dtype : numpy.dtype
        The working type, float32 or float64.
    """

    seed: int
    stream: int
    offset: int
    length: int
    width: int
    dtype: np.dtype[Any]

    def draw(self, out: Array, start: int) -> None:
        """Fill an array with the normals from row ``start`` and column ``start`` on."""
        _core.fill(
            distributions.normal(self.dtype, 0.0, 1.0),
            self.seed,
            self.stream,
            out.__array_interface__["data"][0],
            self.offset + start * self.length + start,
            out.shape,
            (self.length, 1),
            out.strides,
            False,
        )


class Reflectors(NamedTuple):
    """Reflectors ``start`` to ``stop``, without their first ``start`` elements, which are 0.

    Attributes
    ----------
    start, stop : int
    length : int
        Elements of the first of these reflectors.
    packed : numpy.ndarray
        The vectors of each group side by side, as csrc/householder.h says. Vectors of zeros
        complete the last group.
    factors : numpy.ndarray
        The coefficients with which a group of reflectors is applied in compact WY form.
    signs : numpy.ndarray
        The diagonal of D for these columns of Q.
    """

    start: int
    stop: int
    length: int
    packed: Array
    factors: Array
    signs: Array


def make_reflectors(
    gaussian: GaussianMatrix, start: int, stop: int, num_threads: int
) -> Reflectors:
    """Draw vectors and compute their reflectors, with the same bits on every machine."""
    length = gaussian.length - start
    rows = _up(stop - start, _core.GROUP)
    packed = np.empty(_core.packed_size(rows, length), gaussian.dtype)
    tau, signs = np.empty((2, rows), gaussian.dtype)
    factors = np.empty((rows, _core.GROUP), gaussian.dtype)

    some = _up(min(-(-PIECE // length), -(-rows // num_threads)), _core.GROUP)
    pieces = [*slices(rows, some)]
    spaces = list(np.empty((min(num_threads, len(pieces)), some * length), gaussian.dtype))

    def make(piece: slice) -> None:
        space = spaces.pop()
        size = piece.stop - piece.start, length - piece.start
        own = space[: math.prod(size)].reshape(size)
        count = min(size[0], stop - start - piece.start)
        gaussian.draw(own[:count], start + piece.start)
        first, last = (_core.packed_size(row, length) for row in (piece.start, piece.stop))
        _core.reflectors(own, count, tau[piece], signs[piece], factors[piece], packed[first:last])
        spaces.append(space)

    threads.run(make, pieces, num_threads)
    return Reflectors(start, stop, length, packed, factors, signs)


class Destination(NamedTuple):
    """The destination of chosen rows and columns of a tall matrix.

    Attributes
    ----------
    rows, columns : numpy.ndarray of int
        The chosen rows and columns, in increasing order.
    place : numpy.ndarray or None
        The memory, len(rows) x len(columns), if it has the working type; else None.
    write_columns, write_rows : callable
        Write results. ``write_columns`` takes a slice of ``columns`` and an array of these columns.
        ``write_rows`` takes a slice of ``rows`` and an array whose columns are these rows.
    """

    rows: Array
    columns: Array
    place: Array | None
    write_columns: Callable[[slice, Array], None]
    write_rows: Callable[[slice, Array], None]


def fill_matrix(gaussian: GaussianMatrix, to: Destination, gain: float, num_threads: int) -> None:
    """Compute chosen rows and columns of gain * Q, where Q is tall.

    Parameters
    ----------
    gaussian : GaussianMatrix
    to : Destination
        Has at least one row and one column.
    gain : float
        Finite.
    num_threads : int
        At least 1.

    Notes
    -----
    Column j of Q is ``H_0 (H_1 (... (H_j e_j)))`` D_j, and row i is, as a column,
    ``D ... H_1 (H_0 e_i)``. A row and a column cost about the same: both are vectors of full
    length, to which all reflectors up to the last chosen column are applied. So either rows or
    columns are computed, whichever are fewer, and then cropped. As many reflectors are computed and
    applied at one time as memory allows. In between, the vectors are kept in the destination if
    possible, or else some vectors at a time in other memory.
    """
    last = int(to.columns[-1]) + 1
    if gaussian.length * last * min(to.columns.size, to.rows.size) < WORTH_A_THREAD:
        num_threads = 1
    backward = to.columns.size <= to.rows.size
    if backward:
        index, cut, place, write = to.columns, to.rows, to.place, to.write_columns
    else:
        index, cut, write = to.rows, to.columns, to.write_rows
        place = None if to.place is None else to.place.T
    if cut.size < gaussian.length:
        place = None

    vector = gaussian.length * gaussian.dtype.itemsize
    step = max(BYTES // vector, 1)
    room = index.size
    if place is None and last > step:
        room = max(step // 3, _core.panel_columns(gaussian.dtype.itemsize))
        step -= step // 3
    starts = range(0, last, _up(step, _core.GROUP))
    apply = _backward if backward else _forward

    def finish(piece: slice, results: Array) -> None:
        write(piece, results if cut.size == gaussian.length else results[cut])

    def make(start: int) -> Reflectors:
        return make_reflectors(gaussian, start, min(start + starts.step, last), num_threads)

    if len(starts) == 1 and place is None:
        apply(make(0), index, None, finish, gain, num_threads)
        return
    for span in slices(index.size, room):
        if place is None:
            kept = np.empty((gaussian.length, span.stop - span.start), gaussian.dtype)
        else:
            kept = place[:, span]
        for start in reversed(starts) if backward else starts:
            apply(make(start), index[span], kept, None, gain, num_threads)
        if place is None:
            finish(span, kept)


Finish = Callable[[slice, Array], None]
"""Takes a slice of the vectors' positions, and an array with these vectors as columns."""


def _backward(
    made: Reflectors,
    index: Array,
    kept: Array | None,
    finish: Finish | None,
    gain: float,
    num_threads: int,
) -> None:
    """Apply reflectors to columns ``index`` of Q, from the last reflector to the first.

    Reflectors after j do not change column j. So column j starts, as D_j e_j, in the call whose
    reflectors include j. Columns that started earlier are still 0 in the rows of ``made``.
    """
    start, stop, length, packed, factors, signs = made
    scale = gain if start == 0 else 1.0
    here = int(np.searchsorted(index, start))  # columns before it start in a later call
    rows = index[here : np.searchsorted(index, stop)] - start
    values = signs[rows]
    count = index.size - here
    columns = _core.panel_columns(packed.itemsize)
    last = index[here + np.minimum(np.arange(columns, count + columns, columns), count) - 1]
    stops = (np.minimum(last + 1, stop) - start).astype(np.uintp)

    def carry(piece: slice, panels: Array) -> None:
        own = slice(piece.start + here, piece.stop + here)
        old = None if kept is None else kept[start:, own]
        out = np.empty((length, own.stop - own.start), packed.dtype) if old is None else old
        _core.backward(
            panels,
            rows[piece],
            values[piece],
            old,
            stop - start,
            packed,
            factors,
            stops[piece.start // columns :],
            scale,
            out,
        )
        if finish is not None:
            finish(own, out)

    _share_out(carry, count, made, num_threads)


def _forward(
    made: Reflectors,
    index: Array,
    kept: Array | None,
    finish: Finish | None,
    gain: float,
    num_threads: int,
) -> None:
    """Apply reflectors to rows ``index`` of Q, held as columns, from the first to the last.

    Afterwards the elements of these vectors in the rows of ``made`` are final.
    """
    start, stop, length, packed, factors, signs = made
    scales = signs[: stop - start].astype(np.float64) * gain  # rounded in C
    rows = index if start == 0 else index[:0]
    values = np.ones(rows.size, packed.dtype)

    def carry(piece: slice, panels: Array) -> None:
        old = None if kept is None else kept[start:, piece]
        out = np.empty((length, piece.stop - piece.start), packed.dtype) if old is None else old
        stops = np.full(len(panels), stop - start, np.uintp)
        _core.forward(panels, rows[piece], values[piece], old, packed, factors, stops, scales, out)
        if finish is not None:
            finish(piece, out)

    _share_out(carry, index.size, made, num_threads)


def _share_out(
    carry: Callable[[slice, Array], None], count: int, made: Reflectors, num_threads: int
) -> None:
    """Call ``carry`` with slices of ``count`` vectors and with memory for their panels."""
    if count == 0:
        return
    columns = _core.panel_columns(made.packed.itemsize)
    panel = columns * made.length * made.packed.itemsize
    fit = CACHE_BYTES // panel
    fair = -(-count // (columns * (4 * num_threads if num_threads > 1 else 1)))
    wide = min(fit if fit > 1 else LONG_PANELS, fair, max(1, BYTES // (num_threads * panel)))
    shape = min(num_threads, -(-count // (wide * columns))), wide, made.length, columns
    # Each thread holds one. A thread that raises ends its part in the work, so they never run out.
    spaces = list(empty_in_huge_pages(shape, made.packed.dtype))

    def work(piece: slice) -> None:
        panels = spaces.pop()
        carry(piece, panels[: -(-(piece.stop - piece.start) // columns)])
        spaces.append(panels)

    # The last columns have the most reflectors. They go first, so that the threads
    # finish at about the same time.
    threads.run(work, reversed([*slices(count, wide * columns)]), num_threads)


def fill_batch(
    gaussian: GaussianMatrix,
    numbers: Array,
    write: Callable[[slice, Array], None],
    gain: float,
    num_threads: int,
) -> None:
    """Compute many small tall matrices, each by one thread.

    Parameters
    ----------
    gaussian : GaussianMatrix
        The normals of matrix 0. Those of matrix i are i * width * length further on in the stream.
    numbers : numpy.ndarray of int
        The matrices to compute.
    write : callable
        Takes a slice of ``numbers`` and an array of these tall matrices.
    gain : float
        Finite.
    num_threads : int
        At least 1.
    """
    length, width = gaussian.length, gaussian.width
    rows = _up(width, _core.GROUP)
    size = width * length
    together = max(1, min(PIECE // size, -(-numbers.size // num_threads)))

    def work(piece: slice) -> None:
        some = numbers[piece]
        v = np.empty((some.size, rows, length), gaussian.dtype)
        if rows == width and some[-1] - some[0] == some.size - 1:
            joined = v.reshape(-1, length)
            gaussian._replace(offset=gaussian.offset + int(some[0]) * size).draw(joined, 0)
        else:
            for number, own in zip(some.tolist(), v, strict=True):
                gaussian._replace(offset=gaussian.offset + number * size).draw(own[:width], 0)
        results = np.empty((some.size, length, width), gaussian.dtype)
        tau, signs = np.empty((2, rows), gaussian.dtype)
        factors = np.empty((rows, _core.GROUP), gaussian.dtype)
        packed = np.empty(_core.packed_size(rows, length), gaussian.dtype)
        space = aligned((length, _core.panel_columns(gaussian.dtype.itemsize)), gaussian.dtype)
        _core.matrices(v, tau, signs, factors, packed, gain, space, results)
        write(piece, results)

    threads.run(work, slices(numbers.size, together), num_threads)


def _up(number: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-number // multiple) * multiple
