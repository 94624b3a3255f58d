"""Benchmarks against memset, NumPy and other installed libraries, in one process.

The command ``winit-fast bench`` prints the results of `run`. The benchmarks in bench/ use the same
contestants: functions without arguments, each of which does the same work with one library.
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
