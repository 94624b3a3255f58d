"""Use another instruction set than the best one inside a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager

import winit_fast._core as _core


@contextmanager
def chosen(name: str) -> Iterator[None]:
    before = _core.isa()
    _core.set_isa(name)
    try:
        yield
    finally:
        _core.set_isa(before)
