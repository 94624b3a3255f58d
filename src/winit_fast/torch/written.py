"""Writes what the author's code computes from draws as an expression without torch."""

import ast
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

from winit_fast.initializers.computed import MAX_SIZE, Computed
from winit_fast.initializers.expression import Expression, Operand
from winit_fast.torch.expressions import numpy_of
from winit_fast.torch.memory import FLOATS
from winit_fast.torch.nested import instances
from winit_fast.torch.values import Call, Cast, Constant, Draw, Stored, Value, View


def written(value: Value, streams: Mapping[Draw, str | None]) -> Expression | None:
    """Write a value as an expression, or return None if that cannot say it.

    Parameters
    ----------
    value : Value
    streams : mapping of Draw to str or None
        The streams of the value's draws, as in `winit_fast.initializers.expression.Operand`.
    """
    if value.dtype not in FLOATS:
        return None
    writer = _Writer(value, streams)
    try:
        result = writer.write(value)
        kinds = writer.drawn_in
        if len(kinds) != 1:
            return None
        drawn_in = None if kinds == {value.dtype} else FLOATS[kinds.pop()].name
        body = ast.parse("\n".join([*writer.lines, result])).body
        text = "; ".join(map(ast.unparse, body))  # with the parentheses that are needed
        return Expression(text, writer.operands, drawn_in)
    except (RecursionError, ValueError, _Unwritten):  # too long, or too deep
        return None


class _Unwritten(Exception):
    """An operation that no expression has."""


class _Writer:
    """Writes values, each once: the result of an operation that is used again gets a name."""

    def __init__(self, whole: Value, streams: Mapping[Draw, str | None]) -> None:
        self._shape = whole.shape
        self._uses = _uses(whole)
        self._streams = streams
        self._known: dict[int, str] = {}
        self._places: dict[tuple[Draw, tuple[int, ...]], str] = {}
        self.lines: list[str] = []
        self.operands: list[Operand] = []
        self.drawn_in: set[torch.dtype] = set()

    def write(self, value: Any) -> str:
        """Return the text of a value; assignments that it needs are appended to `lines`."""
        if isinstance(value, (bool, complex)):
            raise _Unwritten
        if isinstance(value, (int, float)):
            return _number(value)
        if not isinstance(value, Value):
            raise _Unwritten
        if id(value) not in self._known:
            self._known[id(value)] = self._written(value)
        return self._known[id(value)]

    def _written(self, value: Value) -> str:
        if isinstance(value, Constant):
            return self.write(value.number)
        if not value.dtype.is_floating_point:
            raise _Unwritten
        if isinstance(value, Draw):
            return self._draw(value, value.shape)
        if isinstance(value, View) and isinstance(value.base, Draw):
            if not value.region.is_whole(value.base.shape):
                raise _Unwritten
            return self._draw(value.base, value.shape)
        if isinstance(value, Stored):
            return self._stored(value)
        if isinstance(value, Cast):
            return self.write(value.value)
        if isinstance(value, Call):
            text = self._call(value)
            if self._uses[id(value)] > 1:
                self.lines.append(f"y{len(self.lines) + 1} = {text}")
                return f"y{len(self.lines)}"
            return text
        raise _Unwritten

    def _draw(self, draw: Draw, shape: tuple[int, ...]) -> str:
        place = draw, shape
        if place in self._places:
            return self._places[place]
        if draw.scheme is None or draw.own is not None or draw.dtype not in FLOATS:
            raise _Unwritten
        if not draw.is_elementwise and shape != draw.shape:
            raise _Unwritten
        self.drawn_in.add(draw.dtype)
        name = f"x{len(self.operands) + 1}"
        own_shape = None if shape == self._shape else shape
        self.operands.append(Operand(name, draw.scheme, own_shape, self._streams[draw]))
        self._places[place] = name
        return name

    def _stored(self, value: Stored) -> str:
        if value.tensor.numel() > MAX_SIZE or value.dtype not in FLOATS:
            raise _Unwritten
        name = f"x{len(self.operands) + 1}"
        shape = None if value.shape == self._shape else value.shape
        self.operands.append(Operand(name, Computed(numpy_of(value.tensor)), shape))
        return name

    def _call(self, call: Call) -> str:
        name = call.function._schema.name.removeprefix("aten::").removesuffix("_")
        write = _CALLS.get(name)
        if write is None or call.position:
            raise _Unwritten
        try:
            return write(self, *call.args, **call.kwargs)
        except TypeError:  # an argument that is not among those of _CALLS
            raise _Unwritten from None


