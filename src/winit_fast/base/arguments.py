"""Checks of single arguments: an error names the argument and shows the value."""

import math
import operator
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number, which JSON and ``repr`` write without its type.

    Examples
    --------
    >>> plain(np.float32(0.5)), plain("fan_in")
    (0.5, 'fan_in')
    """
    return value.item() if isinstance(value, np.generic) else value


def optional(parser: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    """Make a parser accept None and return it unchanged.

    Examples
    --------
    >>> optional(positive)("fan_in", None), optional(positive)("fan_in", 3)
    (None, 3)
    """
    return lambda argument, value: None if value is None else parser(argument, value)


def integer(argument: str, value: Any, wanted: str = "an integer") -> int:
    """Read a Python or NumPy integer.

    Examples
    --------
    >>> integer("seed", 1.5)
    Traceback (most recent call last):
    TypeError: seed must be an integer, got 1.5
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{argument} must be {wanted}, got {value!r}") from None


def word(argument: str, value: Any, wanted: str = "an integer") -> int:
    """Read an unsigned 64-bit integer.

    Examples
    --------
    >>> word("seed", -1)
    Traceback (most recent call last):
    ValueError: seed must be from 0 to 2^64 - 1, got -1
    """
    number = integer(argument, value, wanted)
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{argument} must be from 0 to 2^64 - 1, got {number}")
    return number


def positive(argument: str, value: Any) -> int:
    """Read an integer of at least 1.

    Examples
    --------
    >>> positive("num_threads", 0)
    Traceback (most recent call last):
    ValueError: num_threads must be at least 1, got 0
    """
    number = integer(argument, value)
    if number < 1:
        raise ValueError(f"{argument} must be at least 1, got {number}")
    return number


def utf8(argument: str, value: Any) -> bytes:
    r"""Encode text as UTF-8.

    Examples
    --------
    >>> utf8("name", "\ud800")
    Traceback (most recent call last):
    ValueError: name must be text that can be encoded in UTF-8, got '\ud800'
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a str, got {value!r}")
    try:
        return value.encode()
    except UnicodeEncodeError:  # an unpaired surrogate
        raise ValueError(
            f"{argument} must be text that can be encoded in UTF-8, got {value!r}"
        ) from None


def path(argument: str, value: Any) -> str:
    """Read the path of a file or directory, which need not exist.

    Examples
    --------
    >>> path("source", 3)
    Traceback (most recent call last):
    TypeError: source must be a path, got 3
    """
    try:
        name = os.fspath(value)
        if isinstance(name, str) and b"\0" not in os.fsencode(name):
            return name
    except TypeError:
        raise TypeError(f"{argument} must be a path, got {value!r}") from None
    except UnicodeEncodeError:  # an unpaired surrogate
        pass
    raise ValueError(f"{argument} must be a valid path, got {value!r}")


def real(argument: str, value: Any) -> float:
    """Read a real number, which may be infinite or NaN.

    -0 becomes 0, so that equal arguments give equal results.

    Examples
    --------
    >>> real("low", "-2")
    Traceback (most recent call last):
    TypeError: low must be a real number, got '-2'
    """
    try:
        if isinstance(value, (str, bytes)):  # float("1.5") would be accepted
            raise TypeError
        return float(value) + 0.0
    except (TypeError, ValueError):
        raise TypeError(f"{argument} must be a real number, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"{argument} must fit float64, got {value!r}") from None


def finite(argument: str, value: Any) -> float:
    """Read a finite real number.

    Examples
    --------
    >>> finite("mean", float("nan"))
    Traceback (most recent call last):
    ValueError: mean must be finite, got nan
    """
    number = real(argument, value)
    if not math.isfinite(number):
        raise ValueError(f"{argument} must be finite, got {value!r}")
    return number


def not_negative(argument: str, value: Any) -> float:
    """Read a finite real number of at least 0.

    Examples
    --------
    >>> not_negative("stddev", -1.0)
    Traceback (most recent call last):
    ValueError: stddev must be >= 0, got -1.0
    """
    number = finite(argument, value)
    if number < 0:
        raise ValueError(f"{argument} must be >= 0, got {value!r}")
    return number
