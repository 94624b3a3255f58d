"""Tensors that are mostly 0: convolutions that pass their inputs on, and sparse matrices."""

import math
from dataclasses import dataclass, replace

import numpy as np

from winit_fast import distributions, dtypes, threads
from winit_fast.arguments import finite, integer, not_negative, positive
from winit_fast.fans import convolution_axes
from winit_fast.fill import Array, Box, constant, fill, rounded
from winit_fast.initializers import Initializer
from winit_fast.stream import Stream


@dataclass(frozen=True, repr=False)
class Dirac(Initializer, names=("dirac",)):
    """A convolution that passes its inputs on: as many of them as there are outputs for.

    For kernels of one to three spatial axes.

    Parameters
    ----------
    groups : int
        Groups of the convolution, at least 1; their number divides that of the outputs. Every group
        passes its own inputs on.
    gain : float
        The value that is not 0.
    in_axis, out_axis : int
        The axes of the inputs of one group and of all outputs; the others are spatial. The defaults
        are those of JAX and Keras; torch has 1 and 0.

    Notes
    -----
    Output o of the n of one group has the gain at input o mod n (if there is one) and at the centre
    tap, k // 2 of an axis of k, as in ``torch.nn.init.dirac_``. For an even k this is the tap after
    the one of `DeltaOrthogonal`, which is JAX's.

    References
    ----------
    ``torch.nn.init.dirac_``.

    Examples
    --------
    >>> Dirac()((3, 2, 2))[1]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    >>> Dirac(groups=2)((1, 1, 4))
    array([[[1., 0., 1., 0.]]], dtype=float32)
    """

    groups: int = 1
    gain: float = 1.0
    in_axis: int = -2
    out_axis: int = -1

    def __post_init__(self) -> None:
        positive("groups", self.groups)
        finite("gain", self.gain)
        integer("in_axis", self.in_axis)
        integer("out_axis", self.out_axis)

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        shape = box.tensor
        fan_in, fan_out = convolution_axes("Dirac", shape, self.in_axis, self.out_axis)
        if shape[fan_out] % self.groups:
            raise ValueError(
                f"groups must divide the number of outputs, got groups={self.groups} and "
                f"{shape[fan_out]} outputs in shape {shape}"
            )
        gain = rounded(self.gain, out.dtype, "gain")
        constant(0.0, out, box, num_threads)

        outputs = np.arange(box.starts[fan_out], box.starts[fan_out] + box.sizes[fan_out])
        inputs = outputs % max(1, shape[fan_out] // self.groups)
        first, end = box.starts[fan_in], box.starts[fan_in] + box.sizes[fan_in]
        inside = (first <= inputs) & (inputs < end)
        at: list[Array | int] = []
        for axis, (start, size) in enumerate(zip(box.starts, box.sizes, strict=True)):
            if axis == fan_in:
                at.append(inputs[inside] - start)
            elif axis == fan_out:
                at.append(outputs[inside] - start)
            elif start <= shape[axis] // 2 < start + size:
                at.append(shape[axis] // 2 - start)
            else:
                return
        box.expand(out)[tuple(at)] = gain

    def _times(self, factor: float) -> Initializer:
        return replace(self, gain=factor * self.gain)


_BLOCK = 1 << 18
"""Words of a mask that are looked at together, at least a column's: so many stay in the cache."""


@dataclass(frozen=True, repr=False)
class Sparse(Initializer, names=("sparse",)):
    r"""A matrix of normal numbers in which every column has the same number of zeros.

    Parameters
    ----------
    sparsity : float
        The fraction of zeros in a column, from 0 to 1: there are ceil(sparsity * rows).
    stddev : float
        Standard deviation of the others, finite and at least 0.

    Notes
    -----
    A column is one of the matrix as it stands. With (in, out), the order of JAX and Keras, each
    unit keeps few of its inputs, as in [1]_; with torch's (out, in) each input goes to few units,
    as in ``torch.nn.init.sparse_``.

    Which rows are 0 is drawn from the stream of the part "mask" (docs/contract.md), the same in
    every type: row r of column c has the key

    .. math:: 2^b \lfloor W / 2^b \rfloor + r, \qquad b = \lceil \log_2 \text{rows} \rceil,

    for the 64-bit word W of its index, and the smallest keys are zeros. A box needs the keys of its
    own columns only, some of them at a time.

    References
    ----------
    .. [1] Martens, "Deep learning via Hessian-free optimization", ICML 2010, section 5.

    Examples
    --------
    >>> w = Sparse(0.9)((100, 50), seed=0, name="fc")
    >>> (w == 0).sum(axis=0).tolist() == [90] * 50
    True
    """

    sparsity: float
    stddev: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= finite("sparsity", self.sparsity) <= 1:
            raise ValueError(f"sparsity must be from 0 to 1, got {self.sparsity!r}")
        not_negative("stddev", self.stddev)

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        if len(box.tensor) != 2:
            raise ValueError(f"Sparse is for matrices, got shape {box.tensor}")
        distribution = distributions.normal(dtypes.FLOATS[out.dtype].code, 0.0, self.stddev)
        fill(distribution, stream.seed, stream.id, out, box, num_threads)

        rows = box.tensor[0]
        zeros = math.ceil(self.sparsity * rows)
        if not zeros or not out.size:
            return
        mask = stream.part("mask")
        tie = np.uint64((rows - 1).bit_length())
        (row, column), (height, width) = box.starts, box.sizes
        matrix = box.expand(out)
        step = max(1, _BLOCK // rows)

        def blank(first: int) -> None:
            block = Box(box.tensor, (0, column + first), (rows, min(step, width - first)), (0, 1))
            keys = np.empty(block.shape[::-1], np.uint64)
            fill(distributions.bits(64), mask.seed, mask.id, keys.T, block, num_threads=1)
            keys = keys >> tie << tie | np.arange(rows, dtype=np.uint64)
            last = np.partition(keys, zeros - 1)[:, zeros - 1 : zeros]
            blanks = (keys <= last).T[row : row + height]
            matrix[:, first : first + step][blanks] = 0

        threads.run(blank, range(0, width, step), threads.resolve(num_threads))

    def _times(self, factor: float) -> Initializer:
        return Sparse(self.sparsity, factor * self.stddev)
