"""The stage: a hidden folder where a checkpoint's files are written before they are renamed.

The folder contains a marker file, which describes the run, and during the moves a list of the files
that are being moved. If the process is killed, the next run finds the folder and completes the
moves. If the files were not complete, that run continues them if it is asked to and is the same
run; otherwise it leaves the folder alone, unless it is forced to remove it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from winit_fast.checkpoint.layout import READ_FIRST

STAGE = ".winit-fast-"
"""Prefix of the names of stages, and of the files inside that do not belong to a checkpoint."""

_MARK = STAGE + "stage"
_MOVES = STAGE + "moves"
_ATTIC = STAGE + "old"


class Run(NamedTuple):
    """The run to which a stage belongs: everything that determines the bytes of its files.

    Attributes
    ----------
    seed : int
    plan : str
        Digest of the plan.
    digest : str
        Digest of all files' names, sizes and beginnings.
    """

    seed: int
    plan: str
    digest: str

    @classmethod
    def of(
        cls, seed: int, plan: str, sizes: Mapping[str, int], beginnings: Mapping[str, bytes]
    ) -> Run:
        """Describe a run.

        Parameters
        ----------
        seed : int
        plan : str
            Digest of the plan.
        sizes : mapping of str to int
            Bytes of each file.
        beginnings : mapping of str to bytes
            The header of each file, or all of the file.
        """
        digest = sha256()
        for name, size in sizes.items():
            digest.update(f"{name!r} {size} {len(beginnings[name])}\n".encode())
            digest.update(beginnings[name])
        return cls(seed, plan, f"sha256:{digest.hexdigest()}")

    def __str__(self) -> str:
        return f"seed {self.seed}, plan {self.plan}"


class Stage:
    """A hidden folder inside the directory of a checkpoint.

    Parameters
    ----------
    path : Path
        The folder, which exists and contains the marker file.
    new : iterable of str
        Names of the files that are written in it.
    old : iterable of str, optional
        Names of the files to move away, if moving has begun; then all of `new` are complete and
        flushed.
    run : Run, optional
        The run that wrote the files; None if it is unknown, or if they are not to be continued.

    Attributes
    ----------
    path : Path
    run : Run or None
    """

    def __init__(
        self,
        path: Path,
        new: Iterable[str],
        old: Iterable[str] | None = None,
        run: Run | None = None,
    ) -> None:
        self.path = path
        self.run = run
        self._new = sorted(new, key=lambda name: name in READ_FIRST)
        self._old: list[str] | None = None
        self._set_old(old)

    @classmethod
    def make(cls, directory: Path, new: Iterable[str], run: Run | None = None) -> Stage:
        """Create a stage in a directory.

        Parameters
        ----------
        directory : Path
        new : iterable of str
        run : Run, optional

        Returns
        -------
        Stage
        """
        path = Path(mkdtemp(prefix=STAGE, dir=directory))
        try:
            (path / _MARK).touch()
            if run is not None:
                with (path / _MARK).open("w", encoding="utf-8") as file:
                    json.dump(run._asdict(), file)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path, new, run=run)

    @property
    def is_moving(self) -> bool:
        """Whether moving has begun, and is not complete."""
        return self._old is not None

    def allocated(self, name: str) -> int:
        """Return the number of bytes on the disk that a file in the stage already occupies."""
        try:
            status = (self.path / name).lstat()
        except FileNotFoundError:
            return 0
        return status.st_blocks * 512

    def publish(self, old: Iterable[str]) -> None:
        """Move the old files out of the directory, and the new ones into it.

        Parameters
        ----------
        old : iterable of str
            Names of files in the directory.

        Raises
        ------
        OSError
            All moves have then been undone.
        """
        old = list(old)
        (self.path / _ATTIC).mkdir(exist_ok=True)  # may exist after a kill at this point
        draft = self.path / (_MOVES + ".draft")
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"new": self._new, "old": old}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / _MOVES)
        self._set_old(old)
        try:
            flush_directory(self.path)
            flush_directory(self.path.parent)
            self.finish()
        except BaseException:
            try:
                self._undo()
            except OSError as error:
                raise OSError(
                    f"{self.path} holds files of {self.path.parent} that could not be moved back "
                    f"({error}); the next run moves them"
                ) from error
            raise

    def finish(self) -> None:
        """Complete the moves, if moving has begun.

        As long as a new file is in the stage, a file of its name in the directory is an old one.
        So the moves can be completed from wherever they, or this method, were interrupted.

        Raises
        ------
        FileNotFoundError
            If a new file is neither in the stage nor in the directory, so someone else moved it.
        """
        if self._old is None:
            return
        directory, attic = self.path.parent, self.path / _ATTIC
        for name in self._new:
            if not (self._waits(name) or (directory / name).exists()):
                raise FileNotFoundError(
                    f"{self.path} holds files that were being moved to {directory}, "
                    f"but {name} is in neither of them: move what you want to keep by hand, then "
                    f"delete {self.path}"
                )
        for name in self._old:
            has_arrived = name in self._new and not self._waits(name)
            if os.path.lexists(directory / name) and not has_arrived:
                (directory / name).rename(attic / name)
        flush_directory(directory)
        for name in self._new:
            if self._waits(name):
                (self.path / name).rename(directory / name)
        flush_directory(directory)
        self._end_of_moves()

    def clear(self) -> None:
        """Remove the folder, unless it contains files that must be moved to the directory."""
        if self._old is not None:
            return
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry)
            elif entry.name != _MARK:
                Path(entry).unlink()
        # Last, so that a partly removed folder is still recognised as a stage.
        (self.path / _MARK).unlink()
        self.path.rmdir()

    def _waits(self, name: str) -> bool:
        """Return whether a new file is still in the stage."""
        return (self.path / name).exists()

    def _undo(self) -> None:
        """Undo all moves."""
        assert self._old is not None, "nothing was moved"
        directory, attic = self.path.parent, self.path / _ATTIC
        for name in reversed(self._new):
            if not self._waits(name):
                (directory / name).rename(self.path / name)
        for name in reversed(self._old):
            if os.path.lexists(attic / name):
                (attic / name).rename(directory / name)
        flush_directory(directory)
        self._end_of_moves()

    def _end_of_moves(self) -> None:
        # A stage that is found from here on must be removed, not continued.
        (self.path / _MARK).write_bytes(b"")
        self.run = None
        (self.path / _MOVES).unlink()
        self._old = None

    def _set_old(self, old: Iterable[str] | None) -> None:
        """Sort the old files so that the one a loader opens first is moved away first."""
        if old is not None:
            self._old = sorted(old, key=lambda name: [name != first for first in READ_FIRST])


def left_behind(directory: Path) -> list[Stage]:
    """Find the stages that killed runs left in a directory, to which no process may be writing.

    Folders with similar names but without the marker file are ignored.

    Parameters
    ----------
    directory : Path

    Returns
    -------
    list of Stage

    Raises
    ------
    FileExistsError
        If a symbolic link has such a name, or a stage's list of moves cannot be read.
    """
    stages = []
    for path in sorted(directory.glob(STAGE + "*")):
        if path.is_symlink():
            raise FileExistsError(
                f"{path} is a symbolic link where only folders of winit_fast should be: remove it"
            )
        if (path / _MARK).is_file():
            new, old = _read_moves(path)
            stages.append(Stage(path, new, old, _read_run(path)))
    return stages


def is_empty_stage(path: Path) -> bool:
    """Return whether a folder may be a stage whose process was killed before or after its marker.

    It may be a user's folder, too, and so is left alone.

    Parameters
    ----------
    path : Path
    """
    try:
        return (
            path.name.startswith(STAGE)
            and not path.is_symlink()
            and path.is_dir()
            and next(path.iterdir(), None) is None
        )
    except FileNotFoundError:  # another rank has removed it meanwhile
        return True


def _read_run(stage: Path) -> Run | None:
    """Read the run of a stage; None if it is not written, or another rank removes the stage."""
    try:
        content = json.loads((stage / _MARK).read_bytes())
        run = Run(int(content["seed"]), str(content["plan"]), str(content["digest"]))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return run


def _read_moves(stage: Path) -> tuple[list[str], list[str] | None]:
    try:
        text = (stage / _MOVES).read_text(encoding="utf-8")
    except FileNotFoundError:  # moving had not begun
        return [], None
    try:
        moves = json.loads(text)
        new, old = moves["new"], moves["old"]
        if not all(Path(name).name == name and name not in ("", "..") for name in [*new, *old]):
            raise ValueError("it names files outside of the directory")
    except (KeyError, TypeError, ValueError) as error:
        raise FileExistsError(f"{stage / _MOVES} cannot be read: {error!r}") from None
    return new, old


def flush_directory(path: Path) -> None:
    """Flush a directory, so that renames in it are on the disk (fsync).

    Parameters
    ----------
    path : Path
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
