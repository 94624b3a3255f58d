"""Hypothesis strategies for arguments of every kind, and the check that a call with them passes."""

import math
import re

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from winit_fast.base import dtypes

REFUSED = (ValueError, TypeError, IndexError)
BIG = 10**400

NARROW = [kind.name for kind in dtypes.FLOATS.values() if kind.dtype.itemsize < 4]
"""The types of fewer bits than float32."""

numbers = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, BIG, -BIG]),
    st.floats(),
    st.sampled_from([np.float32(0.5), np.int64(3), np.uint8(2), np.array(1.5), np.bool_(True)]),
)
others = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.sampled_from([..., slice(None), object(), np.array([1.0, 2.0]), np.array("x"), int, {}]),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sets(st.integers(0, 3), max_size=2),
)
anything = numbers | others
names = st.none() | st.text(max_size=12) | st.integers(0, 2**64 - 1)


def depth(number, share=1):
    """Scale a sample's size: all of it in the full profile, else a quarter of its `share`."""
    full = settings.get_profile("full").max_examples
    quick = settings().max_examples < full
    return int(number * share * settings().max_examples) // full if quick else number


def examples(number):
    """Set how many examples Hypothesis draws in the full profile."""
    return settings(max_examples=depth(number))


def in_bounds(shape):
    """Whether an array of this shape, if it is a shape, is small enough to be made."""
    try:
        size = math.prod(shape if isinstance(shape, (tuple, list)) else [shape])
        return abs(size) <= 1 << 16 or size > 1 << 62
    except (TypeError, ValueError, OverflowError):
        return True


extents = st.integers(-1, 6) | st.sampled_from([2**62, 2**63, 2**64]) | anything
shapes = (anything | st.lists(extents, max_size=5).map(tuple)).filter(in_bounds)
positions = st.integers(-8, 8) | st.sampled_from([None, np.int8(2), 2**70, 1.0, "1"])
parts = positions | st.builds(slice, positions, positions, positions) | st.just(...)
indices = anything | parts | st.lists(parts, max_size=4).map(tuple)
types = anything | st.sampled_from([*dtypes.FLOATS, "float32", ">f4", "f4,,", "int8", "uint32"])


def refused_or(call, named):
    """Make a call; return its result or its error, which must name one of the arguments `named`."""
    try:
        return call()
    except REFUSED as error:
        assert type(error) in REFUSED, repr(error)
        assert re.search(rf"\b({'|'.join(named)})\b", str(error)), str(error)
        return error
