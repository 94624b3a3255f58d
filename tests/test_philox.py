"""The generator compared with its published test vectors, on every instruction set."""

import re
from pathlib import Path

import numpy as np
import pytest
import reference

import winit_fast as wf
import winit_fast._core as _core

LINES = [
    [int(word, 16) for word in line.split()]
    for line in (Path(__file__).parent / "vectors" / "philox4x32_10.txt").read_text().splitlines()
    if not line.startswith("#")
]
ANSWERS = [(tuple(line[:4]), tuple(line[4:6]), tuple(line[6:])) for line in LINES]


# Instruction sets of the list in sets.h that this processor does not have.
SETS = (Path(__file__).parents[1] / "csrc" / "sets.h").read_text()
KNOWN = sorted(set(re.findall(r"\(X\((\w+), ", SETS)) - set(_core.supported_isas()))


def number(low: int, high: int) -> int:
    return low | high << 32


def test_all_lines_are_there():
    assert len(ANSWERS) == 203


def test_kernel(isa):
    for counter, key, words in ANSWERS:
        assert tuple(_core.philox(counter, key)) == words


def test_reference():
    for counter, key, words in ANSWERS:
        assert tuple(map(int, reference.philox(counter, key))) == words


def test_stream(isa):
    """Seed, stream id and index are used in full, up to 64 bits, for the key and the counter."""
    reachable = 0
    for counter, key, words in ANSWERS:
        index = 4 * number(*counter[:2])
        if index + 4 <= 2**63:
            stream = wf.Stream(number(*key), number(*counter[2:]))
            assert tuple(stream.bits(4, offset=index).tolist()) == words
            assert tuple(stream.bits(2, offset=index // 2, dtype="uint64").tolist()) == (
                number(*words[:2]),
                number(*words[2:]),
            )
            reachable += 1
    assert reachable >= 20


@pytest.mark.parametrize("carry", [2**34, 5 * 2**34, 2**63 - 600])
def test_counter_carries(isa, carry):
    """A carry out of c0 inside a long run, at any lane of a vector; the last blocks."""
    for start in range(carry - 300, carry - 260):
        got = wf.Stream(7, "carry").bits(600, offset=start)
        index = np.uint64(start) + np.arange(600, dtype=np.uint64)
        np.testing.assert_array_equal(
            got, reference.words32(7, reference.stream_id("carry"), index)
        )


@pytest.mark.parametrize("name", ["avx", "avx2 ", "AVX2", "sse", "", "scalars", *KNOWN])
def test_a_set_that_is_not_there_is_refused(name):
    before = _core.isa()
    with pytest.raises(ValueError, match=f"must be one of .* got {name!r}"):
        _core.set_isa(name)
    assert _core.isa() == before
