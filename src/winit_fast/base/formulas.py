"""Formulas over named numbers, such as ``0.02 / sqrt(2 * n_layer)``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from winit_fast.base.names import unknown

Number = int | float

_MAX_BITS = 1 << 12
"""Of an integer power: far beyond any float, and no formula can keep the machine busy."""


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        if base.bit_length() * exponent > _MAX_BITS:
            raise OverflowError("a power is too large")
    elif base < 0 and exponent != int(exponent):
        raise ValueError("a root of a negative number is not real")
    power: Number = base**exponent
    return power


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: _power,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    "sqrt": math.sqrt,
    "log": math.log,
    "min": min,
    "max": max,
}


def evaluate(formula: Number | str, numbers: Mapping[str, Number]) -> Number:
    """Value of a formula.

    The grammar is Python's, cut down to arithmetic, so that a recipe stays data: numbers, names,
    ``+ - * / // **``, parentheses, ``sqrt``, ``log``, ``min`` and ``max``. Integers stay integers
    until a division or a function makes them floats.

    Parameters
    ----------
    formula : int, float or str
        A number stands for itself.
    numbers : mapping of str to int or float
        The names that the formula may use.

    Returns
    -------
    int or float

    Raises
    ------
    ValueError
        If the formula uses anything else, or an unknown name, or has no value; the message shows
        it.

    Examples
    --------
    >>> evaluate("4 * n_embd", {"n_embd": 1600})
    6400
    >>> evaluate("0.02 / sqrt(2 * n_layer)", {"n_layer": 50})
    0.002
    """
    if not isinstance(formula, str):
        return formula

    def compute(function: Callable[..., Number], *operands: Number) -> Number:
        try:
            return function(*operands)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(f"formula {formula!r} has no value: {error}") from None

    def value(node: ast.expr) -> Number:
        match node:
            case ast.Constant(value=int() | float() as number) if type(number) is not bool:
                return number
            case ast.Name(id=name):
                if name not in numbers:
                    raise ValueError(unknown(f"a name in formula {formula!r}", name, numbers))
                return numbers[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return compute(_OPERATORS[type(op)], value(left), value(right))
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](value(operand))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return compute(_FUNCTIONS[name], *map(value, args))
        raise ValueError(f"{ast.unparse(node)!r} is not arithmetic, in formula {formula!r}")

    try:
        body = ast.parse(formula, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"formula {formula!r} cannot be read: {reason}") from None
    try:
        return value(body)
    except RecursionError:
        raise ValueError(f"formula {formula!r} cannot be read: it is too deep") from None
