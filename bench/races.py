"""Races: contestants take turns in one process, and medians are compared.

Every benchmark here is a race of winit_fast against something on the same memory. The figure that
counts is a ratio; machines differ and neighbours make noise, which both feel.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# Where set, these hold OpenBLAS to slower kernels than it would choose.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

Contestant = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """One line of the report: how many times as fast as the peer, and how much was asked for."""

    case: str
    peer: str
    ratio: float
    bar: float
    aim: float | None
    ours: float
    theirs: float


RESULTS: list[Result] = []


def interleaved(contestants: list[Contestant], seconds: float, least: int) -> list[float]:
    """Median seconds of each contestant: one warm-up, then turns until the time is used up."""
    times: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant()
    end = time.perf_counter() + seconds
    while len(times[0]) < least or (time.perf_counter() < end and len(times[0]) < 2000):
        for contestant, taken in zip(contestants, times, strict=True):
            start = time.perf_counter()
            contestant()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]
