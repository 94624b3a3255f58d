"""Destinations: any writable memory, seen as an array and checked."""

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

import numpy as np

import winit_fast._dlpack as _dlpack
from winit_fast.base import dtypes
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import MAX_SIZE, Box, Index, Shape, box, logical_shape, whole

Out = TypeVar("Out")

LIBRARIES = {"torch": "winit_fast.torch.memory"}
"""Libraries whose tensors are more than their memory, with the module that sees to the rest."""


class _Destinations(Protocol):
    def check(self, out: Any) -> None:
        """Refuse what must not be written behind the library's back."""

    def written(self, out: Any) -> None:
        """Tell the library that the memory has other contents now."""


def _library(out: object) -> _Destinations | None:
    """Find who sees to an object of a library, or of a class that derives from one of these."""
    for base in type(out).__mro__:
        module = LIBRARIES.get(base.__module__.partition(".")[0])
        if module is not None:
            return cast(_Destinations, import_module(module))
    return None


def written(out: Out) -> Out:
    """Return what has been filled, once its library knows: autograd counts writes, say."""
    library = None if isinstance(out, np.ndarray) else _library(out)
    if library is not None:
        library.written(out)
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
        What keeps the memory; the array keeps it.
    """
    memory = _Memory(address, shape, strides, dtype.itemsize, owner)
    array: Array = np.asarray(memory).view(dtype)
    return array


def from_dlpack(out: Any, argument: str = "out") -> Array:
    """View a CPU tensor of another library; errors name the argument that carries it."""
    if hasattr(out, "is_neg") and out.is_neg():  # torch.Tensor.imag of a conjugate, say
        raise TypeError(
            f"{argument} must hold its values as they are, "
            f"got a {type(out).__name__} that is a negated view of its memory"
        )
    if getattr(out, "requires_grad", False):
        out = out.detach()  # as in torch.nn.init: initialising is no step of the graph
    kind = type(out).__name__
    try:
        device = out.__dlpack_device__()[0]
    except (BufferError, RuntimeError, ValueError) as error:  # torch's "meta", say
        raise TypeError(f"{argument} must be on the CPU, got {kind}: {error}") from error
    if device != _dlpack.CPU:
        raise TypeError(f"{argument} must be on the CPU, got {kind} on DLPack device {device}")
    try:
        try:
            capsule = out.__dlpack__(max_version=_dlpack.VERSION)
        except TypeError:  # from before there were versions
            capsule = out.__dlpack__()
        address, shape, strides, name, writable = _dlpack.describe(capsule)
    except (BufferError, RuntimeError, ValueError) as error:  # a sparse tensor, say
        raise TypeError(f"{argument} must be what DLPack can share, got {kind}: {error}") from error
    if writable is None:  # JAX cannot say that its arrays are not, nor PyTorch < 2.9 that its are
        writable = hasattr(out, "requires_grad")
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise TypeError(f"{argument} must have a type known to NumPy, got {name}") from None
    strides = tuple([step * dtype.itemsize for step in strides])
    reach = sum(abs(step) * (extent - 1) for step, extent in zip(strides, shape, strict=True))
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize + reach >= MAX_SIZE:
        raise ValueError(
            f"{argument} must lie in memory, got a {kind} of shape {shape} with strides {strides}"
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
        # Its memory as it is now: a subclass may lie about it, and change it later.
        array: Array = np.ndarray.view(out, np.ndarray)
    elif hasattr(out, "__dlpack__"):
        library = _library(out)
        if library is not None:
            library.check(out)
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
    """Tell whether some axis steps less far than those inside it: then elements may share bytes.

    They need not, where they interleave: telling these apart is not worth what it takes.
    """
    span = array.itemsize
    for step, extent in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if extent > 1:
            if step < span:
                return array.size > 0
            span += step * (extent - 1)
    return False


def destination(
    out: Any,
    shape: Shape | None,
    index: Index | None,
    kinds: Mapping[np.dtype[Any], object] = dtypes.FLOATS,
    argument: str = "shape",
) -> tuple[Array, Box]:
    """Check a buffer together with the box of the logical tensor that it is to hold.

    Parameters
    ----------
    out, kinds
        As in `writable`.
    shape : int or tuple of int, optional
        The logical shape; by default that of ``out``.
    index : tuple of slice, int or Ellipsis, optional
        As in `box`; by default all of the tensor.
    argument : str
        The one that carries the shape, for the errors.

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
    # The numbers first: reading them may run a user's code, after which the buffer is another one.
    if shape is None and index is not None:
        writable(out, kinds)
        raise ValueError(f"index={index!r} needs the shape of the logical tensor: give {argument}=")
    cut = None if shape is None else box(logical_shape(shape, argument), index)
    array = writable(out, kinds)
    cut = cut or whole(array.shape)
    if array.shape != cut.shape:
        raise ValueError(f"out must have shape {cut.shape}, got {array.shape}")
    return array, cut
