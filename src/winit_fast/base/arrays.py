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


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any], boundary: int = CACHE_LINE) -> Array:
    """Allocate an array whose first byte is aligned to a cache line, or to a larger boundary.

    Examples
    --------
    >>> aligned((3, 4), np.dtype("float32")).ctypes.data % CACHE_LINE
    0
    """
    size = math.prod(shape) * dtype.itemsize
    # rounded up, so that the rest of the last page belongs to the array too
    memory = np.empty(-(-size // boundary) * boundary + boundary, np.uint8)
    skip = -memory.__array_interface__["data"][0] % boundary
    return memory[skip : skip + size].view(dtype).reshape(shape)


HUGE_BYTES = 1 << 22
"""From this size on, huge pages are requested for memory, as NumPy does for its own arrays."""

HUGE_PAGE = 1 << 21
"""Bytes of a huge page of x86-64, and of aarch64 with pages of 4 KiB."""


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
    address = array.__array_interface__["data"][0]
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    _advise(first, (address + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE)


def empty_in_huge_pages(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate work space in huge pages of its own, if it fills at least half of one.

    Small pages lie at random physical addresses. L2 is indexed by physical addresses, so some of
    its sets get more lines than they can hold, even if the array is smaller than the cache.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < HUGE_PAGE // 2:
        return aligned(shape, dtype)
    array = aligned(shape, dtype, HUGE_PAGE)
    first = array.__array_interface__["data"][0]
    _advise(first, first + -(-size // HUGE_PAGE) * HUGE_PAGE)
    return array


def _advise(first: int, end: int) -> None:
    """Advise the kernel to use huge pages between two page boundaries."""
    madvise = _madvise()
    if madvise is not None:
        madvise(first, end - first, mmap.MADV_HUGEPAGE)
