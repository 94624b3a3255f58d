"""The cases of `make bench-check`, each as a ratio of speeds in the same process.

Most cases run on one thread and are compared with NumPy. They fit into the L2 cache, where other
processes disturb them least, and are short, so that few turns are interrupted. Fills beyond the
caches are compared with the lower of two limits: how fast the thread writes memory, and how fast it
makes the same numbers in its cache (the roofline model). Compared with memory alone, a fill that
arithmetic limits would have a ratio that follows what other virtual machines write. One case uses
all threads, as NumPy does there.

References
----------
Williams, Waterman, Patterson (2009). Roofline: an insightful visual performance model for
multicore architectures. Communications of the ACM 52(4).
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call

import numpy as np
from instruction_set import chosen

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.base import dtypes, threads
from winit_fast.benchmark import Contestant, memory, ours, peers, repeated, turns
from winit_fast.benchmark.contestants import DISTRIBUTIONS

IN_CACHE, SHARED, BEYOND = 1 << 15, 1 << 23, 1 << 26
QUIET = 1.1  # a turn is quiet if the peer took at most this many times its time undisturbed
STREAM = wf.Stream(1, "bench")


@dataclass(frozen=True)
class Case:
    """Contestants that are ready to run; the slowest of ``theirs`` is the peer."""

    ours: Contestant
    theirs: tuple[Contestant, ...]


def undisturbed(theirs: Sequence[float]) -> float:
    """Return the seconds that the fastest twentieth of the peer's turns take at most.

    In the fastest turn of all, chance would decide how we fared.
    """
    return sorted(theirs)[len(theirs) // 20]


def quiet_ratio(
    ours: Sequence[float], theirs: Sequence[float], longest: float | None = None
) -> float:
    """Compute how many times as fast as the peer we are: the median of the quiet turns' ratios.

    A core that runs two hardware threads may lend the other one to another virtual machine, for
    milliseconds or minutes. NumPy's uniform numbers then take 1.9 times as long, ours 1.5 times,
    and a fill of columns, which needs the L2 cache, twice as long where NumPy takes 1.4 times as
    long. So every case would have two ratios. Only the peer decides which turns are quiet: a change
    to our own code has no part in it.

    Parameters
    ----------
    ours, theirs : sequence of float
        Seconds of each turn.
    longest : float, optional
        Of a quiet turn of the peer; by default, and if almost all turns are longer, `QUIET` times
        what the fastest take.

    Examples
    --------
    >>> quiet_ratio([1.0, 1.5, 1.1, 1.5], [4.0, 8.0, 4.1, 8.0])
    3.86...
    """
    # Of ten measurements' turns a hundredth is quiet if three of them were: see `check.is_quiet`.
    if longest is None or longest < sorted(theirs)[len(theirs) // 100]:
        longest = QUIET * undisturbed(theirs)
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True) if b <= longest)


def timed(case: Case, seconds: float) -> tuple[list[float], list[float]]:
    """Return the seconds of our turns and of the peer's."""
    ours, *theirs = turns([case.ours, *case.theirs], seconds, least=5)
    return ours, [max(times) for times in zip(*theirs, strict=True)]


def buffer(shape: int | tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Allocate a warm array at a page boundary, because stores across cache lines are slower."""
    kind = dtypes.find(dtype).dtype
    nbytes = math.prod(np.atleast_1d(shape).tolist()) * kind.itemsize
    raw = np.zeros(nbytes + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    array = raw[start : start + nbytes].view(kind).reshape(shape)
    array[...] = 1
    return array


def numpy_draws(distribution: str, out: np.ndarray, loops: int = 1) -> Contestant:
    return repeated(peers(distribution, out, 1, ["NumPy"])["NumPy"], loops)


def in_cache(distribution: str, dtype: str, size: int = IN_CACHE, loops: int = 1) -> Case:
    mine = repeated(ours(distribution, buffer(size, dtype)), loops)
    return Case(mine, (numpy_draws(distribution, buffer(size, dtype), loops),))


def with_isa(name: str, distribution: str) -> Case:
    """Time 20 fills a turn: in a virtual machine, choosing a set takes as long as a fill."""
    case = in_cache(distribution, "float32", loops=20)

    def fill() -> None:
        with chosen(name):
            case.ours()

    return Case(fill, case.theirs)


def beyond_the_caches(distribution: str, dtype: str) -> Case:
    out = buffer(BEYOND, dtype)
    arithmetic = repeated(ours(distribution, buffer(IN_CACHE, dtype)), max(1, BEYOND // IN_CACHE))
    return Case(ours(distribution, out, 1), (memory(out, 1), arithmetic))


def on_all_threads() -> Case:
    num_threads = wf.get_num_threads()
    draws = [numpy_draws("normal", buffer(SHARED // 8)) for _ in range(num_threads)]
    return Case(ours("normal", buffer(SHARED)), (partial(threads.run, call, draws, num_threads),))


def columns(width: int) -> Case:
    """Fill some columns of a 256 x 1024 matrix in place; NumPy makes as many contiguous numbers."""
    whole, index = buffer((256, 1024)), np.s_[:, 128 : 128 + width]
    part = whole[index]
    return Case(
        lambda: STREAM.normal(0.0, 1.0, whole.shape, out=part, index=index, num_threads=1),
        (numpy_draws("normal", buffer(256 * width)),),
    )


def small_orthogonal(n: int) -> Case:
    """Compare with NumPy's normal numbers, because QR would measure the speed of BLAS.

    Turns of both take about as long: a peer that takes much longer is rarely quiet to the end, and
    says little of our turn.
    """
    scheme, q = wf.Orthogonal(), buffer((n, n))
    return Case(
        lambda: scheme.fill(q, seed=1, num_threads=1),
        (numpy_draws("normal", buffer((n, n)), loops=2),),
    )


def cases() -> dict[str, Callable[[], Case]]:
    """Every case by name; a case allocates its memory only when it is called."""
    made: dict[str, Callable[[], Case]] = {}
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
    made[f"normal float32, 2^{int(math.log2(SHARED))}, all threads, to NumPy"] = on_all_threads
    for distribution, dtype in (
        *((name, "float32") for name in DISTRIBUTIONS),
        ("normal", "bfloat16"),
    ):
        made[f"{distribution} {dtype}, 2^{int(math.log2(BEYOND))}, to its limit"] = (
            lambda d=distribution, t=dtype: beyond_the_caches(d, t)
        )
    return made
