"""Mean-field theory: what becomes of signals and gradients in a deep network of random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from winit_fast.base.arguments import not_negative, positive, real
from winit_fast.initializers.activations import Activation, activation_function
from winit_fast.initializers.mean_square import mean_square

Array = np.ndarray[Any, np.dtype[np.float64]]

_SMALLEST = 1e-8
"""Variance that stands for 0 where a derivative at 0 is needed: a ReLU has none there."""

_SMALLEST_ODD = 1e-14
"""The same for an activation that is 0 at 0, whose values near 0 have all their digits."""

_LARGEST = 1e12
"""Variance that stands for infinity."""

_CHI_TOLERANCE = 1e-9
_CRITICAL = 1e-6
"""How far chi may be from 1 at a critical point; it is known to about this at variance 0."""


@dataclass(frozen=True)
class Theory:
    r"""Mean-field theory of a fully connected network: see `theory`, which makes it.

    Layer l = 1 ... L has the preactivations :math:`h^l = W^l x^{l-1} + b^l` with weights from
    N(0, sigma_w^2 / fan_in) and biases from N(0, sigma_b^2), and :math:`x^l = f(h^l)`. In wide
    layers the preactivations are normal. Their variance :math:`q^l` and the correlation
    :math:`c^l` of those of two inputs follow from the layer before:

    .. math::

        q^{l+1} = \sigma_w^2 E[f(\sqrt{q^l} z)^2] + \sigma_b^2, \qquad
        c^{l+1} = \frac{\sigma_w^2 E[f(u_1) f(u_2)] + \sigma_b^2}{q^{l+1}},

    with z from N(0, 1), and u_1, u_2 normal with variance q^l and correlation c^l. From layer to
    layer, the mean square of gradients changes by the factor

    .. math:: \chi(q) = \sigma_w^2 E[f'(\sqrt{q} z)^2].

    Attributes
    ----------
    activation : str or callable
    sigma_w, sigma_b : float
    depth : int
        Number of layers L.
    param : float or None
        The activation's parameter.
    mean_square : float
        Mean square of the network's inputs.
    """

    activation: Activation
    sigma_w: float
    sigma_b: float
    depth: int
    param: float | None = None
    mean_square: float = 1.0

    def __post_init__(self) -> None:
        for field in ("sigma_w", "sigma_b", "mean_square"):
            object.__setattr__(self, field, not_negative(field, getattr(self, field)))
        object.__setattr__(self, "depth", positive("depth", self.depth))
        _ = self._function  # refuses what is no activation

    @cached_property
    def _function(self) -> Callable[[Array], Array]:
        return activation_function(self.activation, self.param)

    # ------------------------------------------------------------------------------------- maps

    def variance_map(self, variance: float) -> float:
        """Return the variance of the next layer's preactivations.

        Parameters
        ----------
        variance : float
            Of this layer's preactivations.

        Returns
        -------
        float
            Infinity if the activation grows so fast that there is none.
        """
        square = self._mean_square(not_negative("variance", variance))
        return self.sigma_w**2 * square + self.sigma_b**2 if self.sigma_w else self.sigma_b**2

    def correlation_map(self, correlation: float, variance: float | None = None) -> float:
        """Return the correlation of the next layer's preactivations of two inputs.

        Parameters
        ----------
        correlation : float
            From -1 to 1: that of this layer's preactivations.
        variance : float, optional
            Of this layer's preactivations; by default `fixed_point`.

        Returns
        -------
        float
        """
        c = real("correlation", correlation)
        if not -1 <= c <= 1:
            raise ValueError(f"correlation must be from -1 to 1, got {correlation!r}")
        q = self._at if variance is None else not_negative("variance", variance)
        z, weight = normal_rule()
        root, s = math.sqrt(q), math.sqrt(1 - c * c)
        with np.errstate(over="ignore", invalid="ignore"):
            outer = np.asarray(self._function(root * z), np.float64)
            inner = np.asarray(self._function(root * (c * z[:, None] + s * z)), np.float64)
            together = float((weight * outer) @ (inner @ weight))
            alone = float(weight @ (outer * outer))
        whole = self.sigma_w**2 * alone + self.sigma_b**2
        if not (math.isfinite(whole) and whole > 0):
            raise ValueError(
                f"correlation has no meaning where the next layer's variance is {whole}, "
                f"got a variance of {q}"
            )
        return (self.sigma_w**2 * together + self.sigma_b**2) / whole

    def gradient_factor(self, variance: float) -> float:
        """Return chi(q): the mean square of a layer's gradient over that of the layer after it.

        Parameters
        ----------
        variance : float
            Of the layer's preactivations.

        Returns
        -------
        float
        """
        q = min(max(not_negative("variance", variance), self._smallest), _LARGEST)
        root = math.sqrt(q)
        square = mean_square(lambda z: self._function(root * z), True, _CHI_TOLERANCE)
        return self.sigma_w**2 * square / q if self.sigma_w else 0.0

    # ---------------------------------------------------------------------------- layer by layer

    @cached_property
    def variances(self) -> Array:
        """The variance of the preactivations of layers 1 to L."""
        found = [self.sigma_w**2 * self.mean_square + self.sigma_b**2]
        for _ in range(self.depth - 1):
            found.append(self.variance_map(found[-1]) if math.isfinite(found[-1]) else math.inf)
        return np.array(found)

    @cached_property
    def gradients(self) -> Array:
        """The mean square of the gradient at layers 1 to L, relative to that at layer L."""
        factors = [self.gradient_factor(min(q, _LARGEST)) for q in self.variances[:-1]]
        with np.errstate(over="ignore"):
            products: Array = np.cumprod(np.array([1.0, *factors[::-1]]), dtype=np.float64)[::-1]
        return products

    def correlations(self, start: float) -> Array:
        """Return the correlation of two inputs' preactivations in layers 1 to L.

        Parameters
        ----------
        start : float
            The correlation of the inputs.

        Returns
        -------
        numpy.ndarray
        """
        first = self.sigma_w**2 * self.mean_square
        found = [(first * real("start", start) + self.sigma_b**2) / (first + self.sigma_b**2)]
        for q in self.variances[:-1]:
            found.append(self.correlation_map(min(1.0, found[-1]), q))
        return np.array(found)

    def spread(self, width: int) -> Array:
        r"""Return the relative deviation, over networks, of a layer's mean square.

        Parameters
        ----------
        width : int
            Number of units of every layer.

        Returns
        -------
        numpy.ndarray
            For layers 1 to L: the deviation of the mean square of one network's preactivations,
            divided by its mean.

        Notes
        -----
        Given the layer before, a layer's preactivations are independent and normal. So the mean of
        the n squares has the relative variance 2 / n, and the mean of the squares of their
        activations :math:`k / n` with :math:`k = E[f^4] / E[f^2]^2 - 1`; the next layer has that
        of its input and 2 / n of its own. A relative change of q becomes J times as large in the
        next layer, :math:`J = d \ln q^{l+1} / d \ln q^l`. To first order in 1 / n. With a ReLU
        it is the growth of :math:`(1 + 5 / n)^L` of Hanin and Rolnick (2018).
        """
        n = positive("width", width)
        weights, found = self.sigma_w**2, []
        input_part = 0.0  # relative variance of q, given which the layer's n units are drawn
        for q in self.variances:
            found.append(math.sqrt((1 + input_part) * (1 + 2 / n) - 1))
            root = math.sqrt(q)
            second = self._mean_square(q)
            fourth = mean_square(lambda z, r=root: self._function(r * z) ** 2)  # type: ignore[misc]
            part = weights * second / (weights * second + self.sigma_b**2)
            step = 1e-4
            up, down = (math.log(self.variance_map(q * (1 + e))) for e in (step, -step))
            slope = (up - down) / (2 * step)
            own = part**2 * (fourth / second**2 - 1) / n
            input_part = (1 + slope**2 * input_part) * (1 + own) - 1
        return np.array(found)

    # ------------------------------------------------------------------------------ fixed points

    @cached_property
    def fixed_point(self) -> float:
        """The variance that deep layers approach; it may be 0 or infinity."""
        start = float(self.variances[0])
        if start == 0 or not math.isfinite(start):
            return start

        def change(q: float) -> float:
            return self.variance_map(q) / q - 1

        first = change(start)
        if abs(first) <= _CHI_TOLERANCE:  # so everywhere for a ReLU at its critical point
            return start
        factor = 2.0 if first > 0 else 0.5
        q = start
        while 1e-14 < q < _LARGEST:
            following = q * factor
            if (change(following) > 0) != (first > 0):
                return math.exp(_root(lambda x: change(math.exp(x)), math.log(q),
                                      math.log(following)))  # fmt: skip
            q = following
        return math.inf if first > 0 else 0.0

    @property
    def _at(self) -> float:
        """The fixed point, or a number that stands for 0 or infinity."""
        return min(max(self.fixed_point, self._smallest), _LARGEST)

    @property
    def _smallest(self) -> float:
        return _SMALLEST_ODD if self._mean_square(0.0) == 0 else _SMALLEST

    @cached_property
    def chi(self) -> float:
        """`gradient_factor` at the fixed point: below, at or above 1."""
        return self.gradient_factor(self._at)

    @cached_property
    def fixed_correlation(self) -> float:
        """The correlation that any two inputs approach: 1, or less in the chaotic phase."""
        change = self.variance_map(self._at) / self._at
        if self.chi / change <= 1 + _CRITICAL:  # the slope of the correlation map at 1
            return 1.0

        def excess(c: float) -> float:
            return self.correlation_map(c) - c

        if excess(0.0) <= 1e-12:
            return 0.0
        high = 1 - 1e-6
        while excess(high) >= 0:  # near the critical point the root is close to 1
            high = 1 - (1 - high) / 4
            if high == 1:
                return 1.0
        return _root(excess, 0.0, high)

    @property
    def phase(self) -> str:
        """Classify the fixed point: "ordered", "critical" or "chaotic".

        In the ordered phase gradients vanish with depth and all inputs become alike; in the
        chaotic phase gradients explode and similar inputs become different. A network can be
        trained to any depth only at the critical point between them.
        """
        if abs(self.chi - 1) <= _CRITICAL:
            return "critical"
        return "ordered" if self.chi < 1 else "chaotic"

    @property
    def depth_scale(self) -> float:
        """The number of layers in which gradients change by a factor of e; infinity if critical."""
        if self.phase == "critical":
            return math.inf
        change = abs(math.log(self.chi)) if 0 < self.chi < math.inf else math.inf
        return 2 / change

    def __str__(self) -> str:
        layers = f"layer 1: variance {self.variances[0]:.4g}, layer {self.depth}: "
        layers += f"{self.variances[-1]:.4g}"
        return (
            f"{self.activation}, sigma_w = {self.sigma_w:g}, sigma_b = {self.sigma_b:g}: "
            f"{self.phase}, chi = {self.chi:.6g}\n"
            f"{layers}; deep layers: {self.fixed_point:.4g}\n"
            f"gradient of layer 1 over layer {self.depth}: deviation "
            f"{math.sqrt(self.gradients[0]):.4g}"
        )

    def _mean_square(self, q: float) -> float:
        if q == 0:
            return float(self._function(np.zeros(1))[0]) ** 2
        if not math.isfinite(q):
            return math.inf
        root = math.sqrt(q)
        return mean_square(lambda z: self._function(root * z))


def theory(
    activation: Activation,
    sigma_w: float,
    sigma_b: float = 0.0,
    depth: int = 50,
    *,
    param: float | None = None,
    mean_square: float = 1.0,
) -> Theory:
    """Compute what becomes of signals and gradients in a deep fully connected network.

    Parameters
    ----------
    activation : str or callable
        As in `winit_fast.gain`, except that "tanh", "selu" and "sigmoid" are the functions
        themselves here.
    sigma_w : float
        The weights are from N(0, sigma_w^2 / fan_in).
    sigma_b : float
        The biases are from N(0, sigma_b^2).
    depth : int
        Number of layers.
    param : float, optional
        The activation's parameter.
    mean_square : float
        Mean square of the inputs.

    Returns
    -------
    Theory

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value, or the activation has two inputs.

    Notes
    -----
    Expectations over one normal are computed as in `winit_fast.gain`, with relative errors below
    1e-9. Those over two correlated normals are computed by Gauss-Legendre quadrature on intervals
    of one standard deviation in each; the error is about 1e-12 for smooth activations and 1e-5
    where there are kinks.

    The theory is that of infinitely wide layers. `Theory.spread` says how far a network of finite
    width may be from it.

    References
    ----------
    Poole et al., "Exponential expressivity in deep neural networks through transient chaos",
    NeurIPS 2016. Schoenholz et al., "Deep information propagation", ICLR 2017. Hanin and Rolnick,
    "How to start training: the effect of initialization and architecture", NeurIPS 2018.

    Examples
    --------
    >>> he = theory("relu", sigma_w=2**0.5)
    >>> he.phase, float(he.variances[0]), round(float(he.variances[49]), 9)
    ('critical', 2.0000000000000004, 2.0)
    >>> glorot = theory("relu", sigma_w=1.0)
    >>> glorot.phase, round(glorot.chi, 6)
    ('ordered', 0.5)
    >>> wide = theory("tanh", sigma_w=2.0)
    >>> wide.phase, round(wide.fixed_point, 4), wide.fixed_correlation
    ('chaotic', 2.1215, 0.0)
    """
    return Theory(activation, sigma_w, sigma_b, depth, param, mean_square)


def normal_rule() -> tuple[Array, Array]:
    """Return nodes and weights for expectations over N(0, 1): 16 Gauss-Legendre ones each."""
    if not _RULE:
        nodes, weights = np.polynomial.legendre.leggauss(16)
        left = np.arange(-9.0, 9.0)
        z = (left[:, None] + (nodes + 1) / 2).ravel()
        weight = np.tile(weights / 2, left.size) * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        _RULE.extend([z, weight / weight.sum()])
    return _RULE[0], _RULE[1]


_RULE: list[Array] = []


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the root between two points where a function has opposite signs (Illinois method)."""
    at_low, at_high = function(low), function(high)
    side = 0
    for _ in range(100):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        value = function(middle)
        if value == 0 or abs(high - low) <= 1e-12 * max(1.0, abs(low), abs(high)):
            break
        if (value > 0) == (at_high > 0):
            high, at_high = middle, value
            at_low = at_low / 2 if side == 1 else at_low
            side = 1
        else:
            low, at_low = middle, value
            at_high = at_high / 2 if side == -1 else at_high
            side = -1
        if abs(value) <= 1e-13:
            break
    return middle
