"""One tensor of a model: what it is called, its logical shape, how it is initialised."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from winit_fast.base.boxes import logical_shape
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.stream import stream_id


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor of a model together with its initializer.

    A list of these is what rules make of an architecture and what a checkpoint is written from.

    Parameters
    ----------
    name : str
        Full name inside the model; also the name of the tensor's random stream.
    shape : tuple of int
        Logical shape: of the whole tensor, never of a shard.
    initializer : Initializer
        Fills any part of it.

    Raises
    ------
    TypeError, ValueError
        If the name is no text, or the shape or the initializer is none.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Initializer

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a str, got {self.name!r}")
        stream_id(self.name)
        object.__setattr__(self, "shape", logical_shape(self.shape))
        if not isinstance(self.initializer, Initializer):
            raise TypeError(f"initializer must be an Initializer, got {self.initializer!r}")

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)
