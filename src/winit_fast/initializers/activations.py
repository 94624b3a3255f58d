"""Activation functions by name, and functions of the user's own, on arrays of float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from winit_fast.base.arguments import finite
from winit_fast.base.names import spelling, unknown

Array = np.ndarray[Any, np.dtype[np.float64]]
Activation = str | Callable[[Any], Any]


def activation_function(
    activation: Activation, param: float | None = None
) -> Callable[[Array], Array]:
    """Return an activation as a function of float64 arrays, element by element.

    Parameters
    ----------
    activation, param
        As in `winit_fast.gain`. Gated units have two inputs, so they are no such function.

    Returns
    -------
    callable

    Raises
    ------
    TypeError, ValueError
        As in `winit_fast.gain`, and for gated units.

    Examples
    --------
    >>> activation_function("leaky_relu", 0.5)(np.array([-2.0, 3.0]))
    array([-1.,  3.])
    """
    if isinstance(activation, str):
        name, param = parsed(activation, param)
        if name in GATES:
            raise ValueError(f"activation must have one input, got {name!r}, which has two")
        return function_of(name, param)
    if not callable(activation):
        raise TypeError(f"activation must be a name or a function, got {activation!r}")
    if param is not None:
        raise ValueError(f"param must not be given with a function as activation, got {param!r}")
    return _on_arrays(activation)


def parsed(activation: str, param: float | None) -> tuple[str, float | None]:
    """Read the name of an activation, and its parameter if it has one."""
    name = _BY_SPELLING.get(spelling(activation))
    if name is None:
        raise ValueError(unknown("activation", activation, NAMES))
    if param is not None:
        if isinstance(param, bool):
            raise TypeError(f"param must be a real number, got {param!r}")
        if name in GATES or TABLE[name][1] is None:
            raise ValueError(
                f"param must not be given for {activation!r}, which has no parameter, got {param!r}"
            )
        param = finite("param", param)
    return name, param


def function_of(name: str, param: float | None) -> Callable[[Array], Array]:
    """Return a named activation with one input."""
    function, default = TABLE[name]
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


def leaky_relu(z: Array, slope: float) -> Array:
    """Compute z, or a multiple of it below 0."""
    return np.where(z > 0, z, slope * z)


def _sparse_plus(z: Array) -> Array:
    return np.where(z < 1, np.maximum(z + 1, 0) ** 2 / 4, z)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al., eq. 14

# Each activation with the default of its parameter, or None if it has no parameter.
TABLE: dict[str, tuple[Callable[..., Array], float | None]] = {
    **dict.fromkeys(
        ["linear", "identity"]
        + [f"{conv}{axes}d" for conv in ("conv", "conv_transpose") for axes in (1, 2, 3)],
        (lambda z: z, None),
    ),
    "relu": (lambda z: np.maximum(z, 0.0), None),
    "relu6": (_relu6, None),
    **dict.fromkeys(["relu_squared", "relu2"], (lambda z: np.maximum(z, 0.0) ** 2, None)),
    "leaky_relu": (leaky_relu, 0.01),
    "prelu": (leaky_relu, 0.25),
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

ALSO_EXACT = ("tanh", "selu", "sigmoid")
"""Activations that also have a name for the exact gain: the plain name has PyTorch's."""

TABLE |= {f"{name}_exact": TABLE[name] for name in ALSO_EXACT}

GATES = {"glu": "sigmoid_exact", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}
"""Gated units, which have two inputs, with the activation of the gate."""

NAMES = (*TABLE, *GATES)
"""The activations that are known by name."""

_BY_SPELLING = {spelling(name): name for name in NAMES}


def _on_arrays(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """Make a function of arrays or of single numbers accept arrays, and check its result."""

    def values(z: Array) -> Array:
        try:
            result = function(z)
        except (TypeError, ValueError):  # math.tanh(z) and "if z > 0" raise these for an array z
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
