"""Training data: the 1797 handwritten digits of scikit-learn, pictures of 8 x 8 pixels."""

import numpy as np
from sklearn.datasets import load_digits


def batches(steps: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw batches: pictures (steps, size, 8, 8) with mean 0 and deviation 1, labels (steps, size).

    Every contestant gets the same batches.
    """
    digits = load_digits()
    pictures = digits.images.astype(np.float32)
    pictures = (pictures - pictures.mean()) / pictures.std()
    order = np.random.default_rng(seed).integers(len(pictures), size=(steps, size))
    return pictures[order], digits.target.astype(np.int32)[order]
