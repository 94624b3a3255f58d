"""Variance scaling: Glorot, He, LeCun and other schemes whose variance depends on fans."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

import winit_fast._core as _core
from winit_fast.base.arguments import not_negative, optional, positive
from winit_fast.base.boxes import MAX_SIZE
from winit_fast.base.dtypes import working
from winit_fast.base.names import one_of
from winit_fast.initializers.elementwise import RandomNormal
from winit_fast.initializers.fans import Axes, fans, hashable_axes
from winit_fast.initializers.gains import squared_gain
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.initializers.truncation_correction import TRUNCATED_AT, corrected
from winit_fast.streams import distributions

_MODES: dict[str, Callable[[int, int], float]] = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2,
    "fan_geo_avg": lambda fan_in, fan_out: math.sqrt(fan_in * fan_out),
}


_DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")


def _fan(argument: str, value: Any) -> int:
    number = positive(argument, value)
    if number > MAX_SIZE:
        raise ValueError(f"{argument} must be at most 2^63, got {number}")
    return number


@dataclass(frozen=True, repr=False)
class VarianceScaling(Elementwise, names=("variance_scaling",)):
    r"""Independent draws with variance scale / fan, where fan is computed from the logical shape.

    Parameters
    ----------
    scale : float
        The square of the gain; finite, at least 0.
    mode : str
        The fan to use: "fan_in", "fan_out", "fan_avg" (their mean) or "fan_geo_avg" (their
        geometric mean).
    distribution : str
        "normal", "uniform" or "truncated_normal". The last is a normal truncated at 2 standard
        deviations, whose scale is increased so that the variance after truncation is scale / fan.
    in_axis, out_axis, batch_axis : int or tuple of int
        See `winit_fast.initializers.fans.fans`. By default in_axis and out_axis are -2 and -1, as
        in JAX and Keras; for torch's tensors 1 and 0.
    fan_in, fan_out : int, optional
        Used instead of the fans of the shape.

    Notes
    -----
    .. math::

        \sigma^2 = \text{scale} / \text{fan}, \qquad
        N(0, \sigma^2), \quad
        U(-\sqrt{3} \sigma, \sqrt{3} \sigma), \quad
        N(0, (\sigma / 0.8796\ldots)^2) \text{ truncated at } \pm 2 \text{ of its deviations}.

    References
    ----------
    ``jax.nn.initializers.variance_scaling``, ``keras.initializers.VarianceScaling``. In both,
    "truncated_normal" has the same meaning as here. Keras' "normal" is the truncated normal, and
    Keras' "untruncated_normal" is "normal" here.

    Examples
    --------
    >>> VarianceScaling(2.0, "fan_out", "uniform")((3, 3, 64, 128), seed=0).shape
    (3, 3, 64, 128)
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    in_axis: Axes | None = None
    out_axis: Axes | None = None
    batch_axis: Axes = ()
    fan_in: int | None = None
    fan_out: int | None = None

    def __post_init__(self) -> None:
        self._parse(not_negative, "scale")
        self._parse(partial(one_of, known=_MODES), "mode")
        self._parse(partial(one_of, known=_DISTRIBUTIONS), "distribution")
        self._parse(optional(hashable_axes), "in_axis", "out_axis")
        self._parse(hashable_axes, "batch_axis")
        self._parse(optional(_fan), "fan_in", "fan_out")

    def stddev(self, tensor: tuple[int, ...]) -> float:
        """Compute the standard deviation for a logical shape.

        Examples
        --------
        >>> VarianceScaling(2.0, "fan_in").stddev((50, 10))
        0.2
        """
        fan_in, fan_out = self.fan_in, self.fan_out
        needed = {"fan_in": [fan_in], "fan_out": [fan_out]}.get(self.mode, [fan_in, fan_out])
        if None in needed:
            by_shape = fans(tensor, self.in_axis, self.out_axis, self.batch_axis)
            fan_in, fan_out = fan_in or by_shape[0], fan_out or by_shape[1]
        fan = _MODES[self.mode](fan_in or 1, fan_out or 1)
        return math.sqrt(self.scale / fan)

    def draws_from(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _core.Distribution:
        """Make the distribution with the standard deviation for a shape."""
        stddev = self.stddev(shape)
        try:
            if self.distribution == "truncated_normal":
                window = -TRUNCATED_AT, TRUNCATED_AT
                return distributions.truncated_normal(dtype, 0.0, corrected(stddev), *window)
            if self.distribution == "uniform" and stddev > 0:  # [0, 0) is an error
                limit = math.sqrt(3.0) * stddev
                return distributions.uniform(dtype, -limit, limit)
            return distributions.normal(dtype, 0.0, stddev)
        except ValueError as error:  # its message names parameters that the user did not give
            raise ValueError(
                f"scale must give a standard deviation that fits {working(dtype)}, "
                f"got {self.scale!r}, which gives {stddev!r}"
            ) from error

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return normal parts with half the variance; fans are those of the complex tensor."""
        if self.distribution != "normal":
            return super().complex_parts(shape)
        return RandomNormal(0.0, self.stddev(shape) / math.sqrt(2.0))

    def scaled(self, factor: float) -> Initializer:
        own = {field.name: getattr(self, field.name) for field in fields(VarianceScaling)}
        return VarianceScaling(**own | {"scale": factor**2 * self.scale})


@dataclass(frozen=True, repr=False)
class GlorotUniform(VarianceScaling, names=("glorot_uniform", "xavier_uniform")):
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)): Glorot and Bengio, AISTATS 2010, eq. 16."""

    scale: float = 1.0
    mode: str = "fan_avg"
    distribution: str = "uniform"


@dataclass(frozen=True, repr=False)
class GlorotNormal(VarianceScaling, names=("glorot_normal", "xavier_normal")):
    """N(0, 2 / (fan_in + fan_out)): Glorot and Bengio, AISTATS 2010, eq. 12."""

    scale: float = 1.0
    mode: str = "fan_avg"
    distribution: str = "normal"


@dataclass(frozen=True, repr=False)
class _He(VarianceScaling):
    """Variance gain^2 / fan, with the gain of an activation."""

    scale: float = field(init=False, default=2.0)
    mode: str = "fan_in"
    nonlinearity: str = "relu"
    param: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.nonlinearity, str):
            raise TypeError(
                "nonlinearity must be the name of an activation (for a function, give "
                f"VarianceScaling its winit_fast.gain), got {self.nonlinearity!r}"
            )
        object.__setattr__(self, "scale", squared_gain(self.nonlinearity, self.param))
        super().__post_init__()


