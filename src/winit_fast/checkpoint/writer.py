"""Generating tensors and writing them at the same time, in bounded memory."""

from __future__ import annotations

import math
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from winit_fast.base import dtypes, threads
from winit_fast.base.arguments import path, positive, utf8, word
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.checkpoint import layout, provenance
from winit_fast.checkpoint.directory import Directory, TooLate, missing, no_room_means, reserve
from winit_fast.checkpoint.interrupts import Interrupts
from winit_fast.checkpoint.layout import Shard
from winit_fast.checkpoint.stage import STAGE
from winit_fast.initializers.protocol import Filler
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import Stream

SEGMENT_BYTES = 1 << 20
"""Bytes that are generated and then written in one go.

A segment is written from the cache of the core that made it: it has to fit there (L2), and to be
long enough that the two calls it takes do not count.
"""

MAX_THREADS = 128
"""Threads of a run at most: each has a segment, and all together stay below 256 MiB."""

FLUSH_BYTES = 1 << 26
"""Bytes after which what was written so far is sent to the disk, while the rest is being made.

The disk is then at work from the beginning: 1.4 times as fast as one flush at the end, where making
and writing together take about as long as the disk does.
"""


class Piece(NamedTuple):
    """A box of a tensor that is contiguous in C order, what fills it, and the bytes it takes."""

    fill: Filler
    box: Box
    nbytes: int


class Segment(NamedTuple):
    """Pieces that follow one another in a file."""

    file: int
    offset: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Summary:
    """What was written, and how fast.

    Attributes
    ----------
    files : tuple of Path
        The files of tensors, in order.
    parameters : int
        Elements of all tensors.
    nbytes : int
        Bytes of all files of tensors, headers included.
    seconds : float
        From the first byte made to the last one on the disk.
    num_threads : int
    """

    files: tuple[Path, ...]
    parameters: int
    nbytes: int
    seconds: float
    num_threads: int


