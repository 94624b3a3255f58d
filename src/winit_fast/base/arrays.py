"""Allocation of arrays."""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

CACHE_LINE = 64
"""Bytes of a cache line."""


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate a new array.

    Raises
    ------
    ValueError
        If NumPy cannot have an array of this shape.
    """
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        raise ValueError(
            f"shape must be a possible shape of an array, got {shape}: {error}"
        ) from None


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate an array whose first byte is aligned to a cache line.

    Examples
    --------
    >>> aligned((3, 4), np.dtype("float32")).ctypes.data % CACHE_LINE
    0
    """
    memory = np.empty(math.prod(shape) * dtype.itemsize + CACHE_LINE, np.uint8)
    skip = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[skip : skip + memory.size - CACHE_LINE].view(dtype).reshape(shape)
