"""The recorded values of tensors: what the code that is recorded has written to each one so far."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from winit_fast.initializers.protocol import Initializer
from winit_fast.torch.seeding import Name
from winit_fast.torch.values import (
    Cast,
    Constant,
    Draw,
    Held,
    Region,
    Stored,
    Value,
    View,
    c_strides,
    decompose,
    parts,
    patch,
    view,
)


class CannotRecord(ValueError):
    """The author's code does something that cannot be recorded."""


@dataclass(slots=True)
class _Memory:
    """A part of a storage with the layout of one tensor, and its recorded value."""

    tensor: Tensor
    name: str | None
    value: Value
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    end: int
    dtype: torch.dtype
    written: bool = False
    drawn: list[Draw] = field(default_factory=list)  # draws into memory that has no name yet

    def region(self, tensor: Tensor) -> Region:
        """Return the region of a view, with strides of the logical index."""
        shape, strides = tuple(tensor.shape), tensor.stride()
        offset = tensor.storage_offset() - self.offset
        if tensor.dtype != self.dtype:
            raise CannotRecord(f"{self.what} is used as {tensor.dtype}, but is {self.dtype}")
        if shape == self.shape and strides == self.strides and not offset:
            return Region(shape, c_strides(shape), 0)
        own = c_strides(self.shape)
        if self.strides == own:
            return Region(shape, strides, offset)
        first = decompose(offset, self.shape, self.strides)
        last, steps = list(first), []
        for size, stride in zip(shape, strides, strict=True):
            digits = decompose(stride, self.shape, self.strides) if size > 1 else [0] * len(own)
            last = [at + (size - 1) * digit for at, digit in zip(last, digits, strict=True)]
            steps.append(sum(digit * step for digit, step in zip(digits, own, strict=True)))
        if any(at >= size for at, size in zip(last, self.shape, strict=True)):
            raise CannotRecord(f"a view of {self.what} mixes its axes, which are not in C order")
        start = sum(digit * step for digit, step in zip(first, own, strict=True))
        return Region(shape, tuple(steps), start)

    @property
    def what(self) -> str:
        return "a tensor without a name" if self.name is None else f"tensor {self.name!r}"


def _extent(tensor: Tensor) -> int:
    """Number of elements of the storage from a tensor's first to its last."""
    if tensor.is_contiguous():
        return int(tensor.numel())
    if tensor.numel() == 0:
        return 0
    reach = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + int(sum((size - 1) * stride for size, stride in reach))


