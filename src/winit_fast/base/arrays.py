"""Allocation of arrays."""

import ctypes
import math
import mmap
from collections.abc import Callable
from functools import cache
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


HUGE_BYTES = 1 << 22
"""From this size on, huge pages are requested for memory, as NumPy does for its own arrays."""


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """Return the system call, or None on systems without this advice."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return function


def prefer_huge_pages(array: Array) -> None:
    """Advise the kernel to use huge pages (MADV_HUGEPAGE) for a large contiguous array.

    The first write to each 4 KiB page is a page fault, which takes several times as long as
    computing its numbers. NumPy gives this advice for its arrays, PyTorch does not. It covers only
    whole pages inside the array, changes no byte, and may be ignored.
    """
    if array.nbytes < HUGE_BYTES or not array.flags.c_contiguous:
        return
    madvise = _madvise()
    if madvise is not None:
        address = array.__array_interface__["data"][0]
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (address + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(first, end - first, mmap.MADV_HUGEPAGE)
