"""One tensor of a model: its name, its logical shape and its initializer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from winit_fast.base.boxes import logical_shape
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.stream import stream_id


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor of a model together with its initializer.

    ``Rules.tensors`` makes them from an architecture; ``write_checkpoint`` writes a list of them.

    Parameters
    ----------
    name : str
        Full name inside the model; also the name of the tensor's stream.
    shape : tuple of int
        Logical shape: that of the whole tensor, never of a shard.
    initializer : Initializer
        Fills any part of the tensor.

    Raises
    ------
    TypeError, ValueError
        If the name is not a str, the shape is invalid, or ``initializer`` is not an Initializer.
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
