"""The format of torch.distributed.checkpoint (DCP), written by one process without process groups.

A file of this format is a sequence of archives as `torch.save` makes them, each with a chunk of a
tensor. `torch.save` makes the bytes around the elements, too; the elements are filled where they
lie in the file. The metadata is made of torch's own classes, pickled as torch's writer does it.
"""

import io
import math
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from winit_fast.base import threads
from winit_fast.base.arguments import path, positive, word
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.base.dtypes import find_any
from winit_fast.checkpoint import layout, provenance, segments
from winit_fast.checkpoint.layout import DCP_METADATA
from winit_fast.checkpoint.ranks import Process
from winit_fast.checkpoint.segment_writer import MAX_THREADS
from winit_fast.checkpoint.segments import Cut, Segment
from winit_fast.checkpoint.transaction import Summary, write_files
from winit_fast.checkpoint.writer import checked_texts
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import NON_PERSISTENT, TensorSpec
from winit_fast.streams.identity import STREAM_VERSION
from winit_fast.torch.names import Names

CHUNK_BYTES = 1 << 26
"""Most bytes of a chunk, which a loader reads at once."""

ALIGNMENT = 64
"""Archives begin at multiples of this number of bytes, and so do their elements."""


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor, and its archive's place in a file.

    Attributes
    ----------
    tensor : TensorSpec
    starts, sizes : tuple of int
        The box.
    offset : int
        Where the archive begins in the file.
    """

    tensor: TensorSpec
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    offset: int

    @property
    def around(self) -> tuple[bytes, bytes]:
        """The bytes of the archive before and behind the elements."""
        return archive(self.sizes, self.tensor.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.sizes) * find_any(self.tensor.dtype).itemsize

    @property
    def length(self) -> int:
        """Bytes of the archive."""
        before, behind = self.around
        return len(before) + self.nbytes + len(behind)

    @property
    def end(self) -> int:
        """Where the next archive begins."""
        return -(-(self.offset + self.length) // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class File:
    """One file of a checkpoint.

    Attributes
    ----------
    filename : str
    chunks : tuple of Chunk
    """

    filename: str
    chunks: tuple[Chunk, ...]

    @property
    def header(self) -> bytes:
        """Nothing: all bytes are written in segments."""
        return b""

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.chunks[-1].end

    @property
    def parameters(self) -> int:
        """Number of elements in the file."""
        return sum(math.prod(chunk.sizes) for chunk in self.chunks)


def write_dcp(
    directory: str | os.PathLike[str],
    plan: Plan,
    *,
    seed: int,
    dtype: object = None,
    dtypes: Mapping[str, object] | None = None,
    names: Names | None = None,
    max_shard_size: int = 5 * 10**9,
    texts: Mapping[str, str] | None = None,
    force: bool = False,
    resume: bool = False,
    rank: int | None = None,
    world: int | None = None,
    finalize: bool = False,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write a plan's tensors as a checkpoint that `torch.distributed.checkpoint.load` reads.

    It takes the place of a seed checkpoint: one process without a process group writes it, and any
    number of ranks load it, each its own shards. Memory use, atomicity and resuming are those of
    `winit_fast.checkpoint.write_checkpoint`, and so are the elements.

    Parameters
    ----------
    directory : path
        Created if it does not exist; must be empty.
    plan : winit_fast.Plan
        Non-persistent buffers are left out. A tied tensor is written once, and can be loaded under
        each of its names.
    seed : int
        In [0, 2^64).
    dtype : str, type or numpy.dtype, optional
        Type of all floating-point tensors, by default that of each tensor in the plan.
    dtypes : mapping of str to str, type or numpy.dtype, optional
        Other types for some tensors, by patterns of their names, as in
        `winit_fast.checkpoint.write_checkpoint`.
    names : mapping of str to str, or callable, optional
        Maps the name of a tensor to its key in the state dict that is loaded, for example
        ``lambda name: f"model.{name}"``. Names that a mapping lacks stay as they are.
    max_shard_size : int
        Most bytes of elements in one file. A tensor of more than 64 MiB is cut into several
        chunks, which may be in several files.
    texts, force, resume, rank, world, finalize, num_threads, progress
        As in `winit_fast.checkpoint.write_checkpoint`.

    Returns
    -------
    winit_fast.checkpoint.Summary

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, or two tensors have the same key.
    OSError
        As `winit_fast.checkpoint.write_checkpoint`.

    Examples
    --------
    >>> import tempfile
    >>> import warnings
    >>> import torch.distributed.checkpoint as dcp
    >>> import winit_fast.torch
    >>> warnings.simplefilter("ignore")  # dcp.load warns that it is alone
    >>> plan = winit_fast.torch.record(lambda: torch.nn.Linear(64, 32))
    >>> layer = torch.nn.Linear(64, 32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = winit_fast.torch.write_dcp(folder, plan, seed=0)
    ...     dcp.load(layer.state_dict(), checkpoint_id=folder)
    >>> bool((layer.bias == torch.from_numpy(plan["bias"].array(seed=0))).all())
    True
    """
    folder = Path(path("directory", directory))
    if os.fspath(directory) == "":
        raise ValueError("directory must have a name, got ''")
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, got {plan!r}")
    seed = word("seed", seed)
    count = min(threads.resolve(num_threads), MAX_THREADS)
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress must be a function, got {progress!r}")
    tensors = [tensor for tensor in plan if tensor.kind != NON_PERSISTENT]
    if not tensors:
        raise ValueError("plan has no tensor to write")
    tensors = list(layout.stored(tensors, dtype, {} if dtypes is None else dtypes))
    for tensor in tensors:
        tensor.check()
    keys = _keys(tensors, names)
    files = list(_files(tensors, positive("max_shard_size", max_shard_size)))
    contents = checked_texts({} if texts is None else texts)
    contents[provenance.PLAN] = provenance.plan_text(tensors).encode()
    digest = provenance.digest(contents[provenance.PLAN])
    origin = f"winit_fast stream {STREAM_VERSION}, seed {seed}, plan {digest}"
    contents[DCP_METADATA] = pickle.dumps(_metadata(files, keys, origin))
    return write_files(
        folder,
        files,
        lambda some: _segments(some, seed),
        contents,
        origin=(seed, digest),
        force=force,
        resume=resume,
        process=Process.of(rank, world, finalize),
        num_threads=count,
        progress=progress or (lambda done, total: None),
    )


