"""Progress of a command: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from winit_fast.cli.terminal import console, tell


@contextmanager
def progress(what: str = "writing") -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and a plain line every few seconds elsewhere."""
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield _Lines()
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Progress for logs: a line after every tenth of the work, but at most one per second."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()
        self._tenths = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        tenths = 10 * done // total if total else 0  # total is 0 if no tensor has an element
        if tenths <= self._tenths or (now - self._last < 1 and done < total):
            return
        self._tenths, self._last = tenths, now
        rate = done / (now - self._begin)
        tell(
            f"{done / total:4.0%}  {done / 1e9:.2f} of {total / 1e9:.2f} GB  "
            f"{rate / 1e9:.2f} GB/s  {(total - done) / rate:.0f} s left"
        )
