"""Speed of fills, compared with the libraries that users have now and with the speed of memory.

    make bench

A case is one combination of seven parameters ("axes"). All combinations take hours
(WINIT_BENCH=full). By default each axis is varied while the others keep their central values, alone
or together with the axes it depends on: distribution with type, with size, with instruction set and
threads; the layouts; memory that has never been touched. All peers are measured where the result
has at most 2^28 elements. Above that size only NumPy and memory are measured, because they need no
other arrays.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import write_rate
from instruction_set import chosen
from scale import FULL, need, sized

import winit_fast as wf
import winit_fast._core as _core
from winit_fast import benchmark
from winit_fast.base import dtypes
from winit_fast.benchmark import Contestant
from winit_fast.benchmark.contestants import DISTRIBUTIONS

Measure = Callable[..., dict[str, float]]
THREADS, BEST = wf.get_num_threads(), _core.supported_isas()[0]
SECONDS = sized(2.0, 0.0)
WIDTH, SHARDS = sized(1024, 8), 8
PEER_LIMIT = 28
# least number of turns, for up to 2^key elements: the peers take minutes
TURNS = {24: 5, 28: 3, 31: 1}


@dataclass(frozen=True)
class Case:
    """One combination of the axes; an axis that is not given has its central value."""

    distribution: str = "normal"
    dtype: str = "float32"
    log2: int = sized(26, 12)
    threads: int = THREADS
    isa: str = BEST
    layout: str = "contiguous"
    memory: str = "warm"

    @property
    def name(self) -> str:
        return "-".join(str(value) for value in asdict(self).values())

    @property
    def possible(self) -> bool:
        """Whether the case is measured: shards only in warm memory, with 1 row to 2^28 elements."""
        small = WIDTH <= 1 << self.log2 <= 1 << PEER_LIMIT
        return self.layout == "contiguous" or (self.memory == "warm" and small)


AXES: dict[str, list[Any]] = {
    "distribution": list(DISTRIBUTIONS),
    "dtype": [kind.name for kind in dtypes.FLOATS.values()],
    "log2": sized([10, 13, 16, 19, 22, 25, 28, 31], [4, 10]),
    "threads": sorted({1, THREADS}),
    "isa": list(_core.supported_isas()),
    "layout": ["contiguous", "rows", "columns", "columns in place"],
    "memory": ["warm", "first touch"],
}
CENTRE, SMALL = Case(), Case(log2=sized(24, 12))
SWEEPS = [
    (CENTRE, ("distribution", "dtype")),
    (CENTRE, ("distribution", "log2")),
    (SMALL, ("distribution", "isa", "threads")),
    (SMALL, ("layout",)),
    (CENTRE, ("distribution", "memory")),
]


def product(base: Case, axes: tuple[str, ...]) -> Iterator[Case]:
    for values in itertools.product(*(AXES[axis] for axis in axes)):
        yield replace(base, **dict(zip(axes, values, strict=True)))


def cases() -> list[Case]:
    """Every case once, in the order of the sweeps."""
    everything = [(CENTRE, tuple(field.name for field in fields(Case)))]
    swept = (case for sweep in (everything if FULL else SWEEPS) for case in product(*sweep))
    return list(dict.fromkeys(case for case in swept if case.possible))


def shard(case: Case, dtype: np.dtype) -> tuple[Contestant, np.ndarray, tuple[int, ...]]:
    """Return our fill of one eighth of a matrix, its destination, and the shape of the matrix."""
    rows = (1 << case.log2) // WIDTH
    if case.layout == "rows":
        shape, index = (SHARDS * rows, WIDTH), np.s_[3 * rows : 4 * rows]
        out = np.ones((rows, WIDTH), dtype)
    else:
        shape, index = (rows, SHARDS * WIDTH), np.s_[:, 3 * WIDTH : 4 * WIDTH]
        place = case.layout == "columns in place"
        out = np.ones(shape, dtype)[index] if place else np.ones((rows, WIDTH), dtype)
    draw = getattr(wf.Stream(1, "bench"), case.distribution)
    return (
        lambda: draw(shape=shape, out=out, index=index, num_threads=case.threads),
        out,
        shape,
    )


def sharded(case: Case, dtype: np.dtype) -> dict[str, Contestant]:
    """Compare a shard with NumPy, which makes the whole matrix and cuts it, and with memset."""
    fill, out, shape = shard(case, dtype)
    whole = np.ones(shape, dtype)
    numpy = benchmark.peers(case.distribution, whole, case.threads, ["NumPy"])["NumPy"]
    cut = whole[: out.shape[0]] if case.layout == "rows" else whole[:, : out.shape[1]]

    def make_and_cut() -> None:
        numpy()
        np.copyto(out, cut)

    compact = np.ones(out.shape, dtype)
    return {
        "winit_fast": fill,
        "memory": benchmark.memory(compact, case.threads),
        "NumPy": make_and_cut,
    }


def warm(case: Case, dtype: np.dtype) -> dict[str, Contestant]:
    out = np.ones(1 << case.log2, dtype)
    names = benchmark.installed() if case.log2 <= PEER_LIMIT else ["NumPy"]
    return {
        "winit_fast": benchmark.ours(
            case.distribution, out, None if case.threads == THREADS else case.threads
        ),
        "memory": benchmark.memory(out, case.threads),
        **benchmark.peers(case.distribution, out, case.threads, names),
    }


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_fill(measure: Measure, case: Case) -> None:
    dtype = dtypes.find(case.dtype).dtype
    nbytes = (1 << case.log2) * dtype.itemsize
    if case.layout != "contiguous":
        need(2.5 * SHARDS * nbytes)
        contestants = sharded(case, dtype)
    elif case.memory == "warm":
        # NumPy's float32 numbers, before it rounds them
        scratch = 0 if dtype.itemsize >= 4 else 4 << case.log2
        # arrays of the peers, including JAX's temporary ones
        copies = 7 * max(nbytes, 4 << case.log2)
        need(nbytes + (copies if case.log2 <= PEER_LIMIT else scratch))
        contestants = warm(case, dtype)
    else:
        need(2 * nbytes)
        contestants = benchmark.fresh(case.distribution, (1 << case.log2,), dtype, case.threads)
    least = next(turns for log2, turns in TURNS.items() if case.log2 <= log2)
    with chosen(case.isa):
        measure(
            "speed", contestants, seconds=SECONDS, least=least,
            loops=max(1, sized(1 << 16, 1) >> case.log2), nbytes=nbytes, **asdict(case),
        )  # fmt: skip


SHAPES = [(256, 256), (1024, 1024), (2048, 2048), (4096, 4096), (16384, 1024)]


@pytest.mark.parametrize("shape", sized(SHAPES, [(32, 16)]), ids=str)
def test_orthogonal(measure: Measure, shape: tuple[int, int]) -> None:
    out = np.ones(shape, np.float32)
    contestants = benchmark.orthogonal(out)
    measure(
        "orthogonal", contestants, seconds=SECONDS, least=5, nbytes=out.nbytes, shape=list(shape)
    )


def test_disk(measure: Measure) -> None:
    """Time writing a checkpoint with fsync, against zeros in the same chunks and NumPy."""
    model = sized("gpt2-xl", "gpt2")
    place = Path("build")
    place.mkdir(exist_ok=True)
    write: dict[str, tuple[Callable[..., None], int]] = {
        "winit_fast": (write_rate.write_weights, THREADS),
        "zeros": (write_rate.write_zeros, THREADS),
        "zeros, one thread": (write_rate.write_zeros, 1),
        "NumPy": (write_rate.write_with_numpy, 1),
    }
    contestants = {
        name: lambda function=function, threads=threads: write_rate.seconds(
            lambda directory: function(directory, model, "bfloat16", threads), place
        )
        for name, (function, threads) in write.items()
    }
    nbytes = write_rate.size(model, "bfloat16")
    need(1.5 * nbytes)  # NumPy's tensors, and one of them in float32
    measure("disk", contestants, seconds=0, model=model, dtype="bfloat16", nbytes=nbytes)
