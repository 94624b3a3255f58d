"""How much is measured: the environment variable WINIT_BENCH.

``axes`` (the default): every axis is swept around one centre. ``full``: the whole product, hours.
``smoke``: sizes so small that the figures mean nothing, to see that everything runs.
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
    """Take the first, or in a smoke test the second."""
    return smoke if SMOKE else value


def need(nbytes: float) -> None:
    """Skip a case that this machine has no memory for; a quarter of what is free stays so."""
    free = psutil.virtual_memory().available
    if nbytes > 0.75 * free:
        pytest.skip(f"needs {nbytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free")
