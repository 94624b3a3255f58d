"""Writing one file of a checkpoint by itself, as a task that may run anywhere, and twice."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np

from winit_fast.checkpoint import segments
from winit_fast.checkpoint.directory import missing, no_room_means, reserve
from winit_fast.checkpoint.layout import Shard
from winit_fast.checkpoint.stage import STAGE
from winit_fast.streams.identity import STREAM_VERSION

_STOP = f"{STAGE}stop"


class Stopped(RuntimeError):
    """The file is no longer wanted."""


def write_file(folder: str, shard: Shard, seed: int, version: int) -> int:
    """Write one safetensors file, which has its name once it is complete and flushed.

    Several processes may write the same file at the same time: each writes to a file of its own,
    with the same bytes, and the last to finish replaces the others'.

    Parameters
    ----------
    folder : str
        The stage of the checkpoint, an absolute path.
    shard : Shard
    seed : int
    version : int
        Version of the numbers where the task was made: that of this process must be the same.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    RuntimeError
        If this process makes other numbers, or does not see the folder.
    Stopped
        If `stop` was called for the folder.
    DiskFull
    """
    if version != STREAM_VERSION:
        raise RuntimeError(
            f"the worker has version {STREAM_VERSION} of the numbers, the checkpoint {version}: "
            "install the same winit_fast everywhere"
        )
    stage = Path(folder)
    if not stage.is_dir():
        raise RuntimeError(
            f"the worker sees no folder {folder}: the checkpoint must be on a file system that "
            "all workers share"
        )
    draft = stage / f"{STAGE}{uuid4().hex}"
    done = 0
    with no_room_means(missing(stage.parent / shard.filename, done, shard.size)):
        file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            reserve(file, shard.size)
            done = _write(file, memoryview(shard.header), done)
            buffer = np.empty(segments.SEGMENT_BYTES, np.uint8)
            for segment in segments.of_shards([shard], seed, segments.SEGMENT_BYTES):
                if (stage / _STOP).exists():
                    raise Stopped(f"{shard.filename} is no longer wanted")
                done = _write(file, buffer[: segment.fill(buffer)].data, done)
            os.fsync(file)
            draft.replace(stage / shard.filename)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
        finally:
            os.close(file)
    return shard.size


def start(folder: Path) -> None:
    """Let tasks write to a stage, also to one that an earlier run has stopped."""
    (folder / _STOP).unlink(missing_ok=True)


def stop(folder: Path) -> None:
    """Let all tasks that write to a stage end soon, also those that have not begun."""
    (folder / _STOP).touch()


def _write(file: int, data: memoryview, done: int) -> int:
    while data:
        count = os.write(file, data)
        data, done = data[count:], done + count
    return done