def _uses(whole: Value) -> Counter[int]:
    """Count how often each value is used by others, by its id."""
    uses = Counter[int]()
    stack = [whole]
    while stack:
        one = stack.pop()
        if isinstance(one, Call):
            inner = list(instances(Value, (one.args, one.kwargs)))
        else:
            inner = [one.value] if isinstance(one, Cast) else []
        for each in inner:
            uses[id(each)] += 1
            if uses[id(each)] == 1:
                stack.append(each)
    return uses


def _number(number: float) -> str:
    number = float(number)
    if math.isnan(number):
        raise _Unwritten
    return repr(number) if math.copysign(1.0, number) > 0 else f"({number!r})"


def _function(name: str) -> Callable[[_Writer, Any], str]:
    return lambda writer, x: f"{name}({writer.write(x)})"


def _operator(symbol: str) -> Callable[[_Writer, Any, Any], str]:
    return lambda writer, x, y: f"({writer.write(x)} {symbol} {writer.write(y)})"


def _sum(symbol: str) -> Callable[..., str]:
    def write(writer: _Writer, x: Any, y: Any, alpha: float = 1) -> str:
        left, right = writer.write(x), writer.write(y)
        if alpha != 1:
            right = f"{_number(alpha)} * {right}"
        elif right.startswith("(-") and isinstance(y, (int, float)):
            return f"({left} {'+' if symbol == '-' else '-'} {_number(-y)})"
        return f"({left} {symbol} {right})"

    return write


def _turned(writer: _Writer, x: Any, y: Any, alpha: float = 1) -> str:
    return _sum("-")(writer, y, x, alpha)


def _clamped(writer: _Writer, x: Any, low: Any = None, high: Any = None, **named: Any) -> str:
    low, high = named.pop("min", low), named.pop("max", high)
    if named:
        raise _Unwritten
    text = writer.write(x)
    if low is not None:
        text = f"maximum({text}, {writer.write(low)})"
    return text if high is None else f"minimum({text}, {writer.write(high)})"


def _copied(writer: _Writer, x: Any, **kwargs: Any) -> str:
    return writer.write(x)


_CALLS: dict[str, Callable[..., str]] = {
    **{
        name: _function(name)
        for name in (
            "abs", "ceil", "cos", "exp", "expm1", "floor", "log", "log1p", "round", "sigmoid",
            "sign", "sin", "sqrt", "tanh",
        )
    },
    "neg": lambda writer, x: f"(-{writer.write(x)})",
    "reciprocal": lambda writer, x: f"(1.0 / {writer.write(x)})",
    "rsqrt": lambda writer, x: f"(1.0 / sqrt({writer.write(x)}))",
    "square": lambda writer, x: f"({writer.write(x)} ** 2.0)",
    "add": _sum("+"),
    "sub": _sum("-"),
    "rsub": _turned,
    "mul": _operator("*"),
    "div": _operator("/"),
    "true_divide": _operator("/"),
    "pow": _operator("**"),
    "maximum": lambda writer, x, y: f"maximum({writer.write(x)}, {writer.write(y)})",
    "minimum": lambda writer, x, y: f"minimum({writer.write(x)}, {writer.write(y)})",
    "clamp": _clamped,
    "clip": _clamped,
    "clamp_min": _clamped,
    "clamp_max": lambda writer, x, high: _clamped(writer, x, None, high),
    **dict.fromkeys(("clone", "contiguous", "_to_copy", "alias", "detach"), _copied),
}  # fmt: skip
"""The operations that an expression has, by their names in torch."""
