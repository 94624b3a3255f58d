"""Sparse random matrices."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import finite, not_negative
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts
from winit_fast.initializers.protocol import Filler, Initializer
from winit_fast.streams import distributions
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Stream

_CUT = 1 << 16
"""Sort keys processed at one time, few enough to stay in the cache."""

_TALL = 1 << 12
"""From this number of rows on, not all sort keys of a column are in memory at one time."""

_WIDTH = 1 << 8
"""Most columns of such a matrix that are processed at one time."""

_KEPT = 1 << 22
"""Most columns whose thresholds are cached while a tensor is filled box by box: 32 MiB."""


@dataclass(frozen=True, repr=False)
class Sparse(Initializer, names=("sparse",)):
    r"""A matrix of normal numbers, with the same number of zeros in every column.

    Parameters
    ----------
    sparsity : float
        The fraction of zeros, from 0 to 1: each column has ceil(sparsity * rows) zeros.
    stddev : float
        Standard deviation of the other elements, finite and at least 0.

    Notes
    -----
    A column is a position along the last axis. With axes (in, out), as in JAX and Keras, each unit
    has few nonzero inputs, as in [1]_. With axes (out, in), as in torch, each input goes to few
    units, as in ``torch.nn.init.sparse_``.

    The rows that are 0 are drawn from the stream of the part "mask" (docs/contract.md) and are the
    same in every dtype. Row r of column c has the sort key

    .. math:: 2^b \lfloor W / 2^b \rfloor + r, \qquad b = \lceil \log_2 \text{rows} \rceil,

    where W is the 64-bit word of the element's index; the rows with the smallest keys are 0. A box
    needs only the keys of its own columns. If a tensor is filled box by box, as in a checkpoint,
    the largest key of a zero in each column is found once for all boxes (of a matrix with up to 4
    million columns).

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
        """Refuse a shape that is not a matrix's, and a dtype whose range stddev exceeds."""
        if len(shape) != 2:
            raise ValueError(f"Sparse is for matrices, got shape {shape}")
        distributions.normal(dtype, 0.0, self.stddev, ("mean", "stddev"))

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Draw every element, and then set the zeros of each column."""
        mask = Mask.of(self.sparsity, box.tensor, stream)
        self._fill(out, box, stream, num_threads, mask, mask.thresholds)

    def prepared(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> Filler:
        """Return a filler that finds each column's threshold once for all boxes."""
        mask = Mask.of(self.sparsity, shape, stream)
        if not mask.zeros or shape[1] > _KEPT:
            return super().prepared(shape, dtype, stream)
        thresholds = _Once(mask)

        def fill_any(out: Array, box: Box, num_threads: int | None) -> None:
            self._fill(out, box, stream, num_threads, mask, thresholds)

        return fill_any

    def _fill(
        self,
        out: Array,
        box: Box,
        stream: Stream,
        num_threads: int | None,
        mask: "Mask",
        thresholds: "_Thresholds",
    ) -> None:
        distribution = distributions.normal(out.dtype, 0.0, self.stddev)
        num_threads = threads.resolve(num_threads)
        fill(distribution, stream.seed, stream.id, out, box, num_threads)
        if not mask.zeros or not out.size:
            return
        words = box.expand(out).view(f"u{out.itemsize}")
        for _, columns in cuts(box.sizes, box.sizes[0] * _KEPT, axis=1):
            part = box.cut((slice(0, box.sizes[0]), columns))
            last = thresholds(part.starts[1], part.sizes[1], num_threads)
            to = words[:, columns]

            def blank(
                cut: tuple[slice, ...], part: Box = part, last: Array = last, to: Array = to
            ) -> None:
                # bits, so that NaN becomes 0 too
                to[cut] *= mask.keys(part.cut(cut)) > last[cut[1]]

            threads.run(blank, cuts(part.sizes, _CUT), num_threads)

    def scaled(self, factor: float) -> Initializer:
        return Sparse(self.sparsity, factor * self.stddev)


_Thresholds = Callable[[int, int, int], Array]
"""Returns the thresholds (the largest key of a zero) of some columns. The arguments are the first
column, the number of columns and the number of threads."""


