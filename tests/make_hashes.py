"""Make the table of hashes that freezes stream version 1.

    python tests/make_hashes.py > tests/hashes.txt

A changed line means a new stream version: see docs/contract.md. tests/test_hashes.py compares the
library with the table. tests/c/isa_hashes.c compares the C sources alone, for instruction sets that
need an emulator; its distributions are in tests/c/cases.h, which this program writes too.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from draws import FROZEN

import winit_fast as wf
from winit_fast.base import dtypes
from winit_fast.streams import truncation

TABLE = Path(__file__).parent / "hashes.txt"
CASES = Path(__file__).parent / "c" / "cases.h"
SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210

HEADER = """\
# Stream v1, frozen. Seed 0x0123456789abcdef, stream 0xfedcba9876543210.
# One line: distribution, type, first index, lengths, BLAKE2b of the bytes.
# Lengths 0-70 stand for the fills of 0, 1, ... 70 elements, their bytes one after the other.
# Made by: python tests/make_hashes.py > tests/hashes.txt
"""

# These indices cover: every position in a block; a carry out of the counter word c0 (at 2^33
# elements of float64, 2^34 of the other types) inside a long run and inside a short one; indices
# that do not fit into 32 bits, signed or not; and the last elements.
OFFSETS = [
    0,
    1,
    2,
    3,
    6,
    2**31 - 9,
    2**32,
    2**32 + 5,
    2**33 - 2051,
    2**34 - 33,
    2**34 - 2050,
    2**34 + 3,
]
OFFSETS += [2**63 - 4099]
# Fewer and more elements than any vector has; and many vectors with three more elements.
LENGTHS = {"0-70": range(71), "4099": [4099]}


def fills() -> Iterator[tuple[str, Callable[[int, int], np.ndarray]]]:
    """Yield "name type", and the function from first index and length to the elements."""
    stream = wf.Stream(SEED, STREAM)
    for width in 32, 64:
        yield (
            f"bits uint{width}",
            lambda offset, length, width=width: stream.bits(
                length, offset=offset, dtype=f"uint{width}"
            ),
        )
    for name, (method, parameters) in FROZEN.items():
        draw = getattr(stream, method)
        for dtype in dtypes.NAMES:
            yield (
                f"{name} {dtype}",
                lambda offset, length, draw=draw, parameters=parameters, dtype=dtype: draw(
                    *parameters, (2**63,), dtype=dtype, index=np.s_[offset : offset + length]
                ),
            )


def table(offsets: Sequence[int] = OFFSETS) -> Iterator[tuple[str, bytes]]:
    """Yield the key of each line and the bytes that it hashes, for all offsets or some of them."""
    for name, fill in fills():
        for offset in offsets:
            for label, lengths in LENGTHS.items():
                data = b"".join(fill(offset, length).tobytes() for length in lengths)
                yield f"{name} {offset} {label}", data


def blake2b(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def frozen() -> dict[str, str]:
    """Read the table: the key of each line, and its hash."""
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


def cases() -> str:
    """The distributions as C: the parameters for the 32-bit types, then those for float64."""
    lines = ["/* The distributions of hashes.txt. Written by tests/make_hashes.py. */"]
    lines += ["static const struct {", "    const char *name, *distribution;"]
    lines += [
        "    winit_parameters p[2]; /* [0] for the 32-bit types, [1] for float64 */",
        "} cases[] = {",
    ]
    for name, (method, parameters) in {"bits": ("bits", ()), **FROZEN}.items():
        _, *names = inspect.signature(getattr(wf.Stream, method)).parameters
        given = dict(zip(names, parameters, strict=False))
        lines.append(f'    {{"{name}", "{method}", {{')
        for bits in 32, 64:
            if method == "truncated_normal":
                given["window"] = truncation.window(*parameters[2:], bits)._asdict()
            lines.append(f"        {c_literal(given)},")
        lines.append("    }},")
    return "\n".join([*lines, "};", ""])


def c_literal(value: bool | int | float | tuple[float, ...] | dict) -> str:
    if isinstance(value, dict):
        fields = (f".{name} = {c_literal(each)}" for name, each in value.items())
        return "{" + (", ".join(fields) or ".loc = 0") + "}"
    if isinstance(value, tuple):
        return "{" + ", ".join(map(c_literal, value)) + "}"
    if value == math.inf:
        return "INFINITY"
    if isinstance(value, float):
        return value.hex()
    return f"UINT64_C({int(value)})" if value > 2**31 else str(int(value))


if __name__ == "__main__":
    CASES.write_text(cases())
    print(HEADER, end="")
    for key, data in table():
        print(key, blake2b(data))
