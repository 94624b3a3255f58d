"""New rows of an embedding, drawn from the mean and covariance of its old rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from winit_fast.base import dtypes
from winit_fast.base.arguments import finite
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.pretrained import Pretrained
from winit_fast.initializers.protocol import Filler, Initializer
from winit_fast.initializers.registry import get
from winit_fast.streams import distributions
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Stream

_ROWS = 1 << 10
"""Rows of the old matrix, or of the new ones, that are computed at a time."""


@dataclass(frozen=True, repr=False)
class RowsLike(Initializer, names=("rows_like",)):
    """Rows from a normal with the mean of another tensor's rows and a multiple of their covariance.

    It is the fallback of a `Pretrained` whose vocabulary grew: rows that the old tensor has are not
    drawn but left 0.

    Parameters
    ----------
    old : Pretrained or mapping
        The old tensor, a matrix with as many columns.
    scale : float
        What the covariance is multiplied by; finite, at least 0.

    Notes
    -----
    Row r is mean + F z, where F F^T is the covariance times the scale, and z has the standard
    normals of the tensor's stream at the indices of row r. So a row does not depend on how many
    there are, nor on the box. All of this is float64, rounded once. The factor F is Cholesky's, or
    the symmetric root if the covariance is singular. It is computed with NumPy's linear algebra, so
    an element may differ in the last bit between machines.

    References
    ----------
    huggingface/transformers, ``PreTrainedModel.resize_token_embeddings`` with ``mean_resizing``,
    which draws from N(mean, 1e-9 covariance).

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> old = wf.Pretrained(np.full((8, 4), 3.0, "float32"))
    >>> wf.Pretrained(old.source, fallback=wf.RowsLike(old))((10, 4), seed=0)[9]
    array([3., 3., 3., 3.], dtype=float32)
    """

    old: Any
    scale: float = 1e-9

    def __post_init__(self) -> None:
        old = get(self.old) if isinstance(self.old, Mapping) else self.old
        if not isinstance(old, Pretrained) or old.fallback is not None:
            raise TypeError(f"old must be a Pretrained without a fallback, got {self.old!r}")
        object.__setattr__(self, "old", old)
        self._parse(finite, "scale")
        if self.scale < 0:
            raise ValueError(f"scale must be >= 0, got {self.scale!r}")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse what is no matrix with as many columns as the old one."""
        old = self.old.opened().shape
        if len(shape) != 2 or len(old) != 2 or old[1] != shape[1] or not old[0]:
            raise ValueError(f"old must be a matrix with the columns of {shape}, got shape {old}")
        if dtype not in dtypes.FLOATS:
            raise TypeError(f"dtype must be a floating-point type for RowsLike, got {dtype}")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Draw the rows of a box."""
        self.prepared(box.tensor, out.dtype, stream)(out, box, num_threads)

    def prepared(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> Filler:
        """Compute mean and factor once, when the first new row is needed."""
        lock, known = Lock(), list[tuple[Array, Array]]()
        count = self.old.opened().shape[0]

        def fill_any(out: Array, box: Box, num_threads: int | None) -> None:
            whole = box.expand(out)
            first, (rows, columns) = max(box.starts[0], count), box.sizes
            end = box.starts[0] + rows
            whole[: max(0, min(rows, count - box.starts[0]))] = 0
            if first >= end or not columns:
                return
            with lock:
                if not known:
                    known.append(_moments(self.old.opened(), self.scale))
            mean, factor = known[0]
            wanted = slice(box.starts[1], box.starts[1] + columns)
            for start in range(first, end, _ROWS):
                size = min(_ROWS, end - start)
                draws = np.empty((size, shape[1]))
                place = Box(shape, (start, 0), draws.shape, (0, 1))
                normal = distributions.normal(draws.dtype, 0.0, 1.0, ("mean", "scale"))
                fill(normal, stream.seed, stream.id, draws, place, 1)
                values = np.repeat(mean[None, wanted], size, axis=0)
                for at in range(shape[1]):  # in a fixed order, so that no box differs
                    values += draws[:, at, None] * factor[None, at, wanted]
                at_box = slice(start - box.starts[0], start - box.starts[0] + size)
                whole[at_box] = dtypes.converted(values, dtype)

        return fill_any


def _moments(old: Array, scale: float) -> tuple[Array, Array]:
    """Compute the mean of rows, and the transpose of a factor of their scaled covariance."""
    rows, columns = old.shape
    total = np.zeros(columns)
    for start in range(0, rows, _ROWS):
        total += old[start : start + _ROWS].astype(np.float64).sum(axis=0)
    mean = total / rows
    if not np.isfinite(mean).all():
        raise ValueError("old must be finite, but the mean of its rows is not")
    covariance = np.zeros((columns, columns))
    for start in range(0, rows, _ROWS):
        centred = old[start : start + _ROWS].astype(np.float64) - mean
        covariance += centred.T @ centred
    covariance *= scale / rows
    try:
        return mean, np.linalg.cholesky(covariance).T
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return mean, (vectors * np.sqrt(values.clip(0))) @ vectors.T
