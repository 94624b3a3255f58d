"""Writes a checkpoint to remote storage through fsspec: one file after another, the index last.

Remote files cannot be renamed atomically or written in the middle. A loader looks for the index, or
for the only file, so that file is written last. After a failure the written files are removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress


def is_address(name: str) -> bool:
    """Return whether a name is an address, not a local path.

    Examples
    --------
    >>> is_address("s3://bucket/model"), is_address("models/model")
    (True, False)
    """
    return "://" in name


def write(
    address: str,
    files: Iterable[tuple[str, Iterable[Callable[[], memoryview]]]],
    num_threads: int,
    report: Callable[[int], None],
) -> None:
    """Write files to an address.

    Parameters
    ----------
    address : str
        Address of a directory, which must be empty or not exist.
    files : iterable of (str, iterable of callable)
        Names of the files, and the functions that make their parts, in order.
    num_threads : int
        Number of parts that are made at once.
    report : callable
        Called with the number of bytes of each written part.

    Raises
    ------
    FileExistsError
        If the directory is not empty.
    ModuleNotFoundError
        If fsspec, or a package that it needs for this address, is not installed.
    """
    from fsspec.core import url_to_fs

    system, root = url_to_fs(address)
    if system.exists(root) and (not system.isdir(root) or system.ls(root, detail=False)):
        raise FileExistsError(
            f"{address} exists and is not empty; only a local directory may contain files"
        )
    system.makedirs(root, exist_ok=True)
    begun = []
    try:
        with ThreadPoolExecutor(num_threads, "winit-fast") as pool:
            for name, parts in files:
                place = f"{root.rstrip('/')}/{name}"
                begun.append(place)
                with system.open(place, "wb") as file:
                    for data in _in_order(pool, parts, 2 * num_threads):
                        file.write(data)
                        report(data.nbytes)
    except BaseException:
        for place in begun:
            with suppress(Exception):  # the file may not exist yet
                system.rm_file(place)
        raise


def _in_order(
    pool: ThreadPoolExecutor, parts: Iterable[Callable[[], memoryview]], ahead: int
) -> Iterator[memoryview]:
    """Make parts on several threads, some in advance, and yield them in order."""
    waiting = deque[Future[memoryview]]()
    try:
        for part in parts:
            waiting.append(pool.submit(part))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
