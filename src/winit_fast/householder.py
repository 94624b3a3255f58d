"""Random orthogonal matrices as products of Householder reflectors, whole or in part.

A matrix is *tall* here, length x count with length >= count: Q = H_0 H_1 ... H_{count-1} E D, E the
first columns of the identity and D the signs that make it Haar-distributed. A wide one is the
transpose of a tall one. See docs/orthogonal.md.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from winit_fast import _core, _householder, distributions, dtypes, threads
from winit_fast.fill import Array

SMALL = 128
"""Longest side of a matrix that is made in C, reflector by reflector."""

PANELS_BYTES = 24 << 20
"""Memory for the panels that are held at once, unless two of them need more."""

COPY_BYTES = 24 << 20
"""Memory for columns that cannot be computed where they are to stand."""

TILE = 1 << 18
"""Elements of a product that is added to the matrix while it is in the cache."""

PIECE = 1 << 32
"""Multiply-adds between two looks at Ctrl-C: a fifth of a second, at 40 GFLOP/s a core."""

SMALL_PIECE = 1 << 17
"""Elements of small matrices between two looks at Ctrl-C."""


class Source(NamedTuple):
    """The Gaussian vectors of one tall matrix: a count x length matrix of a stream's normals.

    Attributes
    ----------
    seed, stream : int
        Key and stream of the numbers, 64 bits each.
    offset : int
        Index of the first number in the stream.
    length, count : int
        Rows and columns of the tall matrix: vector j is row j, columns j... of the normals.
    dtype : numpy.dtype
        float32 or float64: of the numbers and of all arithmetic.
    """

    seed: int
    stream: int
    offset: int
    length: int
    count: int
    dtype: np.dtype[Any]

    def draw(self, out: Array, start: int) -> None:
        """Fill rows ``start``..., columns ``start``..., of the normals."""
        _core.fill(
            distributions.normal(dtypes.FLOATS[self.dtype].code, 0.0, 1.0),
            self.seed,
            self.stream,
            out.__array_interface__["data"][0],
            self.offset + start * self.length + start,
            out.shape,
            (self.length, 1),
            out.strides,
            False,
        )


class Panel(NamedTuple):
    """Reflectors ``start`` to ``stop``: H_start ... H_{stop-1} = I - V T V'.

    Attributes
    ----------
    start, stop : int
    rows : numpy.ndarray
        V' from column ``start`` on; what is before is 0.
    factor : numpy.ndarray
        -T, upper triangular.
    signs : numpy.ndarray
        gain * D of these columns.
    """

    start: int
    stop: int
    rows: Array
    factor: Array
    signs: Array


def make_panel(source: Source, start: int, stop: int, gain: float) -> Panel:
    """Draw a panel of vectors, turn them into reflectors, and join those.

    Parameters
    ----------
    source : Source
    start, stop : int
    gain : float
        Multiplies the signs.

    Returns
    -------
    Panel

    Notes
    -----
    The triangular factor follows from :math:`T^{-1} + T^{-T} = V^T V` [1]_: blocks of it are inverted
    in C and joined by :math:`T_{12} = -T_{11} (V^T V)_{12} T_{22}`.

    References
    ----------
    .. [1] Puglisi, "Modification of the Householder method based on the compact WY
       representation", SIAM J. Sci. Stat. Comput. 13, 1992.
    """
    size = stop - start
    rows = np.empty((size, source.length - start), source.dtype)
    tau = np.empty(size, source.dtype)
    signs = np.empty(size, source.dtype)
    source.draw(rows, start)
    _householder.reflectors(rows, tau, signs)
    products = np.matmul(rows, rows.T)
    factor = np.zeros_like(products)
    block = 32
    for at in range(0, size, block):
        here = np.s_[at : at + block]
        _householder.factor(products[here, here], tau[here], factor[here, here])
    while block < size:
        for at in range(0, size - block, 2 * block):
            upper, lower = np.s_[at : at + block], np.s_[at + block : at + 2 * block]
            joined = products[upper, lower] @ factor[lower, lower]
            factor[upper, lower] = factor[upper, upper] @ joined
        block *= 2
    signs *= gain
    return Panel(start, stop, rows, factor, signs)


class Workspace:
    """What one thread needs to apply a panel to ``columns`` columns."""

    def __init__(self, width: int, columns: int, dtype: np.dtype[Any]) -> None:
        self._products = np.empty((2, width * columns), dtype)
        self._tile = np.empty(max(TILE, columns), dtype)

    def products(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        size = shape[0] * shape[1]
        first, second = self._products[:, :size]
        return first.reshape(shape), second.reshape(shape)

    def tile(self, shape: tuple[int, int], columns_run: bool) -> Array:
        """Take a piece of memory in the order of the matrix that it is to be added to."""
        flat = self._tile[: shape[0] * shape[1]]
        return flat.reshape(shape[::-1]).T if columns_run else flat.reshape(shape)

    def accumulate(self, panel_rows: Array, products: Array, z: Array) -> None:
        """Add V (-T V'Z) to Z, tile by tile: `numpy.matmul` cannot add to its result."""
        count = z.shape[1]
        step = max(1, self._tile.size // count)
        columns_run = z.strides[0] < z.strides[1]
        for at in range(0, z.shape[0], step):
            part = z[at : at + step]
            tile = self.tile(part.shape, columns_run)
            np.matmul(panel_rows[:, at : at + step].T, products, out=tile)
            np.add(part, tile, out=part)


def _times_factor(factor: Array, products: Array, out: Array, transposed: bool) -> None:
    """Multiply by a triangular matrix in two halves, leaving out the quarter that is 0."""
    half = factor.shape[0] // 2
    if half < 32:
        np.matmul(factor.T if transposed else factor, products, out=out)
    elif transposed:
        np.matmul(factor[:half, :half].T, products[:half], out=out[:half])
        np.matmul(factor[:, half:].T, products, out=out[half:])
    else:
        np.matmul(factor[:half], products, out=out[:half])
        np.matmul(factor[half:, half:], products[half:], out=out[half:])


def apply_backward(panels: Sequence[Panel], z: Array, index: Array, work: Workspace) -> None:
    """Carry columns of Q on through panels, from the last panel to the first.

    Parameters
    ----------
    panels : sequence of Panel
        Adjacent, last first.
    z : numpy.ndarray
        Columns ``index`` of Q, of full length. Rows from the end of the panels on hold the product
        of all later reflectors, for the columns that these reach; nothing else is read.
    index : numpy.ndarray of int
        Increasing.
    work : Workspace

    Notes
    -----
    In a column j of E D, reflectors after j meet zeros only, so it comes in with the panel that
    has j. When panel [a, b) is applied, columns from b on are 0 in rows a to b, and so need no
    addition there.
    """
    for start, stop, rows, factor, signs in panels:
        first, old = np.searchsorted(index, (start, stop))
        if first == index.size:
            continue
        size, new = stop - start, old - first
        live = z[:, first:]
        before, after = work.products((size, live.shape[1]))
        own = index[first:old] - start
        np.multiply(rows[:, own], signs[own], out=before[:, :new])
        if old < index.size:
            np.matmul(rows[:, size:], live[stop:, new:], out=before[:, new:])
        _times_factor(factor, before, after, transposed=False)
        np.matmul(rows[:, :size].T, after, out=live[start:stop])
        live[start + own, np.arange(new)] += signs[own]
        if stop < z.shape[0]:
            if new:
                np.matmul(rows[:, size:].T, after[:, :new], out=live[stop:, :new])
            if old < index.size:
                work.accumulate(rows[:, size:], after[:, new:], live[stop:, new:])


def apply_forward(panels: Sequence[Panel], z: Array, index: Array, work: Workspace) -> None:
    """Carry rows of Q on through panels, from the first panel to the last.

    Parameters
    ----------
    panels : sequence of Panel
        Adjacent, first first.
    z : numpy.ndarray
        Rows ``index`` of Q as columns. Rows of it before the panels are done; the others hold the
        product so far, except that nothing is read where the panels begin with reflector 0.
    index : numpy.ndarray of int
    work : Workspace

    Notes
    -----
    The transpose of e_i' H_0 H_1 ... is ... H_1 H_0 e_i.
    """
    for start, stop, rows, factor, signs in panels:
        before, after = work.products((stop - start, index.size))
        if start == 0:
            np.take(rows, index, axis=1, out=before)
        else:
            np.matmul(rows, z[start:], out=before)
        _times_factor(factor, before, after, transposed=True)
        if start == 0:
            np.matmul(rows.T, after, out=z)
            z[index, np.arange(index.size)] += 1
        else:
            work.accumulate(rows, after, z[start:])
        z[start:stop] *= signs[:, None]


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit: Any = None


@contextmanager
def one_blas_thread() -> Iterator[bool]:
    """Hold BLAS to one thread a call, since our own threads call it side by side.

    The limit is the process's. Calls that overlap share it: the first sets and the last lifts it.

    Yields
    ------
    bool
        Whether BLAS could be held. Apple's, for one, cannot.
    """
    global _blas_users, _blas_limit
    controller = _blas()
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = controller.limit(limits=1)
        _blas_users += 1
    try:
        yield len(controller) > 0
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()
                _blas_limit = None


def panel_width(count: int) -> int:
    """Choose how many reflectors a panel has.

    Wide panels cost arithmetic for T, in proportion to their width; narrow ones more passes over
    the matrix. So the best width grows with the square root of the count.
    """
    return int(min(512, max(32, 32 * round(count**0.5 / 8))))


class Destination(NamedTuple):
    """Where chosen rows and columns of a tall matrix go.

    Attributes
    ----------
    rows, columns : numpy.ndarray of int
        Which, increasing.
    place : numpy.ndarray or None
        len(rows) x len(columns): the memory itself, where results can be computed there: of the
        arithmetic's type, and contiguous along one axis.
    write_columns, write_rows : callable
        Take a slice of ``columns`` and a len(rows) x (its length) array of results; or a slice of
        ``rows`` and a len(columns) x (its length) array: rows of results as columns.
    """

    rows: Array
    columns: Array
    place: Array | None
    write_columns: Callable[[slice, Array], None]
    write_rows: Callable[[slice, Array], None]


def fill_tall(source: Source, to: Destination, gain: float, num_threads: int) -> None:
    """Compute chosen rows and columns of gain * Q, Q tall.

    Parameters
    ----------
    source : Source
    to : Destination
        With at least one row and one column.
    gain : float
        Finite.
    num_threads : int
        At least 1.

    Notes
    -----
    A row and a column cost about the same, since both are vectors that meet all reflectors before
    the last chosen column. So the fewer of the two are computed, in full length, and cut.
    """
    backward = to.columns.size <= to.rows.size
    if backward:
        index, cut, place, write = to.columns, to.rows, to.place, to.write_columns
    else:
        index, cut, write = to.rows, to.columns, to.write_rows
        place = None if to.place is None else to.place.T
    full = cut.size == source.length
    if not full:
        place = None
    # A gain that could lead products out of the type's range multiplies the result instead.
    inner = gain if 2.0**-64 < abs(gain) < 2.0**64 else 1.0

    stop = int(to.columns[-1]) + 1
    width = panel_width(stop)
    vector = source.length * source.dtype.itemsize
    together = max(2, PANELS_BYTES // (width * vector))
    panels = [(start, min(start + width, stop)) for start in range(0, stop, width)]
    if backward:
        panels.reverse()
    groups = [panels[at : at + together] for at in range(0, len(panels), together)]

    with one_blas_thread() as held:
        workers = num_threads if held else 1
        # Pieces of columns, for a product wide enough, for threads to even out, and for Ctrl-C.
        longest = PIECE // (2 * source.length * width * min(together, len(panels)))
        wide = min(longest, max(width, -(-index.size // (4 * workers))))
        spaces = [Workspace(width, max(wide, 32), source.dtype) for _ in range(workers)]
        room = index.size if place is not None else max(COPY_BYTES // vector, 32)
        for span in _slices(0, index.size, room):
            z = np.empty((source.length, span.stop - span.start), source.dtype)
            z = z if place is None else place[:, span]
            pieces = list(_slices(0, z.shape[1], max(wide, 32)))

            for group in groups:
                made: dict[int, Panel] = {}

                def make(bounds: tuple[int, int]) -> None:
                    made[bounds[0]] = make_panel(source, *bounds, inner)

                def apply(piece: slice) -> None:
                    space = spaces.pop()
                    chain = [made[start] for start, _ in group]
                    step = apply_backward if backward else apply_forward
                    step(chain, z[:, piece], index[span][piece], space)
                    spaces.append(space)

                threads.run(make, group, workers)
                threads.run(apply, reversed(pieces), workers)

            def finish(piece: slice) -> None:
                results = z[:, piece]
                if inner != gain:
                    results *= gain
                if place is None:
                    at = slice(span.start + piece.start, span.start + piece.stop)
                    write(at, results if full else results[cut])

            threads.run(finish, pieces, workers)


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cut a range into slices of nearly the same length, at most ``size``."""
    count = -(-(stop - start) // size)
    edges = [start + (stop - start) * at // count for at in range(count + 1)]
    return map(slice, edges, edges[1:])


def fill_small(
    source: Source, numbers: Array, write: Callable[[slice, Array], None], gain: float, num_threads: int
) -> None:
    """Compute many tall matrices of a few rows, each by one thread in C.

    Parameters
    ----------
    source : Source
        Of matrix 0; that of matrix i is count * length numbers further on in the stream.
    numbers : numpy.ndarray of int
        Which matrices.
    write : callable
        Takes a slice of ``numbers`` and the tall matrices, one after another.
    gain : float
        Finite.
    num_threads : int
        At least 1.
    """
    size = source.count * source.length
    together = max(1, min(SMALL_PIECE // size, -(-numbers.size // num_threads)))

    def work(piece: slice) -> None:
        some = numbers[piece]
        vectors = np.empty((some.size, source.count, source.length), source.dtype)
        if some[-1] - some[0] == some.size - 1:
            source._replace(offset=source.offset + int(some[0]) * size).draw(
                vectors.reshape(-1, source.length), 0
            )
        else:
            for number, own in zip(some.tolist(), vectors, strict=True):
                source._replace(offset=source.offset + number * size).draw(own, 0)
        results = np.empty((some.size, source.length, source.count), source.dtype)
        tau, signs = np.empty((2, source.count), source.dtype)
        space = np.empty((source.length, _householder.COLUMNS), source.dtype)
        _householder.matrices(vectors, tau, signs, gain, space, results)
        write(piece, results)

    threads.run(work, _slices(0, numbers.size, together), num_threads)
