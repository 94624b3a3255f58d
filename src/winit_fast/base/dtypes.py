"""The six floating-point types, by every name that NumPy, PyTorch and JAX give them."""

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
        The name in NumPy and ml_dtypes.
    code : int
        The code that the kernels know it by.
    dtype : numpy.dtype
        The NumPy type.
    carrier : numpy.dtype
        A type of the same width whose arrays have the buffer protocol. Arrays of the types of
        ml_dtypes lack it and travel as unsigned integers.
    tag : str
        What safetensors files call it.
    """

    name: str
    code: int
    dtype: np.dtype[Any]
    carrier: np.dtype[Any]
    tag: str


_KINDS = (
    # name, type, carrier, tag
    ("float64", np.float64, np.float64, "F64"),
    ("float32", np.float32, np.float32, "F32"),
    ("float16", np.float16, np.float16, "F16"),
    ("bfloat16", ml_dtypes.bfloat16, np.uint16, "BF16"),
    ("float8_e4m3fn", ml_dtypes.float8_e4m3fn, np.uint8, "F8_E4M3"),
    ("float8_e5m2", ml_dtypes.float8_e5m2, np.uint8, "F8_E5M2"),
)

FLOATS = {
    np.dtype(kind): Float(name, _core.TYPES[name], np.dtype(kind), np.dtype(carrier), tag)
    for name, kind, carrier, tag in _KINDS
}
"""The supported types by their NumPy type. Byte-swapped types compare unequal and are not in it."""

_BY_NAME = {kind.name: kind for kind in FLOATS.values()}


def find(dtype: Any) -> Float:
    """Find a supported type by its name, NumPy type, PyTorch type or JAX type.

    Parameters
    ----------
    dtype : str, type, numpy.dtype or torch.dtype
        For example ``"bfloat16"``, ``numpy.float32``, ``torch.float8_e5m2``.

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
    TypeError: dtype must be one of float64, float32, float16, bfloat16, float8_e4m3fn, \
float8_e5m2, got 'int32'; did you mean 'float32'?
    """
    if isinstance(dtype, np.dtype) and dtype in FLOATS:  # their names take microseconds to make
        return FLOATS[dtype]
    # torch.float32 prints as "torch.float32": so it is known without importing torch.
    name = str(dtype).removeprefix("torch.")
    if name in _BY_NAME:
        return _BY_NAME[name]
    try:
        if dtype is None:  # float64 to NumPy, float32 to others
            raise TypeError
        return FLOATS[np.dtype(dtype)]
    except (KeyError, TypeError, ValueError, SyntaxError):  # the last one from np.dtype("f4,,")
        raise TypeError(unknown("dtype", dtype, _BY_NAME)) from None
