"""Threads that each take the next segment, fill it and write it, while another flushes files."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np

from winit_fast.checkpoint import segments
from winit_fast.checkpoint.directory import Directory, missing, no_room_means, reserve
from winit_fast.checkpoint.interrupts import Interrupts
from winit_fast.checkpoint.layout import File
from winit_fast.checkpoint.segments import Bytes, Segment

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


class SegmentWriter:
    """One run: threads that take segments from a queue, fill them and write them."""

    def __init__(
        self,
        target: Directory,
        shards: Sequence[File],
        queue: Iterator[Segment],
    ) -> None:
        self._target = target
        self._shards = shards
        self._queue = queue
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
                workers.append(pool.submit(self._work, mmap.mmap(-1, segments.SEGMENT_BYTES)))
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
                    segment = next(self._queue, None)
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
        """If the disk is full, let the error say which file lacks how many bytes."""
        shard = self._shards[number]
        return no_room_means(missing(self._target.path / shard.filename, done, shard.size))


def _holds(file: int, data: Bytes, offset: int) -> bool:
    """Return whether a file already has these bytes; compares them in parts to save memory."""
    step = 1 << 16
    return all(
        os.pread(file, min(step, data.size - at), offset + at) == data[at : at + step].tobytes()
        for at in range(0, data.size, step)
    )