@dataclass(frozen=True, repr=False)
class HeUniform(_He, names=("he_uniform", "kaiming_uniform")):
    """U(-a, a), a = gain sqrt(3 / fan_in): He et al., ICCV 2015, eq. 10; sqrt(6 / fan_in) for ReLU.

    Parameters
    ----------
    mode, distribution, in_axis, out_axis, batch_axis, fan_in, fan_out
        As in `VarianceScaling`.
    nonlinearity : str
        The activation that follows: any name that `winit_fast.gain` accepts. As in that function,
        "tanh", "selu" and "sigmoid" have PyTorch's conventional gains.
    param : float, optional
        The activation's parameter, such as the negative slope of "leaky_relu".

    Examples
    --------
    >>> HeUniform(nonlinearity="leaky_relu", param=0.2)
    HeUniform(nonlinearity='leaky_relu', param=0.2)
    """

    distribution: str = "uniform"


@dataclass(frozen=True, repr=False)
class HeNormal(_He, names=("he_normal", "kaiming_normal")):
    """N(0, gain^2 / fan_in): He et al., ICCV 2015, eq. 10; N(0, 2 / fan_in) for ReLU.

    Parameters
    ----------
    mode, distribution, in_axis, out_axis, batch_axis, fan_in, fan_out, nonlinearity, param
        As in `HeUniform`.

    Examples
    --------
    >>> import winit_fast as wf
    >>> scheme = wf.HeNormal(nonlinearity="gelu")
    >>> round(scheme.stddev((100, 10)), 6), round(wf.gain("gelu") / 10, 6)
    (0.153353, 0.153353)
    """

    distribution: str = "normal"


@dataclass(frozen=True, repr=False)
class LecunUniform(VarianceScaling, names=("lecun_uniform",)):
    """U(-a, a), a = sqrt(3 / fan_in): LeCun et al., "Efficient BackProp", 1998, section 4.6."""

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "uniform"


@dataclass(frozen=True, repr=False)
class LecunNormal(VarianceScaling, names=("lecun_normal",)):
    """N(0, 1 / fan_in): LeCun et al., "Efficient BackProp", 1998, section 4.6; for SELU too."""

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "normal"


@dataclass(frozen=True, repr=False)
class XavierSimple(VarianceScaling, names=("xavier_simple",)):
    """U(-a, a), a = 1 / sqrt(fan_in): the heuristic of Glorot and Bengio, AISTATS 2010, eq. 1.

    The layers torch.nn.Linear and torch.nn.Conv1d to Conv3d initialise weights and biases with it.
    """

    scale: float = 1 / 3
    mode: str = "fan_in"
    distribution: str = "uniform"
