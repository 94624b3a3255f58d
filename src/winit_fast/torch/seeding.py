"""Where the numbers of a tensor come from: torch's generator, or a seed and a name."""

import threading
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from winit_fast.streams.stream import Seed, seed_number
from winit_fast.torch.placements import is_sharded

Name = str | int | None
Seeding = Callable[[Tensor], tuple[int, Name]]
"""Key and name for the tensor that is about to be filled.

The name itself, not its stream's number: `Stream.part` makes other names of it.
"""


class _Local(threading.local):
    """What belongs to one thread.

    Attributes
    ----------
    word : Tensor
        Where 64 bits of a generator arrive. It is kept since making it costs as much as the bits.
    seedings : list of (Seeding or None)
        Those of `fast_init` and `init_`, innermost last; None is torch's generator.
    """

    def __init__(self) -> None:
        self.seedings: list[Seeding | None] = [None]
        with torch.inference_mode(False):
            self.word = torch.empty((), dtype=torch.int64, device="cpu")


local = _Local()


def draw_word(generator: Generator | None = None) -> int:
    """Draw 64 bits from a generator of torch, by default the one that `torch.manual_seed` seeds.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> first, second = draw_word(), draw_word()
    >>> _ = torch.manual_seed(0)
    >>> first == draw_word(), first == second
    (True, False)
    """
    word = local.word
    if generator is not None and generator.device.type != "cpu":
        word = torch.empty_like(word, device=generator.device)
    # From -2^63 up to no end: all 64 bits.
    bits: int = word.random_(-0x8000000000000000, None, generator=generator).item()
    return bits & 0xFFFFFFFFFFFFFFFF


def key_and_name(
    tensor: Tensor, generator: Generator | None, seed: Seed, name: Name
) -> tuple[int, Name]:
    """Find the key and the name of a tensor from the arguments of the function that fills it.

    Raises
    ------
    ValueError
        If no seed says what a `DTensor` holds: every rank would draw a key of its own.
    """
    if seed is not None:
        return seed_number(seed), name
    seeding = local.seedings[-1]
    if seeding is not None and generator is None and name is None:
        return seeding(tensor)
    if is_sharded(tensor):
        given = f"generator={generator}" if generator is not None else "seed=None"
        raise ValueError(
            f"seed must be given for a DTensor, got {given} for one of shape {tuple(tensor.shape)}:"
            " every rank would draw numbers of its own"
        )
    return draw_word(generator), name
