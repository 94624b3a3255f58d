"""The cases of `make bench-check`, each as a ratio to NumPy or memset in the same process.

Cases against NumPy run on one thread and fit into the L2 cache, where other processes disturb them
least; they are short, so that few turns are interrupted. Cases against memory run with the default
number of threads.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from instruction_set import chosen

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.base import dtypes
from winit_fast.benchmark import Contestant, memory, ours, peers, repeated, turns
from winit_fast.benchmark.contestants import DISTRIBUTIONS

IN_CACHE, BEYOND = 1 << 15, 1 << 26
STREAM = wf.Stream(1, "bench")


@dataclass(frozen=True)
class Pair:
    """Two contestants that are ready to run."""

    ours: Contestant
    theirs: Contestant


def ratio(pair: Pair, seconds: float) -> float:
    """How many times as fast as the peer we are: the median of the ratios of all turns."""
    mine, other = turns([pair.ours, pair.theirs], seconds, least=5)
    return statistics.median(b / a for a, b in zip(mine, other, strict=True))


def buffer(shape: int | tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Allocate a warm array at a page boundary, because stores across cache lines are slower."""
    kind = dtypes.find(dtype).dtype
    nbytes = math.prod(np.atleast_1d(shape).tolist()) * kind.itemsize
    raw = np.zeros(nbytes + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    array = raw[start : start + nbytes].view(kind).reshape(shape)
    array[...] = 1
    return array


def in_cache(distribution: str, dtype: str, size: int = IN_CACHE, loops: int = 1) -> Pair:
    out = buffer(size, dtype)
    theirs = peers(distribution, buffer(size, dtype), 1, ["NumPy"])["NumPy"]
    return Pair(repeated(ours(distribution, out), loops), repeated(theirs, loops))


def with_isa(name: str, distribution: str) -> Pair:
    """Time 20 fills a turn: in a virtual machine, choosing a set takes as long as a fill."""
    pair = in_cache(distribution, "float32", loops=20)

    def fill() -> None:
        with chosen(name):
            pair.ours()

    return Pair(fill, pair.theirs)


def beyond_the_caches(distribution: str, dtype: str) -> Pair:
    out = buffer(BEYOND, dtype)
    return Pair(ours(distribution, out), memory(out))


def columns(width: int) -> Pair:
    """Fill some columns of a 256 x 1024 matrix in place; NumPy makes as many contiguous numbers."""
    whole, index = buffer((256, 1024)), np.s_[:, 128 : 128 + width]
    theirs = peers("normal", buffer(256 * width), 1, ["NumPy"])["NumPy"]
    part = whole[index]
    return Pair(
        lambda: STREAM.normal(0.0, 1.0, whole.shape, out=part, index=index, num_threads=1), theirs
    )


def small_orthogonal(n: int) -> Pair:
    """Compare with NumPy's normal numbers, because QR would measure the speed of BLAS."""
    scheme, q = wf.Orthogonal(), buffer((n, n))
    theirs = peers("normal", buffer((n, n)), 1, ["NumPy"])["NumPy"]
    return Pair(lambda: scheme.fill(q, seed=1, num_threads=1), repeated(theirs, max(1, n // 16)))


def cases() -> dict[str, Callable[[], Pair]]:
    """Every case by name; a case allocates its memory only when it is called."""
    made: dict[str, Callable[[], Pair]] = {}
    for distribution, dtype in (
        *((name, dtype) for name in DISTRIBUTIONS for dtype in ("float32", "float64")),
        ("normal", "bfloat16"),
        ("normal", "float16"),
        ("normal", "float8_e4m3fn"),
    ):
        made[f"{distribution} {dtype}, in cache, to NumPy"] = lambda d=distribution, t=dtype: (
            in_cache(d, t)
        )
    for name in _core.supported_isas()[1:]:
        made[f"normal float32, {name}, to NumPy"] = lambda name=name: with_isa(name, "normal")
    for size in 16, 1000:
        made[f"normal float32, {size} elements, to NumPy"] = lambda size=size: in_cache(
            "normal", "float32", size, loops=50
        )
    for width in 8, 128:
        made[f"normal float32, {width} of 1024 columns, to NumPy"] = lambda width=width: columns(
            width
        )
    for n in 64, 256:
        made[f"orthogonal {n} x {n}, to NumPy's normals"] = lambda n=n: small_orthogonal(n)
    for distribution, dtype in (
        *((name, "float32") for name in DISTRIBUTIONS),
        ("normal", "bfloat16"),
    ):
        made[f"{distribution} {dtype}, 2^{int(math.log2(BEYOND))}, to memory"] = (
            lambda d=distribution, t=dtype: beyond_the_caches(d, t)
        )
    return made
