"""Orthogonal initializers: Haar-distributed matrices, and convolutions that preserve norms."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import finite, integer, optional
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.base.dtypes import working
from winit_fast.initializers.fans import (
    JAX,
    Axes,
    convolution_axes,
    hashable_axes,
    positions,
    without_batch,
)
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.reflectors import Destination, GaussianMatrix, fill_batch, fill_matrix
from winit_fast.streams.fill import constant, rounded
from winit_fast.streams.stream import Stream


def numbers_of(box: Box, axes: tuple[int, ...]) -> Array:
    """Return the positions of a box along some axes, as C-order indices over these axes."""
    numbers = np.arange(1)
    for axis in axes:
        own = np.arange(box.starts[axis], box.starts[axis] + box.sizes[axis])
        numbers = (numbers[:, None] * box.tensor[axis] + own).ravel() if axis != axes[0] else own
    return numbers


def _joined(array: Array, shape: tuple[int, ...]) -> Array | None:
    """Reshape an array without a copy, or return None if that is impossible."""
    joined = array.reshape(shape)
    return joined if np.may_share_memory(joined, array) else None


SMALL = 256
"""In a batch, a matrix whose longest side is at most this is computed by one thread."""


@dataclass(frozen=True, repr=False)
class Orthogonal(Initializer, names=("orthogonal", "orthogonal_initializer")):
    r"""A random semi-orthogonal matrix, times a gain: Haar-distributed.

    Its columns are orthonormal if it has at least as many rows as columns, else its rows are. Any
    box of rows or columns can be computed alone, at a cost proportional to its size.

    Parameters
    ----------
    gain : float
        Finite.
    column_axis : int or sequence of int
        The axes that form the columns of the matrix, in C order; all others, except ``batch_axis``,
        form its rows. By default the last axis, as in JAX and Keras. For torch's tensors axis 0, so
        that ``(out, in, *kernel)`` becomes the transpose of a matrix ``(out, in * kernel)``.
    batch_axis : int or sequence of int
        Axes along which the matrices are independent.

    Notes
    -----
    Q is the product of random Householder reflectors [1]_, with the signs that the Haar measure
    needs [2]_:

    .. math:: Q = H_0 H_1 \cdots H_{k-1} E D, \quad H_j = I - \tau_j v_j v_j^T,
              \quad D = -\operatorname{diag}(\operatorname{sign} x_{jj}),

    where :math:`H_j` maps the Gaussian vector :math:`x_j` to the axis :math:`e_j`. Q has the
    distribution of the Q factor, with diag(R) > 0, of a Gaussian matrix, but takes half the
    arithmetic and does not need that matrix. A box has the same bits on every machine and with any
    number of threads, and a box of whole columns (of a wide matrix: rows) has the bits of that part
    of Q. A box with fewer rows than columns (of a wide matrix: fewer columns) is computed in
    another order and agrees with Q to rounding: each element to :math:`(8 + \sqrt{m}) \epsilon`
    gain, where m is the longest side and :math:`\epsilon` that of the working type. A float16,
    bfloat16 or float8 matrix is the float32 matrix, rounded. docs/orthogonal.md has the details.

    References
    ----------
    .. [1] Stewart, "The efficient generation of random orthogonal matrices with an application to
       condition estimators", SIAM J. Numer. Anal. 17, 1980.
    .. [2] Mezzadri, "How to generate random matrices from the classical compact groups", Notices
       of the AMS 54, 2007.
    .. [3] Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in
       deep linear neural networks", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> q = wf.Orthogonal()((512, 64), seed=0, name="proj")
    >>> bool(abs(q.T @ q - np.eye(64)).max() < 1e-5)
    True
    >>> part = wf.Orthogonal()((512, 64), seed=0, name="proj", index=np.s_[:, 16:24])
    >>> bool(abs(part - q[:, 16:24]).max() < 1e-5)
    True
    """

    gain: float = 1.0
    column_axis: Axes | None = None
    batch_axis: Axes = ()

    def __post_init__(self) -> None:
        self._parse(finite, "gain")
        self._parse(optional(hashable_axes), "column_axis")
        self._parse(hashable_axes, "batch_axis")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape that is no matrix with these axes, or a dtype whose range gain exceeds."""
        matrix_axes(shape, self.column_axis, self.batch_axis)
        rounded(self.gain, dtype, "gain")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Compute the rows or the columns, whichever are fewer, of each matrix."""
        axes = matrix_axes(box.tensor, self.column_axis, self.batch_axis)
        workers = threads.resolve(num_threads)
        dtype = working(out.dtype)
        if out.size == 0:
            return
        array = box.expand(out).transpose(*axes.batch, *axes.rows, *axes.columns)
        numbers, rows, columns = (numbers_of(box, part) for part in axes)
        shapes = [tuple(box.sizes[axis] for axis in part) for part in axes]
        length, width = (
            math.prod(box.tensor[axis] for axis in part) for part in (axes.rows, axes.columns)
        )
        gaussian = GaussianMatrix(stream.seed, stream.id, 0, length, width, dtype)

        if numbers.size > 1 and length <= SMALL:
            cut = (rows.size, columns.size) != (length, width)

            def write(at: slice, results: Array) -> None:
                which = np.unravel_index(np.arange(at.start, at.stop), shapes[0])
                results = results[:, rows[:, None], columns] if cut else results
                array[which] = results.reshape(-1, *shapes[1], *shapes[2])

            fill_batch(gaussian, numbers, write, self.gain, workers)
            return

        for at, number in enumerate(numbers.tolist()):
            one = array[np.unravel_index(at, shapes[0])] if axes.batch else array
            to = _destination(one, rows, columns, shapes[1], shapes[2], dtype)
            fill_matrix(gaussian._replace(offset=number * width * length), to, self.gain, workers)

    def scaled(self, factor: float) -> Initializer:
        return replace(self, gain=factor * self.gain)


class MatrixAxes(NamedTuple):
    """The axes of a tensor: those of a batch, and those of rows and columns of a tall matrix."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


