"""Fills tensors and writes them at the same time, in bounded memory."""

from __future__ import annotations

import math
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import path, positive, utf8, word
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.base.dtypes import find_any
from winit_fast.checkpoint import layout, provenance, remote
from winit_fast.checkpoint.directory import (
    Directory,
    DiskFull,
    TooLate,
    missing,
    no_room_means,
    reserve,
)
from winit_fast.checkpoint.interrupts import Interrupts
from winit_fast.checkpoint.layout import File, Shard
from winit_fast.checkpoint.ranks import Process, SharedDirectory
from winit_fast.checkpoint.stage import STAGE, Run
from winit_fast.initializers.protocol import Filler
from winit_fast.models.tensor_spec import TensorSpec

SEGMENT_BYTES = 1 << 20
"""Bytes that are filled and then written in one call.

A segment is written from the L2 cache of the core that filled it. So it must fit into that cache,
and be long enough that the overhead of the two calls is negligible.
"""

SPARE_BYTES = 1 << 28
"""Address space that must be free for one more worker: its stack and malloc arena take half of it.
The rest is for the workers that run already, which would fail if starting others took everything.
"""

MAX_THREADS = 128
"""Most threads of a run. Each has a buffer of one segment; together they stay below 256 MiB."""

FLUSH_BYTES = 1 << 26
"""After this many bytes the files are flushed (fsync), while the next segments are filled.

So the disk works from the beginning. That is 1.4 times as fast as one flush at the end, if filling
takes about as long as the disk does.
"""


AnyFile = TypeVar("AnyFile", bound=File)

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

Delegate = Callable[[Path, Sequence[Shard], Callable[[int], None]], int]
"""Writes the large files of a checkpoint elsewhere: see `write_checkpoint`."""


class Piece(NamedTuple):
    """A contiguous box of a tensor: the function that fills it, its dtype and its bytes."""

    fill: Filler
    box: Box
    dtype: np.dtype[Any]
    nbytes: int


class Segment(NamedTuple):
    """Pieces that are adjacent in a file."""

    file: int
    offset: int
    pieces: tuple[Piece, ...]

    def fill(self, memory: Bytes) -> int:
        """Fill the pieces one after another, and return the number of bytes."""
        end = 0
        for fill, box, dtype, nbytes in self.pieces:
            begin, end = end, end + nbytes
            fill(memory[begin:end].view(dtype).reshape(box.sizes), box, 1)
        return end


@dataclass(frozen=True)
class Summary:
    """Statistics of a written checkpoint.

    Attributes
    ----------
    files : tuple of Path
        The safetensors files, in order; str for remote addresses. Of one rank of several, those
        that it has written.
    parameters : int
        Number of elements in these files.
    nbytes : int
        Bytes of these files, headers included.
    seconds : float
        From the first byte filled to the last byte flushed.
    num_threads : int
    published : bool
        Whether the checkpoint is in place; false while other ranks have files to write.
    """

    files: tuple[Path | str, ...]
    parameters: int
    nbytes: int
    seconds: float
    num_threads: int
    published: bool = True


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
        return _summary(
            [f"{name.rstrip('/')}/{shard.filename}" for shard in shards], shards, begin, count
        )
    return write_files(
        folder,
        shards,
        lambda some: segments(some, seed, SEGMENT_BYTES),
        contents,
        origin=(seed, metadata[provenance.DIGEST_KEY]),
        force=force,
        resume=resume,
        process=process,
        num_threads=count,
        progress=progress,
        delegate=None if delegate is None else lambda stage, told: delegate(stage, shards, told),
    )


