"""What mean-field theory predicts for the layers of a network that was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from winit_fast.diagnosis.rows import ACTIVATION, LAYER, Row
from winit_fast.initializers.activations import activation_function
from winit_fast.initializers.mean_square import mean_square


def predicted(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Predict the deviations of layers and of their gradients by mean-field theory.

    Each is predicted from the layer before it (for gradients, from the layer after it). The first
    layer of a chain has its measured value, and so has every layer that does not follow an
    activation of a layer directly.

    Parameters
    ----------
    rows : sequence of Row

    Returns
    -------
    forward, backward : list of float
        The root of the mean square of each layer's output, and the deviation of its gradient; NaN
        where no gradient is known.

    Examples
    --------
    >>> he = {"weight": (2 / 100) ** 0.5, "fan_in": 100, "fan_out": 100}
    >>> layer, relu = Row("0", "layer", "Linear", 0.0, 1.4, gradient=3.0, **he), Row(
    ...     "1", "activation", "ReLU", 0.5, 0.8, activation="relu"
    ... )
    >>> forward, backward = predicted([layer, relu, layer, relu, layer])
    >>> [round(value, 6) for value in forward + backward]
    [1.4, 1.4, 1.4, 3.0, 3.0, 3.0]
    """
    layers = [place for place, row in enumerate(rows) if row.kind == LAYER]
    squares: list[float] = []
    links: list[Row | None] = []  # the activation between a layer and the one before it
    for number, place in enumerate(layers):
        row, link = rows[place], None
        if number and row.weight is not None:
            between = rows[layers[number - 1] + 1 : place]
            if len(between) == 1 and between[0].activation is not None:
                link = between[0]
            elif not between:
                link = _LINEAR
        links.append(link)
        if link is None:
            squares.append(row.mean_square)
            continue
        assert row.weight is not None
        square = row.weight**2 * row.fan_in * _expected(link, squares[-1], False)
        squares.append(square + row.bias**2)
    backward = [math.nan] * len(layers)
    for number in reversed(range(len(layers))):
        own = rows[layers[number]].gradient
        backward[number] = math.nan if own is None else own
        if number + 1 < len(layers):
            after, link = rows[layers[number + 1]], links[number + 1]
            if link is not None and after.weight is not None:
                factor = after.weight**2 * after.fan_out * _expected(link, squares[number], True)
                backward[number] = backward[number + 1] * math.sqrt(factor)
    return [math.sqrt(square) for square in squares], backward


_LINEAR = Row("", ACTIVATION, "", 0.0, 0.0, activation="linear")


def _expected(link: Row, variance: float, gradient: bool) -> float:
    """Return E[f(h)^2] or E[f'(h)^2] of an activation, for preactivations of a variance."""
    if not 0 < variance < math.inf:
        return 0.0 if variance == 0 else math.nan
    assert link.activation is not None
    function, root = activation_function(link.activation, link.param), math.sqrt(variance)
    tolerance = 1e-9 if gradient else None
    square = mean_square(lambda z: function(root * z), gradient, tolerance)
    return square / variance if gradient else square
