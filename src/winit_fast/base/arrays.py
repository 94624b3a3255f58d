"""New arrays."""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

CACHE_LINE = 64
"""Bytes of a line of the cache."""


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate a new array.

    Raises
    ------
    ValueError
        If the shape is more than an array can have.
    """
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        raise ValueError(f"shape must be one of an array, got {shape}: {error}") from None


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate an array that begins with a line of the cache.

    Examples
    --------
    >>> aligned((3, 4), np.dtype("float32")).ctypes.data % CACHE_LINE
    0
    """
    memory = np.empty(math.prod(shape) * dtype.itemsize + CACHE_LINE, np.uint8)
    skip = -memory.__array_interface__["data"][0] % CACHE_LINE
    return memory[skip : skip + memory.size - CACHE_LINE].view(dtype).reshape(shape)