def write_checkpoint(
    directory: str | os.PathLike[str],
    tensors: Sequence[TensorSpec],
    *,
    seed: int,
    dtype: object = "bfloat16",
    max_shard_size: int = 5 * 10**9,
    metadata: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
    force: bool = False,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write a model's freshly initialised tensors as a safetensors checkpoint.

    Every thread makes a segment in a buffer of its own, about 1 MiB, and writes it to its place:
    while one writes, another one makes. Memory is one such buffer for each thread, whatever the
    size of the model. The files come under their names when all of them are whole and on the disk;
    a run that fails, is refused or is interrupted leaves the directory as it was.

    Element by element a tensor is what ``tensor.scheme(tensor.shape, seed=seed,
    name=tensor.stream, dtype=dtype)`` returns. Non-persistent buffers are left out.

    Parameters
    ----------
    directory : path
        Made if it does not exist.
    tensors : Plan or sequence of TensorSpec
        In the order in which they are to stand in the files.
    seed : int
        In [0, 2^64).
    dtype : str, type or numpy.dtype
        Type of all tensors, a floating-point one of docs/contract.md.
    max_shard_size : int
        Bytes of tensors in one file; beyond it there are several and an index.
    metadata : mapping of str to str, optional
        Goes into the header of every file.
    texts : mapping of str to str, optional
        Further small files, name to content.
    force : bool
        Replace the checkpoint in a directory that is not empty; other files stay.
    num_threads : int, optional
        By default as many as any fill uses; at most 128, and fewer if the system gives no more.
    progress : callable, optional
        Called in the calling thread, about ten times a second, with the bytes that are on the disk
        and those that there will be.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range.
    FileExistsError
        If the directory is not empty, without ``force``.
    DiskFull
        If there is no room; the message names the file and the bytes that are missing.
    TooLate
        If Ctrl-C comes when the new checkpoint is in place already. It is a KeyboardInterrupt.

    References
    ----------
    The safetensors format: 8 bytes of header length, header in JSON, tensors.
    """
    folder = Path(path("directory", directory))
    if os.fspath(directory) == "":  # which Path takes for the current one
        raise ValueError("directory must have a name, got ''")
    if not hasattr(os, "pwrite"):
        raise OSError("write_checkpoint needs a POSIX system: this one has no pwrite")
    kind = dtypes.find(dtype)
    count = min(threads.resolve(num_threads), MAX_THREADS)
    seed = word("seed", seed)
    tensors = layout.checked(tensors)
    max_shard_size = positive("max_shard_size", max_shard_size)
    for tensor in tensors:
        tensor.scheme.check(tensor.shape, kind.dtype)
    plan = provenance.plan_text(tensors, kind)
    metadata = _metadata({} if metadata is None else metadata, provenance.metadata(seed, plan))
    shards = layout.shards(tensors, kind, max_shard_size, metadata)
    contents = _contents({} if texts is None else texts)
    contents[provenance.PLAN] = plan.encode()
    if len(shards) > 1:
        contents[layout.INDEX] = layout.index(shards).encode()
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress must be a function, got {progress!r}")

    sizes = {shard.filename: shard.size for shard in shards}
    sizes |= {name: len(content) for name, content in contents.items()}
    target = Directory(folder, sizes, force=force)
    try:
        with Interrupts() as interrupts, target:
            begin = time.perf_counter()
            writer = _Writer(target, shards, kind, segments(shards, kind, seed, SEGMENT_BYTES))
            count = writer.run(count, progress or (lambda done, total: None), interrupts)
            for name, content in contents.items():
                _write(target, name, content)
            target.publish()
            seconds = time.perf_counter() - begin
    except KeyboardInterrupt as interrupt:
        if target.published:
            raise TooLate(
                f"interrupted when the checkpoint in {folder} was in place"
            ) from interrupt
        raise
    return Summary(
        files=tuple(folder / shard.filename for shard in shards),
        parameters=sum(tensor.size for tensor in tensors),
        nbytes=sum(shard.size for shard in shards),
        seconds=seconds,
        num_threads=count,
    )


def segments(
    shards: Sequence[Shard], kind: dtypes.Float, seed: int, limit: int
) -> Iterator[Segment]:
    """Cut the tensors of all files into segments, in the order in which they stand there.

    Parameters
    ----------
    shards : sequence of Shard
    kind : Float
        Type of all tensors.
    seed : int
    limit : int
        Bytes of a segment at most.

    Yields
    ------
    Segment
    """
    itemsize = kind.dtype.itemsize
    for file, shard in enumerate(shards):
        offset, pieces, filled = len(shard.header), list[Piece](), 0
        for tensor in shard.tensors:
            fill = tensor.scheme.prepared(tensor.shape, kind.dtype, Stream(seed, tensor.stream))
            for slices in cuts(tensor.shape, limit // itemsize):
                box = whole(tensor.shape).cut(slices)
                nbytes = math.prod(box.sizes) * itemsize
                if pieces and filled + nbytes > limit:
                    yield Segment(file, offset, tuple(pieces))
                    offset, pieces, filled = offset + filled, [], 0
                pieces.append(Piece(fill, box, nbytes))
                filled += nbytes
        yield Segment(file, offset, tuple(pieces))


class _Writer:
    """One run: threads that take segments in turn, make them and write them."""

    def __init__(
        self,
        target: Directory,
        shards: Sequence[Shard],
        kind: dtypes.Float,
        segments: Iterator[Segment],
    ) -> None:
        self._target = target
        self._shards = shards
        self._dtype = kind.dtype
        self._segments = segments
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._written = [0] * len(shards)
        self._flushed = [0] * len(shards)

    def run(
        self, num_threads: int, progress: Callable[[int, int], None], interrupts: Interrupts
    ) -> int:
        """Write all files into the stage, have them on the disk and tell how many threads did."""
        total = sum(shard.size for shard in self._shards)
        for number, shard in enumerate(self._shards):
            with self._open(number, os.O_CREAT | os.O_EXCL) as file:
                with self._missing(number, 0):
                    reserve(file, shard.size)
                self._write(number, file, memoryview(shard.header), 0)
        with ThreadPoolExecutor(num_threads + 1, "winit-fast") as pool:
            try:
                tasks = [pool.submit(self._flush, total), *self._workers(pool, num_threads)]
                pending = set(tasks)
                while pending:
                    done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
                    with interrupts.allowed():
                        progress(sum(self._flushed), total)
                    for task in done:
                        task.result()
            finally:
                self._stop.set()
        return len(tasks) - 1

    def _workers(self, pool: ThreadPoolExecutor, num_threads: int) -> list[Future[None]]:
        """Start as many as there is memory for, one at least."""
        workers: list[Future[None]] = []
        for _ in range(num_threads):
            try:
                workers.append(pool.submit(self._work, mmap.mmap(-1, SEGMENT_BYTES)))
            except (OSError, RuntimeError):  # no memory, no thread
                if not workers:
                    raise
                break
        return workers

    def _work(self, memory: mmap.mmap) -> None:
        buffer = np.frombuffer(memory, np.uint8)
        with ExitStack() as opened:
            number = -1
            while not self._stop.is_set():
                with self._lock:
                    segment = next(self._segments, None)
                if segment is None:
                    return
                end = 0
                for fill, box, nbytes in segment.pieces:
                    begin, end = end, end + nbytes
                    fill(buffer[begin:end].view(self._dtype).reshape(box.sizes), box, 1)
                if segment.file != number:  # one at a time: there may be more than can be open
                    opened.close()
                    number = segment.file
                    file = opened.enter_context(self._open(number))
                self._write(number, file, buffer[:end].data, segment.offset)

    def _write(self, number: int, file: int, data: memoryview, offset: int) -> None:
        while data:
            with self._missing(number, self._written[number]):
                count = os.pwrite(file, data, offset)
            data, offset = data[count:], offset + count
            with self._lock:
                self._written[number] += count

    def _flush(self, total: int) -> None:
        while sum(self._flushed) < total and not self._stop.wait(0.01):
            written = list(self._written)
            if sum(written) - sum(self._flushed) < FLUSH_BYTES and sum(written) < total:
                continue
            for number in range(len(self._shards)):
                if written[number] > self._flushed[number]:
                    done = self._flushed[number]
                    with self._open(number) as file, self._missing(number, done):
                        os.fsync(file)
                    self._flushed[number] = written[number]

    @contextmanager
    def _open(self, number: int, flags: int = 0) -> Iterator[int]:
        path = self._target.stage / self._shards[number].filename
        with self._missing(number, self._flushed[number]):
            file = os.open(path, os.O_WRONLY | flags, 0o666)
        try:
            yield file
        finally:
            with self._missing(number, self._flushed[number]):  # some file systems only tell now
                os.close(file)

    def _missing(self, number: int, done: int) -> AbstractContextManager[None]:
        """Have an error of a full disk name a file, of which some bytes are done."""
        shard = self._shards[number]
        return no_room_means(missing(self._target.path / shard.filename, done, shard.size))


def _metadata(metadata: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Check a user's metadata, and add the writer's own."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must map str to str, got {metadata!r}")
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"metadata must map str to str, got {value!r} for {key!r}")
        utf8("metadata", key), utf8("metadata", value)
        if own.get(key, value) != value:
            raise ValueError(f"metadata[{key!r}] is {own[key]!r} here, got {value!r}")
    return {**metadata, **own}


def _contents(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Check the further files, and encode them."""
    if not isinstance(texts, Mapping):
        raise TypeError(f"texts must map names of files to str, got {texts!r}")
    contents = {}
    for name, text in texts.items():
        if Path(path("texts", name)).name != name or name in ("", ".."):
            raise ValueError(f"texts must have plain file names, got {name!r}")
        if layout.is_file_of_checkpoint(name) or name.startswith(STAGE):
            raise ValueError(f"texts must have other names than the writer's own, got {name!r}")
        contents[name] = utf8(f"texts[{name!r}]", text)
    return contents


def _write(target: Directory, name: str, data: bytes) -> None:
    with (
        no_room_means(missing(target.path / name, 0, len(data))),
        (target.stage / name).open("xb") as file,
    ):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
