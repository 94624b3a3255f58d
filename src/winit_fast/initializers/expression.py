"""Written expressions: elements computed one by one from draws, such as the log of a uniform."""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from winit_fast.base import dtypes, threads
from winit_fast.base.arguments import integer, utf8
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, logical_shape
from winit_fast.base.names import excerpt, unknown
from winit_fast.initializers.computed import Computed
from winit_fast.initializers.fans import Convention
from winit_fast.initializers.protocol import Elementwise, Initializer, check, described
from winit_fast.initializers.registry import get
from winit_fast.streams.stream import Stream

_CUT = 1 << 15
"""Elements computed at a time: a few arrays of float64 stay in the cache."""

_MAX_LENGTH = 10_000
"""Most characters of an expression."""

_MAX_DEPTH = 200
"""Most operations inside one another; far fewer than Python's limit of calls."""


class Operand(NamedTuple):
    """What one name of an expression stands for.

    Attributes
    ----------
    name : str
    initializer : Initializer
    shape : tuple of int, optional
        Its own shape, which is broadcast to that of the tensor. By default the tensor's.
    stream : str, optional
        The name of its stream, if it is not the tensor's. After a NUL character it is the name of a
        part of the tensor: ``"\\0001"`` is the first draw of several.
    """

    name: str
    initializer: Initializer
    shape: tuple[int, ...] | None = None
    stream: str | None = None


@dataclass(frozen=True, repr=False)
class Expression(Initializer, names=("expression",)):
    """Elements computed from the corresponding elements of draws or of stored values.

    Parameters
    ----------
    text : str
        Assignments and, last, the result, separated by semicolons:
        ``"d = exp(x); d + log(-expm1(-d))"``. It can contain numbers, ``inf``, ``pi``, names,
        parentheses, ``+ - * / **`` and the functions ``abs``, ``arange``, ``ceil``, ``cos``,
        ``exp``, ``expm1``, ``floor``, ``log``, ``log1p``, ``maximum``, ``minimum``, ``round``,
        ``sigmoid``, ``sign``, ``sin``, ``sqrt`` and ``tanh``. ``arange(axis)`` is the position
        along an axis of the tensor, from 0.
    operands : mapping of str to Initializer, or sequence of Operand
        The names that the text uses.
    drawn_in : str, optional
        The floating-point type in which the operands are drawn; by default the tensor's.

    Raises
    ------
    TypeError, ValueError
        If the text contains anything else, or a name has no operand or an operand is not used.

    Notes
    -----
    Operands without a stream use the tensor's stream, so several draws need streams of their own.
    The arithmetic is that of float64, and the result is rounded to float32, and from there to
    narrower types. A mathematical function may differ between machines in the last bit of the
    float64 result, and then rarely in the last bit of the element.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> decay = wf.Expression("log(x)", {"x": wf.RandomUniform(1.0, 16.0)})
    >>> decay
    Expression('log(x)', {'x': RandomUniform(minval=1.0, maxval=16.0)})
    >>> w = decay(64, seed=0, name="A_log")
    >>> x = wf.RandomUniform(1.0, 16.0)(64, seed=0, name="A_log")
    >>> bool((w == np.log(x.astype("float64")).astype("float32")).all())
    True
    """

    text: str
    operands: Any = ()
    drawn_in: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"text must be a str, got {self.text!r}")
        operands = self.operands
        if isinstance(operands, Mapping):
            operands = [(name, *_listed(given)) for name, given in operands.items()]
        if isinstance(operands, (str, bytes)) or not isinstance(operands, Iterable):
            raise TypeError(f"operands must be a mapping or a sequence, got {operands!r}")
        object.__setattr__(self, "operands", tuple(_checked(one) for one in operands))
        names = [one.name for one in self.operands]
        if len(set(names)) != len(names):
            raise ValueError(f"operands must have different names, got {names}")
        used = _parsed(self.text).names
        for name in used:
            if name not in names:
                raise ValueError(unknown(f"a name in text {excerpt(self.text)}", name, names))
        for name in names:
            if name not in used:
                raise ValueError(
                    f"operands has {name!r}, which text {excerpt(self.text)} does not use"
                )
        if self.drawn_in is not None:
            object.__setattr__(self, "drawn_in", dtypes.find(self.drawn_in).name)

    def __repr__(self) -> str:
        operands = ", ".join(f"{one.name!r}: {_shown(one)}" for one in self.operands)
        drawn_in = "" if self.drawn_in is None else f", drawn_in={self.drawn_in!r}"
        return f"Expression({self.text!r}, {{{operands}}}{drawn_in})"

    def get_config(self) -> dict[str, Any]:
        operands = [
            (one.name, described(one.initializer), one.shape, one.stream) for one in self.operands
        ]
        return {"text": self.text, "operands": operands, "drawn_in": self.drawn_in}

    def with_axes(self, convention: Convention, ndim: int) -> "Expression":
        """Set the axes that the operands leave open."""
        operands = [
            one._replace(
                initializer=one.initializer.with_axes(
                    convention, ndim if one.shape is None else len(one.shape)
                )
            )
            for one in self.operands
        ]
        return Expression(self.text, operands, self.drawn_in)

    def with_streams(self, renamed: Callable[[str], str]) -> "Expression":
        """Rename the streams of the operands, except for those of parts of the tensor."""
        operands = [
            one._replace(
                initializer=one.initializer.with_streams(renamed),
                stream=renamed_stream(one.stream, renamed),
            )
            for one in self.operands
        ]
        return Expression(self.text, operands, self.drawn_in)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a type without fractions, an operand that does not fit, and an unknown axis."""
        kind = self._kind(dtype)
        for axis in _parsed(self.text).axes:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(f"arange({axis}) needs that axis, got shape {shape}")
        for one in self.operands:
            own = shape if one.shape is None else one.shape
            if len(own) > len(shape) or any(
                size not in (1, extent)
                for size, extent in zip(reversed(own), reversed(shape), strict=False)
            ):
                raise ValueError(
                    f"operand {one.name!r} of shape {own} cannot be broadcast to {shape}"
                )
            check(one.initializer, own, _kind(one, kind))

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Refuse what an operand refuses."""
        for one in self.operands:
            one.initializer.check_box(_own(one, box), _kind(one, self._kind(dtype)))

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Draw the operands and compute, piece by piece."""
        expanded, kind = box.expand(out), self._kind(out.dtype)
        body = _parsed(self.text).body

        def work(cut: tuple[slice, ...], inner: int | None = 1) -> None:
            piece = box.cut(cut)
            known: dict[str, Any] = {}
            for one in self.operands:
                place = _own(one, piece)
                drawn = np.empty(place.sizes, _kind(one, kind))
                one.initializer.fill_box(drawn, place, stream_of(one.stream, stream), inner)
                known[one.name] = drawn.astype(np.float64)
            with np.errstate(all="ignore"):
                values = np.broadcast_to(_value(body, known, piece), piece.sizes)
                expanded[cut] = dtypes.converted(values, out.dtype)

        if not out.size:
            return
        if all(isinstance(one.initializer, Elementwise) for one in self.operands):
            threads.run(work, cuts(box.sizes, _CUT), threads.resolve(num_threads))
        else:  # a box may have other bits than its cuts
            work(tuple(slice(0, size) for size in box.sizes), num_threads)

    def _kind(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type in which the operands of a tensor of this type are drawn."""
        if dtype not in dtypes.FLOATS:
            raise TypeError(f"dtype must be a floating-point type for an Expression, got {dtype}")
        return dtype if self.drawn_in is None else dtypes.find(self.drawn_in).dtype


