"""Making arrays: their type, and new memory."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Allocate a new array.

    Raises
    ------
    ValueError
        If the shape is more than an array can have.
    """
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        raise ValueError(f"shape must be one of an array, got {shape}: {error}") from None