def _keys(tensors: Sequence[TensorSpec], names: Names | None) -> dict[str, list[str]]:
    """Find the keys of every tensor: one for each of its names."""
    if not (names is None or callable(names) or isinstance(names, Mapping)):
        raise TypeError(f"names must be a mapping or a function, got {names!r}")
    every = [name for tensor in tensors for name in (tensor.name, *tensor.tied)]
    if isinstance(names, Mapping):
        for name in names:
            if name not in every:
                raise ValueError(f"names has {name!r}, which the plan has not")
    found: dict[str, list[str]] = {}
    used: dict[str, str] = {}
    for tensor in tensors:
        for name in (tensor.name, *tensor.tied):
            key: Any = name
            if names is not None:
                key = names.get(name, name) if isinstance(names, Mapping) else names(name)
            if not isinstance(key, str):
                raise TypeError(f"names must give a str, got {key!r} for {name!r}")
            if used.setdefault(key, name) != name:
                raise ValueError(f"names gives {key!r} to both {used[key]!r} and {name!r}")
            found.setdefault(tensor.name, []).append(key)
    return found


# ---------------------------------------------------------------------------------------- layout


def _files(tensors: Sequence[TensorSpec], max_shard_size: int) -> Iterator[File]:
    """Distribute the tensors' chunks over files."""
    chunks: list[Chunk] = []
    number, filled = 0, 0
    for tensor in tensors:
        for box in boxes(tensor.shape, find_any(tensor.dtype).itemsize):
            chunk = Chunk(tensor, box.starts, box.sizes, chunks[-1].end if chunks else 0)
            if chunks and filled + chunk.nbytes > max_shard_size:
                yield File(f"__0_{number}.distcp", tuple(chunks))
                chunk, chunks = replace(chunk, offset=0), []
                number, filled = number + 1, 0
            chunks.append(chunk)
            filled += chunk.nbytes
    yield File(f"__0_{number}.distcp", tuple(chunks))


