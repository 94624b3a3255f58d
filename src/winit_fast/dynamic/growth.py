"""Net2Net: which unit each unit of a wider layer copies, and how its outputs are shared out."""

from __future__ import annotations

from typing import Any

import numpy as np

from winit_fast.streams.identity import Seed
from winit_fast.streams.stream import Stream

Array = np.ndarray[Any, np.dtype[Any]]


def copied(count: int, width: int, seed: Seed, name: str) -> tuple[Array, Array]:
    """Choose for every unit of a wider layer the unit that it copies.

    Parameters
    ----------
    count, width : int
        Numbers of units before and after.
    seed, name
        Of the stream from which the copied units are chosen.

    Returns
    -------
    source : numpy.ndarray
        For each of the ``width`` units, the one it copies; the first ``count`` are themselves.
    share : numpy.ndarray
        For each of them, 1 over the number of its copies, by which its outgoing weights are
        multiplied, so that the sum over all copies is what it was.

    References
    ----------
    Chen et al., "Net2Net: accelerating learning via knowledge transfer", ICLR 2016, section 2.3.

    Examples
    --------
    >>> source, share = copied(3, 5, seed=0, name="fc1")
    >>> source[:3].tolist(), bool((np.bincount(source, share) == 1).all())
    ([0, 1, 2], True)
    """
    words = Stream(seed, f"{name}\0widen").bits(width - count).astype(np.uint64)
    source = np.concatenate([np.arange(count), (words * np.uint64(count)) >> np.uint64(32)])
    source = source.astype(np.int64)
    return source, 1 / np.bincount(source, minlength=count)[source]
