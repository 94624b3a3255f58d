"""The floating-point types, under every name that NumPy, PyTorch and JAX use for them."""

from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import winit_fast._core as _core
from winit_fast.base.names import unknown


class Float(NamedTuple):
    """One supported type.

    Attributes
    ----------
    name : str
        Its name in NumPy or ml_dtypes.
    code : int
        Its number in the C code.
    dtype : numpy.dtype
        The NumPy type.
    carrier : numpy.dtype
        A type of the same width that supports the buffer protocol. The types of ml_dtypes do not,
        so their arrays are passed to Cython as unsigned integers.
    """

    name: str
    code: int
    dtype: np.dtype[Any]
    carrier: np.dtype[Any]


_KINDS = (
    # name, type, carrier
    ("float64", np.float64, np.float64),
    ("float32", np.float32, np.float32),
    ("float16", np.float16, np.float16),
    ("bfloat16", ml_dtypes.bfloat16, np.uint16),
    ("float8_e4m3fn", ml_dtypes.float8_e4m3fn, np.uint8),
    ("float8_e5m2", ml_dtypes.float8_e5m2, np.uint8),
)

FLOATS = {
    np.dtype(kind): Float(name, _core.TYPES[name], np.dtype(kind), np.dtype(carrier))
    for name, kind, carrier in _KINDS
}
"""The supported types by NumPy type. A byte-swapped type compares unequal, so it is not found."""

_BY_NAME = {kind.name: kind for kind in FLOATS.values()}

# Other names of the types: in torch ("half"), in configuration files, on command lines.
_ALIASES = {
    **dict.fromkeys(["fp64", "f64", "double"], "float64"),
    **dict.fromkeys(["fp32", "f32", "float", "single"], "float32"),
    **dict.fromkeys(["fp16", "f16", "half"], "float16"),
    "bf16": "bfloat16",
    **dict.fromkeys(["fp8_e4m3", "float8_e4m3", "f8_e4m3"], "float8_e4m3fn"),
    **dict.fromkeys(["fp8_e5m2", "f8_e5m2"], "float8_e5m2"),
}
_BY_NAME |= {alias: _BY_NAME[name] for alias, name in _ALIASES.items()}

NAMES = tuple(kind.name for kind in FLOATS.values())
"""The supported types by their names in NumPy and ml_dtypes."""

_PARTS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.complex128): np.dtype(np.float64),
    np.dtype(np.complex64): np.dtype(np.float32),
}

WITH_COMPLEX: dict[np.dtype[Any], object] = {**FLOATS, **_PARTS}
"""The types that normals and constants support: the floating-point types and complex ones."""


_EXACT = {
    kind.name: kind for kind in map(np.dtype, ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"))
}

ALL: dict[np.dtype[Any], object] = {**WITH_COMPLEX, **dict.fromkeys(_EXACT.values())}
"""The types of what is not drawn: constants and stored values may be integers and bool, too."""


def working(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the working type: float64 for float64, float32 for all others.

    Examples
    --------
    >>> working(np.dtype("float64")), working(find("bfloat16").dtype)
    (dtype('float64'), dtype('float32'))
    """
    return dtype if dtype == np.float64 else np.dtype(np.float32)


@cache
def largest(dtype: np.dtype[Any]) -> float:
    """Return the largest finite number of a type.

    Examples
    --------
    >>> largest(np.dtype("float16"))
    65504.0
    """
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def part_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the real and imaginary parts of a complex type."""
    return _PARTS[dtype]


def parts(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """View a complex array as real numbers, with a last axis of 2: real and imaginary part.

    Examples
    --------
    >>> parts(np.array([1 + 2j, 3j]))
    array([[1., 2.],
           [0., 3.]])
    """
    part = part_of(array.dtype)
    strides = (*array.strides, part.itemsize)
    return np.lib.stride_tricks.as_strided(array.real, (*array.shape, 2), strides)


def find(dtype: Any) -> Float:
    """Find a supported type by its name, NumPy type, PyTorch type or JAX type.

    Parameters
    ----------
    dtype : str, type, numpy.dtype or torch.dtype
        For example ``"bfloat16"``, ``"bf16"``, ``numpy.float32``, ``torch.float8_e5m2``.

    Returns
    -------
    Float

    Raises
    ------
    TypeError
        If it is not one of the supported types.

    Examples
    --------
    >>> find("bfloat16").dtype
    dtype(bfloat16)
    >>> find(np.float32).name
    'float32'
    >>> find("int32")
    Traceback (most recent call last):
    TypeError: dtype must be one of float64, ..., got 'int32'; did you mean 'float32'?
    """
    if isinstance(dtype, np.dtype) and dtype in FLOATS:  # str(dtype) below takes microseconds
        return FLOATS[dtype]
    if isinstance(dtype, str) and dtype in _BY_NAME:
        return _BY_NAME[dtype]
    # str(torch.float32) is "torch.float32", so torch need not be imported to recognise it.
    name = str(dtype).removeprefix("torch.")
    if name in _BY_NAME:
        return _BY_NAME[name]
    try:
        if dtype is None:  # ambiguous: float64 in NumPy, float32 in the frameworks
            raise TypeError
        return FLOATS[np.dtype(dtype)]
    except (KeyError, TypeError, ValueError, SyntaxError):  # np.dtype("f4,,") raises SyntaxError
        raise TypeError(unknown("dtype", dtype, NAMES)) from None


def find_with_complex(dtype: Any) -> np.dtype[Any]:
    """Find a supported type or a complex type, by the same names as `find`.

    Examples
    --------
    >>> find_with_complex("complex64"), find_with_complex("half")
    (dtype('complex64'), dtype('float16'))
    """
    try:
        return find(dtype).dtype
    except TypeError:
        name = str(dtype).removeprefix("torch.")
        for kind in _PARTS:
            if name == kind.name or dtype in (kind, kind.type):
                return kind
        raise


def find_any(dtype: Any) -> np.dtype[Any]:
    """Find a supported type, a complex one, an integer or bool, as `find` does.

    Examples
    --------
    >>> find_any("int64"), find_any("bool"), find_any("half")
    (dtype('int64'), dtype('bool'), dtype('float16'))
    """
    if isinstance(dtype, str) and dtype in _BY_NAME:
        return _BY_NAME[dtype].dtype
    name = str(dtype).removeprefix("torch.")
    if name in _EXACT:
        return _EXACT[name]
    try:
        return find_with_complex(dtype)
    except TypeError:
        for kind in _EXACT.values():
            if dtype in (kind, kind.type):
                return kind
        raise


def converted(values: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Round floating-point numbers to a type as everything here is: to narrow ones from float32.

    Examples
    --------
    >>> converted(np.array([0.1, 1.0]), np.dtype("float16"))
    array([0.1, 1. ], dtype=float16)
    """
    if values.dtype == np.float64 and dtype != np.float64:
        values = values.astype(np.float32)
    return values.astype(dtype, copy=False)
