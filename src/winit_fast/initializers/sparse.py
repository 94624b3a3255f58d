"""Matrices that are mostly 0."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import finite, not_negative
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams import distributions
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Stream

_CUT = 1 << 18
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
        self._parse(finite, "sparsity")
        if not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity must be from 0 to 1, got {self.sparsity!r}")
        self._parse(not_negative, "stddev")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse what is no matrix, and a type that the deviation does not fit."""
        if len(shape) != 2:
            raise ValueError(f"Sparse is for matrices, got shape {shape}")
        distributions.normal(dtype, 0.0, self.stddev, ("mean", "stddev"))

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Draw every element, and then blank the zeros of each column."""
        distribution = distributions.normal(out.dtype, 0.0, self.stddev)
        fill(distribution, stream.seed, stream.id, out, box, num_threads)

        rows = box.tensor[0]
        zeros = math.ceil(self.sparsity * rows)
        if not zeros or not out.size:
            return
        mask = stream.part("mask")
        tie = np.uint64((rows - 1).bit_length())
        (row, column), (height, width) = box.starts, box.sizes
        matrix = box.expand(out)
        step = max(1, _CUT // rows)

        def blank(first: int) -> None:
            block = Box(box.tensor, (0, column + first), (rows, min(step, width - first)), (0, 1))
            keys = np.empty(block.shape[::-1], np.uint64)
            fill(distributions.bits(64), mask.seed, mask.id, keys.T, block, num_threads=1)
            keys = keys >> tie << tie | np.arange(rows, dtype=np.uint64)
            last = np.partition(keys, zeros - 1)[:, zeros - 1 : zeros]
            blanks = (keys <= last).T[row : row + height]
            matrix[:, first : first + step][blanks] = 0

        threads.run(blank, range(0, width, step), threads.resolve(num_threads))

    def scaled(self, factor: float) -> Initializer:
        return Sparse(self.sparsity, factor * self.stddev)
