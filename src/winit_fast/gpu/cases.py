"""The frozen cases by which a kernel is checked on a device: what is drawn, and its hash.

They are in checks.toml, which tools/make_gpu_checks.py writes from what the processor draws.
"""

import tomllib
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from math import inf
from typing import NamedTuple

from winit_fast._core import Distribution
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.base.dtypes import find
from winit_fast.streams import distributions

SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210
"""Key and stream of all cases, as in tests/hashes.txt."""

DISTRIBUTIONS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("uniform", (-0.62, 0.05)),
    ("uniform", (0.0, 1.0)),
    ("normal", (0.01, 0.02)),
    ("truncated_normal", (0.01, 0.02, -2.0, 2.0)),
    ("truncated_normal", (0.01, 0.02, -0.5, 0.1)),
    ("truncated_normal", (0.0, 1.0, -1.0, 3.0)),
    ("truncated_normal", (0.0, 1.0, -100.0, 3.5)),
    ("truncated_normal", (0.0, 0.7, 0.0, inf)),
    ("truncated_normal", (0.0, 1.0, 4.0, 6.0)),
    ("truncated_normal", (-9.0, 1.0, 8.0, 9.0)),
    ("truncated_normal", (-13.0, 1.0, 12.0, 13.0)),
    ("truncated_normal", (-18.0, 1.0, 17.0, 18.0)),
    ("truncated_normal", (30.1, 1.1, -30.0, -29.0)),
    ("truncated_normal", (-38.0, 1.0, 37.0, 38.0)),
)
"""Function of `winit_fast.streams.distributions` and parameters: every kernel, and of the truncated
one, which is compiled for the number of octaves that a window needs, every number of them."""

DTYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
"""The dtypes that the kernels have: see narrow.py. Others go through host memory."""

BOXES = (
    Box((2**63 - 1,), (2**34 - 1024,), (2051,), (0,)),
    Box((2**63 - 1,), (2**33 - 33,), (67,), (0,)),
    Box((2**30 + 7, 9, 7), (2**30 - 1, 2, 1), (6, 7, 5), (0, 1, 2)),
)
"""Runs that begin with a block and inside one, in which the counter's lowest word carries (at 2^34
elements, of float64 at 2^33), and a box of odd extents."""

FILE = "checks.toml"


class Case(NamedTuple):
    """A box of a logical tensor, drawn from one distribution.

    Attributes
    ----------
    distribution : Distribution
    dtype : str
    box : Box
        Its elements are to lie in memory in Fortran's order: a box of several axes is strided.
    blake2b : str
        The hash of the elements' bytes, in C order.
    """

    distribution: Distribution
    dtype: str
    box: Box
    blake2b: str


def drawn() -> Iterator[tuple[str, str, Distribution]]:
    """Yield label, dtype and distribution of all cases."""
    for width in 32, 64:
        yield "bits", f"uint{width}", distributions.bits(width)
    for kind, parameters in DISTRIBUTIONS:
        for name in DTYPES:
            made = getattr(distributions, kind)(find(name).dtype, *parameters)
            yield f"{kind}{parameters}", name, made


def digest(array: Array) -> str:
    """Hash the bytes of an array, in C order."""
    return blake2b(array.tobytes(), digest_size=16).hexdigest()


@cache
def cases() -> list[Case]:
    """Read the frozen cases."""
    hashes = tomllib.loads((files(__package__) / FILE).read_text())
    return [
        Case(distribution, dtype, box, known)
        for label, dtype, distribution in drawn()
        for box, known in zip(BOXES, hashes[label][dtype], strict=True)
    ]
