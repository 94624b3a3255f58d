"""How the cost grows: fit a line to the measured times, and find the exponent of their growth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Line:
    """time = fixed + each * n, in seconds.

    ``off`` is the largest relative distance from a measured time to the line. It is None if there
    are fewer than three points, because two points always lie on a line.
    """

    fixed: float
    each: float
    off: float | None

    def __call__(self, n: float) -> float:
        return self.fixed + self.each * n


def line(n: Sequence[float], seconds: Sequence[float]) -> Line:
    """Fit by least squares of relative errors, so that small times count as much as large ones.

    >>> line([1, 10, 1000], [3.0, 12.0, 1002.0])
    Line(fixed=2.0, each=1.0, off=0.0)
    """
    x, t = np.asarray(n, float), np.asarray(seconds, float)
    (fixed, each), *_ = np.linalg.lstsq(np.stack([1 / t, x / t], axis=1), np.ones_like(t))
    off = np.max(np.abs((fixed + each * x) / t - 1)) if t.size > 2 else None
    if abs(fixed) < 1e-9 * t.min():  # only rounding error
        fixed = 0.0
    fixed, each = (float(f"{value:.6g}") for value in (fixed, each))
    return Line(fixed, each, None if off is None else float(f"{round(off, 9):.6g}"))


def exponent(n: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Slope of log(time) over log(n): 1 if twice the work takes twice the time.

    None if there are fewer than three points, because two cannot show whether growth is straight.

    >>> exponent([1, 10, 100], [5.0, 500.0, 50000.0])
    2.0
    """
    if len(n) < 3:
        return None
    slope, _ = np.polyfit(np.log(n), np.log(seconds), 1)
    return round(float(slope), 6)
