"""What a scheme means for one tensor: its formula, its numbers, and the effect on signals."""

from __future__ import annotations

import math
from dataclasses import dataclass

from winit_fast.base.boxes import Shape, logical_shape
from winit_fast.base.names import one_of
from winit_fast.checkpoint.expectation import moments
from winit_fast.diagnosis.theory import Array, Theory
from winit_fast.initializers.constants import Constant, Identity, Ones, Zeros
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.fans import JAX, TORCH, fans
from winit_fast.initializers.gains import Activation
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import get
from winit_fast.initializers.scaled import Scaled
from winit_fast.initializers.sparse import Sparse
from winit_fast.initializers.variance_scaling import VarianceScaling

CONVENTIONS = {"jax": JAX, "keras": JAX, "torch": TORCH}


@dataclass(frozen=True)
class Explanation:
    """What a scheme means for one tensor: see `explain`, which makes it.

    Attributes
    ----------
    initializer : Initializer
    shape : tuple of int
    formula : str
        The standard deviation as a formula.
    numbers : dict of str to float
        The names in the formula, and their values for this tensor.
    mean, deviation : float
        Of the tensor's elements.
    sigma_w : float
        Their deviation times sqrt(fan_in): 1 keeps the mean square of signals without activation.
    signal : numpy.ndarray
        The mean square of the preactivations of layers 1 to depth, relative to that of layer 1, if
        all layers are like this one.
    gradient : numpy.ndarray
        The mean square of the gradients there, relative to that of the last layer.
    """

    initializer: Initializer
    shape: tuple[int, ...]
    formula: str
    numbers: dict[str, float]
    mean: float
    deviation: float
    sigma_w: float
    activation: Activation
    signal: Array
    gradient: Array

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        numbers = ", ".join(f"{name} = {value:.6g}" for name, value in self.numbers.items())
        depth = self.signal.size
        return (
            f"{self.initializer} for {shape}\n"
            f"deviation = {self.formula}{f' with {numbers}' if numbers else ''}\n"
            f"          = {self.deviation:.6g}, sqrt(fan_in) times it is {self.sigma_w:.4g}\n"
            f"after {depth} such layers with {self.activation}: signals "
            f"{_times(self.signal[-1])}, gradients {_times(self.gradient[0])}"
        )


def _times(square: float) -> str:
    return f"{math.sqrt(square):.3g} times as large"


def explain(
    initializer: Initializer | str,
    shape: Shape,
    *,
    activation: Activation = "linear",
    depth: int = 50,
    convention: str = "jax",
) -> Explanation:
    """Explain a scheme: its formula, the numbers put in, and what becomes of a signal.

    Parameters
    ----------
    initializer : Initializer or str
        In any form that `winit_fast.get` accepts.
    shape : int or tuple of int
        The logical shape.
    activation : str or callable
        The activation after each layer, as in `winit_fast.diagnosis.theory`.
    depth : int
        The number of layers for which the signal is followed.
    convention : {"jax", "keras", "torch"}
        Which axes of the shape are inputs and outputs, if the scheme does not say it.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError, ValueError
        If the scheme does not fit the shape, has no known deviation or a mean other than 0, or if
        an argument is invalid.

    Examples
    --------
    >>> print(explain("glorot_normal", (256, 256), activation="relu", depth=20))
    GlorotNormal() for 256 x 256
    deviation = sqrt(scale / fan_avg) with scale = 1, fan_avg = 256
              = 0.0625, sqrt(fan_in) times it is 1
    after 20 such layers with relu: signals 0.00138 times as large, gradients 0.00138 times as large
    """
    one_of("convention", convention, CONVENTIONS)
    tensor = logical_shape(shape)
    scheme = get(initializer).with_axes(CONVENTIONS[convention], len(tensor))
    fan_in, _ = _fans(scheme, tensor, convention)
    formula, numbers = _formula(scheme, tensor, convention)
    known = _moments(scheme, tensor, convention)
    if known is None or not all(map(math.isfinite, known)):
        raise ValueError(f"initializer has no known deviation for shape {tensor}: {scheme!r}")
    mean, deviation = known
    if abs(mean) > 1e-3 * deviation and not isinstance(scheme, (Identity, Dirac)):
        raise ValueError(
            f"initializer must have mean 0 for its effect on signals to be known, got {mean:g} "
            f"for {scheme!r}"
        )
    root = math.hypot(mean, deviation)
    sigma_w = root * math.sqrt(fan_in)
    layers = Theory(activation, sigma_w, 0.0, depth)
    first = layers.variances[0]
    signal = layers.variances / first if first else layers.variances
    return Explanation(get(initializer), tensor, formula, numbers, mean, deviation, sigma_w,
                       activation, signal, layers.gradients)  # fmt: skip


