"""Finds the tensors of a checkpoint, and reads them in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from winit_fast.base import safetensors
from winit_fast.base.arrays import Array
from winit_fast.base.files import regular_file
from winit_fast.checkpoint.layout import INDEX, SINGLE


class Place(NamedTuple):
    """The place of a tensor in a file.

    Attributes
    ----------
    file : str
    header : Header
        The header of the file.
    entry : Entry
        The tensor's entry in the header.
    """

    file: str
    header: safetensors.Header
    entry: safetensors.Entry

    @property
    def nbytes(self) -> int:
        """Number of bytes of the tensor."""
        return self.entry.end - self.entry.begin

    def read(self, offset: int, memory: Array) -> None:
        """Read a range of the tensor's bytes.

        Parameters
        ----------
        offset : int
            Offset of the first byte from the start of the tensor.
        memory : numpy.ndarray of uint8
            Contiguous; filled completely.

        Raises
        ------
        ValueError
            If the file has been truncated since its header was read.
        """
        with self.opened() as read:
            read(offset, memory)

    @contextmanager
    def opened(self) -> Iterator[Callable[[int, Array], None]]:
        """Open the file for several reads: yield a function that works as `read` does."""
        with regular_file(self.file) as file:

            def read(offset: int, memory: Array) -> None:
                file.seek(self.header.size + self.entry.begin + offset)
                if file.readinto(memory.data) != memory.nbytes:  # type: ignore[attr-defined]
                    raise ValueError(f"{self.file} is no longer a complete safetensors file")

            yield read


def places(path: Path) -> dict[str, Place]:
    """Find all tensors of a checkpoint, as a loader does.

    Parameters
    ----------
    path : Path
        The checkpoint's directory, its index, or a safetensors file.

    Returns
    -------
    dict of str to Place
        Ordered by file name, and within a file as in its header.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If a file is damaged, or does not agree with the index.
    """
    folder, index = path, path / INDEX
    if path.name.endswith(".index.json") and path.is_file():
        folder, index = path.parent, path
    if folder is path and path.is_file():
        folder, files, names = path.parent, None, [path.name]
    elif folder is path and (path / SINGLE).exists():
        files, names = None, [SINGLE]
    elif index.exists():
        files = safetensors.read_index(str(index))
        names = sorted({*files.values()})
    else:
        raise FileNotFoundError(f"{path} holds neither {SINGLE} nor {INDEX}")
    found = {}
    for name in names:
        header = safetensors.read_header(str(folder / name))
        for tensor, entry in header.entries.items():
            if files is not None and files.get(tensor) != name:
                raise ValueError(
                    f"{folder / name} holds tensor {tensor!r}, but {index.name} does not say so"
                )
            found[tensor] = Place(str(folder / name), header, entry)
    if files is not None and (lost := files.keys() - found.keys()):
        raise ValueError(f"{index} names tensor {min(lost)!r}, which is not in its file")
    return found
