"""Speed of sampling and filling, compared with memory, NumPy, PyTorch and ourselves.

    make bench

Sizes are 2^28 elements unless a case says otherwise. The buffers have been written before, so that
no page fault is timed.
"""

import resource
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from instruction_set import chosen
from memory_limit import fastest
from races import RESULTS, Result

import winit_fast as wf
import winit_fast._core as _core

SIZE = 1 << 28
THREADS = wf.get_num_threads()
STREAM = wf.Stream(1, "bench")
Race = Callable[..., float]


def buffer(dtype: Any, size: int = SIZE) -> np.ndarray:
    """Allocate an array and touch all of its pages, so that later writes cause no page fault."""
    array = np.empty(size, dtype)
    array.view(np.uint8)[:] = 1
    return array


def test_uniform_memory(race: Race) -> None:
    x = buffer(np.float32)
    race("uniform float32", lambda: STREAM.uniform(out=x), "memory", fastest(x, THREADS),
         bar=0.80, aim=0.95)  # fmt: skip


def test_uniform_numpy(race: Race) -> None:
    x, rng = buffer(np.float32), np.random.default_rng(1)
    race("uniform float32", lambda: STREAM.uniform(out=x), "NumPy random",
         lambda: rng.random(dtype=np.float32, out=x), bar=10)  # fmt: skip


def test_normal_memory(race: Race) -> None:
    x = buffer(np.float32)
    race("normal float32", lambda: STREAM.normal(out=x), "memory", fastest(x, THREADS),
         bar=0.40, aim=0.55)  # fmt: skip


def test_normal_numpy(race: Race) -> None:
    x, rng = buffer(np.float32), np.random.default_rng(1)
    race("normal float32", lambda: STREAM.normal(out=x), "NumPy standard_normal",
         lambda: rng.standard_normal(dtype=np.float32, out=x), bar=30)  # fmt: skip


def test_normal_torch(race: Race) -> None:
    torch = pytest.importorskip("torch")
    x, t = buffer(np.float32), torch.ones(SIZE)
    race("normal float32", lambda: STREAM.normal(out=x), "torch normal_", t.normal_, bar=9)


def test_truncated_memory(race: Race) -> None:
    x = buffer(np.float32)
    race("truncated normal float32, +-2", lambda: STREAM.truncated_normal(out=x), "memory",
         fastest(x, THREADS), bar=0.30, aim=0.45)  # fmt: skip


def test_truncated_torch(race: Race) -> None:
    torch = pytest.importorskip("torch")
    x, t = buffer(np.float32), torch.ones(SIZE)
    race("truncated normal float32, +-2", lambda: STREAM.truncated_normal(out=x),
         "torch trunc_normal_", lambda: torch.nn.init.trunc_normal_(t), bar=100)  # fmt: skip


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_normal_16_bits(race: Race, dtype: Any) -> None:
    x, y = buffer(dtype), buffer(np.float32)
    race(f"normal {np.dtype(dtype).name}", lambda: STREAM.normal(out=x), "normal float32",
         lambda: STREAM.normal(out=y), bar=1.0, aim=1.3, seconds=10)  # fmt: skip


def test_uniform_float64(race: Race) -> None:
    x = buffer(np.float64)
    race("uniform float64", lambda: STREAM.uniform(out=x), "memory", fastest(x, THREADS), bar=0.7)


def test_normal_float64(race: Race) -> None:
    x = buffer(np.float64)
    race("normal float64", lambda: STREAM.normal(out=x), "memory", fastest(x, THREADS), bar=0.25)


def test_normal_float64_numpy(race: Race) -> None:
    x, rng = buffer(np.float64), np.random.default_rng(1)
    race("normal float64", lambda: STREAM.normal(out=x), "NumPy standard_normal",
         lambda: rng.standard_normal(out=x), bar=12)  # fmt: skip


def test_avx2(race: Race) -> None:
    if "avx512" not in _core.supported_isas():
        pytest.skip("this CPU has no avx512")
    x = buffer(np.float32)

    def forced(name: str) -> Callable[[], None]:
        def fill() -> None:
            with chosen(name):
                STREAM.normal(out=x)

        return fill

    race("normal float32, AVX2", forced("avx2"), "normal float32, AVX-512", forced("avx512"),
         bar=0.5)  # fmt: skip


