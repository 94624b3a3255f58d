"""Races: contestants take turns in one process, and medians are compared.

Every benchmark here is a race of winit_fast against something on the same memory. The figure that
counts is a ratio; machines differ and neighbours make noise, which both feel.
"""

import os
from dataclasses import dataclass

# Where set, these hold OpenBLAS to slower kernels than it would choose.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

from winit_fast.benchmark import Contestant, interleaved  # noqa: E402  (the environment comes first)

__all__ = ["RESULTS", "Contestant", "Result", "interleaved"]


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
