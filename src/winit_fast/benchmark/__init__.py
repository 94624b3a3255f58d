"""Speed: races against memory, NumPy and whatever else is installed, in one process.

`run` is what the command ``winit-fast bench`` prints; the suite in bench/ has the same contestants.
"""

from winit_fast.benchmark.contestants import (
    PEERS,
    fresh,
    installed,
    memory,
    orthogonal,
    ours,
    peers,
    rest,
)
from winit_fast.benchmark.quick import Row, run
from winit_fast.benchmark.race import Contestant, interleaved, repeated, turns

__all__ = [
    "PEERS",
    "Contestant",
    "Row",
    "fresh",
    "installed",
    "interleaved",
    "memory",
    "orthogonal",
    "ours",
    "peers",
    "repeated",
    "rest",
    "run",
    "turns",
]
