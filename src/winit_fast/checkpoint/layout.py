"""What stands where: tensors shared out among safetensors files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from winit_fast.base import dtypes, safetensors
from winit_fast.base.dtypes import Float
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.models.tensor_spec import NON_PERSISTENT, TensorSpec

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


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


def checked(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Check the tensors of a checkpoint.

    Parameters
    ----------
    tensors : iterable of TensorSpec

    Returns
    -------
    tuple of TensorSpec
        Without non-persistent buffers, which no file has.

    Raises
    ------
    ValueError
        If there is none, or a name is used twice or is the one that the format keeps for itself.
    TypeError
        If they are something else.
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
        if tensor.dtype not in dtypes.NAMES and tensor.kind != NON_PERSISTENT:
            raise TypeError(
                f"tensor {tensor.name!r} is {tensor.dtype}: checkpoints are written in one "
                "floating-point type"
            )
    return tuple(tensor for tensor in tensors if tensor.kind != NON_PERSISTENT)


def shards(
    tensors: Sequence[TensorSpec], kind: Float, max_shard_size: int, metadata: Mapping[str, str]
) -> tuple[Shard, ...]:
    """Share tensors out among files, in their order.

    A file is closed when the next tensor would take its tensors past `max_shard_size`; a tensor
    that is larger than that gets a file of its own. These are the rules and the file names of the
    Hugging Face libraries, so a model is cut here as it is there.

    Parameters
    ----------
    tensors : sequence of TensorSpec
    kind : Float
        Type of all tensors.
    max_shard_size : int
        Bytes of tensors in one file.
    metadata : mapping of str to str
        Goes into every header.

    Returns
    -------
    tuple of Shard
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor.size * kind.dtype.itemsize
        if groups[-1] and filled + size > max_shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    return tuple(
        _shard(_filename(number, len(groups)), group, kind, metadata)
        for number, group in enumerate(groups, start=1)
    )


def index(shards: Sequence[Shard]) -> str:
    """The index of a checkpoint of several files: which tensor is in which.

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
    """Tell whether a file's name is one that `shards`, the index or the written plan has.

    Examples
    --------
    >>> is_file_of_checkpoint("model-00001-of-00003.safetensors")
    True
    >>> is_file_of_checkpoint("model.fp16.safetensors")
    False
    """
    numbered = re.fullmatch(r"model-\d{5,}-of-\d{5,}\.safetensors", name, re.ASCII)
    return numbered is not None or name in (SINGLE, INDEX, PLAN)


def _filename(number: int, count: int) -> str:
    return SINGLE if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _shard(
    filename: str, tensors: Sequence[TensorSpec], kind: Float, metadata: Mapping[str, str]
) -> Shard:
    header, offsets = safetensors.header_bytes(
        [(tensor.name, kind.dtype, tensor.shape) for tensor in tensors], metadata
    )
    return Shard(filename=filename, tensors=tuple(tensors), header=header, size=offsets[-1])