def _storage(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # raised for sparse tensors, for example
        return None


class Recorder:
    """The values of some named tensors, while code runs under `recording`.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        If two have the same memory, the second is tied to the first.

    Attributes
    ----------
    ties : dict of str to str
        Maps the name of the second to the name of the first.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._storages: dict[int, list[_Memory]] = {}
        self._named: dict[str, _Memory] = {}
        self.ties: dict[str, str] = {}
        self._own: tuple[int, Name] | None = None
        self._loose: dict[Draw, None] = {}
        places: dict[tuple[object, ...], str] = {}
        for name, tensor in tensors.items():
            storage = _storage(tensor)
            if storage is None:
                raise CannotRecord(f"tensor {name!r} has no strided memory: {tensor.layout}")
            place = storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
            if tensor.numel():
                first = places.setdefault(place, name)
                if first != name:
                    self.ties[name] = first
                    continue
            held = Held(tuple(tensor.shape), tensor.dtype, name)
            self._named[name] = self._keep(tensor, held, name)

    def value(self, name: str) -> Value:
        """Return the current value of a named tensor."""
        return self._named[name].value

    def is_written(self, name: str) -> bool:
        """Return whether anything was written to a named tensor."""
        return self._named[name].written

    def name_of(self, tensor: Tensor) -> str | None:
        """Return the name of a tensor object, if it is named and does not share its storage."""
        memories = self._storages.get(_storage(tensor) or 0, ())
        return memories[0].name if len(memories) == 1 and memories[0].tensor is tensor else None

    def set(self, name: str, value: Value) -> None:
        """Set the value of a named tensor."""
        memory = self._named[name]
        memory.value, memory.written = _cast(value, memory.shape, memory.dtype), True
        if self._loose:
            self._land(value)

    def forget(self, names: Iterable[str]) -> None:
        """Reset named tensors to the state before anything was written to them."""
        for name in names:
            memory = self._named.get(name)
            if memory is not None:
                memory.value, memory.written = Held(memory.shape, memory.dtype, name), False

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a named tensor."""
        self._named[name] = self._keep(tensor, Held(tuple(tensor.shape), tensor.dtype, name), name)

    def read(self, tensor: Tensor) -> Value:
        """Return the value of any tensor: the recorded value, or its own elements."""
        memory = self.find(tensor)
        if memory is not None:
            return view(memory.value, memory.region(tensor))
        return known(tensor)

    def write(self, tensor: Tensor, value: Value) -> None:
        """Record that a value is written to a tensor."""
        memory = self.find(tensor) or self.promote(tensor)
        region = memory.region(tensor)
        if isinstance(value, Stored):  # copied, because the code may change it later
            value = Stored(value.shape, value.dtype, value.tensor.clone())
        value = _cast(value, region.sizes, memory.dtype)
        memory.value, memory.written = patch(memory.value, region, value), True
        if self._loose:
            self._land(value)

    def draw(self, tensor: Tensor, scheme: Initializer | None, operation: str) -> None:
        """Record that a scheme fills a tensor; elementwise schemes use indices of the whole."""
        memory = self.find(tensor) or self.promote(tensor)
        region = memory.region(tensor)
        one = Draw(memory.shape, memory.dtype, scheme, operation, memory.name, self._own)
        value = view(one, region)
        # These count from 0 in the region: schemes that are not elementwise, and calls with their
        # own seed or name.
        if not one.is_elementwise or self._own is not None:
            one = Draw(region.sizes, memory.dtype, scheme, operation, memory.name, self._own)
            value = one
        if memory.name is None:
            memory.drawn.append(one)
        memory.value, memory.written = patch(memory.value, region, value), True

    def fresh(self, like: Tensor, value: Value, device: torch.device) -> Tensor:
        """Make a tensor with a recorded value, in memory that is never touched."""
        tensor = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=device)
        memory = self._keep(tensor, value, None)
        memory.written = not isinstance(value, Held)
        if isinstance(value, Draw):
            memory.drawn.append(value)
            self._loose[value] = None
        return tensor

    def register(self, tensor: Tensor) -> Tensor:
        """Register a new tensor whose memory has not been written."""
        if _storage(tensor) is not None:
            self._keep(tensor, Held(tuple(tensor.shape), tensor.dtype, ""), None)
        return tensor

    def name(self, tensors: Mapping[str, Tensor]) -> None:
        """Name tensors that were made during the recording.

        Tensors without a recorded value have known values, namely their own elements.
        """
        taken: dict[int, list[tuple[_Memory, _Memory | None]]] = {}
        for name, tensor in tensors.items():
            base, storage = self.find(tensor), _storage(tensor)
            if storage is None:
                raise CannotRecord(f"tensor {name!r} has no strided memory: {tensor.layout}")
            memory = _Memory(
                tensor, name, self.read(tensor), tuple(tensor.shape), tensor.stride(),
                tensor.storage_offset(), tensor.storage_offset() + _extent(tensor), tensor.dtype,
            )  # fmt: skip
            memory.written = not all(isinstance(one, (Held, View)) for one in parts(memory.value))
            for other, _ in taken.get(storage, ()):
                if other.offset < memory.end and memory.offset < other.end:
                    if _layout(other) != _layout(memory):
                        raise CannotRecord(f"{other.what} and {memory.what} share memory in part")
                    assert other.name is not None
                    self.ties[name] = other.name
                    break
            else:
                taken.setdefault(storage, []).append((memory, base))
        for storage, pairs in taken.items():
            self._storages[storage] = [memory for memory, _ in pairs]
            for memory, base in pairs:
                assert memory.name is not None
                self._named[memory.name] = memory
                self._land(memory.value)
                for draw in () if base is None else base.drawn:
                    self._loose.pop(draw, None)
                    if len(pairs) == 1:
                        object.__setattr__(draw, "home", memory.name)

    def _land(self, value: Value) -> None:
        for one in parts(value):
            if isinstance(one, Draw):
                self._loose.pop(one, None)

    @property
    def unused(self) -> list[Draw]:
        """Return the draws that were made, but never written to a named tensor."""
        return list(self._loose)

    def find(self, tensor: Tensor) -> _Memory | None:
        """Return the memory of a tensor, if the tensor is recorded."""
        storage = _storage(tensor)
        if storage not in self._storages:
            return None
        first = tensor.storage_offset()
        end = first + _extent(tensor)
        touched = [
            memory for memory in self._storages[storage]
            if memory.offset < end and first < memory.end
        ]  # fmt: skip
        for memory in touched:
            if memory.offset <= first and end <= memory.end:
                return memory
        if touched:
            names = ", ".join(repr(memory.name) for memory in touched[:3])
            raise CannotRecord(f"one view reaches over several tensors: {names}")
        return None

    def _keep(self, tensor: Tensor, value: Value, name: str | None) -> _Memory:
        storage = _storage(tensor)
        assert storage is not None
        shape, strides, offset = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        end = offset + _extent(tensor)
        memory = _Memory(tensor, name, value, shape, strides, offset, end, tensor.dtype)
        self._storages.setdefault(storage, []).append(memory)
        return memory

    def promote(self, tensor: Tensor) -> _Memory:
        """Start to record an ordinary tensor, with all of its storage."""
        size = tensor.untyped_storage().nbytes() // max(1, tensor.itemsize)
        if tensor.numel() == size and _extent(tensor) == size and 0 not in tensor.stride():
            base = tensor.detach()
        else:
            base = torch.as_strided(tensor.detach(), (size,), (1,), 0)
        return self._keep(base, Stored(tuple(base.shape), base.dtype, base), None)

    @contextmanager
    def given(self, key: int, name: Name) -> Iterator[None]:
        """Inside this context, draws use the seed and the name given in the call itself."""
        self._own = key, name
        try:
            yield
        finally:
            self._own = None


def _layout(memory: _Memory) -> tuple[object, ...]:
    return memory.offset, memory.shape, memory.strides, memory.dtype


def known(tensor: Tensor) -> Value:
    """Return the value of a tensor whose elements are known."""
    if tensor.numel() == 1 and not tensor.is_meta:
        return Constant(tuple(tensor.shape), tensor.dtype, tensor.detach().reshape(()).item())
    return Stored(tuple(tensor.shape), tensor.dtype, tensor.detach())


def _cast(value: Value, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
    """Broadcast to a shape and round to a type, as ``copy_`` does."""
    if value.shape == shape and value.dtype == dtype:
        return value
    if isinstance(value, Constant):
        number = torch.tensor(value.number, dtype=value.dtype).to(dtype).item()
        return Constant(shape, dtype, number)
    return Cast(shape, dtype, value)