def test_scalar(race: Race) -> None:
    x, rng = buffer(np.float32, 1 << 24), np.random.default_rng(1)
    with chosen("scalar"):
        race("normal float32, plain C, 2^24", lambda: STREAM.normal(out=x),
             "NumPy standard_normal", lambda: rng.standard_normal(dtype=np.float32, out=x),
             bar=0.25, aim=1.0)  # fmt: skip


def test_two_threads(race: Race) -> None:
    x = buffer(np.float32)
    race("normal float32, two threads", lambda: STREAM.normal(out=x, num_threads=2), "one thread",
         lambda: STREAM.normal(out=x, num_threads=1), bar=1.8, aim=1.95)  # fmt: skip


@pytest.mark.parametrize(
    ("width", "place", "bar"),
    [(1024, "in place", 0.8), (8, "in place", 0.2), (8, "an array of their own", 0.2)],
)
def test_column_shard(race: Race, width: int, place: str, bar: float) -> None:
    """Fill some columns of a matrix: the whole matrix, columns with gaps, or a shard."""
    shape, index = (8192, 8192), np.s_[:, 1024 : 1024 + width]
    if place == "in place":
        out = buffer(np.float32, shape[0] * shape[1]).reshape(shape)[index]
    else:
        out = buffer(np.float32, shape[0] * width).reshape(shape[0], width)
    contiguous = buffer(np.float32, shape[0] * 1024)
    race(f"normal float32, {width} of 8192 columns, {place}",
         lambda: STREAM.normal(0.0, 1.0, shape, out=out, index=index),
         "contiguous", lambda: STREAM.normal(out=contiguous),
         work=out.size, peer_work=contiguous.size, bar=bar)  # fmt: skip


MATRIX = SIZE // 4
AWKWARD = {  # shape of the tensor, index of the box, order in memory, bar
    "rows of 3 with gaps of 1": ((MATRIX // 4, 3), ..., "padded", 0.25),
    "(n, 3) in F order": ((MATRIX // 3, 3), ..., "F", 0.25),
    "3 of 8 columns": ((MATRIX // 8, 8), np.s_[:, 2:5], "C", 0.25),
    "one of 8 columns": ((MATRIX // 8, 8), np.s_[:, 3], "C", 0.2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward(race: Race, case: str, dtype: Any) -> None:
    """Fill boxes that are not contiguous in the tensor or in memory, such as short rows."""
    shape, index, order, bar = AWKWARD[case]
    x = buffer(dtype, MATRIX)
    if order == "padded":
        out = x.reshape(-1, 4)[:, :3]
    else:
        extents = np.broadcast_to(x[:1], shape)[index].shape
        out = x[: np.prod(extents)].reshape(extents, order=order)
    name = np.dtype(dtype).name
    race(f"normal {name}, {case}",
         lambda: STREAM.normal(0.0, 1.0, shape, out=out, index=index, num_threads=1),
         "contiguous, one thread", lambda: STREAM.normal(out=x, num_threads=1),
         work=out.size, peer_work=x.size, bar=bar)  # fmt: skip


@pytest.mark.parametrize(("size", "bar", "aim"), [(1000, 1.0, 2.0), (16, 0.25, 0.5)])
def test_small(race: Race, size: int, bar: float, aim: float) -> None:
    x, rng = buffer(np.float32, size), np.random.default_rng(1)

    def ours() -> None:
        for _ in range(1000):
            STREAM.normal(out=x)

    def theirs() -> None:
        for _ in range(1000):
            rng.standard_normal(dtype=np.float32, out=x)

    race(f"normal float32, {size} elements", ours, "NumPy standard_normal", theirs, bar=bar,
         aim=aim)  # fmt: skip


def test_three_billion(race: Race) -> None:
    size = 3_000_000_000
    x, y = buffer(ml_dtypes.bfloat16, size), buffer(ml_dtypes.bfloat16)
    race("normal bfloat16, 3 * 10^9 elements", lambda: STREAM.normal(out=x), "2^28 elements",
         lambda: STREAM.normal(out=y), work=size, peer_work=y.size, bar=0.95)  # fmt: skip


def test_own_memory(benchmark: Any) -> None:
    """Measure the memory that a fill needs beside the destination: how much the peak grows."""
    x = buffer(np.float32)
    limit, before = 4096, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    benchmark.pedantic(lambda: STREAM.normal(out=x), rounds=1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    RESULTS.append(Result("fill's own memory, KiB", "limit", limit / max(grown, 1), 1.0, None,
                          grown, limit))  # fmt: skip
