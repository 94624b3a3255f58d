"""How the cost grows with the number of elements, tensors, threads and shards; one 405B model.

Each test measures several points of one axis; report.py fits a line to them and draws them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from races import interleaved
from scale import need, sized

import winit_fast as wf
from winit_fast import benchmark
from winit_fast.benchmark import Contestant, repeated
from winit_fast.models import Architecture, Rules
from winit_fast.models.tensor_spec import TensorSpec

THREADS = wf.get_num_threads()
SECONDS = sized(8.0, 0.0)
SCHEME = wf.RandomNormal(0.0, 0.02)
Keep = Callable[..., None]


@pytest.fixture
def keep(benchmark: Any) -> Keep:
    """Measure all points in alternating turns; store (x, seconds) of each in the JSON."""

    def run(axis: str, points: dict[float, tuple[Contestant, int]], **labels: Any) -> None:
        racers = [repeated(contestant, loops) for contestant, loops in points.values()]
        medians = interleaved(racers, SECONDS)
        found = [
            [x, median / loops]
            for (x, (_, loops)), median in zip(points.items(), medians, strict=True)
        ]
        benchmark.extra_info.update(question="growth", axis=axis, points=found, **labels)
        benchmark.pedantic(racers[0], rounds=1)

    return run


@pytest.mark.parametrize("threads", sorted({1, THREADS}))
def test_elements(keep: Keep, threads: int) -> None:
    """Fill one array that is already in memory, with more elements from point to point."""
    whole = np.ones(1 << sized(28, 12), np.float32)
    points = {}
    for log2 in range(4, sized(29, 13), 2):
        fill = benchmark.ours("normal", whole[: 1 << log2])
        points[1 << log2] = fill, max(1, 1 << 14 >> log2)
    wf.set_num_threads(threads)
    try:
        keep("elements", points, threads=threads)
    finally:
        wf.set_num_threads(None)


def test_tensors(keep: Keep) -> None:
    """Split a fixed number of elements into more and more tensors, each with its own name."""
    size = 1 << sized(24, 12)
    whole = np.ones(size, np.float32)
    points = {}
    for log2 in range(0, sized(17, 5), 2):
        parts = [
            (part.reshape(1, -1), f"layers.{number}.weight")
            for number, part in enumerate(np.split(whole, 1 << log2))
        ]

        def fill(parts: list[tuple[np.ndarray, str]] = parts) -> None:
            for part, name in parts:
                SCHEME.fill(part, seed=1, name=name)

        points[1 << log2] = fill, 1
    keep("tensors", points, elements=size)


def test_threads(keep: Keep) -> None:
    """Use up to twice as many threads as processors: too many threads must do no harm."""
    out = np.ones(1 << sized(26, 12), np.float32)
    counts = sorted({1, 2, THREADS, 2 * THREADS, *(2**k for k in range(THREADS.bit_length()))})
    points = {count: (benchmark.ours("normal", out, count), 1) for count in counts}
    keep("threads", points, elements=out.size, processors=THREADS)


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_shards(keep: Keep, axis: int) -> None:
    """Fill the middle shard of one matrix, cut into more and more shards: its cost alone."""
    shape = (1 << sized(13, 6),) * 2
    points = {}
    for log2 in range(0, sized(11, 5), 2):
        width = shape[0] >> log2
        box = slice(shape[0] // 2, shape[0] // 2 + width) if log2 else slice(None)
        index = (box, slice(None)) if axis == 0 else (slice(None), box)
        out = np.ones((width, shape[1]) if axis == 0 else (shape[0], width), np.float32)

        def fill(out: np.ndarray = out, index: Any = index) -> None:
            SCHEME.fill(out, seed=1, name="w", shape=shape, index=index)

        points[1 << log2] = fill, 1 << max(0, log2 - 4)
    keep("shards", points, cut=["rows", "columns"][axis], shape=list(shape))


RANK, RANKS = 5, 512


def own_rows(tensor: TensorSpec) -> slice:
    """The rows of a rank under torch.chunk, as in FSDP2's Shard(0); the last ranks may have fewer.

    >>> own_rows(TensorSpec("w", (1024, 4), wf.Zeros()))
    slice(10, 12, None)
    """
    rows = tensor.shape[0]
    each = -(-rows // RANKS)
    return slice(min(rows, RANK * each), min(rows, (RANK + 1) * each))


def test_plan(measure: Callable[..., dict[str, float]]) -> None:
    """Fill one rank's rows of every tensor of Llama 3.1 405B, evaluating the rules too."""
    model = sized("llama-3.1-405b", "llama-3.1-8b")
    architecture = Architecture.load(model)

    def plan() -> tuple[TensorSpec, ...]:
        return Rules.load(architecture.rules).tensors(architecture)

    tensors = plan()
    boxes = [(tensor, own_rows(tensor)) for tensor in tensors]
    shapes = [(box.stop - box.start, *tensor.shape[1:]) for tensor, box in boxes]
    elements = sum(int(np.prod(shape)) for shape in shapes)
    need(4 * elements)
    arrays = [np.ones(shape, "bfloat16") for shape in shapes]

    def fill(out: list[np.ndarray]) -> None:
        for (tensor, box), part in zip(boxes, out, strict=True):
            tensor.initializer.fill(
                part, seed=0, name=tensor.name, shape=tensor.shape, index=(box,)
            )

    # A rank that makes the whole tensor first would do so at NumPy's rate, which this measures.
    sample = np.ones(1 << sized(24, 10), np.float32)
    measure(
        "plan",
        {
            "winit_fast": lambda: fill(arrays),
            "first touch": lambda: fill([np.empty(shape, "bfloat16") for shape in shapes]),
            "list of tensors": plan,
            "NumPy sample": benchmark.peers("normal", sample, 1, ["NumPy"])["NumPy"],
        },
        seconds=sized(6.0, 0.0), model=model, rank=RANK, ranks=RANKS, tensors=len(tensors),
        elements=elements, nbytes=2 * elements, sample=sample.size, threads=THREADS,
        parameters=sum(tensor.size for tensor in tensors),
    )  # fmt: skip
    assert not any((array == 1).all() for array, (tensor, _) in zip(arrays, boxes, strict=True)
                   if tensor.initializer != wf.Ones() and array.size)  # fmt: skip
