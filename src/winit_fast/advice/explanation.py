"""What a scheme means for one tensor: its formula, its numbers, and the effect on signals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winit_fast.base.boxes import Shape, logical_shape
from winit_fast.base.names import one_of
from winit_fast.checkpoint.expectation import moments
from winit_fast.diagnosis.shared_mean import Course, unit_by_unit, with_mean
from winit_fast.diagnosis.theory import Array, Theory
from winit_fast.initializers.activations import Activation, activation_function
from winit_fast.initializers.constants import Constant, Identity, Ones, Zeros
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.fans import JAX, TORCH, fans
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.parts import Part, Parts
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
    mean_formula : str
        Their mean as a formula.
    mean, deviation : float
        Of the tensor's elements.
    sigma_w : float
        Their root mean square times sqrt(fan_in): 1 keeps the mean square of signals without
        activation, if the mean is 0. NaN for parts, and for fewer than two axes.
    signal : numpy.ndarray or None
        The mean square of the preactivations of layers 1 to depth, relative to that of layer 1, if
        all layers are like this one.
    gradient : numpy.ndarray or None
        The mean square of the gradients there, relative to that of the last layer.
    shared : float
        The part of the last layer's mean square that all its units have in common.
    reason : str
        Why signals are not followed, or "".
    parts : tuple of Explanation
        Those of the parts of `winit_fast.Parts`, each for its own shape.
    """

    initializer: Initializer
    shape: tuple[int, ...]
    formula: str
    numbers: dict[str, float]
    mean_formula: str
    mean: float
    deviation: float
    sigma_w: float
    activation: Activation
    signal: Array | None
    gradient: Array | None
    shared: float = 0.0
    reason: str = ""
    parts: tuple[Explanation, ...] = ()

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        numbers = ", ".join(f"{name} = {value:.6g}" for name, value in self.numbers.items())
        lines = [
            f"{self.initializer} for {shape}",
            f"deviation = {self.formula}{f' with {numbers}' if numbers else ''}",
            f"          = {self.deviation:.6g}",
        ]
        if self.mean:
            lines.append(f"mean      = {self.mean_formula} = {self.mean:.6g}")
        elif not math.isnan(self.sigma_w):
            lines[2] += f", sqrt(fan_in) times it is {self.sigma_w:.4g}"
        if self.signal is None or self.gradient is None:
            lines.append(f"signals are not followed: {self.reason}")
        else:
            common = f" ({self.shared:.3g} of it the same in all units)" if self.shared else ""
            lines.append(
                f"after {self.signal.size} such layers with {self.activation}: signals "
                f"{_times(self.signal[-1])}{common}, gradients {_times(self.gradient[0])}"
            )
        for part in self.parts:
            lines += [f"  {line}" for line in str(part).splitlines()]
        return "\n".join(lines)


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
        If the scheme does not fit the shape, has no known deviation (`winit_fast.STFT`, stored or
        computed values), or if an argument is invalid.

    Notes
    -----
    Weights with a mean other than 0 add to all units of a layer the same number. An identity passes
    every unit on alone. Parts are explained each for itself, as they are used apart.

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
    if isinstance(scheme, Parts):
        return _of_parts(get(initializer), scheme, tensor, activation, depth, convention)
    formula, mean_formula, numbers = _formula(scheme, tensor, convention)
    known = _moments(scheme, tensor, convention)
    if known is None or not all(map(math.isfinite, known)):
        raise ValueError(f"initializer has no known deviation for shape {tensor}: {scheme!r}")
    mean, deviation = known
    root = math.hypot(mean, deviation)
    if len(tensor) < 2:
        _ = activation_function(activation)
        return Explanation(get(initializer), tensor, formula, numbers, mean_formula, mean,
                           deviation, math.nan, activation, None, None,
                           reason="a tensor of fewer than two axes has no inputs")  # fmt: skip
    fan_in, _ = _fans(scheme, tensor, convention)
    sigma_w = root * math.sqrt(fan_in)
    found = _course(scheme, activation, mean, deviation, fan_in, depth)
    first = found.signal[0]
    signal = found.signal / first if first else found.signal
    return Explanation(get(initializer), tensor, formula, numbers, mean_formula, mean, deviation,
                       sigma_w, activation, signal, found.gradient, found.shared)  # fmt: skip


def _course(
    scheme: Initializer, activation: Activation, mean: float, deviation: float, fan: int, depth: int
) -> Course:
    """Follow a signal, by the theory that is for such weights."""
    if isinstance(scheme, (Identity, Dirac)):
        return unit_by_unit(activation, scheme.gain, depth)
    if isinstance(scheme, Scaled) and isinstance(
        inner := get(scheme.initializer), (Identity, Dirac)
    ):
        return unit_by_unit(activation, inner.gain * scheme.value, depth)
    if abs(mean) > 1e-12 * deviation:  # more than rounding leaves of symmetric bounds
        return with_mean(activation, mean, deviation, fan, depth)
    layers = Theory(activation, deviation * math.sqrt(fan), 0.0, depth)
    return Course(layers.variances, layers.gradients, 0.0)


