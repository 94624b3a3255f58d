"""A short benchmark: the standard cases on this machine, in about a minute."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from winit_fast.base.arguments import positive
from winit_fast.base.dtypes import find
from winit_fast.base.threads import resolve
from winit_fast.benchmark.contestants import memory, orthogonal, ours, peers, rest
from winit_fast.benchmark.race import Contestant, interleaved, repeated

CASES = (
    ("uniform", "float32"),
    ("normal", "float32"),
    ("normal", "bfloat16"),
    ("normal", "float64"),
    ("truncated_normal", "float32"),
)
SIZE = 1 << 25
IN_CACHE = 1 << 24  # an array with fewer elements may stay in the processor's caches
MATRIX = 1024
LIMIT = "memory"
TURNS = 5


@dataclass(frozen=True)
class Row:
    """One case: a description, and each contestant's median time.

    Attributes
    ----------
    case : str
    nbytes : int
        Bytes of the result.
    seconds : dict of str to float
        Time by contestant: always ``"winit_fast"``, ``"memory"`` (memset, the limit) where it
        makes sense, and the names of the peers.
    """

    case: str
    nbytes: int
    seconds: dict[str, float]

    @property
    def rate(self) -> float:
        """Bytes per second of winit_fast."""
        return self.nbytes / self.seconds["winit_fast"]

    def times_as_fast(self, contestant: str) -> float | None:
        """Return how many times as fast winit_fast is; None if the contestant took no part.

        Examples
        --------
        >>> row = Row("normal float32", 400, {"winit_fast": 0.1, "NumPy": 3.0})
        >>> round(row.times_as_fast("NumPy")), row.times_as_fast("JAX")
        (30, None)
        """
        theirs = self.seconds.get(contestant)
        return None if theirs is None else theirs / self.seconds["winit_fast"]


def run(
    size: int = SIZE,
    seconds: float = 3.0,
    num_threads: int | None = None,
    matrix: int = MATRIX,
    names: list[str] | None = None,
) -> Iterator[Row]:
    """Run the standard cases against all installed peers.

    Parameters
    ----------
    size : int
        Elements of each array. If it is less than a few times the processor's caches, memory
        bandwidth is not the limit.
    seconds : float
        Time for each case; at least five turns.
    num_threads : int, optional
        `winit_fast.get_num_threads` by default.
    matrix : int
        Rows and columns of the orthogonal matrix.
    names : list of str, optional
        The peers, a subset of `installed`; all by default.

    Yields
    ------
    Row

    Examples
    --------
    >>> [row.case for row in run(100, seconds=0, matrix=8, names=["NumPy"])][-1]
    'orthogonal 8 x 8'
    """
    size, matrix = positive("size", size), positive("matrix", matrix)
    threads = resolve(num_threads)
    loops = max(1, (1 << 16) // size)
    for distribution, name in CASES:
        out = np.ones(size, find(name).dtype)
        contestants = {
            "winit_fast": ours(distribution, out, num_threads),
            LIMIT: memory(out, threads),
            **peers(distribution, out, threads, names),
        }
        case = f"{distribution.replace('_', ' ')} {name}"
        yield _row(case, out.nbytes, contestants, seconds, loops)
    square = np.ones((matrix, matrix), np.float32)
    contestants = orthogonal(square, threads, names)
    yield _row(f"orthogonal {matrix} x {matrix}", square.nbytes, contestants, seconds)


def _row(
    case: str, nbytes: int, contestants: dict[str, Contestant], seconds: float, loops: int = 1
) -> Row:
    racers = [repeated(contestant, loops) for contestant in contestants.values()]
    medians = interleaved(racers, seconds, TURNS, rest(contestants, nbytes))
    taken = (median / loops for median in medians)
    return Row(case, nbytes, dict(zip(contestants, taken, strict=True)))
