"""winit_fast.torch against torch itself: a whole model, small tensors, and what the adapter costs.

make bench
"""

import time
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("winit_fast.torch")
Race = Callable[..., float]
CALLS = 1000


class Block(torch.nn.Module):
    """One layer of GPT-2: the shapes of its weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attention = torch.nn.Linear(width, 3 * width)
        self.projection = torch.nn.Linear(width, width)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)


class GPT2Medium(torch.nn.Module):
    """355 million parameters, as their modules initialise them."""

    def __init__(self) -> None:
        super().__init__()
        width = 1024
        self.tokens = torch.nn.Embedding(50257, width)
        self.positions = torch.nn.Embedding(1024, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(24))
        self.ln = torch.nn.LayerNorm(width)


def constructed(seconds: list[float], make: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        start = time.perf_counter()
        made = make()
        seconds.append(time.perf_counter() - start)
        del made

    return run


def test_gpt2_medium(race: Race) -> None:
    """Time in initialisation: what is above the same modules without any."""

    def fast() -> torch.nn.Module:
        with adapter.fast_init():
            return GPT2Medium()

    race("GPT-2 medium in fast_init", fast, "torch", GPT2Medium, bar=6, seconds=20)
