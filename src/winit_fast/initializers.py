"""The catalogue of schemes: what every element of a tensor is drawn from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from winit_fast import _core, distributions, dtypes
from winit_fast.arguments import finite, not_negative, plain, positive, real
from winit_fast.fans import Axes, axes_tuple, fans
from winit_fast.fill import (
    MAX_SIZE,
    Array,
    Box,
    Index,
    Shape,
    box,
    constant,
    destination,
    empty,
    fill,
    logical_shape,
    rounded,
)
from winit_fast.gains import squared_gain
from winit_fast.names import check, spelling, unknown
from winit_fast.stream import Seed, Stream

Out = TypeVar("Out")


class Initializer:
    """A scheme and its parameters, as a value: frozen, comparable, hashable, printable.

    A subclass is a ``@dataclass(frozen=True, repr=False)`` whose fields are its parameters, and
    overrides ``_fill``. The class keyword ``names`` lists what `get` finds it by.

    Examples
    --------
    >>> import winit_fast as wf
    >>> wf.HeNormal()((2, 3), seed=0, name="fc.weight", dtype="bfloat16").shape
    (2, 3)
    """

    _registry: ClassVar[dict[str, type["Initializer"]]] = {}
    _by_spelling: ClassVar[dict[str, type["Initializer"]]] = {}

    def __init_subclass__(cls, names: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Initializer._registry.update(dict.fromkeys(names, cls))
        Initializer._by_spelling.update(dict.fromkeys(map(spelling, names), cls))

    def __call__(
        self,
        shape: Shape,
        *,
        seed: Seed = None,
        name: str | int | None = None,
        dtype: Any = "float32",
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Make a new array.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the logical tensor.
        seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
            From 0 to 2^64 - 1. None draws one from the operating system.
        name : str, int or None
            The tensor's name, or the number of its stream. Tensors of different names are
            independent.
        dtype : str, type or numpy.dtype
            One of float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2.
        index : tuple of slice, int or Ellipsis, optional
            The box to make, as in ``numpy.s_[1024:2048, :]``: the same bits as the same box cut
            from the whole tensor.
        num_threads : int, optional
            `get_num_threads` by default. It changes no bit.

        Returns
        -------
        numpy.ndarray
            Of the box's shape.
        """
        cut = box(logical_shape(shape), index)
        out = empty(cut.shape, dtypes.find(dtype).dtype)
        self._fill(out, cut, Stream(seed, name), num_threads)
        return out

    def fill(
        self,
        out: Out,
        *,
        seed: Seed = None,
        name: str | int | None = None,
        shape: Shape | None = None,
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Out:
        """Fill a buffer in place.

        Parameters
        ----------
        out : numpy.ndarray, torch.Tensor, or an object with the buffer protocol or DLPack
            On the CPU; of any strides and any alignment.
        seed, name, num_threads
            As in `__call__`.
        shape : int or tuple of int, optional
            Shape of the logical tensor; by default that of ``out``.
        index : tuple of slice, int or Ellipsis, optional
            The box of the logical tensor that ``out`` holds; by default all of it.

        Returns
        -------
        out
        """
        array, cut = destination(out, shape, index)
        self._fill(array, cut, Stream(seed, name), num_threads)
        return out

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill a checked, writable array of ``box.shape`` with that box of the logical tensor."""
        raise NotImplementedError(f"{type(self).__name__} is no scheme: it has no _fill")

    def _times(self, factor: float) -> "Initializer | None":
        """Give the scheme of ``factor`` times as large elements, or None if there is none."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the parameters, as `from_config` takes them.

        An initializer among them becomes ``{"class_name": ..., "config": ...}``.
        """
        config = {field.name: plain(getattr(self, field.name)) for field in self._parameters()}
        for name, value in config.items():
            if isinstance(value, Initializer):
                config[name] = {"class_name": type(value).__name__, "config": value.get_config()}
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an initializer from its parameters.

        Raises
        ------
        TypeError
            If it is no mapping, or the scheme has no such parameter.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config must be a mapping of parameters by name, got {config!r}")
        known = [field.name for field in cls._parameters()]
        for name in config:
            if not known:
                raise TypeError(f"{cls.__name__} has no parameters, got {name!r}")
            if name not in known:
                raise TypeError(unknown(f"parameters of {cls.__name__}", name, known))
        return cls(**config)

    @classmethod
    def _parameters(cls) -> list[Field[Any]]:
        return [field for field in fields(cls) if field.init]  # type: ignore[arg-type]

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={plain(getattr(self, field.name))!r}"
            for field in self._parameters()
            if field.default is MISSING or getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def get(identifier: str | Mapping[str, Any] | Initializer, **parameters: Any) -> Initializer:
    """Find an initializer by any name that PyTorch, Keras, JAX or this package gives it.

    A name stands for the scheme. Parameters that are left out have the defaults of this package,
    whoever the name is from: ``"normal_"`` is ``RandomNormal()``, of standard deviation 0.05.

    Parameters
    ----------
    identifier : str, mapping or Initializer
        For example ``"he_normal"``, ``"kaiming_normal_"``, ``"GlorotUniform"``. Case, underscores
        and hyphens do not matter. A mapping is ``{"class_name": ..., "config": ...}``, as in Keras
        and in `Initializer.get_config`. An initializer is returned as it is.
    **parameters
        The initializer's own, for a name.

    Returns
    -------
    Initializer

    Raises
    ------
    ValueError
        If no initializer has that name.
    TypeError
        If the identifier is of another type or has its parameters already, or the initializer has
        no such parameter.

    Examples
    --------
    >>> get("xavier_uniform"), get("constant", value=0.5)
    (GlorotUniform(), Constant(value=0.5))
    >>> get({"class_name": "RandomNormal", "config": {"stddev": 0.02}})
    RandomNormal(stddev=0.02)
    >>> get("he_norml")
    Traceback (most recent call last):
    ValueError: identifier must be one of ...; did you mean 'he_normal'?
    """
    if isinstance(identifier, str):
        try:
            cls = Initializer._by_spelling[spelling(identifier)]
        except KeyError:
            raise ValueError(unknown("identifier", identifier, Initializer._registry)) from None
        return cls.from_config(parameters)
    if parameters:
        raise TypeError(f"an initializer has its parameters already, got {parameters}")
    if isinstance(identifier, Mapping) and isinstance(identifier.get("class_name"), str):
        config = identifier.get("config") or {}
        if isinstance(config, Mapping):
            return get(identifier["class_name"], **config)
    if not isinstance(identifier, Initializer):
        raise TypeError(
            'identifier must be a name, a mapping with "class_name" and "config", or an '
            f"initializer, got {identifier!r}"
        )
    return identifier


class _Elementwise(Initializer):
    """A scheme whose elements are independent draws from one distribution."""

    def _distribution(self, code: int, tensor: tuple[int, ...]) -> _core.Distribution:
        """Make the distribution for a type's code and a logical shape."""
        raise NotImplementedError(f"{type(self).__name__} is no scheme: it has no _distribution")

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        distribution = self._distribution(dtypes.FLOATS[out.dtype].code, box.tensor)
        fill(distribution, stream.seed, stream.id, out, box, num_threads)


@dataclass(frozen=True, repr=False)
class Constant(Initializer, names=("constant",)):
    """Every element is one number.

    A constant weight matrix keeps the units of a layer alike for ever, since they have the same
    gradient: constants are for biases, gains and what is multiplied by something random.

    Parameters
    ----------
    value : float
        It must fit the destination's type; infinities and NaN are allowed.

    Examples
    --------
    >>> Constant(0.5)((2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        real("value", self.value)

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        constant(float(self.value), out, box, num_threads)

    def _times(self, factor: float) -> Initializer:
        return Constant(factor * self.value)


@dataclass(frozen=True, repr=False)
class Zeros(Initializer, names=("zeros", "zero")):
    """Every element is 0: for biases, and for the last layer of a residual branch.

    Examples
    --------
    >>> Zeros()(3)
    array([0., 0., 0.], dtype=float32)
    """

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        constant(0.0, out, box, num_threads)

    def _times(self, factor: float) -> Initializer:
        return self


@dataclass(frozen=True, repr=False)
class Ones(Initializer, names=("ones", "one")):
    """Every element is 1: for the gains of normalisation layers.

    Examples
    --------
    >>> Ones()(3)
    array([1., 1., 1.], dtype=float32)
    """

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        constant(1.0, out, box, num_threads)

    def _times(self, factor: float) -> Initializer:
        return Constant(factor)


@dataclass(frozen=True, repr=False)
class Identity(Initializer, names=("identity", "eye", "identity_initializer")):
    """A matrix with ``gain`` on its diagonal and 0 elsewhere; it need not be square.

    Parameters
    ----------
    gain : float

    References
    ----------
    Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear
    units", 2015.

    Examples
    --------
    >>> Identity(2.0)((2, 3))
    array([[2., 0., 0.],
           [0., 2., 0.]], dtype=float32)
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        finite("gain", self.gain)

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        if len(box.tensor) != 2:
            raise ValueError(f"Identity is for matrices, got shape {box.tensor}")
        gain = rounded(self.gain, out.dtype, "gain")
        constant(0.0, out, box, num_threads)
        # Positions of the tensor's diagonal that the box has: both coordinates are its.
        (row, column), (rows, columns) = box.starts, box.sizes
        diagonal = np.arange(max(row, column), min(row + rows, column + columns))
        box.expand(out)[diagonal - row, diagonal - column] = gain

    def _times(self, factor: float) -> Initializer:
        return replace(self, gain=factor * self.gain)


@dataclass(frozen=True, repr=False)
class RandomUniform(_Elementwise, names=("random_uniform", "uniform")):
    """Uniform on [minval, maxval), in every type.

    Parameters
    ----------
    minval, maxval : float
        Finite, minval < maxval. The defaults are those of Keras.

    Examples
    --------
    >>> w = RandomUniform(-1.0, 1.0)((4, 4), seed=0)
    >>> bool((-1 <= w).all() and (w < 1).all())
    True
    """

    minval: float = -0.05
    maxval: float = 0.05

    def __post_init__(self) -> None:
        if not finite("minval", self.minval) < finite("maxval", self.maxval):
            raise ValueError(f"minval must be < maxval, got {self.minval!r} and {self.maxval!r}")

    def _distribution(self, code: int, tensor: tuple[int, ...]) -> _core.Distribution:
        return distributions.uniform(code, self.minval, self.maxval, ("minval", "maxval"))

    def _times(self, factor: float) -> Initializer:
        return RandomUniform(factor * self.minval, factor * self.maxval)


@dataclass(frozen=True, repr=False)
class RandomNormal(_Elementwise, names=("random_normal", "normal")):
    """Normal with the given mean and standard deviation.

    Beyond the range of a narrow type, numbers become infinite, or NaN in float8_e4m3fn.

    Parameters
    ----------
    mean : float
    stddev : float
        Finite, at least 0. The defaults are those of Keras.

    Examples
    --------
    >>> RandomNormal(stddev=0.02)((4, 4), seed=0, name="wte").dtype
    dtype('float32')
    """

    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        finite("mean", self.mean)
        not_negative("stddev", self.stddev)

    def _distribution(self, code: int, tensor: tuple[int, ...]) -> _core.Distribution:
        return distributions.normal(code, self.mean, self.stddev, ("mean", "stddev"))

    def _times(self, factor: float) -> Initializer:
        return RandomNormal(factor * self.mean, factor * self.stddev)


@dataclass(frozen=True, repr=False)
class TruncatedNormal(_Elementwise, names=("truncated_normal", "trunc_normal")):
    """Normal, truncated to [mean + low * stddev, mean + high * stddev].

    Parameters
    ----------
    mean : float
    stddev : float
        Finite, at least 0: of the normal before truncation, as in Keras, JAX and torch. The
        defaults are those of Keras.
    low, high : float
        The bounds, in standard deviations (torch's ``a`` and ``b`` are absolute: they are
        ``mean + low * stddev`` and ``mean + high * stddev``).

    Examples
    --------
    >>> w = TruncatedNormal(stddev=0.02)((64, 64), seed=0, dtype="bfloat16")
    >>> float(abs(w).max()) <= 0.04
    True
    """

    mean: float = 0.0
    stddev: float = 0.05
    low: float = -2.0
    high: float = 2.0

    def __post_init__(self) -> None:
        finite("mean", self.mean)
        not_negative("stddev", self.stddev)
        if not real("low", self.low) < real("high", self.high):
            raise ValueError(f"low must be < high, got {self.low!r} and {self.high!r}")

    def _distribution(self, code: int, tensor: tuple[int, ...]) -> _core.Distribution:
        parameters = self.mean, self.stddev, self.low, self.high
        return distributions.truncated_normal(code, *parameters, ("mean", "stddev"))

    def _times(self, factor: float) -> Initializer:
        return replace(self, mean=factor * self.mean, stddev=factor * self.stddev)


TRUNCATED_STDDEV = 0.87962566103423978
"""Standard deviation of the standard normal truncated to +-2."""

_MODES: dict[str, Callable[[int, int], float]] = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2,
    "fan_geo_avg": lambda fan_in, fan_out: math.sqrt(fan_in * fan_out),
}
_DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")


