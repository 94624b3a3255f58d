"""The key and the name of a tensor's stream: from torch's generator, or from a seed and a name."""

import threading
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.placements import is_sharded

Name = str | int | None
Seeding = Callable[[Tensor], tuple[int, Name]]
"""A function that returns key and name of the stream for the tensor to be filled next.

It returns the name and not the stream id, because `Stream.part` derives other names from it.
"""


class _Local(threading.local):
    """State of one thread.

    Attributes
    ----------
    word : Tensor
        Receives 64 bits of a generator. It is reused, because making it takes as long as drawing.
    seedings : list of (Seeding or None)
        Stack of the seedings of `fast_init` and `init_`, innermost last; None is torch's generator.
    """

    def __init__(self) -> None:
        self.seedings: list[Seeding | None] = [None]
        with torch.inference_mode(False):
            self.word = torch.empty((), dtype=torch.int64, device="cpu")


local = _Local()


def draw_word(generator: Generator | None = None) -> int:
    """Draw 64 bits from a torch generator, by default the one that `torch.manual_seed` seeds.

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
    # From -2^63 without an upper bound, so that all 64 bits are random.
    bits: int = word.random_(-0x8000000000000000, None, generator=generator).item()
    return bits & 0xFFFFFFFFFFFFFFFF


def key_and_name(
    tensor: Tensor, generator: Generator | None, seed: Seed, name: Name
) -> tuple[int, Name]:
    """Return key and name of a tensor's stream, from the arguments of the filling function.

    Raises
    ------
    ValueError
        If the tensor is a `DTensor` and no seed is given: each rank would draw its own key.
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
