"""Print this machine's standing against the speed targets, as ratios measured in one process.

    python bench/targets.py                      about five minutes, idle machine, 4 GB of memory
    WINIT_BENCH=smoke python bench/targets.py    small sizes: only whether every case runs

A ratio is the median over alternating turns, so noise of the machine affects both sides. It says
how many times as fast winit_fast is, per element. The table is Markdown, as in docs/benchmarks.md.
"""

import mmap
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from check import processor
from races import Contestant
from ratios import buffer, in_cache
from scale import SMOKE, sized

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.benchmark import memory, ours, peers, turns

STREAM = wf.Stream(1, "bench")
PEER_TURNS, SECONDS = 3, sized(3.0, 0.0)
BIG, MIDDLE, SIDE, N = sized((1 << 28, 1 << 24, 16384, 2048), (1 << 16, 1 << 14, 1024, 64))


class Target(NamedTuple):
    """A case, what it is compared with, and the least ratio on AVX2 and on AVX-512."""

    case: str
    against: str
    ratio: Callable[[], float]
    avx2: float
    avx512: float


def ratio(
    mine: Contestant, other: Contestant, work: float = 1.0, least: int = 5, pause: float = 0.0
) -> float:
    """How many times as fast as the other we are, if we do ``work`` times as much as it."""
    a, b = turns([mine, other], SECONDS, least, pause)
    return work * statistics.median(y / x for x, y in zip(a, b, strict=True))


def to_memory(distribution: str, dtype: str, size: int) -> float:
    out = buffer(size, dtype)
    return ratio(ours(distribution, out), memory(out))


def to_peer(distribution: str, peer: str, size: int) -> float:
    out = buffer(size)
    theirs = peers(distribution, out, names=[peer])[peer]
    return ratio(ours(distribution, out), theirs, least=PEER_TURNS)


def to_float32(distribution: str, dtype: str, size: int) -> float:
    return ratio(ours(distribution, buffer(size, dtype)), ours(distribution, buffer(size)))


