"""Where the numbers go: the buffer, the box of the logical tensor, and the split into pieces."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import EllipsisType
from typing import Any, NamedTuple, SupportsIndex

import numpy as np

from winit_fast import _core, _dlpack, dtypes, threads
from winit_fast.arguments import integer

Array = np.ndarray[Any, np.dtype[Any]]
Shape = SupportsIndex | Iterable[SupportsIndex]
Index = SupportsIndex | slice | EllipsisType | tuple[SupportsIndex | slice | EllipsisType, ...]

MIN_PIECE = 1 << 17
"""Elements in a piece at least: a tenth of a millisecond's work, worth waking a thread for."""

MAX_PIECE = 1 << 21
"""Elements in a piece at most: Ctrl-C is seen between pieces, the dearest of which take 0.1 s."""

MAX_PIECE_SCALAR = 1 << 18
"""The same for plain C, whose elements take up to 0.3 microseconds."""

MAX_SPAN = 1 << 25
"""Bytes from a piece's first element to its last at most: where few lie on each page of memory that
nobody has touched, time goes into the pages, which take the system up to 3 seconds a gigabyte."""

STREAMING_BYTES = 1 << 23
"""From this distance between first and last element on, results leave the caches before anybody
reads them: stores go round them."""

MAX_SIZE = 1 << 63
"""Elements of a logical tensor: their indices are signed 64-bit numbers."""


