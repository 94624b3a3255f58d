"""Speed of orthogonal matrices, compared with PyTorch, NumPy's QR and NumPy's matrix product.

    make bench

All contestants fill memory that they have written before.
"""

import os
import threading
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from races import RESULTS, Result, interleaved

import winit_fast as wf

Q = wf.Orthogonal()
Race = Callable[..., float]


def filled(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("shape", "bar", "aim"),
    [
        ((4096, 4096), 5, None),
        ((2048, 2048), 4, 5),
        ((1024, 1024), 3, 5),
        ((16384, 1024), 3, None),
        ((1024, 16384), 3, None),
        ((512, 512), 2, 4),
        ((256, 256), 2, 4),
        ((128, 128), 2, 4),
    ],
    ids=str,
)
def test_torch(race: Race, shape: tuple[int, int], bar: float, aim: float | None) -> None:
    torch = pytest.importorskip("torch")
    q, t = filled(shape), torch.ones(shape)
    race(f"orthogonal {shape[0]} x {shape[1]}", lambda: Q.fill(q, seed=1), "torch orthogonal_",
         lambda: torch.nn.init.orthogonal_(t), bar=bar, aim=aim)  # fmt: skip


def test_numpy_qr(race: Race) -> None:
    q = filled((4096, 4096))
    a = np.random.default_rng(1).standard_normal(q.shape, np.float32)
    race("orthogonal 4096 x 4096", lambda: Q.fill(q, seed=1), "NumPy qr",
         lambda: np.linalg.qr(a), bar=10)  # fmt: skip


def test_matrix_product(race: Race) -> None:
    n = 4096
    q, c = filled((n, n)), filled((n, n))
    a = np.random.default_rng(1).standard_normal(q.shape, np.float32)
    race("orthogonal 4096 x 4096, operations/s", lambda: Q.fill(q, seed=1), "NumPy matmul",
         lambda: np.matmul(a, a, out=c), bar=0.65, aim=0.85,
         work=4 / 3 * n**3, peer_work=2 * n**3, seconds=8)  # fmt: skip


def test_batch(race: Race) -> None:
    torch = pytest.importorskip("torch")
    q, t = filled((1000, 64, 64)), torch.ones(1000, 64, 64)
    batch = wf.Orthogonal(batch_axis=0)

    def loop() -> None:
        for matrix in t:
            torch.nn.init.orthogonal_(matrix)

    race("1,000 x 64 x 64", lambda: batch.fill(q, seed=1), "torch, one by one", loop, bar=6, aim=12)


@pytest.mark.parametrize(
    ("axis", "mean", "dearest"), [(1, (0.18, 0.14), (0.28, 0.21)), (0, None, (0.28, 0.21))]
)
def test_eighths(axis: int, mean: tuple[float, float] | None, dearest: tuple[float, float]) -> None:
    n = 4096
    whole = filled((n, n))
    contestants = [lambda: Q.fill(whole, seed=1)]
    for part in range(8):
        box = slice(part * n // 8, (part + 1) * n // 8)
        index = (box, slice(None)) if axis == 0 else (slice(None), box)
        out = filled(whole[index].shape)
        contestants.append(
            lambda out=out, index=index: Q.fill(out, seed=1, shape=(n, n), index=index)
        )
    everything, *parts = interleaved(contestants, seconds=12, least=3)
    name = "rows" if axis == 0 else "columns"
    figures = [(f"dearest eighth of the {name}", max(parts), dearest)]
    if mean is not None:
        figures.append((f"mean eighth of the {name}", sum(parts) / 8, mean))
    for case, seconds, (bar, aim) in figures:
        # Reported as speeds, so that a larger number is better here too.
        RESULTS.append(
            Result(case, "the whole", everything / seconds, 1 / bar, 1 / aim, seconds, everything)
        )


@pytest.mark.parametrize(
    ("shape", "index"),
    [
        ((4096, 4096), np.s_[:]),
        ((16384, 1024), np.s_[:]),
        ((8192, 8192), np.s_[:, -1024:]),
        ((8192, 8192), np.s_[:1024]),
    ],
    ids=str,
)
def test_memory_above_the_result(shape: tuple[int, int], index: object) -> None:
    out = filled(np.broadcast_to(np.float32(0), shape)[index].shape)
    process = psutil.Process(os.getpid())
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    Q.fill(out, seed=1, shape=shape, index=index)
    done.set()
    watcher.join()
    # 64 MiB, and for each thread at most four panels of at most 32 float32 columns
    allowed = (64 << 20) + wf.get_num_threads() * 4 * 32 * max(shape) * 4
    case = f"memory above {shape[0]} x {shape[1]} {'' if index == np.s_[:] else 'part'}"
    used = max(1, peak - before)
    RESULTS.append(Result(case, "64 MiB and the panels", allowed / used, 1, None, used, allowed))


@pytest.mark.parametrize("shape", [(4096, 4096), (16384, 1024), (512, 512)], ids=str)
def test_accuracy(shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")

    def error(q: np.ndarray) -> float:
        exact = q.astype(np.float64)
        return float(abs(exact.T @ exact - np.eye(exact.shape[1])).max())

    torch.manual_seed(1)
    ours = error(Q(shape, seed=1))
    theirs = error(torch.nn.init.orthogonal_(torch.empty(shape)).numpy())
    case = f"accuracy {shape[0]} x {shape[1]}, max |Q'Q - I|"
    RESULTS.append(Result(case, "torch orthogonal_", theirs / ours, 1, None, ours, theirs))