def shard(n: int, cut: str) -> float:
    """The time of the whole as a multiple of an eighth's."""
    whole, own = buffer((n, n)), buffer(n * n // 8)
    shape, index = {
        "rows": ((n, n), np.s_[n // 8 : n // 4]),
        "columns": ((n, n), np.s_[:, n // 8 : n // 4]),
        "blocks": ((n, n), np.s_[n // 4 : n // 2, n // 2 :]),
        "runs of 128 columns": ((n, n // 1024, 1024), np.s_[:, :, 128:256]),
    }[cut]
    out = own.reshape(np.broadcast_to(np.float32(0), shape)[index].shape)
    return ratio(
        lambda: STREAM.normal(0.0, 1.0, shape, out=out, index=index),
        lambda: STREAM.normal(out=whole),
    )


def awkward(case: str, size: int) -> float:
    """The time of a contiguous element as a multiple of one of such a box."""
    x = buffer(size)
    shape, index, out = {
        "rows of 3, with gaps": ((size // 4, 3), np.s_[:], x.reshape(-1, 4)[:, :3]),
        "(n, 3) in F order": ((size // 4, 3), np.s_[:], x[: size // 4 * 3].reshape(3, -1).T),
        "one of 8 columns": ((size // 8, 8), np.s_[:, 3], x[: size // 8]),
    }[case]
    return ratio(
        lambda: STREAM.normal(0.0, 1.0, shape, out=out, index=index, num_threads=1),
        lambda: STREAM.normal(out=x, num_threads=1),
        out.size / x.size,
    )


def fresh(distribution: str, nbytes: int) -> float:
    """The time of zeros in memory that nobody has touched, as a multiple of a fill's."""

    def touching(write: Callable[[np.ndarray], object]) -> Contestant:
        def run() -> None:
            with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
                array = np.frombuffer(block, np.float32)
                write(array)
                del array

        return run

    zeros, draw = wf.Zeros(), getattr(STREAM, distribution)
    return ratio(
        touching(lambda array: draw(out=array)), touching(lambda array: zeros.fill(array, seed=1))
    )


def orthogonal(n: int) -> float:
    """The rate of operations, as a share of the matrix product's."""
    q, c, a = buffer((n, n)), buffer((n, n)), np.random.default_rng(1).random((n, n), np.float32)
    scheme = wf.Orthogonal()
    # OpenBLAS' threads spin for 0.11 s (2^28 ticks at 2.4 GHz) before they sleep.
    return ratio(
        lambda: scheme.fill(q, seed=1), lambda: np.matmul(a, a, out=c), 2 / 3, pause=sized(0.2, 0.0)
    )


def quarters(n: int) -> float:
    """The time of the whole as a multiple of the mean of its four quarters' columns."""
    whole, part, scheme = buffer((n, n)), buffer((n, n // 4)), wf.Orthogonal()

    def all_parts() -> None:
        for k in range(4):
            index = np.s_[:, k * n // 4 : (k + 1) * n // 4]
            scheme.fill(part, seed=1, shape=(n, n), index=index)

    return ratio(all_parts, lambda: scheme.fill(whole, seed=1), 4, PEER_TURNS)


def model() -> float:
    from bench_torch import GPT2Medium

    import winit_fast.torch as adapter

    def fast() -> None:
        with adapter.fast_init():
            GPT2Medium()

    return ratio(fast, GPT2Medium, least=PEER_TURNS)


def small() -> float:
    case = in_cache("normal", "float32", 16, loops=50)
    return ratio(case.ours, *case.theirs)


def targets() -> list[Target]:
    """List every target; memory is allocated only while a case is measured."""
    cases = []

    def add(case: str, against: str, avx2: float, avx512: float, make: Any, *args: Any) -> None:
        cases.append(Target(case, against, lambda: make(*args), avx2, avx512))

    for name, dtype, size, avx2, avx512 in (
        ("uniform", "float32", BIG, 0.52, 0.90),
        ("normal", "float32", BIG, 0.32, 0.52),
        ("truncated_normal", "float32", BIG, 0.26, 0.43),
        ("uniform", "float64", BIG // 2, 0.50, 0.70),
        ("normal", "float64", BIG // 2, 0.25, 0.36),
    ):
        case = f"{name.replace('_', ' ')} {dtype}"
        add(case, "memory", avx2, avx512, to_memory, name, dtype, size)
    add("normal float32", "NumPy", 21, 28, to_peer, "normal", "NumPy", BIG // 8)
    if find_spec("torch"):
        peer = "PyTorch"
        add("normal float32", peer, 10.5, 11, to_peer, "normal", peer, BIG // 8)
        add("truncated normal float32", peer, 110, 150, to_peer, "truncated_normal", peer, BIG // 8)
    for dtype in "bfloat16", "float16":
        add(f"normal {dtype}", "float32", 0.95, 0.97, to_float32, "normal", dtype, BIG)
    add("normal float32, 16 elements", "NumPy", 1 / 1.1, 1 / 1.1, small)
    for cut in "rows", "columns", "blocks", "runs of 128 columns":
        add(f"an eighth of {SIDE} x {SIDE}, {cut}", "the whole", 7, 7, shard, SIDE, cut)
    for box in "rows of 3, with gaps", "(n, 3) in F order", "one of 8 columns":
        add(f"normal float32, {box}", "contiguous", 0.25, 0.25, awkward, box, MIDDLE)
    for name in "uniform", "normal":
        add(f"{name} float32, fresh memory", "zeros there", 1 / 1.3, 1 / 1.3, fresh, name, BIG)
    for n in N, 2 * N:
        add(f"orthogonal {n} x {n}, operations/s", "NumPy matmul", 0.95, 0.95, orthogonal, n)
    add(f"orthogonal, a quarter of {2 * N} columns", "the whole", 1 / 0.3, 1 / 0.3, quarters, 2 * N)
    if find_spec("torch") and not SMOKE:
        add("GPT-2 medium inside fast_init", "without", 8, 8, model)
    return cases


def main() -> None:
    print(f"{processor()}, {_core.isa()}\n")
    print("| case | against | times as fast | at least |  |\n|---|---|--:|--:|---|")
    for target in targets():
        bar = target.avx512 if _core.isa() == "avx512" else target.avx2
        found = target.ratio()
        short = "" if found >= bar else "**short**"
        print(
            f"| {target.case} | {target.against} | {found:.3g} | {bar:.3g} | {short} |", flush=True
        )


if __name__ == "__main__":
    main()
