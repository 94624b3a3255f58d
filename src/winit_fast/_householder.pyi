from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.floating]]

COLUMNS: int

def reflectors(v: Array, tau: Array, sign: Array) -> None: ...
def factor(products: Array, tau: Array, out: Array) -> None: ...
def columns(
    v: Array, tau: Array, sign: Array, gain: float, first: int, work: Array, out: Array
) -> None: ...
def matrices(
    v: Array, tau: Array, sign: Array, gain: float, work: Array, out: Array
) -> None: ...