@dataclass(frozen=True, repr=False)
class VarianceScaling(_Elementwise, names=("variance_scaling",)):
    r"""Draws of variance scale / fan, for the fan of the logical shape.

    Parameters
    ----------
    scale : float
        Finite, at least 0: the square of the gain.
    mode : str
        Which fan: "fan_in", "fan_out", "fan_avg" (their mean) or "fan_geo_avg" (their geometric
        mean).
    distribution : str
        "normal"; "uniform"; or "truncated_normal", a normal cut at 2 standard deviations, which is
        widened so that what is left has the variance asked for.
    in_axis, out_axis, batch_axis : int or tuple of int
        See `winit_fast.fans.fans`. The defaults are those of Keras and JAX; torch's are 1 and 0.
    fan_in, fan_out : int, optional
        In place of the shape's.

    Notes
    -----
    .. math::

        \sigma^2 = \text{scale} / \text{fan}, \qquad
        N(0, \sigma^2), \quad
        U(-\sqrt{3} \sigma, \sqrt{3} \sigma), \quad
        N(0, (\sigma / 0.8796\ldots)^2) \text{ cut at } \pm 2.

    References
    ----------
    ``jax.nn.initializers.variance_scaling``, ``keras.initializers.VarianceScaling``. In these,
    "truncated_normal" is the same, Keras' "normal" is the truncated one, and Keras'
    "untruncated_normal" is "normal" here.

    Examples
    --------
    >>> VarianceScaling(2.0, "fan_out", "uniform")((3, 3, 64, 128), seed=0).shape
    (3, 3, 64, 128)
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    in_axis: Axes = -2
    out_axis: Axes = -1
    batch_axis: Axes = ()
    fan_in: int | None = None
    fan_out: int | None = None

    def __post_init__(self) -> None:
        not_negative("scale", self.scale)
        check("mode", self.mode, _MODES)
        check("distribution", self.distribution, _DISTRIBUTIONS)
        for axes in ("in_axis", "out_axis", "batch_axis"):
            value = getattr(self, axes)
            if not isinstance(value, int):  # a list from JSON, say: a value must be hashable
                object.__setattr__(self, axes, axes_tuple(axes, value))
        for fan in ("fan_in", "fan_out"):
            value = getattr(self, fan)
            if value is not None and positive(fan, value) > MAX_SIZE:
                raise ValueError(f"{fan} must be at most 2^63, got {value}")

    def stddev(self, tensor: tuple[int, ...]) -> float:
        """Standard deviation for a logical shape.

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

    def _distribution(self, code: int, tensor: tuple[int, ...]) -> _core.Distribution:
        stddev = self.stddev(tensor)
        try:
            if self.distribution == "truncated_normal":
                widened = stddev / TRUNCATED_STDDEV
                return distributions.truncated_normal(code, 0.0, widened, -2.0, 2.0)
            if self.distribution == "uniform" and stddev > 0:  # of no width: the normal of none
                limit = math.sqrt(3.0) * stddev
                return distributions.uniform(code, -limit, limit)
            return distributions.normal(code, 0.0, stddev)
        except ValueError as error:  # in terms of numbers that nobody gave
            raise ValueError(
                f"scale must give a standard deviation that fits {distributions.working(code)}, "
                f"got {self.scale!r}, which gives {stddev!r}"
            ) from error

    def _times(self, factor: float) -> Initializer:
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
    """Variance gain^2 / fan, for the gain of an activation."""

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
        The activation that follows: any name that `winit_fast.gain` knows. Like that function it
        keeps PyTorch's conventional gains of "tanh", "selu" and "sigmoid".
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

    It is also what torch.nn.Linear and its convolutions start from, weights and biases.
    """

    scale: float = 1 / 3
    mode: str = "fan_in"
    distribution: str = "uniform"
