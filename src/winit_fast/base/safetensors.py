"""The safetensors format: the only module that knows its header, its index and its type names.

A file consists of the header's length (8 bytes), the header in JSON, and the tensors' bytes. It is
read as strictly as the format's own library reads it. That library is not used, because it does not
give NumPy arrays of float8 or, before version 0.5, of bfloat16.
"""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from winit_fast.base import dtypes, strict_json
from winit_fast.base.arrays import Array, empty
from winit_fast.base.boxes import logical_shape
from winit_fast.base.files import regular_file
from winit_fast.base.names import nearest

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

T = TypeVar("T")

MAX_HEADER = 100_000_000
"""Most bytes of a header or of an index: the format's own limit."""

RESERVED = "__metadata__"
"""The one name that no tensor may have."""

TAGS = {
    dtypes.find(name).dtype: tag
    for name, tag in {
        "float64": "F64",
        "float32": "F32",
        "float16": "F16",
        "bfloat16": "BF16",
        "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
    }.items()
}
"""The format's names of the types that are read and written here."""

DTYPES = {tag: dtype for dtype, tag in TAGS.items()}
"""The types by the format's names."""

# Bits of every type of the format: a file may also have tensors of types that are not read here.
ALL_TAGS = TAGS | {
    np.dtype(kind): tag
    for kind, tag in {
        "?": "BOOL", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64",
        "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "c8": "C64",
    }.items()
}  # fmt: skip
"""The format's names of all types that are written, which include integers and bool."""

ALL_DTYPES = {tag: dtype for dtype, tag in ALL_TAGS.items()}

_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


class Entry(NamedTuple):
    """A tensor's entry in the header.

    Attributes
    ----------
    tag : str
        The format's name of the tensor's type.
    shape : tuple of int
    begin, end : int
        The range of its bytes, counted from the end of the header.
    """

    tag: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """The header of a file.

    Attributes
    ----------
    size : int
        Bytes before those of the tensors, the length field included.
    metadata : dict of str to str
    entries : dict of str to Entry
        The tensors by name.
    """

    size: int
    metadata: dict[str, str]
    entries: dict[str, Entry]

    @property
    def end(self) -> int:
        """Length of the file."""
        return self.size + max((entry.end for entry in self.entries.values()), default=0)


# --------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------