def _listed(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


def _checked(given: Any) -> Operand:
    if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= 4:
        raise TypeError(f"operands must be (name, initializer[, shape[, stream]]), got {given!r}")
    name, initializer, shape, stream = (*given, None, None)[:4]
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"operands must have names like variables, got {name!r}")
    if name in _NUMBERS or name in _FUNCTIONS or name == "arange":
        raise ValueError(f"operands must not have the name of a function or number, got {name!r}")
    if not (stream is None or isinstance(stream, str)):
        raise TypeError(f"the stream of an operand must be a name, got {stream!r}")
    if stream is not None:
        utf8("the stream of an operand", stream)
    return Operand(name, get(initializer), None if shape is None else logical_shape(shape), stream)


def _shown(one: Operand) -> str:
    if one.shape is None and one.stream is None:
        return repr(one.initializer)
    return repr(one[1:] if one.stream is not None else one[1:3])


def _kind(one: Operand, drawn_in: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of an operand's elements: stored values have their own."""
    if isinstance(one.initializer, Computed) and one.initializer.values.dtype in dtypes.FLOATS:
        kind: np.dtype[Any] = one.initializer.values.dtype
        return kind
    return drawn_in


def stream_of(own: str | None, stream: Stream) -> Stream:
    """Return the stream of an operand.

    Parameters
    ----------
    own : str, optional
        See `Operand`.
    stream : Stream
        The tensor's.
    """
    if own is None:
        return stream
    return stream.part(own[1:]) if own.startswith("\0") else Stream(stream.seed, own)


def renamed_stream(own: str | None, renamed: Callable[[str], str]) -> str | None:
    """Rename the stream of an operand, unless it follows from the tensor's."""
    return own if own is None or own.startswith("\0") else renamed(own)


def relative(own: str, stream: str) -> str | None:
    """Return the stream of an operand as `Operand` has it, from the full names.

    Examples
    --------
    >>> relative("w", "w"), relative("w\\x001", "w"), relative("v", "w")
    (None, '\\x001', 'v')
    """
    if own == stream:
        return None
    return own.removeprefix(stream) if own.startswith(f"{stream}\0") else own


def _own(one: Operand, box: Box) -> Box:
    """Return the box of an operand that is broadcast to a box of the tensor."""
    shape = box.tensor if one.shape is None else one.shape
    skipped = len(box.tensor) - len(shape)
    places = [
        (0, 1) if extent == 1 else (start, size)
        for extent, start, size in zip(
            shape, box.starts[skipped:], box.sizes[skipped:], strict=True
        )
    ]
    starts, sizes = tuple(start for start, _ in places), tuple(size for _, size in places)
    return Box(shape, starts, sizes, tuple(range(len(shape))))


# ------------------------------------------------------------------------------------------ texts

_NUMBERS = {"inf": np.inf, "pi": np.pi}


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "ceil": (1, np.ceil),
    "cos": (1, np.cos),
    "exp": (1, np.exp),
    "expm1": (1, np.expm1),
    "floor": (1, np.floor),
    "log": (1, np.log),
    "log1p": (1, np.log1p),
    "maximum": (2, np.maximum),
    "minimum": (2, np.minimum),
    "round": (1, np.rint),
    "sigmoid": (1, _sigmoid),
    "sign": (1, np.sign),
    "sin": (1, np.sin),
    "sqrt": (1, np.sqrt),
    "tanh": (1, np.tanh),
}
"""The functions of an expression, with the number of their arguments."""

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


