"""Conversion of a JAX key to a seed and a stream id."""

from typing import Any

import jax
import numpy as np


def words_of(key: Any) -> Any:
    """Return the words of a key, or None if it is not a single key."""
    if not hasattr(key, "dtype"):
        return None
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        try:
            key = jax.random.wrap_key_data(key)
        except (TypeError, ValueError):
            return None
    if key.ndim:
        return None
    # jax.random.key_data dispatches a JAX operation: slower than filling a small tensor.
    words = None if isinstance(key, jax.core.Tracer) else getattr(key, "_base_array", None)
    words = jax.random.key_data(key) if words is None else words
    if words.shape not in ((1,), (2,), (4,)):
        raise ValueError(f"key must have 32, 64 or 128 bits, got {32 * words.size}")
    return words


def seed_and_stream(words: Any) -> tuple[int, int]:
    """Convert two words to the seed, and two more to the stream id; the high word comes first."""
    seed, stream = 0, 0
    for at, word in enumerate(np.asarray(words).tolist()):
        if at < 2:
            seed = seed << 32 | word
        else:
            stream = stream << 32 | word
    return seed, stream
