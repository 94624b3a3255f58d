"""The gain of an activation function, which preserves the mean square of signals."""

import math
from functools import lru_cache

from winit_fast.initializers.activations import (
    ALSO_EXACT,
    GATES,
    TABLE,
    Activation,
    activation_function,
    function_of,
    leaky_relu,
    parsed,
)
from winit_fast.initializers.mean_square import mean_square

_CONVENTIONAL = dict(zip(ALSO_EXACT, (5 / 3, 3 / 4, 1.0), strict=True))


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

    The mean is computed by 16-point Gauss-Legendre quadrature on intervals of half a standard
    deviation, out to 38 standard deviations. Intervals are halved until each agrees with its halves
    to :math:`2 \times 10^{-13}` of the whole. So kinks and jumps do no harm wherever they are;
    Gauss-Hermite quadrature would converge only slowly for them. The relative error
    is below :math:`10^{-11}`, or :math:`10^{-4}` if the function computes in float32.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015: the gains of relu and leaky_relu.
    Klambauer et al., "Self-normalizing neural networks", 2017: selu keeps a mean square of 1.
    ``torch.nn.init.calculate_gain``.

    Examples
    --------
    >>> import numpy as np
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
    derivative is that of the polynomial through the 16 nodes of an interval (see `gain`), so only
    the function itself is needed. The relative error is below :math:`10^{-10}`, or :math:`10^{-4}`
    if the function computes in float32.

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
        return _named(*parsed(activation, param), gradient)
    function = activation_function(activation, param)
    return _inverse(mean_square(function, gradient), repr(activation), gradient)


@lru_cache(maxsize=256)
def _named(name: str, param: float | None, gradient: bool) -> float:
    if name in GATES:
        if gradient:
            raise ValueError(
                f"activation must have one input for gradient_gain, got {name!r}, which has two"
            )
        return _named(GATES[name], None, gradient)
    function, default = TABLE[name]
    if default is None:
        parameters: tuple[float, ...] = ()
    else:
        parameters = (default if param is None else param,)
    # Closed forms, so that these gains have the bits of PyTorch's.
    shown = name if param is None else f"{name} with param {param!r}"
    if function is leaky_relu:
        slope = parameters[0]
        square = slope**2 if abs(slope) < 1e150 else math.inf
        return _inverse((1 + square) / 2, shown, gradient)
    if name == "relu":
        return 2.0
    if name in _CONVENTIONAL and not gradient:
        return _CONVENTIONAL[name] ** 2
    if function is TABLE["linear"][0]:
        return 1.0
    square = mean_square(function_of(name, param), gradient)
    return _inverse(square, shown, gradient)


def _inverse(square: float, shown: str, gradient: bool) -> float:
    if not math.isfinite(square) or square <= 0:
        what = "E[f'(z)^2]" if gradient else "E[f(z)^2]"
        value = "0" if square == 0 else "not finite, or the integral does not converge,"
        raise ValueError(f"activation has no gain: {what} is {value} for {shown}")
    return 1 / square
