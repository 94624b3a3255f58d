"""The course of a scale from its first value to 1."""

from __future__ import annotations

import math

SHAPES = ("linear", "cosine")


def scale_at(step: int, steps: int, first: float, shape: str) -> float:
    """Return the scale after some steps: the first value at step 0, and 1 from the last step on.

    Examples
    --------
    >>> [scale_at(step, 4, 0.2, "linear") for step in (0, 2, 4, 9)]
    [0.2, 0.6, 1.0, 1.0]
    >>> scale_at(2, 4, 0.2, "cosine")
    0.6
    """
    if step >= steps:
        return 1.0
    part = step / steps
    if shape == "cosine":
        part = (1 - math.cos(math.pi * part)) / 2
    return round(first + (1 - first) * part, 15)
