"""The scheme of a tensor that has none yet, in the plan of a list of names and shapes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.initializers.protocol import Initializer


@dataclass(frozen=True, repr=False)
class Unset(Initializer):
    """A placeholder that fills no tensor: rules or a checkpoint must replace it.

    Examples
    --------
    >>> Unset()((3,), seed=0)
    Traceback (most recent call last):
    ValueError: it has no scheme: rules or a configuration must give one
    """

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse every tensor."""
        raise ValueError("it has no scheme: rules or a configuration must give one")
