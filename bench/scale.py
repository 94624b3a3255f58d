"""How much is measured: the environment variable WINIT_BENCH.

``axes`` (the default) varies every axis around one centre. ``full`` measures every combination and
takes hours. ``smoke`` uses sizes so small that the figures mean nothing, to test that everything
runs.
"""

import os
from typing import TypeVar

import psutil
import pytest

SCALE = os.environ.get("WINIT_BENCH", "axes")
if SCALE not in ("axes", "full", "smoke"):
    raise ValueError(f"WINIT_BENCH must be axes, full or smoke, got {SCALE!r}")
SMOKE, FULL = SCALE == "smoke", SCALE == "full"

T = TypeVar("T")


def sized(value: T, smoke: T) -> T:
    """Return the first value, or in a smoke test the second."""
    return smoke if SMOKE else value


def need(nbytes: float) -> None:
    """Skip a case that would leave less than a quarter of the free memory free."""
    free = psutil.virtual_memory().available
    if nbytes > 0.75 * free:
        pytest.skip(f"needs {nbytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free")
