"""From a seed of Keras to the key of a stream."""

from typing import Any

import keras
import numpy as np


def next_state(seed: Any) -> Any:
    """Take an int as it is; move a SeedGenerator on, whose words may be a tracer's."""
    if isinstance(seed, int):
        return seed
    if not isinstance(seed, keras.random.SeedGenerator):
        raise ValueError(f"seed must be an integer or a SeedGenerator, got {seed!r}")
    return seed.next()


def key_of(state: Any) -> int:
    """Make 64 bits of an int, or of a SeedGenerator's two words."""
    if isinstance(state, int):
        return state & 0xFFFF_FFFF_FFFF_FFFF
    # PyTorch's words are of int32, and may be on a device.
    words = state.tolist() if keras.backend.backend() == "torch" else np.asarray(state).tolist()
    low, high = (word & 0xFFFF_FFFF for word in words)
    return int(low | high << 32)
