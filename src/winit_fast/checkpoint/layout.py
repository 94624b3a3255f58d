"""What stands where: tensors shared out among safetensors files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winit_fast.base import safetensors
from winit_fast.base.arguments import positive, utf8
from winit_fast.base.dtypes import Float
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.models.tensor_spec import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Shard:
    """One safetensors file.

    Attributes
    ----------
    filename : str
    tensors : tuple of Tensor
    header : bytes
        Everything before the first tensor; its length is a multiple of 8.
    size : int
        Length of the file in bytes.
    """

    filename: str
    tensors: tuple[Tensor, ...]
    header: bytes
    size: int


def check(tensors: Sequence[Tensor], max_shard_size: int, metadata: Mapping[str, str]) -> None:
    """Check what `shards` takes.

    Parameters
    ----------
    tensors, max_shard_size, metadata
        As in `shards`.

    Raises
    ------
    ValueError
        If there is no tensor, a name is used twice or is the one that the format keeps for itself,
        or `max_shard_size` is less than 1.
    TypeError
        If something has another type than it should.
    """
    positive("max_shard_size", max_shard_size)
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must map str to str, got {metadata!r}")
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"metadata must map str to str, got {value!r} for {key!r}")
        utf8("metadata", key), utf8("metadata", value)
    if not tensors:
        raise ValueError("tensors is empty: there is nothing to write")
    seen = {safetensors.RESERVED}
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors must hold Tensor objects, got {tensor!r}")
        if tensor.name in seen:
            raise ValueError(f"tensor name {tensor.name!r} is used twice or is reserved")
        seen.add(tensor.name)


def shards(
    tensors: Sequence[Tensor], kind: Float, max_shard_size: int, metadata: Mapping[str, str]
) -> tuple[Shard, ...]:
    """Share tensors out among files, in their order.

    A file is closed when the next tensor would take its tensors past `max_shard_size`; a tensor
    that is larger than that gets a file of its own. These are the rules and the file names of the
    Hugging Face libraries, so a model is cut here as it is there.

    Parameters
    ----------
    tensors : sequence of Tensor
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
    groups: list[list[Tensor]] = [[]]
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
    filename: str, tensors: Sequence[Tensor], kind: Float, metadata: Mapping[str, str]
) -> Shard:
    header, offsets = safetensors.header_bytes(
        [(tensor.name, kind.dtype, tensor.shape) for tensor in tensors], metadata
    )
    return Shard(filename=filename, tensors=tuple(tensors), header=header, size=offsets[-1])
