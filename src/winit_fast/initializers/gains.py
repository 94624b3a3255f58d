"""The gain of an activation function, which preserves the mean square of signals."""

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

from winit_fast.base.arguments import finite
from winit_fast.base.names import spelling, unknown

Array = np.ndarray[Any, np.dtype[np.float64]]
Activation = str | Callable[[Any], Any]


def gain(activation: Activation, param: float | None = None) -> float:
    r"""Compute the gain of an activation, with which weights preserve the signal's mean square.

    Parameters
    ----------
    activation : str or callable
        A name from the table below (case, underscores and hyphens do not matter), or an elementwise
        function of a NumPy array, or a function of one number.
    param : float, optional
        The activation's parameter, if it has one.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the name is unknown, the activation has no parameter but one is given, or the mean square
        is 0 or not finite.
    TypeError
        If an argument has another type.

    Notes
    -----
    For z from N(0, 1) the exact gain is

    .. math:: 1 / \sqrt{E[f(z)^2]}.

    **Three names have PyTorch's conventional value**, which differs from the exact one: "tanh" 5/3,
    "selu" 3/4, "sigmoid" 1. The exact values have other names: "tanh_exact" 1.5925...,
    "selu_exact" 1.0000..., "sigmoid_exact" 1.8462.... All other values of PyTorch are exact.

    ============================================================== ===================== =======
    activation                                                     param                 default
    ============================================================== ===================== =======
    linear, identity, conv1d ... conv3d, conv_transpose1d ... 3d
    relu, relu6, relu_squared, relu2
    leaky_relu                                                     slope below 0         0.01
    prelu                                                          slope below 0         0.25
    elu, celu                                                      alpha                 1
    selu_exact, tanh_exact, sigmoid_exact
    gelu, gelu_tanh, gelu_new, gelu_pytorch_tanh, quick_gelu
    silu, swish                                                    beta                  1
    mish, log_sigmoid, exponential, sin
    softplus                                                       beta                  1
    softsign, tanh_shrink, sparse_plus, sparse_sigmoid
    hard_sigmoid, hard_swish, hard_silu, hard_tanh
    hard_shrink, soft_shrink                                       lambda                0.5
    squareplus                                                     b                     4
    glu, reglu, geglu, swiglu
    ============================================================== ===================== =======

    The last line of the table has gated units, f(z) v. With v from N(0, 1) too, independent of z,
    the mean square is that of the gate f: the sigmoid, relu, gelu or silu.

    "gelu" is the exact function, with erf; "gelu_tanh" is PyTorch's ``approximate="tanh"`` and the
    default of ``jax.nn.gelu``. The slope of "leaky_relu" is that of PyTorch and JAX; Keras has 0.2.

    With the exact gain every layer preserves a mean square of 1. Small deviations from 1
    decay if :math:`E[z f(z) f'(z)] < E[f(z)^2]`, as for "tanh_exact", "selu_exact", "elu"
    and "softplus". With "relu" and "leaky_relu" they persist. With "gelu", "silu", "mish" and
    "hard_swish" they grow by 8 to 22 % per layer, so in a deep network no gain can replace
    normalisation.

    The mean is computed by 16-point Gauss-Legendre quadrature on panels of half a standard
    deviation, out to 38 standard deviations. Panels are halved until each agrees with its halves to
    :math:`2 \times 10^{-13}` of the whole. So kinks and jumps do no harm wherever they are;
    Gauss-Hermite quadrature would converge only slowly for them. The relative error
    is below :math:`10^{-11}`, or :math:`10^{-4}` if the function computes in float32.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015: the gains of relu and leaky_relu.
    Klambauer et al., "Self-normalizing neural networks", 2017: selu keeps a mean square of 1.
    ``torch.nn.init.calculate_gain``.

    Examples
    --------
    >>> gain("relu"), gain("leaky_relu", 0.2), gain("tanh")
    (1.4142135623730951, 1.3867504905630728, 1.6666666666666667)
    >>> round(gain("gelu"), 6), round(gain(lambda z: np.maximum(z, 0) ** 2), 6)
    (1.53353, 0.816497)
    """
    return math.sqrt(squared_gain(activation, param))


def gradient_gain(activation: Activation, param: float | None = None) -> float:
    r"""Compute the gain of an activation's derivative, which preserves the gradient's mean square.

    Parameters
    ----------
    activation, param
        As in `gain`.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As in `gain`. Also if the function is discontinuous, like "hard_shrink", since it has no
        derivative there; and for gated units, which have two inputs.

    Notes
    -----
    For z from N(0, 1) it is

    .. math:: 1 / \sqrt{E[f'(z)^2]},

    Use it with ``mode="fan_out"``. No name has a conventional value here: "tanh" is exact. The
    derivative is that of the polynomial through the 16 nodes of a panel (see `gain`), so only the
    function itself is needed. The relative error is below :math:`10^{-10}`, or :math:`10^{-4}` if
    the function computes in float32.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015, section 2.2, backward propagation.

    Examples
    --------
    >>> round(gradient_gain("relu"), 9), round(gradient_gain("tanh"), 6)
    (1.414213562, 1.467414)
    """
    return math.sqrt(squared_gain(activation, param, gradient=True))


