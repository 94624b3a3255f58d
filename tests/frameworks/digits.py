"""Pictures to learn from: scikit-learn's 1797 handwritten digits of 8 x 8 pixels."""

import numpy as np
from sklearn.datasets import load_digits


def batches(steps: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw batches: pictures (steps, size, 8, 8) of mean 0 and deviation 1, digits (steps, size).

    The same for every contestant.
    """
    digits = load_digits()
    pictures = digits.images.astype(np.float32)
    pictures = (pictures - pictures.mean()) / pictures.std()
    order = np.random.default_rng(seed).integers(len(pictures), size=(steps, size))
    return pictures[order], digits.target.astype(np.int32)[order]
