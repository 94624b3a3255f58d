"""Signals and gradients where weights have a mean, or pass every unit on alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from winit_fast.diagnosis.theory import Array, normal_rule
from winit_fast.initializers.activations import Activation, activation_function

_STEP = 1e-5
"""Relative step of the differences that stand for a derivative."""

_KINK = 1e-3
"""Difference of the derivatives on both sides that is no curvature."""


@dataclass(frozen=True)
class Course:
    """Mean squares layer by layer.

    Attributes
    ----------
    signal : numpy.ndarray
        Of the preactivations of layers 1 to L.
    gradient : numpy.ndarray
        Of the gradients there, relative to that of layer L.
    shared : float
        The part of the last layer's mean square that all its units have in common.
    """

    signal: Array
    gradient: Array
    shared: float


def with_mean(
    activation: Activation, mean: float, deviation: float, fan: int, depth: int
) -> Course:
    r"""Follow a signal through layers whose weights have a mean other than 0.

    Parameters
    ----------
    activation : str or callable
    mean, deviation : float
        Of the weights.
    fan : int
        Number of inputs of every unit.
    depth : int
        Number of layers L.

    Notes
    -----
    The mean adds to every unit of a layer the same number, the mean times the sum of the inputs. So
    preactivations are normal around :math:`m^l`, which all units share, with variance :math:`v^l`:

    .. math::

        m^{l+1} = \mu \sqrt{(n E[f])^2 + n \operatorname{Var}[f]}, \qquad
        v^{l+1} = n \sigma^2 E[f^2], \qquad f = f(m^l + \sqrt{v^l} z).

    The root is the size of the sum of n outputs. The inputs have the mean square 1 and the sum
    sqrt(n), which is its size if their mean is 0. Gradients follow in the same way, backward.

    Examples
    --------
    >>> course = with_mean("linear", 1 / 16, 0.0, 16, 3)
    >>> course.signal.tolist(), course.shared
    ([0.0625, 0.0625, 0.0625], 1.0)
    """
    function = activation_function(activation)
    z, weight = normal_rule()
    m, v = mean * math.sqrt(fan), deviation**2 * fan
    layers = []
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(depth):
            layers.append((m, v))
            values = np.asarray(function(m + math.sqrt(v) * z), np.float64)
            one, square = float(weight @ values), float(weight @ (values * values))
            m, v = mean * _sum(one, square, fan), deviation**2 * fan * square
            if not (math.isfinite(m) and math.isfinite(v)):
                m, v = math.inf, 0.0
                break
        layers += [(m, v)] * (depth - len(layers))
        first, second = 0.0, 1.0  # mean and mean square of the gradient
        gradient = [1.0]
        for m, v in layers[-2::-1]:
            if not math.isfinite(m):
                gradient.append(math.nan)
                continue
            shared, own = mean * _sum(first, second, fan), deviation**2 * fan * second
            slope = _slope(function, m + math.sqrt(v) * z)
            first = float(weight @ slope) * shared
            second = float(weight @ (slope * slope)) * (shared**2 + own)
            gradient.append(second)
    m, v = layers[-1]
    whole = m * m + v
    return Course(
        np.array([m * m + v for m, v in layers]),
        np.array(gradient[::-1]),
        m * m / whole if 0 < whole < math.inf else 0.0 if whole == 0 else 1.0,
    )


def unit_by_unit(activation: Activation, gain: float, depth: int) -> Course:
    """Follow a signal of N(0, 1) through layers that pass each unit on, times a gain.

    Examples
    --------
    >>> unit_by_unit("relu", 1.0, 3).signal.round(6).tolist()
    [1.0, 0.5, 0.5]
    """
    function = activation_function(activation)
    z, weight = normal_rule()
    h = gain * z
    signal, slopes = [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(depth):
            signal.append(float(weight @ (h * h)))
            slopes.append(gain * _slope(function, h))
            h = gain * np.asarray(function(h), np.float64)
        backward, gradient = np.ones_like(z), [1.0]
        for slope in slopes[-2::-1]:
            backward = backward * slope
            gradient.append(float(weight @ (backward * backward)))
    return Course(np.array(signal), np.array(gradient[::-1]), 0.0)


def _sum(mean: float, square: float, count: int) -> float:
    """Return the size of the sum of numbers of a mean and a mean square, with its sign."""
    size = math.sqrt((count * mean) ** 2 + count * max(0.0, square - mean**2))
    return math.copysign(size, mean)


def _slope(function: Callable[[Array], Array], at: Array) -> Array:
    """Differentiate; at a kink, the flatter side counts, as in PyTorch."""
    step = _STEP * np.maximum(1.0, np.abs(at))
    here = np.asarray(function(at), np.float64)
    left, right = (here - function(at - step)) / step, (function(at + step) - here) / step
    flatter = np.where(np.abs(left) < np.abs(right), left, right)
    found: Array = np.where(np.abs(left - right) > _KINK, flatter, (left + right) / 2)
    return found
