"""Schemes that only torch can evaluate: values that the author's code computes from draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.stream import Stream
from winit_fast.torch.memory import FLOATS, as_array, fill_by
from winit_fast.torch.reduce import evaluate
from winit_fast.torch.values import Draw, Stored, Value, parts


@dataclass(frozen=True, repr=False, eq=False)
class Expression(Initializer):
    """A computation of the author's code from several draws, or from many stored values.

    A plan can contain an expression, but writing that plan to a file is an error that names the
    tensor.

    Parameters
    ----------
    value : Value
    streams : mapping of Draw to str
        The streams of the draws.
    """

    is_exact: ClassVar[bool] = True

    value: Value
    streams: Mapping[Draw, str]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        """Convert the expression to a tuple; repeated subexpressions are referred to by number."""
        numbers: dict[int, int] = {}

        def written(item: Any) -> object:
            if not isinstance(item, Value):
                if isinstance(item, Mapping):
                    return tuple((key, written(each)) for key, each in item.items())
                if isinstance(item, (list, tuple)):
                    return tuple(written(each) for each in item)
                return str(item) if isinstance(item, (torch.device, torch.dtype)) else item
            if id(item) in numbers:
                return numbers[id(item)]
            numbers[id(item)] = len(numbers)
            if isinstance(item, Stored):
                parts: tuple[object, ...] = (numpy_of(item.tensor).tobytes(),)
            elif isinstance(item, Draw):
                parts = item.scheme, item.own, self.streams.get(item)
            else:
                own = [field.name for field in fields(item) if field.name not in ("shape", "dtype")]
                parts = tuple(written(getattr(item, name)) for name in own)
            return type(item).__name__, item.shape, str(item.dtype), *parts

        return (written(self.value),)

    def __repr__(self) -> str:
        found = [one for one in parts(self.value) if isinstance(one, (Draw, Stored))]
        shown = [
            repr(one.scheme) if isinstance(one, Draw) else f"{tuple(one.shape)} stored"
            for one in found[:3]
        ]
        more = ", ..." if len(found) > 3 else ""
        return f"Expression({', '.join(shown)}{more})"

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape other than the author's."""
        if shape != self.value.shape:
            raise ValueError(f"{self!r} is of shape {self.value.shape}, got {shape}")

    def evaluated(self, key: int) -> Tensor:
        """Compute all elements."""
        return evaluate(self.value, drawn(self.value, self.streams, key))

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Compute all elements, and copy those of the box."""
        whole = torch.empty(self.value.shape, dtype=getattr(torch, out.dtype.name), device="cpu")
        whole.copy_(self.evaluated(stream.seed))
        box.expand(out)[...] = numpy_of(whole)[box.slices]

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return an expression for the real and imaginary parts."""
        raise TypeError(f"{self!r} is complex, which only torch can fill")


def numpy_of(tensor: Tensor) -> Array:
    """View a CPU tensor of any dtype as an array."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in FLOATS:
        array = as_array(tensor.contiguous())
        assert array is not None
        return array
    plain: Array = tensor.resolve_neg().resolve_conj().numpy()
    return plain


def drawn(value: Value, streams: Mapping[Draw, str], key: int) -> dict[Draw, Callable[[], Tensor]]:
    """Return functions that make the draws of an expression."""

    def make(draw: Draw) -> Callable[[], Tensor]:
        own_key, name = draw.own or (key, streams[draw])

        def elements() -> Tensor:
            tensor = torch.empty(draw.shape, dtype=draw.dtype)
            assert draw.scheme is not None  # otherwise the reduction has refused it
            if tensor.numel():
                fill_by(tensor, draw.scheme, own_key, name)
            return tensor

        return elements

    return {draw: make(draw) for draw in parts(value) if isinstance(draw, Draw)}
