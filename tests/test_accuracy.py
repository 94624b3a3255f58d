"""The measurements of bench/accuracy.py on a sample of the words; the program takes all of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from strategies import depth

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import accuracy

needs_long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant != 63, reason="float64 is measured with x86's long double"
)


@pytest.mark.parametrize("name", [name for name, case in accuracy.CASES.items() if not case.double])
def test_32_bit_family(isa, name):
    """A sample of words from the whole range, and both ends."""
    ends = np.arange(-1000, 1000).astype(np.uint32)
    words = np.arange(depth(1 << 20), dtype=np.uint32)
    words = np.concatenate([accuracy.scattered(words), ends])
    worst = accuracy.examine(accuracy.CASES[name], words)
    assert not worst.breaks(accuracy.CASES[name]), str(worst)


@needs_long_double
@pytest.mark.parametrize("name", [name for name, case in accuracy.CASES.items() if case.double])
def test_float64(isa, name):
    worst = accuracy.examine(
        accuracy.CASES[name], accuracy.random_words64(1, depth(1 << 19, 1 / 4))
    )
    assert not worst.breaks(accuracy.CASES[name]), str(worst)
