"""A checkpoint that several processes write, each some of its files, and the last one publishes.

The processes share a stage, whose name follows from the run, and nothing else: they may run on
several machines with one file system, at different times, and be started again after a kill.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from winit_fast.base.arguments import integer
from winit_fast.checkpoint.directory import Directory, check_space, missing, no_room_means
from winit_fast.checkpoint.stage import STAGE, Run, Stage, flush_directory, left_behind

UNFINISHED = "unfinished"
"""The folder in a stage for files that are not complete."""

T = TypeVar("T")


class Process(NamedTuple):
    """One of the processes that write a checkpoint together.

    Attributes
    ----------
    rank, world : int
        Number of the process, and of processes. Of a world of 0, no file is written: the process
        only publishes the checkpoint.
    """

    rank: int
    world: int

    @classmethod
    def of(cls, rank: object, world: object, finalize: bool) -> Process | None:
        """Check the arguments of `write_checkpoint`.

        Raises
        ------
        ValueError, TypeError
            If only one is given, or the rank is not below the world.

        Examples
        --------
        >>> Process.of(1, 4, False)
        Process(rank=1, world=4)
        """
        if not isinstance(finalize, bool):
            raise TypeError(f"finalize must be a bool, got {finalize!r}")
        if rank is None and world is None:
            return cls(0, 0) if finalize else None
        if finalize:
            raise ValueError(f"finalize is for no rank, got rank={rank!r}, world={world!r}")
        if rank is None or world is None:
            raise ValueError(f"rank and world must both be given, got {rank!r} and {world!r}")
        number, count = integer("rank", rank), integer("world", world)
        if not 0 <= number < count:
            raise ValueError(f"rank must be at least 0 and below world, got {number} of {count}")
        return cls(number, count)

    def own(self, files: Sequence[T]) -> list[T]:
        """Return the files that this process writes."""
        return list(files[self.rank :: self.world]) if self.world else []


class SharedDirectory(Directory):
    """The target directory of several processes; see `winit_fast.checkpoint.directory.Directory`.

    Parameters
    ----------
    path : Path
    sizes : mapping of str to int
        All files of the checkpoint.
    force : bool
    run : Run
    beginnings : mapping of str to bytes
    process : Process
    """

    def __init__(
        self,
        path: Path,
        sizes: Mapping[str, int],
        *,
        force: bool,
        run: Run,
        beginnings: Mapping[str, bytes],
        process: Process,
    ) -> None:
        super().__init__(path, sizes, force=force, run=run, beginnings=beginnings)
        self._shared_run = run
        self._process = process
        self._own_lock = -1
        self.resumed = True  # files may be there already, and are compared

    @property
    def stage(self) -> Path:
        """The folder for files that are not complete."""
        return super().stage / UNFINISHED

    def __enter__(self) -> SharedDirectory:
        name, size = next(iter(self._sizes.items()))
        with no_room_means(missing(self.path / name, 0, size)):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._acquire(shared=True)
                with self._exclusive(is_needed=False):  # no other process publishes meanwhile
                    self._open()
            except BaseException:
                self.__exit__()
                raise
        return self

    def _open(self) -> None:
        """Find or make the stage, unless the checkpoint is in place."""
        stages = left_behind(self.path)
        for stage in stages:
            if stage.path == self._place and stage.is_moving:  # a process was killed meanwhile
                stage.finish()
                stage.clear()
        assert self._beginnings is not None, "they are given"
        if self._is_in_place(self._beginnings):
            self.published = True
            return
        self._refuse_others(stages)
        self._check()
        self._stage = self._common()
        self.stage.mkdir(exist_ok=True)
        self._own_lock = self._locked_rank()

    def __exit__(self, *_: object) -> None:
        for lock in (self._own_lock, self._lock):
            if lock >= 0:
                os.close(lock)
        self._own_lock = self._lock = -1

    def to_write(self, names: Sequence[str]) -> set[str]:
        """Return which of these files are not complete, and check that there is room for them."""
        assert self._stage is not None, "outside of the with block"
        found = {name for name in names if not self._is_complete(name)}
        unfinished = Stage(self.stage, ())
        lacks = {
            name: max(0, self._sizes[name] - unfinished.allocated(name))
            for name in names
            if name in found
        }
        check_space(self.path, lacks)
        return found

    def complete(self, names: Sequence[str]) -> None:
        """Take files that are written and flushed for complete."""
        for name in names:
            (self.stage / name).rename(self.stage.parent / name)
        flush_directory(self.stage.parent)

    @contextmanager
    def publishing(self, large: Sequence[str]) -> Iterator[list[str]]:
        """Wait until no other process publishes, and yield the names of the missing files.

        Parameters
        ----------
        large : sequence of str
            The files that the processes write. If none of them is missing, and ``published`` is
            not set, the caller adds the others and calls `publish`.
        """
        assert self._stage is not None and self._beginnings is not None, "outside of the with block"
        with self._exclusive():
            absent = [name for name in large if not self._is_complete(name)]
            if absent and self._is_in_place(self._beginnings):  # by another process
                self.published = True
                if self._place.exists():
                    self._stage.clear()
            yield [] if self.published else absent

    def publish(self) -> None:
        """Move the files to their names, as a single process does, and remove the stage."""
        assert self._stage is not None, "outside of the with block"
        for stage in left_behind(self.path):
            if stage.path != self._place and (self._force or stage.run == self._shared_run):
                stage.clear()
        super().publish()
        with suppress(OSError):  # what cannot be removed now, the next run removes
            self._stage.clear()

    @property
    def _place(self) -> Path:
        return self.path / f"{STAGE}{self._shared_run.digest.removeprefix('sha256:')[:16]}"

    def _is_complete(self, name: str) -> bool:
        path = self._place / name
        return path.is_file() and path.stat().st_size == self._sizes[name]

    def _common(self) -> Stage:
        """Return the stage of this run, which one of its processes makes."""
        if not self._place.exists():
            if not self._process.world:
                raise FileNotFoundError(f"no rank has written to {self.path}: nothing to finalize")
            made = Stage.make(self.path, self._sizes, self._shared_run)
            try:
                made.path.rename(self._place)
            except OSError:  # another process was faster
                made.clear()
        return Stage(self._place, self._sizes, run=self._shared_run)

    def _refuse_others(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            if stage.path == self._place or stage.run in (None, self._shared_run):
                continue
            if not self._force:
                raise FileExistsError(
                    f"{stage.path} holds another unfinished checkpoint, of {stage.run}: "
                    "remove it, or force clears it away"
                )

    def _locked_rank(self) -> int:
        """Make sure that no other process is this rank."""
        import fcntl

        rank, world = self._process
        if not world:
            return -1
        lock = os.open(self.stage / f".rank-{rank}-of-{world}", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise BlockingIOError(
                f"rank {rank} of {world} is already writing to {self.path}"
            ) from None
        except OSError:  # no locks here
            pass
        return lock

    @contextmanager
    def _exclusive(self, is_needed: bool = True) -> Iterator[None]:
        """Hold the lock of the stage, in which only one process moves files."""
        import fcntl

        try:
            lock = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # another process has published and removed it
            yield
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if is_needed and self._process.world:
                    raise OSError(
                        f"{self.path} is on a file system without locks: when all ranks have "
                        "ended, finalize publishes the checkpoint"
                    ) from error
            yield
        finally:
            os.close(lock)