def header_bytes(
    tensors: Iterable[tuple[str, np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[int]]:
    """Make the part of a file before the first tensor.

    Parameters
    ----------
    tensors : iterable of (str, numpy.dtype, tuple of int)
        Name, type and shape, in the order of the file.
    metadata : mapping of str to str

    Returns
    -------
    header : bytes
        Its length is a multiple of 8.
    offsets : list of int
        The position in the file at which each tensor begins, and that at which the last one ends.

    Examples
    --------
    >>> header, offsets = header_bytes([("w", np.dtype("f4"), (2, 3))], {})
    >>> header[8:]
    b'{"__metadata__":{},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}     '
    >>> offsets
    [88, 112]
    """
    entries: dict[str, Any] = {RESERVED: dict(metadata)}
    ends = [0]
    for name, dtype, shape in tensors:
        ends.append(ends[-1] + math.prod(shape) * dtype.itemsize)
        entries[name] = {"dtype": ALL_TAGS[dtype], "shape": shape, "data_offsets": ends[-2:]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format pads with spaces, so that the data is aligned
    header = struct.pack("<Q", len(text)) + text
    return header, [len(header) + end for end in ends]


def file_bytes(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Make a small file as a whole, of arrays of any type that the format has.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
    metadata : mapping of str to str

    Returns
    -------
    bytes

    Raises
    ------
    TypeError
        If the format lacks an array's type.
    """
    for name, array in arrays.items():
        if array.dtype not in ALL_TAGS:
            raise TypeError(f"tensor {name!r} is {array.dtype}, not a safetensors type")
    header, _ = header_bytes([(n, a.dtype, a.shape) for n, a in arrays.items()], metadata)
    return header + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())


def read_arrays(path: str) -> dict[str, Array]:
    """Read all of a small file: what `file_bytes` makes.

    Parameters
    ----------
    path : str

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ValueError
        If it is no whole file of the format, or has a type that NumPy lacks.
    """
    header = read_header(path)
    with regular_file(path) as file:
        content = file.read()
    arrays = {}
    for name, (tag, shape, begin, end) in header.entries.items():
        if tag not in ALL_DTYPES:
            raise ValueError(f"tensor {name!r} in {path} has the type {tag}")
        part = content[header.size + begin : header.size + end]
        arrays[name] = np.frombuffer(part, ALL_DTYPES[tag]).reshape(shape)
    return arrays


def index_text(files: Mapping[str, str], total_size: int) -> str:
    """Make the index of a checkpoint with several files.

    Parameters
    ----------
    files : mapping of str to str
        The file that contains each tensor.
    total_size : int
        Bytes of all tensors.

    Returns
    -------
    str
        JSON.
    """
    content = {"metadata": {"total_size": total_size}, "weight_map": dict(files)}
    return json.dumps(content, indent=2) + "\n"


# --------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------


def read_header(path: str) -> Header:
    """Read the header of a file, and check that the tensors make up the rest of the file.

    Parameters
    ----------
    path : str

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        If it is not a complete file of the format. A file is refused where the format's own library
        refuses it, and also if a name occurs twice.
    """
    return _once(_read_header, path)


def _once(read: _lru_cache_wrapper[T], path: str) -> T:
    """Read a file, or return what was read before if the file has not changed since.

    Timestamps of files have a resolution of some milliseconds, so a file that was just written is
    not cached.
    """
    status = Path(path).stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    if time.time_ns() - max(times) < 2 * 10**9:
        return read.__wrapped__(path, ())
    return read(path, (status.st_dev, status.st_ino, status.st_size, *times))


@lru_cache(maxsize=4)  # a checkpoint's tensors are read one by one, each with the same header
def _read_header(path: str, identity: tuple[int, ...]) -> Header:
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise ValueError(
                f"{path} is not a safetensors file: its header has {length:,} bytes, "
                f"more than {MAX_HEADER:,}"
            )
        if size < 8 + length:
            raise ValueError(f"{path} is not a complete safetensors file: its header is cut off")
        content = strict_json.read(file.read(length), f"{path} is not a safetensors file")
    metadata = content.pop(RESERVED, None)
    metadata = {} if metadata is None else metadata
    if not _maps_text_to_text(metadata):
        raise ValueError(
            f"{path} is not a safetensors file: {RESERVED} must map text to text, "
            f"got {metadata!r:.200}"
        )
    header = Header(
        8 + length, metadata, {name: _entry(path, name, entry) for name, entry in content.items()}
    )
    end = 0
    for name, entry in sorted(header.entries.items(), key=lambda item: item[1][2:]):
        if entry.begin != end:
            fault = "overlaps another one" if entry.begin < end else "has a gap before it"
            raise ValueError(f"{path} is not a safetensors file: tensor {name!r} {fault}")
        end = entry.end
        if header.size + end > size:
            raise ValueError(
                f"{path} is not a complete safetensors file: tensor {name!r} is cut off"
            )
    if header.size + end < size:
        raise ValueError(
            f"{path} is not a safetensors file: {size - header.size - end:,} bytes follow the last "
            "tensor"
        )
    return header


def _entry(path: str, name: str, entry: Any) -> Entry:
    """Check a tensor's entry in the header."""
    try:
        name.encode()  # raises for an unpaired surrogate
        tag, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (isinstance(shape, list) and all(map(_natural, [*shape, begin, end]))):
            raise TypeError("shape and data_offsets must hold integers from 0 to 2^64 - 1")
        if tag not in _BITS:
            raise ValueError("the dtype is unknown")
        if 8 * (end - begin) != math.prod(shape) * _BITS[tag]:
            raise ValueError("data_offsets must match dtype and shape")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a safetensors file: tensor {name!r:.200} is {entry!r:.200}: {error!r}"
        ) from None
    return Entry(tag, tuple(shape), begin, end)


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def _maps_text_to_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def read_index(path: str) -> dict[str, str]:
    """Read the index of a checkpoint with several files.

    Parameters
    ----------
    path : str

    Returns
    -------
    dict of str to str
        The file of each tensor: a path below the folder of the index, with slashes.

    Raises
    ------
    ValueError
        If it is not an index, a name occurs twice, or a file is outside the folder.
    """
    return _once(_read_index, path)


@lru_cache(maxsize=4)
def _read_index(path: str, identity: tuple[int, ...]) -> dict[str, str]:
    with regular_file(path) as file:
        text = file.read(MAX_HEADER + 1)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"{path} is not an index of safetensors files: it has more than {MAX_HEADER:,} bytes"
        )
    files = strict_json.read(text, f"{path} is not an index of safetensors files").get("weight_map")
    if not (isinstance(files, dict) and _maps_text_to_text(files)):
        raise ValueError(
            f"{path} is not an index of safetensors files: weight_map must map names of tensors to "
            f"files, got {files!r:.200}"
        )
    for name, file_name in files.items():
        if not _stays_below(file_name):
            raise ValueError(
                f"{path} is not an index of safetensors files in its own folder: "
                f"{name!r:.200} is in {file_name!r:.200}"
            )
    return files


def _stays_below(name: str) -> bool:
    """Whether a path of a safetensors file stays inside its folder, on any operating system.

    Examples
    --------
    >>> [_stays_below(name) for name in ("a.safetensors", "../a.safetensors", "/a.safetensors")]
    [True, False, False]
    """
    return (
        name.endswith(".safetensors")
        and not {"", ".", ".."} & {*name.split("/")}
        and not {"\\", ":", "\0"} & {*name}
    )


def mapped(path: str, tensor: str) -> Array:
    """Memory-map a tensor.

    Parameters
    ----------
    path : str
        A file of the format, or the index of several files.
    tensor : str
        The tensor's name.

    Returns
    -------
    numpy.ndarray
        Read-only.

    Raises
    ------
    ValueError
        If there is no such tensor, or the file does not have the format.
    TypeError
        If the tensor's type is not in `winit_fast.base.dtypes`.
    """
    if path.endswith(".index.json"):
        path = str(Path(path).parent / _find(read_index(path), path, tensor))
    header = read_header(path)
    tag, extents, begin, end = _find(header.entries, path, tensor)
    if tag not in DTYPES:
        raise TypeError(
            f"tensor {tensor!r} in {path} must have one of the types {', '.join(DTYPES)}, got {tag}"
        )
    shape = logical_shape(extents, f"tensor {tensor!r} in {path}")
    if begin == end:
        return empty(shape, DTYPES[tag])
    with regular_file(path) as file:
        if os.fstat(file.fileno()).st_size != header.end:
            raise ValueError(
                f"{path} is not a complete safetensors file: it was changed while it was read"
            )
        return np.memmap(file, DTYPES[tag], "r", header.size + begin, shape)


def _find(entries: Mapping[str, Any], path: str, tensor: str) -> Any:
    if tensor in entries:
        return entries[tensor]
    raise ValueError(
        f"tensor must be one of the {len(entries):,} tensors in {path}, got {tensor!r}"
        f"{nearest(tensor, entries)}"
    )
