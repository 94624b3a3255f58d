"""Writes the tensors of a model, with their provenance, as a safetensors checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import path, positive, utf8, word
from winit_fast.checkpoint import layout, provenance, remote, segments
from winit_fast.checkpoint.layout import Shard
from winit_fast.checkpoint.ranks import Process
from winit_fast.checkpoint.segment_writer import MAX_THREADS
from winit_fast.checkpoint.segments import Segment
from winit_fast.checkpoint.stage import STAGE
from winit_fast.checkpoint.transaction import Summary, summary, write_files
from winit_fast.models.tensor_spec import TensorSpec

Delegate = Callable[[Path, Sequence[Shard], Callable[[int], None]], int]
"""Writes the large files of a checkpoint elsewhere: see `write_checkpoint`."""


def write_checkpoint(
    directory: str | os.PathLike[str],
    tensors: Sequence[TensorSpec],
    *,
    seed: int,
    dtype: object | None = None,
    dtypes: Mapping[str, object] | None = None,
    max_shard_size: int = 5 * 10**9,
    metadata: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
    force: bool = False,
    resume: bool = False,
    rank: int | None = None,
    world: int | None = None,
    finalize: bool = False,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    delegate: Delegate | None = None,
) -> Summary:
    """Write a model's freshly initialised tensors as a safetensors checkpoint.

    Each thread fills a segment of about 1 MiB in its own buffer and writes it to the file, while
    other threads fill theirs. Memory use is one such buffer for each thread, whatever the size of
    the model. The files get their names when all of them are complete and flushed; a run that
    fails, is refused or is interrupted leaves the directory as it was. If a run is killed, or the
    disk becomes full while it writes, a hidden folder stays in the directory. With ``resume``, the
    next run continues there, and the bytes are those of an uninterrupted run.

    The elements of a tensor are those that ``tensor.scheme(tensor.shape, seed=seed,
    name=tensor.stream, dtype=tensor.dtype)`` returns, or in the dtype given here. A tensor with
    several names is written once, under its first one. Non-persistent buffers are left out.

    Parameters
    ----------
    directory : path
        Created if it does not exist. An address such as ``s3://bucket/model`` is written to through
        fsspec, which must be installed. The place must be empty. Files are written one after
        another, the index last; after a failure the files are removed, but a kill may leave files
        without an index.
    tensors : Plan or sequence of TensorSpec
        In the order of the files. In a file with several dtypes, the widest come first.
    seed : int
        In [0, 2^64).
    dtype : str, type or numpy.dtype, optional
        A floating-point type of docs/contract.md for all floating-point tensors. By default each
        tensor has its own dtype. Integers and bool always keep theirs.
    dtypes : mapping of str to str, type or numpy.dtype, optional
        Other types for some tensors, by patterns of their names as in rules; the first pattern
        that matches counts. For example ``{"*.norm.weight": "float32"}``. A floating-point type
        is only for floating-point tensors.
    max_shard_size : int
        Most bytes of tensors in one file. A larger checkpoint has several files and an index.
    metadata : mapping of str to str, optional
        Written to the header of every file.
    texts : mapping of str to str, optional
        Additional small files: content by name.
    force : bool
        Replace the checkpoint in a directory that is not empty; other files stay. The files of an
        unfinished run are removed.
    resume : bool
        Continue an unfinished run with the same tensors, seed and other arguments. All tensors are
        made again and compared with the files, and only differences are written. Without such a
        run the checkpoint is started; if it is already complete, nothing is done.
    rank, world : int, optional
        Number of this process, from 0, and of all processes. Each writes every world-th file, and
        the last one to end adds the index and publishes all. The bytes do not depend on them. The
        processes need the same file system and the same arguments, and no connection. If one
        fails, start it again: the hidden folder stays until all files are complete.
    finalize : bool
        Write no file, only publish the files of all ranks. Needed only where the file system has
        no locks, or if the last process was killed at its end.
    num_threads : int, optional
        By default `winit_fast.get_num_threads`; at most 128, and fewer if memory is short.
    progress : callable, optional
        Called in the calling thread, about ten times a second, with the number of bytes flushed so
        far and the total.
    delegate : callable, optional
        Writes the safetensors files in place of this process, as `winit_fast.dask.write_checkpoint`
        does: a function of the folder, the files and a function to call several times a second
        with the bytes written so far. It returns the number of threads.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid.
    FileExistsError
        If the directory is not empty, or holds an unfinished checkpoint, without ``force``.
    DiskFull
        If there is not enough space; the message names the file and the missing bytes.
    TooLate
        If Ctrl-C arrives after the new checkpoint is in place. It is a KeyboardInterrupt.

    References
    ----------
    The safetensors format: 8 bytes of header length, header in JSON, tensors.
    """
    name = path("directory", directory)
    folder = Path(name)
    is_address = remote.is_address(name)
    process = Process.of(rank, world, finalize)
    if is_address and (force or resume or process is not None):
        raise ValueError(f"force, resume and ranks are for local directories, got {name!r}")
    if is_address and delegate is not None:
        raise ValueError(f"directory must be one that all workers share, got {name!r}")
    if process is not None and delegate is not None:
        raise ValueError(
            f"rank, world and finalize must not be given with a delegate, got {process!r}"
        )
    if os.fspath(directory) == "":  # Path("") would be the current directory
        raise ValueError("directory must have a name, got ''")
    if not (is_address or hasattr(os, "pwrite")):
        raise OSError("write_checkpoint needs a POSIX system: this one has no pwrite")
    count = min(threads.resolve(num_threads), MAX_THREADS)
    seed = word("seed", seed)
    tensors = layout.stored(layout.checked(tensors), dtype, {} if dtypes is None else dtypes)
    max_shard_size = positive("max_shard_size", max_shard_size)
    for tensor in tensors:
        tensor.check()
    plan = provenance.plan_text(tensors)
    metadata = _metadata({} if metadata is None else metadata, provenance.metadata(seed, plan))
    shards = layout.shards(tensors, max_shard_size, metadata)
    contents = checked_texts({} if texts is None else texts)
    contents[provenance.PLAN] = plan.encode()
    if len(shards) > 1:
        contents[layout.INDEX] = layout.index(shards).encode()
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress must be a function, got {progress!r}")

    progress = progress or (lambda done, total: None)
    if is_address:
        begin = time.perf_counter()
        _write_elsewhere(name, shards, contents, seed, count, progress)
        return summary(
            [f"{name.rstrip('/')}/{shard.filename}" for shard in shards], shards, begin, count
        )
    return write_files(
        folder,
        shards,
        lambda some: segments.of_shards(some, seed, segments.SEGMENT_BYTES),
        contents,
        origin=(seed, metadata[provenance.DIGEST_KEY]),
        force=force,
        resume=resume,
        process=process,
        num_threads=count,
        progress=progress,
        delegate=None if delegate is None else lambda stage, told: delegate(stage, shards, told),
    )


def _write_elsewhere(
    address: str,
    shards: Sequence[Shard],
    contents: Mapping[str, bytes],
    seed: int,
    num_threads: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write all files to an address; the file that a loader looks for is written last."""
    total = sum(shard.size for shard in shards) + sum(map(len, contents.values()))
    done = 0

    def report(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    def files() -> Iterator[tuple[str, Iterable[Callable[[], memoryview]]]]:
        whole = {name: partial(_view, content) for name, content in contents.items()}
        index = whole.pop(layout.INDEX, None)
        for name, content in whole.items():
            yield name, [content]
        every = segments.of_shards(shards, seed, segments.SEGMENT_BYTES)
        for number, own in groupby(every, lambda segment: segment.file):
            header = partial(_view, shards[number].header)
            yield shards[number].filename, chain([header], (partial(_made, each) for each in own))
        if index is not None:
            yield layout.INDEX, [index]

    remote.write(address, files(), num_threads, report)


def _view(data: bytes) -> memoryview:
    return memoryview(data)


def _made(segment: Segment) -> memoryview:
    """Fill a segment in newly allocated memory."""
    memory = np.empty(sum(cut.nbytes for cut in segment.cuts), np.uint8)
    segment.fill(memory)
    return memory.data


def _metadata(metadata: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Check the user's metadata, and add the provenance."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must map str to str, got {metadata!r}")
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"metadata must map str to str, got {value!r} for {key!r}")
        utf8("metadata", key), utf8("metadata", value)
        if own.get(key, value) != value:
            raise ValueError(f"metadata[{key!r}] must be {own[key]!r}, got {value!r}")
    return {**metadata, **own}


def checked_texts(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Check the additional files, and encode them."""
    if not isinstance(texts, Mapping):
        raise TypeError(f"texts must map names of files to str, got {texts!r}")
    contents = {}
    for name, text in texts.items():
        if Path(path("texts", name)).name != name or name in ("", ".."):
            raise ValueError(f"texts must have plain file names, got {name!r}")
        if layout.is_file_of_checkpoint(name) or name.startswith(STAGE):
            raise ValueError(f"texts must not name a file of the checkpoint, got {name!r}")
        contents[name] = utf8(f"texts[{name!r}]", text)
    return contents