class Box(NamedTuple):
    """A box of a logical tensor.

    Attributes
    ----------
    tensor : tuple of int
        Shape of the logical tensor.
    starts, sizes : tuple of int
        First position and extent along every axis of the tensor.
    kept : tuple of int
        The tensor's axes that the box has too: an axis indexed by an integer is dropped.
    """

    tensor: tuple[int, ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box, and so of the destination."""
        return tuple(self.sizes[axis] for axis in self.kept)

    @property
    def tensor_strides(self) -> tuple[int, ...]:
        """Steps of the logical index along every axis of the tensor, in C order."""
        strides = [1]
        for size in reversed(self.tensor[1:]):
            strides.append(strides[-1] * size)
        return tuple(reversed(strides)) if self.tensor else ()

    @property
    def first(self) -> int:
        """Logical index of the box's first element."""
        return sum(map(operator.mul, self.starts, self.tensor_strides))

    @property
    def index_strides(self) -> tuple[int, ...]:
        """Steps of the logical index along the box's own axes."""
        strides = self.tensor_strides
        return tuple(strides[axis] for axis in self.kept)

    def expand(self, array: Array) -> Array:
        """View a destination with the dropped axes put back, each of extent 1."""
        dropped = set(range(len(self.tensor))) - set(self.kept)
        return np.expand_dims(array, tuple(dropped))

    def cut(self, slices: tuple[slice, ...]) -> "Box":
        """Cut a box from this one, with all axes: the starts and stops are positions in it."""
        return Box(
            self.tensor,
            tuple(start + part.start for start, part in zip(self.starts, slices, strict=True)),
            tuple(part.stop - part.start for part in slices),
            tuple(range(len(self.tensor))),
        )


def blocks(shape: tuple[int, ...], limit: int) -> Iterator[tuple[slice, ...]]:
    """Split an array lazily, along its first axes, into blocks of at most ``limit`` elements.

    Examples
    --------
    >>> [[(part.start, part.stop) for part in block] for block in blocks((3, 4), 8)]
    [[(0, 2), (0, 4)], [(2, 3), (0, 4)]]
    """
    if math.prod(shape) <= limit:
        yield tuple(slice(0, extent) for extent in shape)
        return
    extent, *inner = shape
    step = max(1, limit // math.prod(inner))
    for first in range(0, extent, step):
        outer = slice(first, min(extent, first + step))
        for rest in blocks(tuple(inner), limit):
            yield (outer, *rest)


def logical_shape(shape: Shape, argument: str = "shape") -> tuple[int, ...]:
    """Check the shape of a logical tensor; errors name the argument that carries it.

    Parameters
    ----------
    shape : int or sequence of int
    argument : str

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        If an extent is negative or there are more than 2^63 elements.

    Examples
    --------
    >>> logical_shape(3), logical_shape([2, 5])
    ((3,), (2, 5))
    """
    extents: tuple[Any, ...] = (shape,)
    if isinstance(shape, Iterable) and not isinstance(shape, (str, bytes)):
        with suppress(TypeError):  # of an array without axes
            extents = tuple(shape)
    checked = tuple([integer(argument, extent) for extent in extents])
    if min(checked, default=0) < 0:
        raise ValueError(f"{argument} must not have negative extents, got {checked}")
    if math.prod(checked) > MAX_SIZE or max(checked, default=0) > MAX_SIZE:
        raise ValueError(f"{argument} must have at most 2^63 elements, got {checked}")
    return checked


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate a new array.

    Raises
    ------
    ValueError
        If the shape is more than an array can have.
    """
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        raise ValueError(f"shape must be one of an array, got {shape}: {error}") from None


def whole(shape: tuple[int, ...]) -> Box:
    """Make the box that is all of a logical tensor."""
    return Box(shape, (0,) * len(shape), shape, tuple(range(len(shape))))


def box(shape: tuple[int, ...], index: Index | None = None) -> Box:
    """Cut a box from a logical tensor, as NumPy's basic indexing does.

    Parameters
    ----------
    shape : tuple of int
        The logical shape, checked.
    index : tuple of slice, int or Ellipsis, or None
        Slices of step 1; an integer drops its axis; negative positions count from the end; axes
        that are not named are whole. None is the whole tensor.

    Returns
    -------
    Box

    Raises
    ------
    IndexError
        If the index reaches out of the tensor or has too many axes. Unlike NumPy's, slices are not
        cut at the end: a shard that hangs over is a mistake.
    TypeError, ValueError
        If the index holds anything else, or another step.

    Examples
    --------
    >>> cut = box((4096, 1024), np.s_[1024:2048, -1])
    >>> cut.shape, cut.first == 1024 * 1024 + 1023
    ((1024,), True)
    """
    if index is None:
        return whole(shape)
    starts, sizes, kept = [], [], []
    for axis, (part, extent) in enumerate(zip(_every_axis(shape, index), shape, strict=True)):
        if isinstance(part, slice):
            start, stop = _bounds(part, extent, axis, shape)
            kept.append(axis)
        else:
            start = _position(part, extent, axis, shape, last=extent - 1)
            stop = start + 1
        starts.append(start)
        sizes.append(max(0, stop - start))
    return Box(shape, tuple(starts), tuple(sizes), tuple(kept))


def _every_axis(shape: tuple[int, ...], index: Index) -> list[SupportsIndex | slice]:
    """Spell an index out: one part for each axis of the tensor."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for part in parts:
        if isinstance(part, (bool, np.bool_)) or not (
            isinstance(part, (slice, EllipsisType)) or hasattr(part, "__index__")
        ):
            raise TypeError(f"index must hold slices, integers and one Ellipsis, got {index!r}")
    ellipses = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError(f"index must hold at most one Ellipsis, got {index!r}")
    missing = len(shape) - (len(parts) - len(ellipses))
    if missing < 0:
        raise IndexError(f"index {index!r} has too many axes for shape {shape}")
    at = ellipses[0] if ellipses else len(parts)
    parts[at : at + 1] = [slice(None)] * missing
    return parts  # type: ignore[return-value]  # no Ellipsis is left


def _bounds(part: slice, extent: int, axis: int, shape: tuple[int, ...]) -> tuple[int, int]:
    if part.step is not None and integer("index", part.step) != 1:
        raise ValueError(f"index must have step 1, got {part} for axis {axis} of shape {shape}")
    start = 0 if part.start is None else _position(part.start, extent, axis, shape, last=extent)
    stop = extent if part.stop is None else _position(part.stop, extent, axis, shape, last=extent)
    return start, stop


def _position(
    value: SupportsIndex, extent: int, axis: int, shape: tuple[int, ...], last: int
) -> int:
    position = integer("index", value)
    if not -extent <= position <= last:
        raise IndexError(f"index {position} is outside of axis {axis} of shape {shape}")
    return position + extent if position < 0 else position


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
    array = view(address, shape, [step * dtype.itemsize for step in strides], dtype, capsule)
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
        array = out
    elif hasattr(out, "__dlpack__"):
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
    array = writable(out, kinds)
    if shape is None and index is not None:
        raise ValueError(f"index={index!r} needs the shape of the logical tensor: give {argument}=")
    cut = box(array.shape if shape is None else logical_shape(shape, argument), index)
    if array.shape != cut.shape:
        raise ValueError(f"out must have shape {cut.shape}, got {array.shape}")
    return array, cut


class Axis(NamedTuple):
    """One axis of a destination: its extent, and what a step adds to the index and the address."""

    extent: int
    index_stride: int
    byte_stride: int


Axes = tuple[Axis, ...]
Piece = tuple[int, int, Axes]
"""Address and logical index of the first element, and the axes."""


def merged(axes: Iterable[Axis]) -> Axes:
    """Join axes that continue one another in index and in memory, and drop those of extent 1.

    Examples
    --------
    >>> [tuple(a) for a in merged([Axis(2, 12, 96), Axis(1, 12, 0), Axis(3, 4, 16), Axis(4, 1, 4)])]
    [(2, 12, 96), (12, 1, 4)]
    """
    result: list[Axis] = []
    for extent, index_stride, byte_stride in axes:
        if extent == 1:
            continue
        if result and result[-1][1:] == (extent * index_stride, extent * byte_stride):
            extent *= result.pop().extent
        result.append(Axis(extent, index_stride, byte_stride))
    return tuple(result) or (Axis(1, 0, 0),)


def pieces(address: int, index: int, axes: Axes, limit: int, span: int) -> Iterator[Piece]:
    """Split a box lazily, along the outermost axes, into pieces of limited size.

    Parameters
    ----------
    address, index : int
        Of the first element.
    axes : tuple of Axis
        Outermost in memory first, so that no two pieces are interleaved.
    limit : int
        Elements in a piece at most; a power of two, so that a contiguous run is cut at multiples
        of it.
    span : int
        Bytes from a piece's first element to its last one at most, about: those of the steps along
        its outermost axis.

    Yields
    ------
    Piece

    Examples
    --------
    >>> rows = Axis(3, 4, 1000), Axis(4, 1, 4)
    >>> for address, index, axes in pieces(0, 0, rows, limit=8, span=1 << 20):
    ...     print(address, index, [axis.extent for axis in axes])
    0 0 [2, 4]
    2000 8 [1, 4]
    >>> [index for _, index, _ in pieces(0, 0, rows, limit=1 << 20, span=1000)]
    [0, 4, 8]
    """
    (extent, index_stride, byte_stride), *inner = axes
    each = math.prod(axis.extent for axis in inner)
    if extent * each <= limit and (extent - 1) * abs(byte_stride) <= span:
        yield address, index, axes
        return
    step = max(1, min(limit // each, span // abs(byte_stride)))
    for first in range(0, extent, step):
        outer = Axis(min(step, extent - first), index_stride, byte_stride)
        yield from pieces(
            address + first * byte_stride,
            index + first * index_stride,
            (outer, *inner) if step > 1 or not inner else tuple(inner),
            limit,
            span,
        )


def _spread(array: Array) -> int:
    """Count the bytes of memory from the first element to the last one."""
    if array.flags.c_contiguous:
        return array.nbytes
    last = map(operator.mul, map(abs, array.strides), (extent - 1 for extent in array.shape))
    spread: int = sum(last, array.itemsize)
    return spread


def share_out(
    work: Callable[[Piece], object], out: Array, box: Box, num_threads: int | None
) -> None:
    """Do ``work`` on pieces that make up a destination, on several threads where that pays."""
    small = out.size <= MIN_PIECE and _spread(out) <= MAX_SPAN
    if small and num_threads is None:
        num_threads = 1  # what there may be need not be asked
    num_threads = threads.resolve(num_threads)
    if out.size == 0:
        return
    axes = tuple(map(Axis, box.shape, box.index_strides, out.strides))
    if small:
        work((out.__array_interface__["data"][0], box.first, axes or (Axis(1, 0, 0),)))
        return
    axes = merged(axes)
    axes = tuple(sorted(axes, key=lambda axis: -abs(axis.byte_stride)))
    # Four pieces a thread even out their speeds; a power of two keeps cuts on round positions.
    limit = 1 << (out.size // (4 * num_threads)).bit_length()
    largest = MAX_PIECE_SCALAR if _core.isa() == "scalar" else MAX_PIECE
    limit = min(max(limit, MIN_PIECE), largest)
    work_on = pieces(out.__array_interface__["data"][0], box.first, axes, limit, MAX_SPAN)
    threads.run(work, work_on, min(num_threads, -(-out.size // limit)))


def fill(
    distribution: _core.Distribution,
    seed: int,
    stream: int,
    out: Array,
    box: Box,
    num_threads: int | None = None,
    offset: int = 0,
) -> None:
    """Draw a box of a logical tensor into a destination.

    Parameters
    ----------
    distribution : Distribution
        Of the destination's type.
    seed, stream : int
        Key and stream of the numbers, 64 bits each.
    out : numpy.ndarray
        Checked by `destination`.
    box : Box
        Which elements of the logical tensor ``out`` holds.
    num_threads : int, optional
        `threads.get_num_threads` by default. It changes no bit.
    offset : int
        Added to every logical index.
    """

    def work(piece: Piece) -> None:
        address, index, axes = piece
        streaming = _spread(out) >= STREAMING_BYTES  # asked here, so that work keeps the memory
        extents, index_strides, byte_strides = zip(*axes, strict=True)
        _core.fill(
            distribution, seed, stream, address, offset + index,
            extents, index_strides, byte_strides, streaming,
        )  # fmt: skip

    share_out(work, out, box, num_threads)


def rounded(value: float, dtype: np.dtype[Any], argument: str = "value") -> Array:
    """Round a number to a floating-point type: to the narrow ones from float32, like all draws.

    Raises
    ------
    ValueError
        If the number is finite and its rounding is not; the message names the argument.

    Examples
    --------
    >>> rounded(0.1, np.dtype("bfloat16"))
    array(0.100098, dtype=bfloat16)
    """
    with np.errstate(over="ignore"):
        single = np.asarray(value, np.float64 if dtype == np.float64 else np.float32)
        element = single.astype(dtype)
    if math.isfinite(value) and not np.isfinite(element):
        raise ValueError(f"{argument} must fit {dtype}, got {value!r}")
    return element


def constant(value: float, out: Array, box: Box, num_threads: int | None = None) -> None:
    """Set every element of a destination to one number, as `rounded` does.

    Parameters
    ----------
    value : float
    out, box, num_threads
        As in `fill`.
    """
    bits = rounded(value, out.dtype).view(f"u{out.itemsize}")

    def work(piece: Piece) -> None:
        address, _, axes = piece
        extents, _, byte_strides = zip(*axes, strict=True)
        np.asarray(_Memory(address, extents, byte_strides, out.itemsize, out)).fill(bits)

    share_out(work, out, box, num_threads)
