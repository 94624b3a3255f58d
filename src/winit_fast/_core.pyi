from typing import Any, Final, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from winit_fast.streams.truncation import Window

TYPES: Final[dict[str, int]]
F64: Final[int]
F32: Final[int]

NO_VALUE: Final[int]
NOT_FINITE: Final[int]

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.floating]]
Indices: TypeAlias = np.ndarray[Any, np.dtype[np.intp]]
Stops: TypeAlias = np.ndarray[Any, np.dtype[np.uintp]]

class Distribution: ...

def distribution(
    name: str,
    code: int,
    *,
    loc: float = 0.0,
    scale: float = 1.0,
    low: float = 0.0,
    high: float = 0.0,
    window: Window | None = None,
) -> tuple[int, Distribution]: ...
def fill(
    distribution: Distribution,
    seed: int,
    stream: int,
    address: int,
    index: int,
    shape: tuple[int, ...],
    index_strides: tuple[int, ...],
    byte_strides: tuple[int, ...],
    streaming: bool,
) -> None: ...
def merged(
    shape: tuple[int, ...], index_strides: tuple[int, ...], byte_strides: tuple[int, ...]
) -> list[tuple[int, int, int]]: ...
def fill_array(
    distribution: Distribution, seed: int, stream: int, array: Any, most: int
) -> bool: ...

class Words:
    def seek(self, seed: int, stream: int, position: int) -> None: ...
    def place(self) -> tuple[int, int, int]: ...
    def drive(self, capsule: Any) -> None: ...

def isa() -> str: ...
def supported_isas() -> tuple[str, ...]: ...
def set_isa(name: str) -> None: ...
def philox(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]: ...

# Constants and functions of _constants.pxi.
class _Philox(TypedDict):
    rounds: int
    multipliers: tuple[int, int]
    increments: tuple[int, int]

class Parameters(TypedDict):
    kernel: str
    type: str
    loc: float
    scale: float
    low: float
    high: float
    flip: int
    kappa: int
    tail_step: float
    tail_start: tuple[float, float]
    t_step: float
    t_step_rest: float
    t_start: tuple[float, float]
    t_unit: float
    log_shift: float

PHILOX: Final[_Philox]

def coefficients() -> dict[str, tuple[float, ...]]: ...
def parameters(distribution: Distribution) -> Parameters: ...

# Functions of _householder.pxi.
GROUP: Final[int]

def panel_columns(itemsize: int) -> int: ...
def packed_size(count: int, length: int) -> int: ...
def reflectors(
    v: Array, count: int, tau: Array, sign: Array, factors: Array, packed: Array
) -> None: ...
def backward(
    panels: Array,
    rows: Indices,
    values: Array,
    kept: Array | None,
    skip: int,
    packed: Array,
    factors: Array,
    stops: Stops,
    scale: float,
    out: Array,
) -> None: ...
def forward(
    panels: Array,
    rows: Indices,
    values: Array,
    kept: Array | None,
    packed: Array,
    factors: Array,
    stops: Stops,
    scales: Array,
    out: Array,
) -> None: ...
def matrices(
    v: Array,
    tau: Array,
    sign: Array,
    factors: Array,
    packed: Array,
    gain: float,
    q: Array,
    out: Array,
) -> None: ...

# Functions of _probes.pxi.
def transform(distribution: Distribution, words: NDArray[np.uint32]) -> NDArray[np.uint8]: ...
def log_f32(x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def log_f64(x: NDArray[np.float64]) -> NDArray[np.float64]: ...
def sincos_f32(a: NDArray[np.uint32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def sincos_f64(a: NDArray[np.uint64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
