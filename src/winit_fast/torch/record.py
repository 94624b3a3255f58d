"""Records the operations of the author's code on a module's tensors, without executing them.

Two modes of torch intercept everything: one the calls of torch's functions, the other the
operations below them. An operation that would write a named tensor, or that uses random numbers, is
not executed. Its outcome is kept as a `Value`, and its result is memory of the right size that is
never touched. Computations with known numbers run as they are. So the author's code sees the
module's own tensors, on their own device, with their own attributes. No byte of the tensors is read
or written, no memory is used for draws, and no generator changes its state.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from winit_fast.initializers.constants import Identity
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.sparse import Sparse
from winit_fast.streams.stream import seed_number
from winit_fast.streams.truncation import relative_bounds
from winit_fast.torch.entries import WHOLE, arrival, originals, question
from winit_fast.torch.seeding import Name
from winit_fast.torch.values import (
    Call,
    Cast,
    Constant,
    Draw,
    Held,
    Patch,
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

aten = torch.ops.aten


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
        return _known(tensor)

    def write(self, tensor: Tensor, value: Value) -> None:
        """Record that a value is written to a tensor."""
        memory = self.find(tensor) or self._promote(tensor)
        region = memory.region(tensor)
        if isinstance(value, Stored):  # copied, because the code may change it later
            value = Stored(value.shape, value.dtype, value.tensor.clone())
        value = _cast(value, region.sizes, memory.dtype)
        memory.value, memory.written = patch(memory.value, region, value), True
        if self._loose:
            self._land(value)

    def draw(self, tensor: Tensor, scheme: Initializer | None, operation: str) -> None:
        """Record that a scheme fills a tensor; elementwise schemes use indices of the whole."""
        memory = self.find(tensor) or self._promote(tensor)
        region = memory.region(tensor)
        one = Draw(memory.shape, memory.dtype, scheme, operation, memory.name, self._own)
        value = view(one, region)
        # such indices count from 0 in the region
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

    def made(self, tensor: Tensor) -> Tensor:
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

    def _promote(self, tensor: Tensor) -> _Memory:
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


def _known(tensor: Tensor) -> Value:
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


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Record the operations of the code inside, in this thread."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_Calls(recorder))
        stack.enter_context(_Operations(recorder))
        yield


# ------------------------------------------------------------------------------------- functions

_SCHEMES: dict[str, Callable[[Mapping[str, Any]], Initializer]] = {
    "trunc_normal_": lambda given: truncated(given["mean"], given["std"], given["a"], given["b"]),
    "orthogonal_": lambda given: Orthogonal(float(given["gain"]), column_axis=0),
    "sparse_": lambda given: Sparse(float(given["sparsity"]), float(given["std"])),
    "dirac_": lambda given: Dirac(int(given["groups"]), in_axis=1, out_axis=0),
}
"""Entries of torch.nn.init that consist of several operations."""

_READERS = {"numpy", "__array__", "tolist", "__dlpack__", "share_memory_"}
"""Methods that access memory without an operation."""


def truncated(mean: float, std: float, a: float, b: float) -> Initializer:
    """Return the scheme of a normal truncated to absolute bounds.

    Examples
    --------
    >>> truncated(0.0, 0.5, -1.0, 1.0)
    TruncatedNormal(stddev=0.5)
    """
    mean, std, a, b = float(mean), float(std), float(a), float(b)
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")
    return TruncatedNormal(mean, std, *relative_bounds(mean, std, a, b))


class _Calls(TorchFunctionMode):
    """Intercepts the calls of torch's functions, and of this package's."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = question(func)
        if asked in _LOOKED_AT:
            come = arrival(asked, args, kwargs, sys._getframe(1))
            if come is not None:
                if come.name in _SCHEMES:
                    return self._fill(come.name, come.arguments)
                # Call the original function: the name may be bound to another one.
                func, args, kwargs = _torch()[come.name], (), come.arguments
        if getattr(func, "__module__", None) == "winit_fast.torch.init":
            args = args or (kwargs.pop("tensor"),)
            return self._ours(func.__name__, *args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _READERS and args and self._recorder.find(args[0]) is not None:
            return self._read(name, func, args, kwargs)
        if name in ("tensor", "as_tensor") and getattr(torch, name) == func:
            return self._known(func, args, kwargs)
        if name == "__set__" and func == _SET_DATA:
            return self._set_data(*args)
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs)

    def _read(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Let code read elements that are known, but not write them."""
        memory, value = self._recorder.find(args[0]), self._recorder.read(args[0])
        assert memory is not None
        if memory.name is not None or not isinstance(value, (Constant, Stored)):
            raise CannotRecord(f"{name}() reaches the memory of {memory.what}")
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            result = func(_elements(value).clone(), *args[1:], **kwargs)
        if isinstance(result, np.ndarray):
            result.flags.writeable = False
        return result

    def _known(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record the known elements of a meta tensor that is made from numbers."""
        with torch._C.DisableTorchFunction():
            result = func(*args, **kwargs)
            if not result.is_meta or any(isinstance(one, Tensor) for one in args[:1]):
                return result
            with _disable_current_modes():
                known = func(*args, **{**kwargs, "device": "cpu"})
                return self._recorder.fresh(result, _known(known), result.device)

    def _fill(self, name: str, arguments: Mapping[str, Any]) -> Any:
        tensor = arguments["tensor"]
        with torch._C.DisableTorchFunction():
            if tensor.numel():
                self._recorder.draw(tensor, _SCHEMES[name](arguments), name)
        return True  # torch asked for is_meta; True makes its function return the tensor unchanged

    def _ours(self, entry: str, tensor: Tensor, /, *args: Any, **kwargs: Any) -> Tensor:
        """Record a call of this package's own function of the same name."""
        seed, stream = kwargs.pop("seed", None), kwargs.pop("name", None)
        if seed is None:
            with self:
                _torch()[entry](tensor, *args, **kwargs)
        else:
            with self._recorder.given(seed_number(seed), stream), self:
                _torch()[entry](tensor, *args, **kwargs)
        return tensor

    def _set_data(self, tensor: Tensor, other: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            recorder = self._recorder
            memory = recorder.find(tensor)
            new = recorder.find(other)
            if (memory is None or memory.name is None) and (new is None or new.name is None):
                if other.is_meta != tensor.is_meta:  # known numbers, which were computed
                    other = recorder.fresh(other, recorder.read(other), tensor.device)
                tensor.data = other
                return
            if memory is None:
                memory = recorder._promote(tensor)
            if other.shape != tensor.shape or other.dtype != tensor.dtype:
                raise CannotRecord(
                    f".data of {memory.what} is set to shape {tuple(other.shape)} of {other.dtype}"
                )
            recorder.write(tensor, recorder.read(other))


_SET_DATA = Tensor.data.__set__
_LOOKED_AT = {"is_meta", WHOLE}
"""The functions that carry more information than the operations below them."""


@cache
def _torch() -> dict[str, Callable[..., Any]]:
    return originals()


# ------------------------------------------------------------------------------------ operations


class _Schema(NamedTuple):
    """The effect of an operation on its arguments.

    Attributes
    ----------
    written : tuple of (int or str)
        Positions, or names, of the arguments that the operation writes.
    names : tuple of str
        Names of all arguments.
    returns_written : bool
        Whether the results are the arguments that the operation writes.
    """

    written: tuple[int, ...]
    names: tuple[str, ...]
    returns_written: bool


@cache
def _schema(func: Any) -> _Schema:
    schema = func._schema
    written = tuple(
        position
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    names = tuple(argument.name for argument in schema.arguments)
    returns = [result.alias_info is not None for result in schema.returns]
    return _Schema(written, names, bool(returns) and all(returns))


def _number(value: Any) -> float:
    return float(value)


def _normal(mean: Any = 0.0, std: Any = 1.0, *rest: Any, **others: Any) -> Initializer:
    return RandomNormal(_number(mean), _number(std))


def _uniform(low: Any = 0.0, high: Any = 1.0, *rest: Any, **others: Any) -> Initializer:
    low, high = _number(others.get("from", low)), _number(others.get("to", high))
    # As in torch, an empty interval gives its bound.
    return RandomNormal(low, 0.0) if low == high else RandomUniform(low, high)


_IN_PLACE = {
    aten.normal_.default: _normal,
    aten.uniform_.default: _uniform,
}
"""Operations that draw into a tensor: the scheme, from the other arguments."""

_MADE: dict[str, Callable[..., Initializer]] = {
    "aten::randn": lambda *args, **kwargs: RandomNormal(0.0, 1.0),
    "aten::randn_like": lambda *args, **kwargs: RandomNormal(0.0, 1.0),
    "aten::rand": lambda *args, **kwargs: RandomUniform(0.0, 1.0),
    "aten::rand_like": lambda *args, **kwargs: RandomUniform(0.0, 1.0),
}
"""Operations that return a new tensor of drawn numbers."""

_MAKES: dict[str, Any] = {
    **dict.fromkeys(
        f"aten::{name}"
        for name in ("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided")
    ),
    **{f"aten::{name}": lambda args: 0 for name in ("zeros", "zeros_like", "new_zeros")},
    **{f"aten::{name}": lambda args: 1 for name in ("ones", "ones_like", "new_ones")},
    "aten::full": lambda args: args[1],
    "aten::full_like": lambda args: args[1],
    "aten::new_full": lambda args: args[2],
}
"""Operations that make an empty or constant tensor: its number, None if empty."""


class _Operations(TorchDispatchMode):
    """Intercepts the operations."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recorder = self._recorder
        make = _IN_PLACE.get(func)
        if make is not None:
            if args[0].numel():
                recorder.draw(args[0], make(*args[1:], **kwargs), func._schema.name)
            return args[0]
        if func.is_view:
            return func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            return self._drawn(func, args, kwargs)
        name = func._schema.name
        if name in _MAKES:
            return self._made(func, args, kwargs)
        if not any(recorder.find(tensor) is not None for tensor in _tensors((args, kwargs))):
            return self._unrecorded(func, args, kwargs)
        if func in _WRITES:
            recorder.write(args[0], _WRITES[func](recorder, *args))
            return args[0]
        return self._computed(func, args, kwargs)

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Make an empty or constant tensor, in memory that is never touched."""
        recorder = self._recorder
        number = _MAKES[func._schema.name]
        if number is None or kwargs.get("layout") not in (None, torch.strided):
            return recorder.made(func(*args, **kwargs))
        found = list(_tensors(args))
        device = kwargs.get("device") or (found[0].device if found else torch.device("cpu"))
        given = kwargs if found and kwargs.get("device") is None else {**kwargs, "device": "meta"}
        like = func(*_on_meta(args), **_on_meta(given))
        value = number(args)
        if isinstance(value, Tensor):
            value = value.item()
        value = torch.tensor(value).to(like.dtype).item()
        constant = Constant(tuple(like.shape), like.dtype, value)
        return recorder.fresh(like, constant, torch.device(device))

    def _unrecorded(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation without recorded tensors; record the elements of a new meta tensor."""
        result = func(*args, **kwargs)
        if (
            isinstance(result, Tensor)
            and result.is_meta
            and not any(True for _ in _tensors((args, kwargs)))
            and not _schema(func).written
        ):
            known = func(*args, **{**kwargs, "device": torch.device("cpu")})
            return self._recorder.fresh(result, _known(known), result.device)
        return result

    def _drawn(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record a draw of another kind."""
        schema, recorder = _schema(func), self._recorder
        name = func._schema.name
        if schema.written:
            for position in schema.written:
                written = _argument(schema, position, args, kwargs)
                recorder.draw(written, None, name)
            return _argument(schema, schema.written[0], args, kwargs)
        found = list(_tensors((args, kwargs)))
        given = kwargs if found else {**kwargs, "device": "meta"}
        like = func(*_on_meta(args), **_on_meta(given))
        scheme: Initializer | None = _MADE[name](*args, **kwargs) if name in _MADE else None
        if func is aten.normal.float_float:
            scheme = _normal(*args[:2])
        device = kwargs.get("device") or (found[0].device if found else torch.device("cpu"))

        def record(result: Any) -> Any:
            draw = Draw(tuple(result.shape), result.dtype, scheme, name)
            return recorder.fresh(result, draw, device)

        return _map(record, like)

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record the results of an operation on recorded values."""
        schema, recorder = _schema(func), self._recorder
        values = _map(recorder.read, (args, kwargs))
        if not schema.written and all(
            isinstance(value, (Constant, Stored)) for value in _values(values)
        ):
            known_args, known_kwargs = _map_values(_elements, values)
            return func(*known_args, **known_kwargs)
        if func is aten._local_scalar_dense.default:
            raise CannotRecord(f"the code reads an element of {self._what(args)}")
        written = [_argument(schema, at, args, kwargs) for at in schema.written]
        if written and schema.returns_written:
            for position, tensor in enumerate(written):
                shape = tuple(tensor.shape)
                call = Call(shape, tensor.dtype, func, values[0], values[1], position)
                recorder.write(tensor, _simplified(call))
            return written[0] if len(written) == 1 else tuple(written)
        if written:
            raise CannotRecord(f"the code calls {func} on {self._what(args)}")
        found = list(_tensors((args, kwargs)))
        device = kwargs.get("device") or found[0].device
        try:
            meta_kwargs = _on_meta(kwargs)
            like = func(*_on_meta(args), **meta_kwargs)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise CannotRecord(f"the code calls {func} on {self._what(args)}: {error}") from None
        position = -1

        def record(result: Any) -> Any:
            nonlocal position
            position += 1
            call = Call(tuple(result.shape), result.dtype, func, values[0], values[1], position)
            return recorder.fresh(result, _simplified(call), device)

        return _map(record, like)

    def _what(self, args: Any) -> str:
        for tensor in _tensors(args):
            memory = self._recorder.find(tensor)
            if memory is not None and memory.name is not None:
                return memory.what
        return "numbers that are drawn"


def _copied(recorder: Recorder, tensor: Tensor, source: Tensor, *rest: Any) -> Value:
    return recorder.read(source)


def _filled(recorder: Recorder, tensor: Tensor, number: Any) -> Value:
    if isinstance(number, Tensor):
        return recorder.read(number)
    number = torch.tensor(number).to(tensor.dtype).item()
    return Constant(tuple(tensor.shape), tensor.dtype, number)


_WRITES: dict[Any, Callable[..., Value]] = {
    aten.copy_.default: _copied,
    aten.fill_.Scalar: _filled,
    aten.fill_.Tensor: _filled,
    aten.zero_.default: lambda recorder, tensor: _filled(recorder, tensor, 0),
}
"""Operations that write an existing value."""


def _simplified(call: Call) -> Value:
    """Evaluate an elementwise operation on a constant, and apply it to the parts of a patch."""
    first = call.args[0] if call.args else None
    alone = not any(True for _ in _values((call.args[1:], call.kwargs)))
    if (
        not isinstance(first, Value)
        or not alone
        or first.shape != call.shape
        or torch.Tag.pointwise not in call.function.tags
    ):
        if call.function is aten.eye.m_out:
            return Draw(call.shape, call.dtype, Identity(), "eye_")
        return call
    if isinstance(first, Constant):
        one = torch.full((), first.number, dtype=first.dtype)
        result = call.function(one, *call.args[1:], **call.kwargs)
        return Constant(call.shape, call.dtype, result.item())
    if isinstance(first, Patch):
        base, value = (
            _simplified(
                Call(part.shape, call.dtype, call.function, (part, *call.args[1:]), call.kwargs, 0)
            )
            for part in (first.base, first.value)
        )
        return Patch(call.shape, call.dtype, base, first.region, value)
    return call


def _elements(value: Value) -> Tensor:
    """Return the elements of a known value; a constant uses no memory."""
    if isinstance(value, Constant):
        return torch.full((), value.number, dtype=value.dtype).expand(value.shape)
    assert isinstance(value, Stored)
    return value.tensor


def _tensors(arguments: Any) -> Iterator[Tensor]:
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, dict):
        for item in arguments.values():
            yield from _tensors(item)
    elif isinstance(arguments, (list, tuple)):
        for item in arguments:
            yield from _tensors(item)


def _values(arguments: Any) -> Iterator[Value]:
    if isinstance(arguments, Value):
        yield arguments
    elif isinstance(arguments, dict):
        for item in arguments.values():
            yield from _values(item)
    elif isinstance(arguments, (list, tuple)):
        for item in arguments:
            yield from _values(item)


def _map(function: Callable[[Tensor], Any], arguments: Any) -> Any:
    """Replace every tensor among arguments."""
    if isinstance(arguments, Tensor):
        return function(arguments)
    if isinstance(arguments, dict):
        return {key: _map(function, item) for key, item in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        return type(arguments)([_map(function, item) for item in arguments])
    return arguments


def _map_values(function: Callable[[Value], Any], arguments: Any) -> Any:
    if isinstance(arguments, Value):
        return function(arguments)
    if isinstance(arguments, dict):
        return {key: _map_values(function, item) for key, item in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        return type(arguments)([_map_values(function, item) for item in arguments])
    return arguments


def _on_meta(arguments: Any) -> Any:
    """Replace the tensors among arguments by meta tensors of the same shape and dtype."""

    def twin(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")

    result = _map(twin, arguments)
    if isinstance(result, dict) and result.get("device") is not None:
        result["device"] = torch.device("meta")
    return result


def _argument(schema: _Schema, position: int, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs[schema.names[position]]
