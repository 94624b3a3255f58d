"""Formulas of named numbers, such as ``0.02 / sqrt(2 * n_layer)``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from winit_fast.base.names import excerpt, unknown

Number = int | float

_MAX_LENGTH = 1000
"""Most characters of a formula."""

_MAX_BITS = 1 << 12
"""Most bits of an integer: far more than any float needs, and few enough that a formula is fast."""


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        if base.bit_length() * exponent > _MAX_BITS:  # checked before the power is computed
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
    """Compute the value of a formula.

    A formula is a Python expression that contains only numbers, names, ``+ - * / // **``,
    parentheses, ``sqrt``, ``log``, ``min`` and ``max``, so that a file of rules cannot run code.
    Integers remain integers until a division or a function returns a float.

    Parameters
    ----------
    formula : int, float or str
        A number is its own value.
    numbers : mapping of str to int or float
        The names that the formula may use.

    Returns
    -------
    int or float

    Raises
    ------
    ValueError
        If the formula is longer than 1,000 characters, contains anything else or an unknown name,
        has no value, or has an intermediate integer of more than 4,096 bits. The message shows a
        part of the formula.

    Examples
    --------
    >>> evaluate("4 * n_embd", {"n_embd": 1600})
    6400
    >>> evaluate("0.02 / sqrt(2 * n_layer)", {"n_layer": 50})
    0.002
    """
    if not isinstance(formula, str):
        return formula
    shown = excerpt(formula)
    if len(formula) > _MAX_LENGTH:
        raise ValueError(
            f"formula {shown} is too long: {len(formula):,} characters, at most {_MAX_LENGTH:,}"
        )

    def compute(function: Callable[..., Number], *operands: Number) -> Number:
        try:
            result = function(*operands)
            if isinstance(result, int) and result.bit_length() > _MAX_BITS:
                raise OverflowError("an integer is too large")
            return result
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(f"formula {shown} has no value: {error}") from None

    def value(node: ast.expr) -> Number:
        match node:
            case ast.Constant(value=int() | float() as number) if type(number) is not bool:
                return number
            case ast.Name(id=name):
                if name not in numbers:
                    raise ValueError(unknown(f"a name in formula {shown}", name, numbers))
                return numbers[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return compute(_OPERATORS[type(op)], value(left), value(right))
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](value(operand))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return compute(_FUNCTIONS[name], *map(value, args))
        raise ValueError(f"{excerpt(ast.unparse(node))} is not arithmetic, in formula {shown}")

    try:
        body = ast.parse(formula, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"formula {shown} cannot be read: {reason}") from None
    try:
        return value(body)
    except RecursionError:
        raise ValueError(f"formula {shown} cannot be read: it is nested too deeply") from None