def boxes(shape: tuple[int, ...], itemsize: int) -> list[Box]:
    """Split a tensor into the boxes of its chunks, each of one or more of the cuts.

    Examples
    --------
    >>> [box.starts for box in boxes((50, 1 << 20), 4)]
    [(0, 0), (16, 0), (32, 0), (48, 0)]
    """
    found = [whole(shape).cut(cut) for cut in cuts(shape, segments.SEGMENT_BYTES // itemsize)]
    for _ in shape:  # parts of a row to rows, rows to several, and so on
        pieces, found = found, []
        for box in pieces:
            joined = _joined(found[-1], box) if found else None
            if joined is None or math.prod(joined.sizes) * itemsize > CHUNK_BYTES:
                found.append(box)
            else:
                found[-1] = joined
    return found


def _joined(first: Box, second: Box) -> Box | None:
    """Join two adjacent boxes, if together they are a box."""
    other = [
        axis
        for axis in range(len(first.sizes))
        if (first.starts[axis], first.sizes[axis]) != (second.starts[axis], second.sizes[axis])
    ]
    if len(other) != 1:
        return None
    (axis,) = other
    if first.starts[axis] + first.sizes[axis] != second.starts[axis]:
        return None
    sizes = list(first.sizes)
    sizes[axis] += second.sizes[axis]
    return first._replace(sizes=tuple(sizes))


class _Sink(io.RawIOBase):
    """A file that keeps what `torch.save` writes, and notes what it leaves out."""

    def __init__(self) -> None:
        self.parts: list[bytes] = [b""]
        self.left_out: list[int] = []
        self._end = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts[-1] += bytes(data)
        self._end += len(data)
        return len(data)

    def tell(self) -> int:
        return self._end

    def seek(self, offset: int, whence: int = 0) -> int:
        step = offset if whence == 1 else offset - self._end
        if step:
            self.left_out.append(step)
            self.parts.append(b"")
            self._end += step
        return self._end


@lru_cache(maxsize=1024)
def archive(sizes: tuple[int, ...], dtype: str) -> tuple[bytes, bytes]:
    """Return what `torch.save` writes before and behind the elements of a tensor.

    Parameters
    ----------
    sizes : tuple of int
    dtype : str

    Returns
    -------
    before, behind : bytes
    """
    sink = _Sink()
    tensor = torch.empty(sizes, dtype=getattr(torch, dtype), device="cpu")  # never touched
    with torch.serialization.skip_data():
        torch.save(tensor, sink)
    if tensor.nbytes == 0:
        return sink.parts[0], b""
    if sink.left_out != [tensor.nbytes]:
        raise RuntimeError(f"torch {torch.__version__} leaves out other bytes than a tensor's")
    before, behind = sink.parts
    return before, behind


def _segments(files: Sequence[File], seed: int) -> Iterator[Segment]:
    for number, file in enumerate(files):
        yield from segments.packed(_cuts(file, seed), number, 0, segments.SEGMENT_BYTES)


def _cuts(file: File, seed: int) -> Iterator[Cut]:
    """Iterate over the cuts of a file: of tensors, and the bytes around them."""
    pending = b""
    of_tensor: Iterator[Cut] = iter(())
    last: TensorSpec | None = None
    for chunk in file.chunks:
        before, behind = chunk.around
        yield _literal(pending + before)
        if chunk.tensor is not last:
            of_tensor, last = _from(chunk, seed), chunk.tensor
        left = chunk.nbytes
        while left:
            cut = next(of_tensor)
            left -= cut.nbytes
            yield cut
        pending = behind + bytes(chunk.end - chunk.offset - chunk.length)
    yield _literal(pending)


def _from(chunk: Chunk, seed: int) -> Iterator[Cut]:
    """Iterate over a tensor's cuts from a chunk on."""
    for cut in segments.cuts_of(chunk.tensor, seed, segments.SEGMENT_BYTES):
        if cut.box.starts >= chunk.starts:  # cuts are in C order
            yield cut


def _literal(data: bytes) -> Cut:
    """Make a cut of known bytes."""
    known = np.frombuffer(data, np.uint8)

    def copy(out: Array, box: Box, num_threads: int | None) -> None:
        out[...] = known

    return Cut(copy, whole(known.shape), known.dtype, known.size)


# -------------------------------------------------------------------------------------- metadata


def _metadata(files: Sequence[File], keys: Mapping[str, Sequence[str]], origin: str) -> Any:
    """Describe the whole tensors, and where their chunks are."""
    from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        StorageMeta,
        TensorProperties,
        TensorStorageMetadata,
    )

    tensors: dict[str, TensorStorageMetadata] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    for file in files:
        for chunk in file.chunks:
            starts, sizes = torch.Size(chunk.starts), torch.Size(chunk.sizes)
            place = _StorageInfo(file.filename, chunk.offset, chunk.length)
            for key in keys[chunk.tensor.name]:
                if key not in tensors:
                    properties = TensorProperties(dtype=getattr(torch, chunk.tensor.dtype))
                    size = torch.Size(chunk.tensor.shape)
                    tensors[key] = TensorStorageMetadata(properties, size, [])
                own = tensors[key].chunks
                places[MetadataIndex(key, starts, len(own))] = place
                own.append(ChunkStorageMetadata(starts, sizes))
    return Metadata(
        state_dict_metadata=dict(tensors),
        planner_data={key: (key,) for key in tensors},
        storage_data=places,
        storage_meta=StorageMeta(save_id=origin),
        version=CURRENT_DCP_VERSION,
    )