def squared_gain(
    activation: Activation, param: float | None = None, *, gradient: bool = False
) -> float:
    """Compute the square of a gain, the factor of the weights' variance.

    Parameters
    ----------
    activation, param
        As in `gain`.
    gradient : bool
        Whether to use `gradient_gain` instead of `gain`.

    Returns
    -------
    float

    Examples
    --------
    >>> squared_gain("relu")
    2.0
    """
    if isinstance(activation, str):
        return _named(*_named_and_param(activation, param), gradient)
    function = activation_function(activation, param)
    return _inverse(mean_square(function, gradient), repr(activation), gradient)


def activation_function(
    activation: Activation, param: float | None = None
) -> Callable[[Array], Array]:
    """Return an activation as a function of float64 arrays, element by element.

    Parameters
    ----------
    activation, param
        As in `gain`. Gated units have two inputs, so they are no such function.

    Returns
    -------
    callable

    Raises
    ------
    TypeError, ValueError
        As in `gain`, and for gated units.

    Examples
    --------
    >>> activation_function("leaky_relu", 0.5)(np.array([-2.0, 3.0]))
    array([-1.,  3.])
    """
    if isinstance(activation, str):
        name, param = _named_and_param(activation, param)
        if name in _GATES:
            raise ValueError(f"activation must have one input, got {name!r}, which has two")
        return _function(name, param)
    if not callable(activation):
        raise TypeError(f"activation must be a name or a function, got {activation!r}")
    if param is not None:
        raise ValueError(f"param must not be given with a function as activation, got {param!r}")
    return _on_arrays(activation)


def _named_and_param(activation: str, param: float | None) -> tuple[str, float | None]:
    """Read the name of an activation, and its parameter if it has one."""
    name = _BY_SPELLING.get(spelling(activation))
    if name is None:
        raise ValueError(unknown("activation", activation, NAMES))
    if param is not None:
        if isinstance(param, bool):
            raise TypeError(f"param must be a real number, got {param!r}")
        if name in _GATES or _TABLE[name][1] is None:
            raise ValueError(
                f"param must not be given for {activation!r}, which has no parameter, got {param!r}"
            )
        param = finite("param", param)
    return name, param


def _function(name: str, param: float | None) -> Callable[[Array], Array]:
    function, default = _TABLE[name]
    if default is None:
        return function
    parameter = default if param is None else param
    return lambda z: function(z, parameter)


def _tanh_half(z: Array) -> Array:
    return np.tanh(z / 2)


def _sigmoid(z: Array) -> Array:
    return (1 + _tanh_half(z)) / 2


def _softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


def _relu6(z: Array) -> Array:
    return np.clip(z, 0.0, 6.0)


def _elu(z: Array, alpha: float) -> Array:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0)))


def _gelu(z: Array) -> Array:
    erf = np.frompyfunc(math.erf, 1, 1)
    return z * (1 + np.asarray(erf(z / math.sqrt(2)), np.float64)) / 2


def _leaky_relu(z: Array, slope: float) -> Array:
    return np.where(z > 0, z, slope * z)


def _sparse_plus(z: Array) -> Array:
    return np.where(z < 1, np.maximum(z + 1, 0) ** 2 / 4, z)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al., eq. 14

