"""Schemes that only torch can evaluate: what the author's code computes from draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.expression import renamed_stream, stream_of
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.protocol import draw as draw_box
from winit_fast.streams.stream import Stream
from winit_fast.torch.evaluate import evaluate
from winit_fast.torch.memory import FLOATS, as_array, fill_tensor
from winit_fast.torch.seeding import Name
from winit_fast.torch.values import Draw, Stored, Value, parts


@dataclass(frozen=True, repr=False, eq=False)
class TorchExpression(Initializer):
    """A computation of the author's code from draws, or from many stored values.

    It is used where `winit_fast.Expression` cannot say the same. A plan can contain it, but writing
    that plan to a file is an error that names the tensor.

    Parameters
    ----------
    value : Value
    streams : mapping of Draw to str or None
        The streams of the draws, as in `winit_fast.initializers.expression.Operand`.
    """

    is_exact: ClassVar[bool] = True

    value: Value
    streams: Mapping[Draw, str | None]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TorchExpression):
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
        return f"TorchExpression({', '.join(shown)}{more})"

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape other than the author's."""
        if shape != self.value.shape:
            raise ValueError(f"{self!r} is of shape {self.value.shape}, got {shape}")

    def evaluated(self, stream: Stream) -> Tensor:
        """Compute all elements, from the tensor's stream."""
        draws = [one for one in parts(self.value) if isinstance(one, Draw)]
        return evaluate(self.value, {one: partial(self._elements, one, stream) for one in draws})

    def _elements(self, draw: Draw, stream: Stream) -> Tensor:
        tensor = torch.empty(draw.shape, dtype=draw.dtype, device="cpu")
        assert draw.scheme is not None  # otherwise the reduction has refused it
        own = Stream(*draw.own) if draw.own is not None else stream_of(self.streams[draw], stream)
        if tensor.numel():
            fill_tensor(tensor, partial(draw_box, draw.scheme, stream=own))
        return tensor

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Compute all elements, and copy those of the box."""
        whole = torch.empty(self.value.shape, dtype=getattr(torch, out.dtype.name), device="cpu")
        whole.copy_(self.evaluated(stream))
        box.expand(out)[...] = numpy_of(whole)[box.slices]

    def with_streams(self, renamed: Callable[[str], str]) -> "TorchExpression":
        """Rename the streams of the draws, except for those of parts of the tensor."""
        streams = {one: renamed_stream(own, renamed) for one, own in self.streams.items()}
        return TorchExpression(self.value, streams)

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return an expression for the real and imaginary parts."""
        raise TypeError(f"{self!r} is complex, which only torch can fill")


@dataclass(frozen=True, repr=False)
class Given(Initializer):
    """A scheme with a seed and a stream that the author's code itself gives.

    As with `TorchExpression`, a plan that contains it cannot be written to a file.
    """

    initializer: Initializer
    key: int
    stream: Name

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse what the scheme refuses."""
        self.initializer.check(shape, dtype)

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Refuse what the scheme refuses."""
        self.initializer.check_box(box, dtype)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill the box from the given stream."""
        self.initializer.fill_box(out, box, Stream(self.key, self.stream), num_threads)

    def with_streams(self, renamed: Callable[[str], str]) -> "Given":
        """Refuse: the code gives the stream."""
        raise ValueError(f"the code itself gives the stream {self.stream!r} of {self.initializer}")

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return the scheme of the parts, with the same seed and stream."""
        return Given(self.initializer.complex_parts(shape), self.key, self.stream)


def numpy_of(tensor: Tensor) -> Array:
    """View a CPU tensor of any dtype as an array."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in FLOATS:
        array = as_array(tensor.contiguous())
        assert array is not None
        return array
    plain: Array = tensor.resolve_neg().resolve_conj().numpy()
    return plain
