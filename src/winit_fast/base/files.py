"""Opening files from other sources."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def regular_file(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Anything else is refused: opening a pipe would block until there is a writer.

    Parameters
    ----------
    path : str

    Yields
    ------
    binary file

    Raises
    ------
    ValueError
        If the path is a pipe, a device or a socket.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is not a regular file")
        yield file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