# Each activation with the default of its parameter, or None if it has no parameter.
_TABLE: dict[str, tuple[Callable[..., Array], float | None]] = {
    **dict.fromkeys(
        ["linear", "identity"]
        + [f"{conv}{axes}d" for conv in ("conv", "conv_transpose") for axes in (1, 2, 3)],
        (lambda z: z, None),
    ),
    "relu": (lambda z: np.maximum(z, 0.0), None),
    "relu6": (_relu6, None),
    **dict.fromkeys(["relu_squared", "relu2"], (lambda z: np.maximum(z, 0.0) ** 2, None)),
    "leaky_relu": (_leaky_relu, 0.01),
    "prelu": (_leaky_relu, 0.25),
    "elu": (_elu, 1.0),
    "celu": (lambda z, alpha: np.where(z > 0, z, _elu(z / alpha, alpha)), 1.0),
    "selu": (lambda z: SELU_SCALE * _elu(z, SELU_ALPHA), None),
    "tanh": (np.tanh, None),
    "sigmoid": (_sigmoid, None),
    "gelu": (_gelu, None),
    **dict.fromkeys(
        ["gelu_tanh", "gelu_new", "gelu_pytorch_tanh"],
        (lambda z: z * _sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)), None),
    ),
    "quick_gelu": (lambda z: z * _sigmoid(1.702 * z), None),
    **dict.fromkeys(["silu", "swish"], (lambda z, beta: z * _sigmoid(beta * z), 1.0)),
    "mish": (lambda z: z * np.tanh(_softplus(z)), None),
    "log_sigmoid": (lambda z: -_softplus(-z), None),
    "exponential": (np.exp, None),
    "sin": (np.sin, None),
    "softplus": (lambda z, beta: _softplus(beta * z) / beta, 1.0),
    "softsign": (lambda z: z / (1 + abs(z)), None),
    "tanh_shrink": (lambda z: z - np.tanh(z), None),
    "sparse_plus": (_sparse_plus, None),
    "sparse_sigmoid": (lambda z: np.clip((z + 1) / 2, 0.0, 1.0), None),
    "hard_sigmoid": (lambda z: _relu6(z + 3) / 6, None),
    **dict.fromkeys(["hard_swish", "hard_silu"], (lambda z: z * _relu6(z + 3) / 6, None)),
    "hard_tanh": (lambda z: np.clip(z, -1.0, 1.0), None),
    "hard_shrink": (lambda z, bound: np.where(abs(z) > bound, z, 0.0), 0.5),
    "soft_shrink": (lambda z, bound: np.sign(z) * np.maximum(abs(z) - bound, 0.0), 0.5),
    "squareplus": (lambda z, b: (z + np.sqrt(z * z + b)) / 2, 4.0),
}
_CONVENTIONAL = {"tanh": 5 / 3, "selu": 3 / 4, "sigmoid": 1.0}
_TABLE |= {f"{name}_exact": _TABLE[name] for name in _CONVENTIONAL}
_GATES = {"glu": "sigmoid_exact", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}

NAMES = (*_TABLE, *_GATES)
"""The activations that are known by name."""

_BY_SPELLING = {spelling(name): name for name in NAMES}


@lru_cache(maxsize=256)
def _named(name: str, param: float | None, gradient: bool) -> float:
    if name in _GATES:
        if gradient:
            raise ValueError(
                f"activation must have one input for gradient_gain, got {name!r}, which has two"
            )
        return _named(_GATES[name], None, gradient)
    function, default = _TABLE[name]
    if default is None:
        parameters: tuple[float, ...] = ()
    else:
        parameters = (default if param is None else param,)
    # Closed forms, so that these gains have the bits of PyTorch's.
    shown = name if param is None else f"{name} with param {param!r}"
    if function is _leaky_relu:
        slope = parameters[0]
        square = slope**2 if abs(slope) < 1e150 else math.inf
        return _inverse((1 + square) / 2, shown, gradient)
    if name == "relu":
        return 2.0
    if name in _CONVENTIONAL and not gradient:
        return _CONVENTIONAL[name] ** 2
    if function is _TABLE["linear"][0]:
        return 1.0
    square = mean_square(_function(name, param), gradient)
    return _inverse(square, shown, gradient)


def _inverse(square: float, shown: str, gradient: bool) -> float:
    if not math.isfinite(square) or square <= 0:
        what = "E[f'(z)^2]" if gradient else "E[f(z)^2]"
        value = "0" if square == 0 else "not finite, or the integral does not converge,"
        raise ValueError(f"activation has no gain: {what} is {value} for {shown}")
    return 1 / square


def _on_arrays(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """Make a function of arrays or of single numbers accept arrays, and check its result."""

    def values(z: Array) -> Array:
        try:
            result = function(z)
        except (TypeError, ValueError):  # as math.tanh(z) or "if z > 0" raises for an array z
            try:
                result = np.reshape([function(number) for number in z.ravel().tolist()], z.shape)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    "activation must be a function of a NumPy array or of a number, "
                    f"got {function!r}: {error}"
                ) from error
        result = np.asarray(result)
        if result.dtype.kind in "iub":
            result = result.astype(np.float64)
        if result.dtype not in (np.float64, np.float32):
            raise TypeError(f"activation must return float64 or float32, got {result.dtype}")
        if result.shape not in ((), z.shape):
            raise ValueError(
                f"activation must work element by element, got {result.shape} for {z.shape}"
            )
        return np.broadcast_to(result, z.shape)

    return values


_REACH = 38.0  # the density there is about 1e-314; beyond, it would soon underflow to 0
_MAX_PANELS = 2048


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
        The relative error of a panel; by default 1024 times the precision of what the function
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
        halvings = precision.nmant - 12  # until panels are as narrow as the tolerance
        # Kinks are mostly at multiples of 1/2, so panels end there. Jumps are mostly there too, but
        # a gradient must see a jump inside a panel, so its panels are shifted.
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
            if done.all() or np.count_nonzero(~done) > _MAX_PANELS:
                break
            left, coarse = left[:, ~done].ravel(), fine[:, ~done].ravel()
            width = np.tile(width[~done], 2)
    # Panels that have not converged contain jumps, and are too narrow to matter; if they do matter,
    # the integral does not converge.
    if not (math.isfinite(size) and max(ends, error[~done].sum()) <= 4 * tolerance * size):
        return math.inf
    return float(total + fine[:, ~done].sum())
