"""Races: contestants alternate in one process, and their median times are compared.

Every benchmark here compares winit_fast with something else on the same memory. The figure that
counts is the ratio: machines differ, and other processes disturb the times, but they affect both
sides.
"""

import os
from dataclasses import dataclass

# If these variables are set, OpenBLAS uses slower kernels than it would choose by itself.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

from winit_fast.benchmark import Contestant, interleaved  # noqa: E402  (the environment comes first)

__all__ = ["RESULTS", "Contestant", "Result", "interleaved"]


@dataclass(frozen=True)
class Result:
    """One line of the report: how many times as fast as the peer we are, and the bar to reach."""

    case: str
    peer: str
    ratio: float
    bar: float
    aim: float | None
    ours: float
    theirs: float


RESULTS: list[Result] = []