@dataclass(frozen=True)
class Mask:
    """The zeros of a matrix: in each column, the elements whose key is at most a threshold.

    Attributes
    ----------
    shape : tuple of int
    zeros : int
        Number of zeros in a column.
    stream : Stream
        The stream of the keys.
    """

    shape: tuple[int, ...]
    zeros: int
    stream: Stream

    @classmethod
    def of(cls, sparsity: float, shape: tuple[int, ...], stream: Stream) -> "Mask":
        return cls(shape, math.ceil(sparsity * shape[0]), stream.part("mask"))

    @property
    def step(self) -> int:
        """Number of columns processed at one time."""
        rows = self.shape[0]
        return max(1, _CUT // rows if rows < _TALL else min(_WIDTH, _CUT // self._spread))

    @property
    def _spread(self) -> int:
        """The distance, in ranks, that a threshold almost never exceeds from its expected place.

        It is six standard deviations of the number of keys below that place, plus a few ranks for
        small matrices.
        """
        rows = self.shape[0]
        return int(6 * math.sqrt(self.zeros * (rows - self.zeros) / rows)) + 32

    def keys(self, box: Box) -> Array:
        """Compute the sort keys of a box."""
        keys = np.empty(box.sizes, np.uint64)
        fill(distributions.bits(64), self.stream.seed, self.stream.id, keys, box, num_threads=1)
        tie = (self.shape[0] - 1).bit_length()
        keys &= np.uint64((1 << 64) - (1 << tie))
        keys |= np.arange(box.starts[0], box.starts[0] + box.sizes[0], dtype=np.uint64)[:, None]
        return keys

    def thresholds(self, first: int, count: int, num_threads: int) -> Array:
        """Find the threshold, the largest key of a zero, in each of some columns."""
        last = np.empty(count, np.uint64)

        def find(at: int) -> None:
            part = last[at : at + self.step]
            part[:] = self.found(first + at, part.size)

        threads.run(find, range(0, count, self.step), num_threads)
        return last

    def found(self, first: int, count: int) -> Array:
        """Find the thresholds of at most `step` columns."""
        box = Box(self.shape, (0, first), (self.shape[0], count), (0, 1))
        if self.shape[0] < _TALL:
            keys = np.ascontiguousarray(self.keys(box).T)
            keys.partition(self.zeros - 1)
            return keys[:, self.zeros - 1]
        spread = self._spread
        while (last := self._found_near(box, spread)) is None:
            spread *= 4
        return last

    def _found_near(self, box: Box, spread: int) -> Array | None:
        """Look for the thresholds only among the keys near their expected value.

        Keys are uniformly distributed, so a threshold is near ``zeros / rows`` of the largest word.
        Smaller keys than those near it are only counted. Returns None if a threshold is not found.
        """
        rows, columns = box.sizes
        low = max(0, ((self.zeros - spread) << 64) // rows)
        high = min((1 << 64) - 1, ((self.zeros + spread) << 64) // rows)
        below = np.zeros(columns, np.intp)
        values, owners = [], []
        for cut in cuts(box.sizes, _CUT):
            keys = self.keys(box.cut(cut))
            below += (keys < np.uint64(low)).sum(axis=0)
            at = np.flatnonzero(keys - np.uint64(low) <= np.uint64(high - low))
            values.append(keys.ravel()[at])
            owners.append((at % columns).astype(np.uint16))
        value, owner = np.concatenate(values), np.concatenate(owners)
        ends = np.cumsum(np.bincount(owner, minlength=columns))
        own = np.split(value[np.argsort(owner, kind="stable")], ends[:-1])
        ranks = self.zeros - 1 - below
        if any(not 0 <= rank < part.size for rank, part in zip(ranks, own, strict=True)):
            return None
        return np.array(
            [np.partition(part, rank)[rank] for rank, part in zip(ranks, own, strict=True)]
        )


class _Once:
    """The cached thresholds of all columns of a matrix, each computed at its first use."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._last = np.empty(mask.shape[1], np.uint64)
        self._states = bytearray(-(-mask.shape[1] // mask.step))
        self._changed = threading.Condition()

    def __call__(self, first: int, count: int, num_threads: int) -> Array:
        """Return the thresholds of some columns; threads that call at one time share the work."""
        steps = range(first // self._mask.step, -(-(first + count) // self._mask.step))
        threads.run(self._find, steps, num_threads)
        with self._changed:
            while _BEGUN in self._states[steps.start : steps.stop]:
                self._changed.wait()
        threads.run(self._find, steps, num_threads)  # again, in case another thread failed
        return self._last[first : first + count]

    def _find(self, number: int) -> None:
        with self._changed:
            if self._states[number] != _NEW:
                return
            self._states[number] = _BEGUN
        part = self._last[number * self._mask.step :][: self._mask.step]
        state = _NEW
        try:
            part[:] = self._mask.found(number * self._mask.step, part.size)
            state = _FOUND
        finally:
            with self._changed:
                self._states[number] = state
                self._changed.notify_all()


_NEW, _BEGUN, _FOUND = range(3)
