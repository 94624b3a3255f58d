"""Huge pages are requested for large buffers, whoever allocated them."""

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import winit_fast as wf
from winit_fast.base import arrays
from winit_fast.base.arrays import HUGE_BYTES, HUGE_PAGE, aligned, empty_in_huge_pages


def flags(address: int) -> list[str]:
    """Return the kernel's flags of the mapping that contains an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise LookupError(f"no mapping has the address {address:#x}")


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are requested on Linux only")
@pytest.mark.parametrize("nbytes, advised", [(HUGE_BYTES, True), (HUGE_BYTES - 8, False)])
@pytest.mark.parametrize("filler", [wf.HeNormal(), wf.Ones()])
def test_large_buffers(filler, nbytes, advised):
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 2 * HUGE_BYTES, flags=private) as memory:
        array = np.frombuffer(memory, np.float32, nbytes // 4).reshape(2, -1)
        middle = array.ctypes.data + nbytes // 2
        assert "hg" not in flags(middle)
        filler.fill(array, seed=1)
        assert ("hg" in flags(middle)) == advised
        assert (array == filler(array.shape, seed=1)).all()
        del array  # mmap refuses to close while it is in use


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are requested on Linux only")
def test_work_space():
    array = empty_in_huge_pages((2, HUGE_PAGE // 16), np.dtype(np.float32))
    assert array.nbytes == HUGE_PAGE // 2 and array.ctypes.data % HUGE_PAGE == 0
    assert "hg" in flags(array.ctypes.data)
    array[:] = 1  # the memory is its own


def test_small_work_space_gets_no_advice(monkeypatch):
    monkeypatch.setattr(arrays, "_advise", None)  # a call would fail
    array = empty_in_huge_pages((2, HUGE_PAGE // 16 - 1), np.dtype(np.float32))
    assert array.nbytes < HUGE_PAGE // 2 and array.ctypes.data % 64 == 0


@pytest.mark.parametrize("boundary", [64, 4096, HUGE_PAGE])
def test_boundaries(boundary):
    array = aligned((3, 5), np.dtype(np.float64), boundary)
    assert array.ctypes.data % boundary == 0 and array.shape == (3, 5)
