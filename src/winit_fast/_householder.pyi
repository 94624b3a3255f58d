from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.floating]]

COLUMNS: int
GROUP: int

def reflectors(v: Array, count: int, tau: Array, sign: Array, factors: Array) -> None: ...
def apply(
    v: Array, factors: Array, transposed: bool, q: Array, stops: np.ndarray[Any, np.dtype[np.uintp]]
) -> None: ...
def load(
    blocks: Array,
    rows: np.ndarray[Any, np.dtype[np.intp]],
    values: Array,
    kept: Array | None,
    skip: int,
) -> None: ...
def store(blocks: Array, scale: float, out: Array) -> None: ...
def matrices(
    v: Array, tau: Array, sign: Array, factors: Array, gain: float, q: Array, out: Array
) -> None: ...
