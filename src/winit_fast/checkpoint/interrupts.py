"""Ctrl-C and a plain kill, kept back while something must not stop halfway."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Keep SIGINT and SIGTERM back inside a ``with`` block, and let them through at its end.

    Only the main thread is ever interrupted: in another one this does nothing.

    Examples
    --------
    >>> made = []
    >>> try:
    ...     with Interrupts() as interrupts:
    ...         signal.raise_signal(signal.SIGINT)
    ...         made.append("whole")
    ... except KeyboardInterrupt:
    ...     print(made)
    ['whole']
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        try:
            self._keep_back()
        except BaseException:  # an interrupt that was just in time
            self._let_through()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._let_through()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let those through that came and that come inside this block, which may stop anywhere."""
        try:
            self._let_through()
            yield
        finally:
            self._keep_back()

    def _keep_back(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is not None and number not in self._handlers:  # None is another library's
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _let_through(self) -> None:
        try:
            while self._handlers:
                signal.signal(*self._handlers.popitem())
            while self._came:
                signal.raise_signal(self._came.pop(0))
        finally:
            if self._handlers or self._came:  # one that was let through raised
                self._let_through()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._came.append(number)
