"""The files of a checkpoint of any format: this process, or several, write all of them or none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from winit_fast.checkpoint.directory import Directory, DiskFull, TooLate, missing, no_room_means
from winit_fast.checkpoint.interrupts import Interrupts
from winit_fast.checkpoint.layout import File
from winit_fast.checkpoint.ranks import Process, SharedDirectory
from winit_fast.checkpoint.segment_writer import SegmentWriter
from winit_fast.checkpoint.segments import Segment
from winit_fast.checkpoint.stage import Run

AnyFile = TypeVar("AnyFile", bound=File)


@dataclass(frozen=True)
class Summary:
    """Statistics of a written checkpoint.

    Attributes
    ----------
    files : tuple of (Path or str)
        In order; str for remote addresses. If several processes write, those of this process.
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
        Writes the files instead of this process. It gets the folder, and a function to call with
        the number of bytes written so far; it returns its number of threads.

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
                writer = SegmentWriter(target, files, segments(files))
                with _kept_for_later(target, writer):
                    if delegate is None:
                        num_threads = writer.run(num_threads, progress, interrupts)
                    else:
                        num_threads = _delegated(delegate, target, files, progress, interrupts)
                    for name, content in contents.items():
                        _write(target, name, content)
                target.publish()
            return summary([folder / file.filename for file in files], files, begin, num_threads)
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
                    writer = SegmentWriter(target, rest, segments(rest))
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
            return replace(summary(paths, own, begin, num_threads), published=target.published)
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


def summary(
    paths: Sequence[Path | str], files: Sequence[File], begin: float, num_threads: int
) -> Summary:
    """Make the summary of files that are written."""
    return Summary(
        files=tuple(paths),
        parameters=sum(file.parameters for file in files),
        nbytes=sum(file.size for file in files),
        seconds=time.perf_counter() - begin,
        num_threads=num_threads,
    )


@contextmanager
def _kept_for_later(target: Directory, writer: SegmentWriter) -> Iterator[None]:
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


def _write(target: Directory, name: str, data: bytes) -> None:
    (target.stage / name).unlink(missing_ok=True)  # left by the run that is continued
    with (
        no_room_means(missing(target.path / name, 0, len(data))),
        (target.stage / name).open("xb") as file,
    ):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
