from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.floating]]
Indices: TypeAlias = np.ndarray[Any, np.dtype[np.intp]]
Stops: TypeAlias = np.ndarray[Any, np.dtype[np.uintp]]

COLUMNS: int
GROUP: int

def reflectors(v: Array, count: int, tau: Array, sign: Array, factors: Array) -> None: ...
def backward(
    blocks: Array,
    rows: Indices,
    values: Array,
    kept: Array | None,
    skip: int,
    v: Array,
    factors: Array,
    stops: Stops,
    scale: float,
    out: Array,
) -> None: ...
def forward(
    blocks: Array,
    rows: Indices,
    values: Array,
    kept: Array | None,
    v: Array,
    factors: Array,
    stops: Stops,
    scales: Array,
    out: Array,
) -> None: ...
def matrices(
    v: Array, tau: Array, sign: Array, factors: Array, gain: float, q: Array, out: Array
) -> None: ...