def write_files(
    folder: Path,
    files: Sequence[AnyFile],
    segments: Callable[[Sequence[AnyFile]], Iterator[Segment]],
    contents: Mapping[str, bytes],
    *,
    origin: tuple[int, str],
    force: bool,
    resume: bool,
    process: Process | None,
    num_threads: int,
    progress: Callable[[int, int], None],
    delegate: Callable[[Path, Callable[[int], None]], int] | None = None,
) -> Summary:
    """Write the files of a checkpoint of any format, all of them or none.

    Parameters
    ----------
    folder : Path
    files : sequence of File
    segments : callable
        Makes the segments of some of the files: everything behind their headers.
    contents : mapping of str to bytes
        Small files, which are written last.
    origin : (int, str)
        The seed, and the digest of the plan.
    process : Process or None
        This one, if there are several.
    force, resume, num_threads, progress
        As in `write_checkpoint`.
    delegate : callable, optional
        Writes the files in place of this process: a function of the folder and of one to call with
        the bytes written so far. It returns the number of threads.

    Returns
    -------
    Summary
    """
    sizes = {file.filename: file.size for file in files}
    sizes |= {name: len(content) for name, content in contents.items()}
    beginnings = {**{file.filename: file.header for file in files}, **contents}
    run = Run.of(*origin, sizes, beginnings)
    if process is not None:
        shared = SharedDirectory(
            folder, sizes, force=force, run=run, beginnings=beginnings, process=process
        )
        return _write_as_one_of_several(
            shared, files, segments, contents, process, num_threads, progress
        )
    target = Directory(
        folder, sizes, force=force, run=run, beginnings=beginnings if resume else None
    )
    try:
        with Interrupts() as interrupts, target:
            begin = time.perf_counter()
            if not target.published:
                writer = _Writer(target, files, segments(files))
                with _kept_for_later(target, writer):
                    if delegate is None:
                        num_threads = writer.run(num_threads, progress, interrupts)
                    else:
                        num_threads = _delegated(delegate, target, files, progress, interrupts)
                    for name, content in contents.items():
                        _write(target, name, content)
                target.publish()
            return _summary([folder / file.filename for file in files], files, begin, num_threads)
    except KeyboardInterrupt as interrupt:
        if target.published:
            raise TooLate(
                f"interrupted when the checkpoint in {folder} was in place"
            ) from interrupt
        raise


def _write_as_one_of_several(
    target: SharedDirectory,
    files: Sequence[AnyFile],
    segments: Callable[[Sequence[AnyFile]], Iterator[Segment]],
    contents: Mapping[str, bytes],
    process: Process,
    num_threads: int,
    progress: Callable[[int, int], None],
) -> Summary:
    """Write this process's files, and publish the checkpoint if they were the last."""
    own = process.own(files)
    try:
        with Interrupts() as interrupts, target:
            begin = time.perf_counter()
            if not target.published:
                lacking = target.to_write([file.filename for file in own])
                rest = [file for file in own if file.filename in lacking]
                if rest:
                    writer = _Writer(target, rest, segments(rest))
                    num_threads = writer.run(num_threads, progress, interrupts)
                    target.complete([file.filename for file in rest])
                with target.publishing([file.filename for file in files]) as absent:
                    if absent and not process.world:
                        raise FileNotFoundError(
                            f"{target.path} lacks {len(absent)} of {len(files)} files, the first "
                            f"is {absent[0]}: all ranks must end before finalize"
                        )
                    if not (absent or target.published):
                        for name, content in contents.items():
                            _write(target, name, content)
                        target.complete(list(contents))
                        target.publish()
            paths = [target.path / file.filename for file in own]
            return replace(_summary(paths, own, begin, num_threads), published=target.published)
    except KeyboardInterrupt as interrupt:
        if target.published:
            raise TooLate(
                f"interrupted when the checkpoint in {target.path} was in place"
            ) from interrupt
        raise


def _delegated(
    delegate: Callable[[Path, Callable[[int], None]], int],
    target: Directory,
    files: Sequence[File],
    progress: Callable[[int, int], None],
    interrupts: Interrupts,
) -> int:
    total = sum(file.size for file in files)

    def report(done: int) -> None:
        with interrupts.allowed():
            progress(done, total)

    return delegate(target.stage, report)


