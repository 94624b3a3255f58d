"""The distribution of tensors over safetensors files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from winit_fast.base import safetensors
from winit_fast.base.dtypes import FLOATS, find, find_any
from winit_fast.base.patterns import Pattern
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.models.tensor_spec import NON_PERSISTENT, TensorSpec

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

DCP_METADATA = ".metadata"
"""The file that torch.distributed.checkpoint opens first."""

READ_FIRST = INDEX, SINGLE, DCP_METADATA
"""The files that loaders open first: they name the others, or are the whole checkpoint."""


class File(Protocol):
    """A large file of a checkpoint, of any format.

    Attributes
    ----------
    filename : str
    header : bytes
        Its beginning, which is written first and tells the file from another run's.
    size : int
        Length of the file in bytes.
    parameters : int
        Number of elements in it.
    """

    @property
    def filename(self) -> str: ...
    @property
    def header(self) -> bytes: ...
    @property
    def size(self) -> int: ...
    @property
    def parameters(self) -> int: ...


@dataclass(frozen=True)
class Shard:
    """One safetensors file.

    Attributes
    ----------
    filename : str
    tensors : tuple of TensorSpec
    header : bytes
        Everything before the first tensor; its length is a multiple of 8.
    size : int
        Length of the file in bytes.
    """

    filename: str
    tensors: tuple[TensorSpec, ...]
    header: bytes
    size: int

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.size for tensor in self.tensors)


def checked(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Check the tensors of a checkpoint.

    Parameters
    ----------
    tensors : iterable of TensorSpec

    Returns
    -------
    tuple of TensorSpec
        Without non-persistent buffers, which are not written.

    Raises
    ------
    ValueError
        If there are no tensors, a name is used twice, or a name is reserved by the format.
    TypeError
        If they are not a sequence of `TensorSpec`.
    """
    try:
        tensors = tuple(tensors)
    except TypeError:
        raise TypeError(
            f"tensors must be a sequence of TensorSpec objects, got {tensors!r}"
        ) from None
    if not tensors:
        raise ValueError("tensors is empty: there is nothing to write")
    seen = {safetensors.RESERVED}
    for tensor in tensors:
        if not isinstance(tensor, TensorSpec):
            raise TypeError(f"tensors must hold TensorSpec objects, got {tensor!r}")
        if tensor.name in seen:
            raise ValueError(f"tensor name {tensor.name!r} is used twice or is reserved")
        seen.add(tensor.name)
        if find_any(tensor.dtype).kind == "c" and tensor.kind != NON_PERSISTENT:
            raise TypeError(
                f"tensor {tensor.name!r} is {tensor.dtype}: complex tensors are not written"
            )
    return tuple(tensor for tensor in tensors if tensor.kind != NON_PERSISTENT)


def shards(
    tensors: Sequence[TensorSpec], max_shard_size: int, metadata: Mapping[str, str]
) -> tuple[Shard, ...]:
    """Distribute tensors over files, in their order.

    A new file begins when the next tensor would make the tensors of a file exceed `max_shard_size`;
    a tensor that is larger than that gets its own file. These are the rules and file names of the
    Hugging Face libraries, so a model is split as it is there. As there, the widest dtypes come
    first in a file, so that every tensor begins at a multiple of its element size.

    Parameters
    ----------
    tensors : sequence of TensorSpec
    max_shard_size : int
        Most bytes of tensors in one file.
    metadata : mapping of str to str
        Written to every header.

    Returns
    -------
    tuple of Shard
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor.size * find_any(tensor.dtype).itemsize
        if groups[-1] and filled + size > max_shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    return tuple(
        _shard(_filename(number, len(groups)), group, metadata)
        for number, group in enumerate(groups, start=1)
    )


def index(shards: Sequence[Shard]) -> str:
    """Return the index of a checkpoint with several files: the file of each tensor.

    Parameters
    ----------
    shards : sequence of Shard

    Returns
    -------
    str
        JSON.
    """
    files = {tensor.name: shard.filename for shard in shards for tensor in shard.tensors}
    return safetensors.index_text(files, sum(shard.size - len(shard.header) for shard in shards))


def is_file_of_checkpoint(name: str) -> bool:
    """Return whether a file name is one that writers use for shards, index or plan.

    Examples
    --------
    >>> is_file_of_checkpoint("model-00001-of-00003.safetensors")
    True
    >>> is_file_of_checkpoint("model.fp16.safetensors")
    False
    """
    numbered = re.fullmatch(
        r"model-\d{5,}-of-\d{5,}\.safetensors|__\d+_\d+\.distcp", name, re.ASCII
    )
    return numbered is not None or name in (*READ_FIRST, PLAN)


def _filename(number: int, count: int) -> str:
    return SINGLE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _shard(filename: str, tensors: Sequence[TensorSpec], metadata: Mapping[str, str]) -> Shard:
    tensors = sorted(tensors, key=lambda tensor: -find_any(tensor.dtype).itemsize)
    header, offsets = safetensors.header_bytes(
        [(tensor.name, find_any(tensor.dtype), tensor.shape) for tensor in tensors], metadata
    )
    return Shard(filename, tuple(tensors), header, offsets[-1])


def stored(
    tensors: Sequence[TensorSpec], dtype: object | None, exceptions: Mapping[str, object]
) -> tuple[TensorSpec, ...]:
    """Give every tensor the dtype in which it is written.

    Parameters
    ----------
    tensors : sequence of TensorSpec
    dtype : str, type or numpy.dtype, optional
        That of all floating-point tensors; None keeps those of the tensors. Integers and bool
        always keep theirs.
    exceptions : mapping of str to object
        Patterns of names, each with a dtype; the first pattern that matches counts. A
        floating-point type is only for floating-point tensors.

    Returns
    -------
    tuple of TensorSpec

    Raises
    ------
    TypeError, ValueError
        If ``exceptions`` is not a mapping of patterns to dtypes, or a pattern has no effect.

    Examples
    --------
    >>> import winit_fast as wf
    >>> tensors = [TensorSpec(name, (3,), wf.Ones()) for name in ("h.0.norm", "h.0.w")]
    >>> tensors.append(TensorSpec("steps", (), wf.Zeros(), dtype="int64"))
    >>> found = stored(tensors, "bfloat16", {"*.norm": "float32"})
    >>> [tensor.dtype for tensor in found]
    ['float32', 'bfloat16', 'int64']
    """
    kind = None if dtype is None else find(dtype).name
    if not isinstance(exceptions, Mapping):
        raise TypeError(f"dtypes must map patterns of names to types, got {exceptions!r}")
    patterns = [(Pattern(text), find_any(own)) for text, own in exceptions.items()]
    found, used = [], set()
    for tensor in tensors:
        is_float = find_any(tensor.dtype) in FLOATS
        chosen = kind if is_float else None
        for pattern, own in patterns:
            if (is_float or own not in FLOATS) and pattern.match(tensor.name) is not None:
                chosen = own.name
                used.add(pattern.text)
                break
        if chosen not in (None, tensor.dtype):
            tensor = replace(tensor, dtype=chosen, drawn_in=None)
        found.append(tensor)
    for pattern, _ in patterns:
        if pattern.text not in used:
            raise ValueError(f"dtypes has the pattern {pattern.text!r}, which applies to no tensor")
    return tuple(found)
