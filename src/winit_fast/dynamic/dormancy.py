"""The tau rule: which units of a layer are dormant."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def dormant(magnitudes: Array, tau: float) -> Array:
    """Find the dormant units of a layer.

    Parameters
    ----------
    magnitudes : numpy.ndarray
        The mean magnitude of every unit's activation.
    tau : float
        A unit is dormant if its magnitude is at most tau times the mean of the layer's units.

    Returns
    -------
    numpy.ndarray
        The numbers of the dormant units, in order. All of them if no unit is ever active.

    References
    ----------
    Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML 2023, eq. 1.

    Examples
    --------
    >>> dormant(np.array([1.0, 0.0, 0.01, 3.0]), 0.025).tolist()
    [1, 2]
    """
    return np.flatnonzero(magnitudes <= tau * magnitudes.mean())


def runs(numbers: Array) -> list[tuple[int, int]]:
    """Join numbers in ascending order to ranges.

    Examples
    --------
    >>> runs(np.array([1, 2, 3, 7]))
    [(1, 4), (7, 8)]
    """
    if not numbers.size:
        return []
    ends = np.flatnonzero(np.diff(numbers) > 1)
    first, last = np.r_[0, ends + 1], np.r_[ends, numbers.size - 1]
    return [
        (int(low), int(high) + 1) for low, high in zip(numbers[first], numbers[last], strict=True)
    ]
