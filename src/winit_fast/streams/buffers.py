"""Destinations: views any writable buffer as an array, and checks it."""

import math
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

import numpy as np

import winit_fast._dlpack as _dlpack
from winit_fast.base import dtypes
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import MAX_SIZE, Box, Index, Shape, box, logical_shape, whole
from winit_fast.base.frameworks import MEMORY

Out = TypeVar("Out")


class _Framework(Protocol):
    """The interface of an adapter's module for tensors that have more state than their memory."""

    def check(self, out: Any) -> None:
        """Refuse a tensor that must not be written without the framework's knowledge."""

    def shared(self, tensor: Any, argument: str) -> Any:
        """Return a tensor that DLPack can export; refuse one whose memory has other values."""

    def written(self, out: Any) -> None:
        """Notify the framework that the memory was changed."""


def _framework(out: object) -> _Framework | None:
    """Find the adapter's module for an object whose class is, or derives from, a framework's."""
    for base in type(out).__mro__:
        module = MEMORY.get(base.__module__.partition(".")[0])
        if module is not None:
            return cast(_Framework, sys.modules.get(module) or import_module(module))
    return None


def written(out: Out) -> Out:
    """Notify the framework of a filled object, since it may count writes, and return the object."""
    framework = None if isinstance(out, np.ndarray) else _framework(out)
    if framework is not None:
        framework.written(out)
    return out


class _Memory:
    """Memory that NumPy can view as an array of unsigned integers."""

    def __init__(
        self,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        owner: object,
    ) -> None:
        self.owner = owner  # kept alive, since the array keeps this object
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": tuple(shape),
            "strides": tuple(strides),
            "typestr": np.dtype(f"u{itemsize}").str,
        }


def view(
    address: int, shape: Sequence[int], strides: Sequence[int], dtype: np.dtype[Any], owner: object
) -> Array:
    """View memory as an array, also of a type that the buffer protocol lacks.

    Parameters
    ----------
    address : int
    shape, strides : sequence of int
        Strides count bytes.
    dtype : numpy.dtype
    owner : object
        The object that owns the memory; the array keeps it alive.
    """
    memory = _Memory(address, shape, strides, dtype.itemsize, owner)
    array: Array = np.asarray(memory).view(dtype)
    return array


def from_dlpack(out: Any, argument: str = "out") -> Array:
    """View a CPU tensor of another library; errors name the argument."""
    kind, framework = type(out).__name__, _framework(out)
    if framework is not None:
        out = framework.shared(out, argument)
    try:
        device = out.__dlpack_device__()[0]
    except (BufferError, RuntimeError, ValueError) as error:  # a device that DLPack does not know
        raise TypeError(f"{argument} must be on the CPU, got {kind}: {error}") from error
    if device != _dlpack.CPU:
        raise TypeError(f"{argument} must be on the CPU, got {kind} on DLPack device {device}")
    try:
        try:
            capsule = out.__dlpack__(max_version=_dlpack.VERSION)
        except TypeError:  # a producer of DLPack before 1.0 takes no max_version
            capsule = out.__dlpack__()
        address, shape, strides, name, writable = _dlpack.describe(capsule)
    except (BufferError, RuntimeError, ValueError) as error:  # a sparse tensor, say
        raise TypeError(
            f"{argument} must support DLPack on the CPU, got {kind}: {error}"
        ) from error
    if writable is None:  # unknown before DLPack 1.0: only known producers are trusted
        writable = framework is not None
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise TypeError(f"{argument} must have a type known to NumPy, got {name}") from None
    strides = tuple([step * dtype.itemsize for step in strides])
    reach = sum(abs(step) * (extent - 1) for step, extent in zip(strides, shape, strict=True))
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize + reach >= MAX_SIZE:
        raise ValueError(
            f"{argument} must have a valid layout, got a {kind} of shape {shape}, strides {strides}"
        )
    array = view(address, shape, strides, dtype, capsule)
    array.flags.writeable = writable
    return array


def writable(out: Any, kinds: Mapping[np.dtype[Any], object] = dtypes.FLOATS) -> Array:
    """View any buffer as a NumPy array, and check that it can be filled.

    Parameters
    ----------
    out : numpy.ndarray, or an object with DLPack (on the CPU) or with the buffer protocol
        Of any strides and any alignment.
    kinds : mapping from numpy.dtype
        The types that are allowed.

    Returns
    -------
    numpy.ndarray
        The same memory.

    Raises
    ------
    TypeError
        If ``out`` is none of these, or has another type or a foreign byte order.
    ValueError
        If it is read-only or its elements overlap or interleave.
    """
    if isinstance(out, np.ndarray):
        # A plain view: a subclass may report other attributes, and change them later.
        array: Array = np.ndarray.view(out, np.ndarray)
    elif hasattr(out, "__dlpack__"):
        framework = _framework(out)
        if framework is not None:
            framework.check(out)
        array = from_dlpack(out)
    else:
        try:
            array = np.asarray(memoryview(out))
        except (TypeError, ValueError, BufferError) as error:  # no buffer, a closed one, ...
            raise TypeError(
                "out must be a NumPy array, or have DLPack or the buffer protocol, "
                f"got {type(out).__name__}: {error}"
            ) from None
    if array.dtype not in kinds:
        names = ", ".join(dtype.name for dtype in kinds)
        order = "" if array.dtype.isnative else " of foreign byte order"
        raise TypeError(f"out must have one of the types {names}, got {array.dtype}{order}")
    if not array.flags.writeable:
        raise ValueError(f"out must be writable, got a read-only {type(out).__name__}")
    if not array.flags.c_contiguous and overlaps(array):
        raise ValueError(
            "out must not have elements that overlap or interleave, "
            f"got shape {array.shape} with strides {array.strides}"
        )
    return array


def overlaps(array: Array) -> bool:
    """Return whether elements overlap or interleave: some stride is less than the extent inside it.

    Interleaved elements share no bytes, but distinguishing the two cases would cost too much.
    """
    return overlap(array.shape, array.strides, array.itemsize)


def overlap(shape: Sequence[int], strides: Sequence[int], size: int) -> bool:
    """Return the same from the strides of an array, in any unit, and the size of its elements."""
    span = size
    for step, extent in sorted(zip(map(abs, strides), shape, strict=True)):
        if extent > 1:
            if step < span:
                return 0 not in shape
            span += step * (extent - 1)
    return False


def destination(
    out: Any,
    shape: Shape | None,
    index: Index | None,
    kinds: Mapping[np.dtype[Any], object] = dtypes.FLOATS,
    argument: str = "shape",
) -> tuple[Array, Box]:
    """Check a buffer together with the box of the logical tensor that it should hold.

    Parameters
    ----------
    out, kinds
        As in `writable`.
    shape : int or tuple of int, optional
        The logical shape; by default that of ``out``.
    index : tuple of slice, int or Ellipsis, optional
        As in `box`; by default all of the tensor.
    argument : str
        Name of the argument with the shape, for error messages.

    Returns
    -------
    array : numpy.ndarray
        The same memory as ``out``.
    box : Box

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `writable`, `logical_shape` and `box`, or if ``out`` has another shape than the box.
    """
    # Shape and index first: converting them may run user code, which might change the buffer.
    if shape is None and index is not None:
        writable(out, kinds)
        raise ValueError(f"index={index!r} needs the shape of the logical tensor: give {argument}=")
    cut = None if shape is None else box(logical_shape(shape, argument), index)
    array = writable(out, kinds)
    cut = cut or whole(array.shape)
    if array.shape != cut.shape:
        raise ValueError(f"out must have shape {cut.shape}, got {array.shape}")
    return array, cut
