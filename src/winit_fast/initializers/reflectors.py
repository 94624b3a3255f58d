"""Random orthogonal matrices as products of Householder reflectors, whole or in part.

A matrix is *tall* here, length x width with length >= width: Q = H_0 H_1 ... H_{width-1} E D, E the
first columns of the identity and D the signs that make it Haar-distributed. A wide one is the
transpose of a tall one. docs/orthogonal.md tells all.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import winit_fast._core as _core
from winit_fast.base import threads
from winit_fast.base.arrays import Array, aligned
from winit_fast.streams import distributions

COLUMNS: int = _core.COLUMNS
"""Columns of a panel that is worked on in one piece of memory."""

BYTES = 64 << 20
"""Memory for the reflectors that are held at once; where vectors must be kept between reflectors,
but not where they are to stand, a third of it is for those."""

CACHE_BYTES = 1 << 17
"""Of columns that a thread works on at a time: an eighth of a core's own cache, or so."""

WORTH_A_THREAD = 1 << 25
"""Multiply-adds from which on a matrix is made by more than one thread."""

PIECE = 1 << 16
"""Elements that are drawn, and made into reflectors or small matrices, between looks at Ctrl-C."""


class GaussianMatrix(NamedTuple):
    """The Gaussian vectors of one tall matrix: a width x length matrix of a stream's normals.

    Attributes
    ----------
    seed, stream : int
        Key and stream of the numbers, 64 bits each.
    offset : int
        Index of the first number in the stream.
    length, width : int
        Rows and columns of the tall matrix: vector j is row j, columns j... of the normals.
    dtype : numpy.dtype
        float32 or float64: of the numbers and of all arithmetic.
    """

    seed: int
    stream: int
    offset: int
    length: int
    width: int
    dtype: np.dtype[Any]

    def draw(self, out: Array, start: int) -> None:
        """Fill rows ``start``..., columns ``start``..., of the normals."""
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
    """Reflectors ``start`` to ``stop``, from row ``start`` on.

    Attributes
    ----------
    start, stop : int
    v : numpy.ndarray
        One a row, row r from column r on; zeros fill the last group of rows.
    factors : numpy.ndarray
        How groups of them are applied together.
    signs : numpy.ndarray
        D for these columns of Q.
    """

    start: int
    stop: int
    v: Array
    factors: Array
    signs: Array


