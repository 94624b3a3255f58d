"""The speed limit of memory: libc's memset, and non-temporal stores, on any number of threads."""

import ctypes
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from races import interleaved

Writer = Callable[[int, int, int], object]


@cache
def writers() -> dict[str, Writer]:
    """Return functions of (address, value, bytes) that release the GIL."""
    folder = Path(tempfile.mkdtemp())
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    source, library = Path(__file__).with_suffix(".c"), folder / "memory_limit.so"
    subprocess.run([*compiler, "-O3", "-shared", "-fPIC", source, "-o", library], check=True)
    functions = {
        "memset": ctypes.CDLL(None).memset,
        "non-temporal stores": ctypes.CDLL(str(library)).stream_fill,
    }
    for function in functions.values():
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        function.restype = None
    return functions


def contestant(array: np.ndarray, writer: Writer, num_threads: int) -> Callable[[], object]:
    """Write a nonzero byte to the whole of an array; each thread writes its own part.

    The byte is not zero, because some processors write cache lines of zeros in a faster way (on
    AMD's Zen 4, two to three times as fast), which random numbers can never use.
    """
    address, part = array.ctypes.data, array.nbytes // num_threads // 4096 * 4096
    pool = ThreadPoolExecutor(num_threads)

    def write() -> None:
        list(pool.map(lambda k: writer(address + k * part, 0x5A, part), range(num_threads)))

    return write


def fastest(array: np.ndarray, num_threads: int) -> Callable[[], object]:
    """Return the faster of the two functions for this array."""
    contestants = [contestant(array, writer, num_threads) for writer in writers().values()]
    medians = interleaved(contestants, seconds=1.0, least=3)
    return contestants[medians.index(min(medians))]