def _of_parts(
    given: Initializer,
    scheme: Parts,
    shape: tuple[int, ...],
    activation: Activation,
    depth: int,
    convention: str,
) -> Explanation:
    """Explain every part, and the moments of all elements."""
    scheme.check(shape, np.dtype(np.float64))
    parts: list[Part] = list(scheme.parts)
    each = [
        explain(part.initializer, part.box.tensor, activation=activation, depth=depth,
                convention=convention)
        for part in parts
    ]  # fmt: skip
    sizes = _sizes(parts, shape)
    whole = math.prod(shape)
    mean = sum(size * one.mean for size, one in zip(sizes, each, strict=True)) / whole
    squares = [one.mean**2 + one.deviation**2 for one in each]
    square = sum(size * one for size, one in zip(sizes, squares, strict=True)) / whole
    return Explanation(given, shape, "that of the parts together", {}, "that of the parts", mean,
                       math.sqrt(max(0.0, square - mean**2)), math.nan, activation, None, None,
                       reason="parts are used apart", parts=tuple(each))  # fmt: skip


def _sizes(parts: Sequence[Part], shape: tuple[int, ...]) -> list[int]:
    """Return how many elements each part has, where it is not covered by a later one.

    Examples
    --------
    >>> _sizes([Part((0, 0), (9, 4), Zeros()), Part((2, 0), (3, 4), Ones())], (9, 4))
    [32, 4]
    """
    cuts = [
        sorted({0, extent, *(part.starts[axis] for part in parts),
                *(part.stops[axis] for part in parts)})
        for axis, extent in enumerate(shape)
    ]  # fmt: skip
    owner = np.zeros([len(own) - 1 for own in cuts], int)
    for number, part in enumerate(parts):
        box = zip(cuts, part.starts, part.stops, strict=True)
        owner[tuple(slice(own.index(low), own.index(high)) for own, low, high in box)] = number
    volume = np.ones((), int)
    for own in cuts:
        volume = np.multiply.outer(volume, np.diff(own))
    return [int(volume[owner == number].sum()) for number in range(len(parts))]


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
) -> tuple[str, str, dict[str, float]]:
    """Return the deviation and the mean as formulas, and the values of the names in them."""
    if isinstance(scheme, Scaled):
        formula, mean, numbers = _formula(get(scheme.initializer), shape, convention)
        return f"factor * {formula}", f"factor * {mean}", {"factor": scheme.value, **numbers}
    if isinstance(scheme, VarianceScaling):
        fan_in, fan_out = _fans(scheme, shape, convention)
        fan = {
            "fan_in": float(fan_in),
            "fan_out": float(fan_out),
            "fan_avg": (fan_in + fan_out) / 2,
            "fan_geo_avg": math.sqrt(fan_in * fan_out),
        }[scheme.mode]
        return f"sqrt(scale / {scheme.mode})", "0", {"scale": scheme.scale, scheme.mode: fan}
    if isinstance(scheme, Orthogonal) and len(shape) > 1:
        columns = shape[CONVENTIONS[convention].column_axis]
        longer = float(max(math.prod(shape) // columns, columns))
        return "gain / sqrt(longer side)", "0", {"gain": scheme.gain, "longer side": longer}
    if isinstance(scheme, (Identity, Dirac)):
        axes = CONVENTIONS[convention]
        part = min(shape[axes.in_axis], shape[axes.out_axis]) / math.prod(shape)
        where = "on the diagonal" if isinstance(scheme, Identity) else "at centre taps"
        text = f"gain * sqrt(p (1 - p)), the part p of the elements is {where},"
        return text, "gain * p", {"gain": scheme.gain, "p": part}
    for kind, (text, mean, names) in _FORMULAS.items():
        if isinstance(scheme, kind):
            return text, mean, {name: float(getattr(scheme, name)) for name in names}
    return "that of the scheme", "that of the scheme", {}


_FORMULAS: dict[type[Initializer], tuple[str, str, tuple[str, ...]]] = {
    Zeros: ("0", "0", ()),
    Ones: ("0", "1", ()),
    Constant: ("0", "value", ("value",)),
    RandomNormal: ("stddev", "mean", ("stddev", "mean")),
    RandomUniform: ("(maxval - minval) / sqrt(12)", "(maxval + minval) / 2", ("minval", "maxval")),
    TruncatedNormal: ("stddev, less what is cut off beyond low and high",
                      "mean, moved if more is cut off at one end",
                      ("stddev", "mean", "low", "high")),
    Sparse: ("stddev * sqrt(1 - sparsity)", "0", ("stddev", "sparsity")),
    DeltaOrthogonal: ("gain * sqrt(shorter side / elements)", "0", ("gain",)),
}  # fmt: skip
