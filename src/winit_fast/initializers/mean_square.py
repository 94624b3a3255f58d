"""The mean square of a function of a standard normal number, by adaptive quadrature."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from winit_fast.initializers.activations import Array

_REACH = 38.0  # the density there is about 1e-314; beyond, it would soon underflow to 0
_MAX_INTERVALS = 2048


@cache
def _rule() -> tuple[Array, Array, Array]:
    """Make the 16-point Gauss-Legendre rule: nodes, weights, and a differentiation matrix.

    The matrix maps values at the nodes to the derivative, at the nodes, of the polynomial through
    these values. numpy.polynomial is imported here, because NumPy too imports it at its first use.
    """
    legendre = np.polynomial.legendre
    nodes, weights = legendre.leggauss(16)
    slopes = legendre.legval(nodes, legendre.legder(np.eye(16)))
    derivative = np.linalg.solve(legendre.legvander(nodes, 15).T, slopes).T
    return nodes, weights, np.asarray(derivative, np.float64)


def mean_square(
    function: Callable[[Array], Array], gradient: bool = False, tolerance: float | None = None
) -> float:
    """Integrate f(z)^2, or f'(z)^2, over the standard normal; infinity if it does not converge.

    Parameters
    ----------
    function : callable
        Of an array of float64; it returns float64 or float32.
    gradient : bool
        Whether to integrate the square of the derivative.
    tolerance : float, optional
        The relative error of an interval; by default 1024 times the precision of what the function
        returns. A function that varies little about a large value needs a larger one.

    Examples
    --------
    >>> round(mean_square(lambda z: 3 * z), 12), round(mean_square(np.sin, gradient=True), 6)
    (9.0, 0.567668)
    """
    nodes, weights, derivative = _rule()

    def integrals(left: Array, width: Array) -> Array:
        z = left[:, None] + width[:, None] * (nodes + 1) / 2
        values = function(z).astype(np.float64)
        if gradient:
            values = values @ derivative.T * (2 / width[:, None])
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        result: Array = (values * values * density) @ weights * (width / 2)
        return result

    with np.errstate(all="ignore"):
        precision = np.finfo(function(nodes).dtype)
        if tolerance is None:
            tolerance = 1024 * float(precision.eps)
        # until intervals are about as narrow as the default tolerance
        halvings = precision.nmant - 12
        # Kinks and jumps are mostly at multiples of 1/2, so intervals end there. But the derivative
        # sees a jump only inside an interval, so with gradient=True intervals are shifted.
        left = np.arange(-_REACH, _REACH, 0.5) + (1 / 7 if gradient else 0)
        width = np.full_like(left, 0.5)
        coarse = integrals(left, width)
        ends = coarse[0] + coarse[-1]
        total = 0.0
        for _ in range(halvings):
            width = width / 2
            left = np.stack([left, left + width])
            fine = integrals(left.ravel(), np.tile(width, 2)).reshape(2, -1)
            error = abs(fine.sum(0) - coarse)
            size = total + fine.sum()
            done = error <= tolerance * size
            total += fine[:, done].sum()
            if done.all() or np.count_nonzero(~done) > _MAX_INTERVALS:
                break
            left, coarse = left[:, ~done].ravel(), fine[:, ~done].ravel()
            width = np.tile(width[~done], 2)
    # Intervals that have not converged contain jumps. They are so narrow that they contribute
    # almost nothing, unless the integral does not converge.
    if not (math.isfinite(size) and max(ends, error[~done].sum()) <= 4 * tolerance * size):
        return math.inf
    return float(total + fine[:, ~done].sum())