def _summary(
    paths: Sequence[Path | str], files: Sequence[File], begin: float, num_threads: int
) -> Summary:
    return Summary(
        files=tuple(paths),
        parameters=sum(file.parameters for file in files),
        nbytes=sum(file.size for file in files),
        seconds=time.perf_counter() - begin,
        num_threads=num_threads,
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
        every = segments(shards, seed, SEGMENT_BYTES)
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
    memory = np.empty(sum(piece.nbytes for piece in segment.pieces), np.uint8)
    segment.fill(memory)
    return memory.data


def segments(shards: Sequence[Shard], seed: int, limit: int) -> Iterator[Segment]:
    """Split the tensors of all files into segments, in the order of the files.

    Parameters
    ----------
    shards : sequence of Shard
    seed : int
    limit : int
        Most bytes of a segment.

    Yields
    ------
    Segment
    """
    for file, shard in enumerate(shards):
        pieces = (piece for tensor in shard.tensors for piece in pieces_of(tensor, seed, limit))
        yield from packed(pieces, file, len(shard.header), limit)


def pieces_of(tensor: TensorSpec, seed: int, limit: int) -> Iterator[Piece]:
    """Split a tensor into pieces of at most ``limit`` bytes, in C order."""
    dtype = find_any(tensor.dtype)
    fill = tensor.filler(seed)
    for slices in cuts(tensor.shape, limit // dtype.itemsize):
        box = whole(tensor.shape).cut(slices)
        yield Piece(fill, box, dtype, math.prod(box.sizes) * dtype.itemsize)


def packed(pieces: Iterable[Piece], file: int, offset: int, limit: int) -> Iterator[Segment]:
    """Join adjacent pieces of a file, from ``offset`` on, to segments of at most ``limit`` bytes.

    A piece that is larger is a segment of its own.
    """
    joined, filled = list[Piece](), 0
    for piece in pieces:
        if joined and filled + piece.nbytes > limit:
            yield Segment(file, offset, tuple(joined))
            offset, joined, filled = offset + filled, [], 0
        joined.append(piece)
        filled += piece.nbytes
    yield Segment(file, offset, tuple(joined))


@contextmanager
def _kept_for_later(target: Directory, writer: _Writer) -> Iterator[None]:
    """Keep the stage if the disk is full, or if it has files of an earlier run."""
    try:
        yield
    except Exception as error:
        if target.resumed or (isinstance(error, DiskFull) and writer.has_flushed):
            target.keep()
            if isinstance(error, DiskFull):
                raise DiskFull(
                    f"{error}; {target.stage} keeps what is written: resume goes on with it"
                ) from error
        raise


class _Writer:
    """One run: threads that take segments from a queue, fill them and write them."""

    def __init__(
        self,
        target: Directory,
        shards: Sequence[File],
        segments: Iterator[Segment],
    ) -> None:
        self._target = target
        self._shards = shards
        self._segments = segments
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._written = [0] * len(shards)
        self._flushed = [0] * len(shards)

    @property
    def has_flushed(self) -> bool:
        """Whether any bytes have been flushed to the disk."""
        return any(self._flushed)

    def run(
        self, num_threads: int, progress: Callable[[int, int], None], interrupts: Interrupts
    ) -> int:
        """Write all files into the stage, flush them, and return the number of threads used."""
        total = sum(shard.size for shard in self._shards)
        for number, shard in enumerate(self._shards):
            flag = os.O_NOFOLLOW if self._target.resumed else os.O_EXCL
            with self._open(number, os.O_CREAT | flag) as file:
                with self._missing(number, 0):
                    if self._target.resumed:
                        os.ftruncate(file, min(os.fstat(file).st_size, shard.size))
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
        """Start as many workers as there is memory for, at least one."""
        workers: list[Future[None]] = []
        for _ in range(num_threads):
            try:
                if workers:
                    mmap.mmap(-1, SPARE_BYTES).close()
                workers.append(pool.submit(self._work, mmap.mmap(-1, SEGMENT_BYTES)))
            except (OSError, RuntimeError):  # no memory for the buffer, or no thread
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
                end = segment.fill(buffer)
                if segment.file != number:  # one per thread: open files are limited
                    opened.close()
                    number = segment.file
                    file = opened.enter_context(self._open(number))
                if self._target.resumed and _holds(file, buffer[:end], segment.offset):
                    with self._lock:
                        self._written[number] += end
                else:
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
            file = os.open(path, os.O_RDWR | flags, 0o666)
        try:
            yield file
        finally:
            with self._missing(number, self._flushed[number]):  # NFS reports errors only now
                os.close(file)

    def _missing(self, number: int, done: int) -> AbstractContextManager[None]:
        """Make the error of a full disk name the file and its missing bytes."""
        shard = self._shards[number]
        return no_room_means(missing(self._target.path / shard.filename, done, shard.size))


def _holds(file: int, data: Bytes, offset: int) -> bool:
    """Return whether a file already has these bytes; compares them in parts to save memory."""
    step = 1 << 16
    return all(
        os.pread(file, min(step, data.size - at), offset + at) == data[at : at + step].tobytes()
        for at in range(0, data.size, step)
    )


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


def _write(target: Directory, name: str, data: bytes) -> None:
    (target.stage / name).unlink(missing_ok=True)  # left by the run that is continued
    with (
        no_room_means(missing(target.path / name, 0, len(data))),
        (target.stage / name).open("xb") as file,
    ):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
