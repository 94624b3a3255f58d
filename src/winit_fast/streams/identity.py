"""What identifies the numbers of a tensor: the key of a seed, the id of a name, the version."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from winit_fast.base.arguments import integer, utf8, word

STREAM_VERSION = 1
"""Version of the numbers: it changes if any bit of any number changes (docs/contract.md)."""

# A string, because evaluating the types would import numpy.random, which NumPy imports lazily.
Seed: TypeAlias = "int | np.random.SeedSequence | np.random.Generator | None"


def seed_number(seed: Seed) -> int:
    """Convert a seed to a 64-bit key.

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        An int below 2^64 is used as it is; a larger one is converted with ``SeedSequence(seed)``.
        A SeedSequence gives its first 64-bit word, the same at each call. A Generator draws a new
        64-bit word at each call. None takes random bytes of the operating system.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        If the seed is none of these, or negative.

    Examples
    --------
    >>> seed_number(42), seed_number(np.random.SeedSequence(0))
    (42, 15793235383387715774)
    """
    if seed is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(seed, int) and 0 <= seed < 1 << 64:
        return int(seed)
    if isinstance(seed, np.random.SeedSequence):
        return int(seed.generate_state(1, np.uint64)[0])
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(1 << 64, dtype=np.uint64))
    number = integer("seed", seed, "an integer, a SeedSequence, a Generator or None")
    if number < 0:
        raise ValueError(f"seed must be at least 0, got {number}")
    return number if number < 1 << 64 else seed_number(np.random.SeedSequence(number))


def of_generation(name: str, generation: int) -> str:
    """Return the name of a stream in another generation; 0 is the stream itself.

    Examples
    --------
    >>> of_generation("fc.weight", 2), of_generation("fc.weight\\0generation 2", 0)
    ('fc.weight\\x00generation 2', 'fc.weight')
    """
    tensor, nul, part = name.partition("\0")
    if part.startswith("generation "):
        _, nul, part = part.partition("\0")
    return f"{tensor}\0generation {generation}{nul}{part}" if generation else tensor + nul + part


@cache
def _blake2b() -> Callable[..., Any]:
    """Import BLAKE2b at the first use: hashlib loads OpenSSL, which is slow."""
    from hashlib import blake2b

    return blake2b


def stream_id(name: str | int | None) -> int:
    """Compute the stream id of a name.

    Parameters
    ----------
    name : str, int or None
        An int is used as it is. None is stream 0.

    Returns
    -------
    int
        The 8 bytes of BLAKE2b of the name in UTF-8, read as a little-endian integer.

    Raises
    ------
    TypeError, ValueError
        If the name is none of these, or an int that is not from 0 to 2^64 - 1.

    Examples
    --------
    >>> hex(stream_id("fc.weight")), stream_id(7), stream_id(None)
    ('0x73d2d3db05ba26ca', 7, 0)
    """
    if name is None:
        return 0
    if isinstance(name, str):
        return int.from_bytes(_blake2b()(utf8("name", name), digest_size=8).digest(), "little")
    return word("name", name, "a str, an integer or None")