def make_reflectors(
    gaussian: GaussianMatrix, start: int, stop: int, num_threads: int
) -> Reflectors:
    """Draw vectors and turn them into reflectors: the same bits everywhere."""
    length = gaussian.length - start
    rows = _up(stop - start, _core.GROUP)
    v = np.empty((rows, length), gaussian.dtype)
    tau, signs = np.empty((2, rows), gaussian.dtype)
    factors = np.empty((rows, _core.GROUP), gaussian.dtype)

    def make(piece: slice) -> None:
        own = v[piece, piece.start :]
        count = min(own.shape[0], stop - start - piece.start)
        gaussian.draw(own[:count], start + piece.start)
        _core.reflectors(own, count, tau[piece], signs[piece], factors[piece])

    some = min(-(-PIECE // length), -(-rows // num_threads))
    threads.run(make, _slices(rows, _up(some, _core.GROUP)), num_threads)
    return Reflectors(start, stop, v, factors, signs)


class Destination(NamedTuple):
    """Where chosen rows and columns of a tall matrix go.

    Attributes
    ----------
    rows, columns : numpy.ndarray of int
        Which, increasing.
    place : numpy.ndarray or None
        len(rows) x len(columns): the memory itself, if it is of the arithmetic's type.
    write_columns, write_rows : callable
        Take a slice of ``columns`` and a len(rows) x (its length) array of results; or a slice of
        ``rows`` and a len(columns) x (its length) array: rows of results as columns.
    """

    rows: Array
    columns: Array
    place: Array | None
    write_columns: Callable[[slice, Array], None]
    write_rows: Callable[[slice, Array], None]


def fill_matrix(gaussian: GaussianMatrix, to: Destination, gain: float, num_threads: int) -> None:
    """Compute chosen rows and columns of gain * Q, Q tall.

    Parameters
    ----------
    gaussian : GaussianMatrix
    to : Destination
        With at least one row and one column.
    gain : float
        Finite.
    num_threads : int
        At least 1.

    Notes
    -----
    Column j of Q is ``H_0 (H_1 (... (H_j e_j)))`` D_j, and row i is, as a column,
    ``D ... H_1 (H_0 e_i)``. A row and a column cost about the same: both are vectors of full length
    that meet all reflectors before the last chosen column. So the fewer of the two are computed,
    and cut. Reflectors are made and applied as many at a time as there is memory for; in between,
    the vectors are kept where they are to stand if that can be, else some of them at a time in
    other memory.
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
        room = max(step // 3, COLUMNS)
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
    for span in _slices(index.size, room):
        if place is None:
            kept = np.empty((gaussian.length, span.stop - span.start), gaussian.dtype)
        else:
            kept = place[:, span]
        for start in reversed(starts) if backward else starts:
            apply(make(start), index[span], kept, None, gain, num_threads)
        if place is None:
            finish(span, kept)


Finish = Callable[[slice, Array], None]
"""Takes some positions among vectors, and these vectors as columns."""


def _backward(
    made: Reflectors,
    index: Array,
    kept: Array | None,
    finish: Finish | None,
    gain: float,
    num_threads: int,
) -> None:
    """Carry columns ``index`` of Q on through reflectors, from the last to the first.

    Reflectors after column j meet only zeros in it. So it comes in, as D_j e_j, with those among
    which j is; and those that have met all later ones are still 0 in the rows of ``made``.
    """
    start, stop, v, factors, signs = made
    scale = gain if start == 0 else 1.0
    here = int(np.searchsorted(index, start))  # the others are not begun yet
    rows = index[here : np.searchsorted(index, stop)] - start
    values = signs[rows]
    count = index.size - here
    last = index[here + np.minimum(np.arange(COLUMNS, count + COLUMNS, COLUMNS), count) - 1]
    stops = (np.minimum(last + 1, stop) - start).astype(np.uintp)

    def carry(piece: slice, panels: Array) -> None:
        own = slice(piece.start + here, piece.stop + here)
        old = None if kept is None else kept[start:, own]
        out = np.empty((v.shape[1], own.stop - own.start), v.dtype) if old is None else old
        _core.backward(
            panels,
            rows[piece],
            values[piece],
            old,
            stop - start,
            v,
            factors,
            stops[piece.start // COLUMNS :],
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
    """Carry rows ``index`` of Q, as columns, on through reflectors, from the first to the last.

    Their elements in the rows of ``made`` are done then.
    """
    start, stop, v, factors, signs = made
    scales = signs[: stop - start] * signs.dtype.type(gain)
    rows = index if start == 0 else index[:0]
    values = np.ones(rows.size, v.dtype)

    def carry(piece: slice, panels: Array) -> None:
        old = None if kept is None else kept[start:, piece]
        out = np.empty((v.shape[1], piece.stop - piece.start), v.dtype) if old is None else old
        stops = np.full(len(panels), stop - start, np.uintp)
        _core.forward(panels, rows[piece], values[piece], old, v, factors, stops, scales, out)
        if finish is not None:
            finish(piece, out)

    _share_out(carry, index.size, made, num_threads)


def _share_out(
    carry: Callable[[slice, Array], None], count: int, made: Reflectors, num_threads: int
) -> None:
    """Call ``carry`` with slices of ``count`` vectors and with panels of columns to work in."""
    if count == 0:
        return
    length = made.v.shape[1]
    wide = min(
        max(2, CACHE_BYTES // (COLUMNS * length * made.v.itemsize)),
        -(-count // (COLUMNS * (4 * num_threads if num_threads > 1 else 1))),
    )
    spaces: list[Array] = []

    def work(piece: slice) -> None:
        try:
            panels = spaces.pop()
        except IndexError:
            panels = aligned((wide, length, COLUMNS), made.v.dtype)
        carry(piece, panels[: -(-(piece.stop - piece.start) // COLUMNS)])
        spaces.append(panels)

    # The last columns meet the most reflectors: they go first, and the threads end together.
    threads.run(work, reversed([*_slices(count, wide * COLUMNS)]), num_threads)


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
        Of matrix 0; that of matrix i is width * length numbers further on in the stream.
    numbers : numpy.ndarray of int
        Which matrices.
    write : callable
        Takes a slice of ``numbers`` and the tall matrices, one after another.
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
        space = aligned((length, COLUMNS), gaussian.dtype)
        _core.matrices(v, tau, signs, factors, gain, space, results)
        write(piece, results)

    threads.run(work, _slices(numbers.size, together), num_threads)


def _up(number: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-number // multiple) * multiple


def _slices(stop: int, size: int) -> Iterator[slice]:
    """Cut a range from 0 into slices, all but the last of the same size."""
    return (slice(*ends) for ends in pairwise([*range(0, stop, size), stop]))
