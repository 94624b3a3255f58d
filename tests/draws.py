"""The list of distributions that the tests read: a new distribution adds an entry here."""

from collections.abc import Callable
from typing import Any, NamedTuple

INF = float("inf")


class Draw(NamedTuple):
    """What the tests know about one method of `Stream` and `winit_fast.streams.distributions`.

    Attributes
    ----------
    names : tuple of str
        The names of its parameters.
    standard : tuple of float
        Their defaults.
    shapes : tuple of tuples of float
        Values of the parameters after location and scale; the defaults are one of them.
    wide : tuple of float
        Parameters whose numbers lie on both sides of 0, unevenly.
    frozen : dict of str to tuple of float
        The parameters of each label in tests/hashes.txt: numbers that no type represents exactly.
    environments : tuple of tuples of float
        Parameters to prepare in other rounding modes, some of them subnormal.
    spread : tuple of float
        Bounds for a thousand standard numbers, and their mean.
    distributions : tuple of (tuple of float, callable)
        Parameters, each with its distribution function.
    """

    names: tuple[str, ...]
    standard: tuple[float, ...]
    shapes: tuple[tuple[float, ...], ...]
    wide: tuple[float, ...]
    frozen: dict[str, tuple[float, ...]]
    environments: tuple[tuple[float, ...], ...]
    spread: tuple[float, float, float]
    distributions: tuple[tuple[tuple[float, ...], Callable[[Any], Any]], ...]


def _between(low, high):
    """Distribution function of the normal truncated to [low, high], from the nearer tail."""

    def cdf(x):
        from scipy import special  # the tests of wheels run without SciPy

        if low > 0:
            first, last = special.ndtr(-low), special.ndtr(-high)
            return (first - special.ndtr(-x)) / (first - last)
        first, last = special.ndtr(low), special.ndtr(high)
        return (special.ndtr(x) - first) / (last - first)

    return cdf


WINDOWS = (
    (-2.0, 2.0),
    (-1.0, 3.0),
    (4.0, 6.0),
    (-30.0, -29.0),
    (37.0, 38.0),
    (0.0, INF),
    (-INF, 0.5),
    (-INF, INF),
    (-100.0, 100.0),
    (-8.0, 2.5),
    (-0.5, 0.1),
    (1.0, 1.0000001),
    (-1e-3, 1e-3),
    (-1e-7, 3e-8),
    (0.0, 1e-12),
    (2.4, 2.6),
    (-0.68, -0.67),
    (-3.0, 0.0),
)

DRAWS = {
    "uniform": Draw(
        names=("low", "high"),
        standard=(0.0, 1.0),
        shapes=(),
        wide=(-1.0, 2.0),
        frozen={"uniform": (-0.3, 0.7)},
        environments=((-0.3, 0.7), (1e-45, 1e-38)),
        spread=(0, 1, 0.5),
        distributions=(((-1.0, 1.0), lambda x: (x + 1) / 2),),
    ),
    "normal": Draw(
        names=("loc", "scale"),
        standard=(0.0, 1.0),
        shapes=((),),
        wide=(0.5, 2.0),
        frozen={"normal": (0.01, 0.02)},
        environments=((0.1, 0.02), (1e-40, 3e-42)),
        spread=(-7, 7, 0),
        distributions=(((0.0, 1.0), _between(-INF, INF)),),
    ),
    "truncated_normal": Draw(
        names=("loc", "scale", "low", "high"),
        standard=(0.0, 1.0, -2.0, 2.0),
        shapes=WINDOWS,
        wide=(0.0, 1.0, -1.0, 2.5),
        # windows around zero, in a far tail and half open; one just beyond what the central kernel
        # does
        frozen={
            "truncated": (0.01, 0.02, -2.0, 2.0),
            "wide": (0.0, 1.0, -100.0, 3.5),
            "tail": (30.1, 1.1, -30.0, -29.0),
            "half": (0.0, 0.7, 0.0, INF),
            "past": (0.01, 0.02, -2.1, 2.1),
        },
        environments=(
            (0.1, 0.02, -2.0, 2.0),
            (0.1, 0.3, -0.7, 1.9),
            (0.0, 1e-39, 4.0, 6.1),
            (30.1, 1.1, -30.0, -29.0),
        ),
        spread=(-2, 2, 0),
        distributions=(
            ((0.0, 1.0, -2.0, 2.0), _between(-2, 2)),
            ((0.0, 1.0, -1.0, INF), _between(-1, INF)),
            ((0.0, 1.0, 4.0, 6.0), _between(4, 6)),
        ),
    ),
}

FROZEN = {
    label: (method, parameters)
    for method, draw in DRAWS.items()
    for label, parameters in draw.frozen.items()
}
"""Labels of tests/hashes.txt, in its order, with the method and its parameters."""
