"""One tensor of a model: what it is called, its logical shape, how it is initialised."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from winit_fast.initializers import Initializer


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a model together with its initializer.

    A list of these is what a recipe makes and what a checkpoint is written from.

    Parameters
    ----------
    name : str
        Full name inside the model; also the name of the tensor's random stream.
    shape : tuple of int
        Logical shape: of the whole tensor, never of a shard.
    initializer : Initializer
        Fills any part of it.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Initializer

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)
