"""Writing a checkpoint where fsspec reaches: one file after another, the index last.

There is no renaming there, and no writing in the middle of a file. A loader looks for the index, or
for the only file, and that one comes last. What a failure leaves is removed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress


def is_address(name: str) -> bool:
    """Tell an address from a local path.

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
        Of a directory, which must be empty or not there.
    files : iterable of (str, iterable of callable)
        Their names, and what makes their parts, in order.
    num_threads : int
        How many parts are made at once.
    report : callable
        Called with the bytes of each part that was written.

    Raises
    ------
    FileExistsError
        If there is something already.
    ModuleNotFoundError
        If fsspec is not installed, or what it needs for this address.
    """
    from fsspec.core import url_to_fs

    system, root = url_to_fs(address)
    if system.exists(root) and (not system.isdir(root) or system.ls(root, detail=False)):
        raise FileExistsError(f"{address} exists and is not empty; only local directories can be")
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
            with suppress(Exception):  # it may not be there yet
                system.rm_file(place)
        raise


def _in_order(
    pool: ThreadPoolExecutor, parts: Iterable[Callable[[], memoryview]], ahead: int
) -> Iterator[memoryview]:
    """Make parts with several threads, some ahead, and give them in their order."""
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