def _fans(scheme: Initializer, shape: tuple[int, ...], convention: str) -> tuple[int, int]:
    if isinstance(scheme, Scaled):
        return _fans(get(scheme.initializer), shape, convention)
    if isinstance(scheme, VarianceScaling):
        found = fans(shape, scheme.in_axis, scheme.out_axis, scheme.batch_axis)
        return scheme.fan_in or found[0], scheme.fan_out or found[1]
    axes = CONVENTIONS[convention]
    return fans(shape, axes.in_axis, axes.out_axis) if len(shape) > 1 else fans(shape)


def _moments(
    scheme: Initializer, shape: tuple[int, ...], convention: str
) -> tuple[float, float] | None:
    """Return mean and deviation, also of schemes that `winit_fast.checkpoint` does not expect."""
    if isinstance(scheme, Scaled):
        own = _moments(get(scheme.initializer), shape, convention)
        return None if own is None else (own[0] * scheme.value, own[1] * scheme.value)
    if isinstance(scheme, Orthogonal) and len(shape) > 1:
        columns = shape[CONVENTIONS[convention].column_axis]
        return 0.0, abs(scheme.gain) / math.sqrt(max(columns, math.prod(shape) // columns))
    if isinstance(scheme, (DeltaOrthogonal, Dirac)):
        axes = CONVENTIONS[convention]
        inputs, outputs = shape[axes.in_axis], shape[axes.out_axis]
        elements = math.prod(shape)
        if isinstance(scheme, DeltaOrthogonal):  # `inputs` unit vectors of `outputs` elements
            return 0.0, abs(scheme.gain) * math.sqrt(min(inputs, outputs) / elements)
        part = min(inputs, outputs) / elements
        return scheme.gain * part, abs(scheme.gain) * math.sqrt(part * (1 - part))
    return moments(scheme, shape)


def _formula(
    scheme: Initializer, shape: tuple[int, ...], convention: str
) -> tuple[str, dict[str, float]]:
    if isinstance(scheme, Scaled):
        formula, numbers = _formula(get(scheme.initializer), shape, convention)
        return f"factor * {formula}", {"factor": scheme.value, **numbers}
    if isinstance(scheme, VarianceScaling):
        fan_in, fan_out = _fans(scheme, shape, convention)
        fan = {
            "fan_in": float(fan_in),
            "fan_out": float(fan_out),
            "fan_avg": (fan_in + fan_out) / 2,
            "fan_geo_avg": math.sqrt(fan_in * fan_out),
        }[scheme.mode]
        return f"sqrt(scale / {scheme.mode})", {"scale": scheme.scale, scheme.mode: fan}
    if isinstance(scheme, Orthogonal) and len(shape) > 1:
        columns = shape[CONVENTIONS[convention].column_axis]
        rows = math.prod(shape) // columns
        return "gain / sqrt(longer side)", {"gain": scheme.gain, "longer side": max(rows, columns)}
    for kind, (text, names) in _FORMULAS.items():
        if isinstance(scheme, kind):
            return text, {name: float(getattr(scheme, name)) for name in names}
    return "that of the scheme", {}


_FORMULAS: dict[type[Initializer], tuple[str, tuple[str, ...]]] = {
    Zeros: ("0", ()),
    Ones: ("0 around 1", ()),
    Constant: ("0 around value", ("value",)),
    RandomNormal: ("stddev", ("stddev",)),
    RandomUniform: ("(maxval - minval) / sqrt(12)", ("minval", "maxval")),
    TruncatedNormal: ("stddev, less what is cut off beyond low and high",
                      ("stddev", "low", "high")),
    Sparse: ("stddev * sqrt(1 - sparsity)", ("stddev", "sparsity")),
    Identity: ("gain on the diagonal", ("gain",)),
    Dirac: ("gain at the centre tap", ("gain",)),
    DeltaOrthogonal: ("gain * sqrt(shorter side / elements)", ("gain",)),
}  # fmt: skip