@lru_cache
def matrix_axes(shape: tuple[int, ...], column_axis: Axes | None, batch_axis: Axes) -> MatrixAxes:
    """Split a tensor's axes into batch, row and column axes; a wide matrix is transposed."""
    if column_axis is None:
        column_axis = without_batch(JAX.column_axis, batch_axis, len(shape))
    if len(shape) < 2:
        raise ValueError(f"Orthogonal needs a tensor of at least two axes, got shape {shape}")
    columns = positions("column_axis", column_axis, shape)
    batch = positions("batch_axis", batch_axis, shape)
    rows = tuple(axis for axis in range(len(shape)) if axis not in {*columns, *batch})
    if not columns or not rows or {*columns} & {*batch}:
        raise ValueError(
            f"column_axis={column_axis!r} and batch_axis={batch_axis!r} must be different axes and "
            f"leave one for the rows, got shape {shape}"
        )
    if math.prod(shape[axis] for axis in rows) < math.prod(shape[axis] for axis in columns):
        rows, columns = columns, rows
    return MatrixAxes(batch, rows, columns)


def _destination(
    array: Array,
    rows: Array,
    columns: Array,
    row_shape: tuple[int, ...],
    column_shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Destination:
    """Describe an array with row axes and column axes as the destination of rows and columns."""

    def write_columns(at: slice, results: Array) -> None:
        position = np.unravel_index(np.arange(at.start, at.stop), column_shape)
        array[(slice(None),) * len(row_shape) + position] = results.reshape(*row_shape, -1)

    def write_rows(at: slice, results: Array) -> None:
        position = np.unravel_index(np.arange(at.start, at.stop), row_shape)
        array[position] = results.T.reshape(-1, *column_shape)

    place = None
    if array.dtype == dtype and array.flags.aligned:
        place = _joined(array, (rows.size, columns.size))
    return Destination(rows, columns, place, write_columns, write_rows)


@dataclass(frozen=True, repr=False)
class DeltaOrthogonal(Initializer, names=("delta_orthogonal",)):
    r"""A norm-preserving convolution kernel: an orthogonal matrix at its centre tap, 0 elsewhere.

    For kernels with one to three spatial axes and at least as many outputs as inputs. It makes very
    deep convolutional networks trainable [1]_.

    Parameters
    ----------
    gain : float
        Finite.
    in_axis, out_axis : int
        The axes of the layer's inputs and outputs; the others are spatial. By default -2 and -1, as
        in JAX and Keras; for torch's tensors 1 and 0.

    Notes
    -----
    The matrix, inputs x outputs, is that of `Orthogonal` with the same seed and name: Haar-
    distributed with orthonormal rows [1]_. The centre of an axis of k taps is (k - 1) // 2, as in
    JAX.

    References
    ----------
    .. [1] Xiao et al., "Dynamical isometry and a mean field theory of CNNs: how to train 10,000-
       layer vanilla convolutional neural networks", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> w = wf.DeltaOrthogonal()((3, 3, 16, 32), seed=0, name="conv")
    >>> bool(abs(w[1, 1] @ w[1, 1].T - np.eye(16)).max() < 1e-6), int(np.count_nonzero(w[0]))
    (True, 0)
    """

    gain: float = 1.0
    in_axis: int | None = None
    out_axis: int | None = None

    def __post_init__(self) -> None:
        self._parse(finite, "gain")
        self._parse(optional(integer), "in_axis", "out_axis")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape that is not a convolution's, and a dtype whose range the gain exceeds."""
        fan_in, fan_out = convolution_axes("DeltaOrthogonal", shape, self.in_axis, self.out_axis)
        if shape[fan_in] > shape[fan_out]:
            raise ValueError(
                "DeltaOrthogonal needs at least as many outputs as inputs, got "
                f"{shape[fan_in]} inputs and {shape[fan_out]} outputs in shape {shape}"
            )
        rounded(self.gain, dtype, "gain")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Set every element to 0, and then fill the centre tap."""
        constant(0.0, out, box, num_threads)
        tap = self.tap(box)
        if tap is not None:
            position, matrix, is_transposed = tap
            own = box.expand(out)[position]
            own = own.T if is_transposed else own
            Orthogonal(self.gain).fill_box(own, matrix, stream, num_threads)

    def tap(self, box: Box) -> tuple[tuple[int | slice, ...], Box, bool] | None:
        """Find the centre tap in a box.

        Returns
        -------
        position : tuple of int and slice
            An index into the box.
        matrix : Box
            The box of the matrix, inputs x outputs, that lies there.
        is_transposed : bool
            Whether the outputs come first.

        None is returned instead if the centre is outside of the box.
        """
        shape = box.tensor
        fan_in, fan_out = convolution_axes("DeltaOrthogonal", shape, self.in_axis, self.out_axis)
        spatial = [axis for axis in range(len(shape)) if axis not in (fan_in, fan_out)]
        centre = {axis: (shape[axis] - 1) // 2 - box.starts[axis] for axis in spatial}
        if not all(0 <= at < box.sizes[axis] for axis, at in centre.items()):
            return None
        matrix = Box(
            (shape[fan_in], shape[fan_out]),
            (box.starts[fan_in], box.starts[fan_out]),
            (box.sizes[fan_in], box.sizes[fan_out]),
            (0, 1),
        )
        position = tuple(centre.get(axis, slice(None)) for axis in range(len(shape)))
        return position, matrix, fan_in > fan_out

    def scaled(self, factor: float) -> Initializer:
        return replace(self, gain=factor * self.gain)