class _Text(NamedTuple):
    """A text that has been checked.

    Attributes
    ----------
    body : list of ast.stmt
    names : tuple of str
        The operands.
    axes : tuple of int
        The axes of which it asks the positions.
    """

    body: list[ast.stmt]
    names: tuple[str, ...]
    axes: tuple[int, ...]


@lru_cache(maxsize=1024)
def _parsed(text: str) -> _Text:
    """Parse and check a text."""
    shown = excerpt(text)
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"text {shown} is longer than {_MAX_LENGTH:,} characters")
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"text {shown} cannot be read: {reason}") from None
    names: dict[str, None] = {}
    axes: list[int] = []
    assigned: set[str] = set()

    def visit(node: ast.expr, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} operations are inside one another")
        match node:
            case ast.Constant(value=int() | float() as number) if type(number) is not bool:
                float(number)
            case ast.Name(id=name):
                if name not in assigned and name not in _NUMBERS:
                    names[name] = None
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                visit(left, depth + 1)
                visit(right, depth + 1)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                visit(operand, depth + 1)
            case ast.Call(func=ast.Name(id="arange"), args=[axis], keywords=[]):
                axes.append(integer("the axis of arange", ast.literal_eval(axis)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if (
                name in _FUNCTIONS and len(args) == _FUNCTIONS[name][0]
            ):
                for each in args:
                    visit(each, depth + 1)
            case _:
                raise ValueError(f"{excerpt(ast.unparse(node))} is not known")

    try:
        for place, statement in enumerate(body, 1):
            match statement:
                case ast.Expr(value=value) if place == len(body):
                    visit(value)
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if place < len(body):
                    visit(value)
                    if name in names or name in _NUMBERS:
                        raise ValueError(f"{name!r} is assigned, but has a value")
                    assigned.add(name)
                case _:
                    raise ValueError("it must be assignments, and last the result")
        if not body:
            raise ValueError("it is empty")
    except (RecursionError, TypeError, OverflowError, ValueError) as error:
        raise ValueError(f"text {shown} cannot be used: {error}") from None
    return _Text(body, tuple(names), tuple(axes))


def _value(body: list[ast.stmt], known: dict[str, Any], piece: Box) -> Any:
    """Compute the elements of a piece, in float64."""

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=number):
                return np.float64(number)  # type: ignore[arg-type]
            case ast.Name(id=name):
                return known[name] if name in known else np.float64(_NUMBERS[name])
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=sign, operand=operand):
                return _OPERATORS[type(sign)](value(operand))
            case ast.Call(func=ast.Name(id="arange"), args=[axis]):
                return _positions(ast.literal_eval(axis), piece)
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return _FUNCTIONS[node.func.id][1](*map(value, node.args))

    for statement in body[:-1]:
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        known[statement.targets[0].id] = value(statement.value)
    assert isinstance(body[-1], ast.Expr)
    return value(body[-1].value)


def _positions(axis: int, piece: Box) -> Array:
    """Return the positions along an axis, as an array that is broadcast along the others."""
    axis %= len(piece.sizes)
    start = piece.starts[axis]
    positions = np.arange(start, start + piece.sizes[axis], dtype=np.float64)
    shape = [1] * len(piece.sizes)
    shape[axis] = -1
    return positions.reshape(shape)
