"""Conversion of a Keras seed to the key of a stream."""

from typing import Any

import keras
import numpy as np


def next_state(seed: Any) -> Any:
    """Return an int unchanged; advance a SeedGenerator and return its words, possibly a tracer."""
    if isinstance(seed, int):
        return seed
    if not isinstance(seed, keras.random.SeedGenerator):
        raise ValueError(f"seed must be an integer or a SeedGenerator, got {seed!r}")
    return seed.next()


def key_of(state: Any) -> int:
    """Convert an int, or the two words of a SeedGenerator, to a 64-bit key."""
    if isinstance(state, int):
        return state & 0xFFFF_FFFF_FFFF_FFFF
    # With PyTorch the words are an int32 tensor, which may be on another device.
    words = state.tolist() if keras.backend.backend() == "torch" else np.asarray(state).tolist()
    low, high = (word & 0xFFFF_FFFF for word in words)
    return int(low | high << 32)
