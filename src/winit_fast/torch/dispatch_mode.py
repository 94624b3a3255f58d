"""Records the operations below torch's functions."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from winit_fast.initializers.constants import Identity
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform
from winit_fast.initializers.protocol import Initializer
from winit_fast.torch.nested import instances, replaced
from winit_fast.torch.recorder import CannotRecord, Recorder, known
from winit_fast.torch.values import Call, Constant, Draw, Patch, Stored, Value, elements

aten = torch.ops.aten


class _Schema(NamedTuple):
    """The effect of an operation on its arguments.

    Attributes
    ----------
    written : tuple of int
        Positions of the arguments that the operation writes.
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

_NEW_DRAWS: dict[str, Callable[..., Initializer]] = {
    "aten::randn": lambda *args, **kwargs: RandomNormal(0.0, 1.0),
    "aten::randn_like": lambda *args, **kwargs: RandomNormal(0.0, 1.0),
    "aten::rand": lambda *args, **kwargs: RandomUniform(0.0, 1.0),
    "aten::rand_like": lambda *args, **kwargs: RandomUniform(0.0, 1.0),
}
"""Operations that return a new tensor of drawn numbers."""

_NEW_CONSTANTS: dict[str, Any] = {
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
"""Operations that make an empty or constant tensor.

Each has a function of its arguments that returns the number; None if the tensor is empty.
"""


class DispatchMode(TorchDispatchMode):
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
        if name in _NEW_CONSTANTS:
            return self._constant(func, args, kwargs)
        if not any(
            recorder.find(tensor) is not None for tensor in instances(Tensor, (args, kwargs))
        ):
            return self._unrecorded(func, args, kwargs)
        if func in _WRITES:
            recorder.write(args[0], _WRITES[func](recorder, *args))
            return args[0]
        return self._computed(func, args, kwargs)

    def _constant(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Make an empty or constant tensor, in memory that is never touched."""
        recorder = self._recorder
        number = _NEW_CONSTANTS[func._schema.name]
        if number is None or kwargs.get("layout") not in (None, torch.strided):
            return recorder.register(func(*args, **kwargs))
        tensors = list(instances(Tensor, args))
        device = kwargs.get("device") or (tensors[0].device if tensors else torch.device("cpu"))
        given = kwargs if tensors and kwargs.get("device") is None else {**kwargs, "device": "meta"}
        like = func(*_on_meta(args), **_on_meta(given))
        value = number(args)
        if isinstance(value, Tensor):
            value = value.item()
        value = torch.tensor(value).to(like.dtype).item()
        constant = Constant(tuple(like.shape), like.dtype, value)
        return recorder.fresh(like, constant, torch.device(device))

    def _unrecorded(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation that has no recorded tensor among its arguments.

        If it makes a meta tensor of numbers alone, record the elements that it has on a CPU.
        """
        result = func(*args, **kwargs)
        if (
            isinstance(result, Tensor)
            and result.is_meta
            and not any(True for _ in instances(Tensor, (args, kwargs)))
            and not _schema(func).written
        ):
            made = func(*args, **{**kwargs, "device": torch.device("cpu")})
            return self._recorder.fresh(result, known(made), result.device)
        return result

    def _drawn(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record a random operation other than those of _IN_PLACE."""
        schema, recorder = _schema(func), self._recorder
        name = func._schema.name
        if schema.written:
            for position in schema.written:
                written = _argument(schema, position, args, kwargs)
                recorder.draw(written, None, name)
            return _argument(schema, schema.written[0], args, kwargs)
        tensors = list(instances(Tensor, (args, kwargs)))
        given = kwargs if tensors else {**kwargs, "device": "meta"}
        like = func(*_on_meta(args), **_on_meta(given))
        scheme: Initializer | None = None
        if name in _NEW_DRAWS:
            scheme = _NEW_DRAWS[name](*args, **kwargs)
        elif func is aten.normal.float_float:
            scheme = _normal(*args[:2])
        device = kwargs.get("device") or (tensors[0].device if tensors else torch.device("cpu"))

        def record(result: Any) -> Any:
            draw = Draw(tuple(result.shape), result.dtype, scheme, name)
            return recorder.fresh(result, draw, device)

        return replaced(Tensor, record, like)

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record the results of an operation on recorded values."""
        schema, recorder = _schema(func), self._recorder
        values = replaced(Tensor, recorder.read, (args, kwargs))
        if not schema.written and all(
            isinstance(value, (Constant, Stored)) for value in instances(Value, values)
        ):
            known_args, known_kwargs = replaced(Value, elements, values)
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
        tensors = list(instances(Tensor, (args, kwargs)))
        device = kwargs.get("device") or tensors[0].device
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

        return replaced(Tensor, record, like)

    def _what(self, args: Any) -> str:
        for tensor in instances(Tensor, args):
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
    alone = not any(True for _ in instances(Value, (call.args[1:], call.kwargs)))
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


def _on_meta(arguments: Any) -> Any:
    """Replace the tensors among arguments by meta tensors of the same shape and dtype."""

    def twin(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")

    result = replaced(Tensor, twin, arguments)
    if isinstance(result, dict) and result.get("device") is not None:
        result["device"] = torch.device("meta")
    return result


def _argument(schema: _Schema, position: int, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs[schema.names[position]]
