"""Speed of winit_fast.torch compared with torch: a whole model, small tensors, the adapter's cost.

make bench
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from races import RESULTS, Result, interleaved

import winit_fast as wf

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("winit_fast.torch")
Race = Callable[..., float]
CALLS = 1000


class Block(torch.nn.Module):
    """The weights of one layer of GPT-2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attention = torch.nn.Linear(width, 3 * width)
        self.projection = torch.nn.Linear(width, width)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)


class GPT2Medium(torch.nn.Module):
    """GPT-2 with 355 million parameters, which torch's modules initialise."""

    def __init__(self) -> None:
        super().__init__()
        width = 1024
        self.tokens = torch.nn.Embedding(50257, width)
        self.positions = torch.nn.Embedding(1024, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(24))
        self.ln = torch.nn.LayerNorm(width)


def test_gpt2_medium(race: Race) -> None:
    """Construct a model in fresh memory: all but about 0.05 s of the time is initialisation."""

    def fast() -> torch.nn.Module:
        with adapter.fast_init():
            return GPT2Medium()

    race("GPT-2 medium inside fast_init", fast, "without", GPT2Medium, bar=6, seconds=20)


def repeated(fill: Callable[[torch.Tensor], object], tensor: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            fill(tensor)

    return run


@pytest.mark.parametrize("scheme", ["kaiming_normal_", "kaiming_uniform_", "xavier_normal_"])
def test_small(race: Race, scheme: str) -> None:
    weight = torch.nn.Parameter(torch.ones(32, 32))
    ours, theirs = getattr(adapter, scheme), getattr(torch.nn.init, scheme)
    race(f"{scheme} 32 x 32", repeated(ours, weight), f"torch {scheme}", repeated(theirs, weight),
         bar=1)  # fmt: skip


def test_overhead(benchmark: Any) -> None:
    """Measure what the adapter adds to `Stream.normal` into an array; the limit is 10 us."""
    weight, array = torch.ones(32, 32), np.ones((32, 32), np.float32)
    stream = wf.Stream(1)
    mine = repeated(adapter.kaiming_normal_, weight)
    native = repeated(lambda out: stream.normal(out=out), array)
    through, direct = interleaved([mine, native], seconds=4, least=3)
    overhead = (through - direct) / CALLS
    benchmark.pedantic(mine, rounds=1)
    limit = 10e-6
    ratio = limit / max(overhead, 1e-9)
    RESULTS.append(
        Result("kaiming_normal_ above a native fill", "10 us", ratio, 1.0, None, overhead, limit)
    )


def test_trunc_normal(race: Race) -> None:
    """Call torch's own trunc_normal_ inside fast_init, as existing code does."""
    tensor = torch.ones(1 << 22)

    def fast() -> None:
        with adapter.fast_init():
            torch.nn.init.trunc_normal_(tensor)

    race("trunc_normal_ inside fast_init, 2^22", fast, "without",
         lambda: torch.nn.init.trunc_normal_(tensor), bar=3)  # fmt: skip


def test_orthogonal(race: Race) -> None:
    tensor = torch.ones(1024, 1024)

    def fast() -> None:
        with adapter.fast_init():
            torch.nn.init.orthogonal_(tensor)

    race("orthogonal_ inside fast_init, 1024", fast, "without",
         lambda: torch.nn.init.orthogonal_(tensor), bar=1.5)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "rules", "bar"),
    [
        # torch takes about 10 us for each tensor
        ("ruled", {"*.weight": wf.HeNormal(), "*.bias": "zeros"}, 2 / 3),
        ("recorded", None, 1 / 3),
    ],
)
def test_many_small_layers(race: Race, case: str, rules: Any, bar: float) -> None:
    """Measure the cost per tensor, with 4,000 small tensors; torch resets them one by one."""
    layers = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(2000)])

    def theirs() -> None:
        for layer in layers:
            layer.reset_parameters()

    race(f"init_ of 2,000 small layers, {case}", lambda: adapter.init_(layers, rules, seed=0),
         "reset_parameters", theirs, bar=bar)  # fmt: skip
