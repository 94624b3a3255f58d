"""Defers SIGINT (Ctrl-C) and SIGTERM during work that must not stop halfway."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Defer SIGINT and SIGTERM inside a ``with`` block, and deliver them at its end.

    Python runs signal handlers only in the main thread; in other threads this does nothing.

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
        except BaseException:  # an interrupt while the handlers were being replaced
            self._let_through()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._let_through()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Deliver interrupts inside a block that may stop anywhere, the deferred ones too."""
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
            if handler is not None and number not in self._handlers:  # None: installed by C code
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _let_through(self) -> None:
        try:
            while self._handlers:
                signal.signal(*self._handlers.popitem())
            while self._came:
                signal.raise_signal(self._came.pop(0))
        finally:
            if self._handlers or self._came:  # a handler raised: deliver the rest
                self._let_through()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._came.append(number)
