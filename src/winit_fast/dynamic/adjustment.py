"""How layers are scaled: the factors, and a report of what was done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.base.tables import table

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Adjusted:
    """One layer whose weight was scaled.

    Attributes
    ----------
    name : str
    factor : float
        By which the weight was multiplied.
    before, after : float
        The deviation of its output.
    gradient : float or None
        The deviation of the gradient with respect to its output afterwards, where it was asked for.
    calls : int
        How often the layer runs for one batch; its deviation is that of all its outputs together.
    """

    name: str
    factor: float
    before: float
    after: float
    gradient: float | None = None
    calls: int = 1


@dataclass(frozen=True)
class Adjustment:
    """What was done to a network: its layers in the order of execution.

    Examples
    --------
    >>> print(Adjustment((Adjusted("0", 2.0, 0.5, 1.0),)))
    layer  factor  before  after  gradient
    0           2     0.5      1         -
    """

    layers: tuple[Adjusted, ...]

    def __getitem__(self, name: str) -> Adjusted:
        """Return the layer of a name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def __str__(self) -> str:
        rows = [("layer", "factor", "before", "after", "gradient")]
        for one in self.layers:
            gradient = "-" if one.gradient is None else f"{one.gradient:.4g}"
            rows.append((one.name, f"{one.factor:.4g}", f"{one.before:.4g}", f"{one.after:.4g}",
                         gradient))  # fmt: skip
        return table(rows, right=range(1, len(rows[0])))


def log_factors(
    forward: Sequence[float] | None,
    backward: Sequence[float] | None,
    deviation: float,
    gradient: float | None = None,
) -> Array:
    r"""Compute the logarithms of the factors that bring a chain of layers to its targets.

    Parameters
    ----------
    forward : sequence of float, optional
        The deviation of each layer's output.
    backward : sequence of float, optional
        The deviation of the gradient with respect to each layer's output.
    deviation : float
        The target of outputs.
    gradient : float, optional
        The target of gradients; by default that of the last layer's output.

    Returns
    -------
    numpy.ndarray

    Notes
    -----
    A factor :math:`e^{x_l}` of layer l multiplies the outputs of layer l and of those after it, and
    the gradients of the layers before it. With both, the factors are those of least squares:

    .. math::

        \sum_l \left(\ln \frac{o_l}{o} + \sum_{k \le l} x_k\right)^2 +
               \left(\ln \frac{g_l}{g} + \sum_{k > l} x_k\right)^2.

    Activations are taken to pass a factor on, as a ReLU does; for others, repeat it.

    Examples
    --------
    >>> np.exp(log_factors([0.5, 0.25, 0.125], None, 1.0)).round(9).tolist()
    [2.0, 2.0, 2.0]
    >>> np.exp(log_factors(None, [4.0, 2.0, 1.0], 1.0)).round(9).tolist()
    [1.0, 0.5, 0.5]
    """
    rows: list[Array] = []
    wanted: list[float] = []
    count = len(forward if forward is not None else backward or ())
    if forward is not None:
        rows += list(np.tri(count))
        wanted += [math.log(deviation / value) for value in forward]
    if backward is not None:
        target = backward[-1] if gradient is None else gradient
        rows += list(1 - np.tri(count))[:-1]
        wanted += [math.log(target / value) for value in backward[:-1]]
    if not rows:
        return np.zeros(count)
    found = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return np.asarray(found, np.float64)
