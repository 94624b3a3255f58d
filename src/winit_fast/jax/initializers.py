"""The functions of ``jax.nn.initializers``, implemented with this package's initializers."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import winit_fast.initializers as native
from winit_fast.base.arguments import finite, not_negative, real
from winit_fast.base.boxes import logical_shape
from winit_fast.base.dtypes import FLOATS
from winit_fast.initializers.fans import Axes
from winit_fast.initializers.protocol import Initializer
from winit_fast.jax.arrays import canonical, from_initializer, on_host, placed
from winit_fast.jax.callbacks import made_later, traced
from winit_fast.jax.fans import fans
from winit_fast.jax.keys import seed_and_stream, words_of

Init = Callable[..., jax.Array]
"""The type that the functions return: ``init(key, shape, dtype=dtype, out_sharding=None)``."""

Extents = tuple[int, ...]
Scheme = Callable[[Extents], Initializer | None]
"""Maps a shape to the initializer that fills it, or to None for a shape that JAX refuses."""


def normal(stddev: float = 1e-2, dtype: Any = None) -> Init:
    """Normal numbers with mean 0: `jax.nn.initializers.normal`.

    Parameters
    ----------
    stddev : float
        Finite, at least 0.
    dtype : numpy.dtype or similar, optional
        Used if ``init`` is called without one; by default JAX's default type, float32 or float64.

    Returns
    -------
    callable
        ``init(key, shape, dtype=dtype, out_sharding=None)``.

    Examples
    --------
    >>> normal(0.02)(jax.random.key(0), (3, 4), "bfloat16").dtype
    dtype(bfloat16)
    """
    made = native.RandomNormal(0.0, stddev)
    return _initializer(lambda shape: made, jax.nn.initializers.normal(stddev, dtype), dtype)


def uniform(scale: float = 1e-2, dtype: Any = None) -> Init:
    """Uniform numbers in [0, scale): `jax.nn.initializers.uniform`.

    Parameters
    ----------
    scale : float
        Finite, at least 0.
    dtype
        See `normal`.

    Returns
    -------
    callable
        See `normal`.

    Examples
    --------
    >>> x = uniform(10.0)(jax.random.key(0), (1000,))
    >>> 0 <= x.min() < 1, 9 < x.max() < 10
    (Array(True, dtype=bool), Array(True, dtype=bool))
    """
    high = not_negative("scale", scale)
    made = native.RandomUniform(0.0, high) if high else native.Zeros()
    return _initializer(lambda shape: made, jax.nn.initializers.uniform(scale, dtype), dtype)


def truncated_normal(
    stddev: float = 1e-2, dtype: Any = None, lower: float = -2.0, upper: float = 2.0
) -> Init:
    """Normal numbers truncated to two bounds: `jax.nn.initializers.truncated_normal`.

    Parameters
    ----------
    stddev : float
        Standard deviation of the normal before truncation, which is not corrected; finite, at
        least 0.
    dtype
        See `normal`.
    lower, upper : float
        Bounds in standard deviations, lower < upper.

    Returns
    -------
    callable
        See `normal`.

    Examples
    --------
    >>> x = truncated_normal(1.0, lower=-1.0, upper=3.0)(jax.random.key(0), (1000,))
    >>> bool((x >= -1).all() and (x <= 3).all())
    True
    """
    if not real("lower", lower) < real("upper", upper):
        raise ValueError(f"lower must be < upper, got {lower!r} and {upper!r}")
    made = native.TruncatedNormal(0.0, stddev, lower, upper)
    peer = jax.nn.initializers.truncated_normal(stddev, dtype, lower, upper)
    return _initializer(lambda shape: made, peer, dtype)


def variance_scaling(
    scale: float,
    mode: str,
    distribution: str,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: Any = None,
) -> Init:
    r"""Draws with variance scale / fan: `jax.nn.initializers.variance_scaling`.

    Parameters
    ----------
    scale : float
        Finite, at least 0.
    mode : str
        The fan to use: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
    distribution : str
        "uniform", "normal" or "truncated_normal". The last is truncated at 2 standard deviations,
        with a scale that is increased so that the variance after truncation is scale / fan.
    in_axis, out_axis, batch_axis : int or sequence of int
        The axes of the inputs, of the outputs, and those to ignore; all others are the receptive
        field. As in JAX, an axis may be given twice, as Flax' Embed does.
    dtype
        See `normal`.

    Returns
    -------
    callable
        See `normal`.

    Notes
    -----
    .. math::

        \text{fan} = \text{its own axes} \times \frac{\text{size}}
                     {\text{inputs} \times \text{outputs} \times \text{batch}}

    Examples
    --------
    >>> w = variance_scaling(2.0, "fan_out", "normal")(jax.random.key(0), (3, 3, 64, 128))
    >>> abs(w.std() / (2 / (9 * 128)) ** 0.5 - 1) < 0.01
    Array(True, dtype=bool)
    """
    asked = native.VarianceScaling(scale, mode, distribution)  # raises for invalid arguments

    @lru_cache
    def scheme(shape: Extents) -> Initializer | None:
        if len(shape) < 2 and in_axis == -2:
            return None
        fan_in, fan_out = fans(shape, in_axis, out_axis, batch_axis)
        # VarianceScaling takes integer fans, so both fans and the scale are multiplied by `factor`.
        factor = math.lcm(fan_in.denominator, fan_out.denominator)
        return replace(
            asked,
            scale=scale * factor,
            fan_in=int(fan_in * factor),
            fan_out=int(fan_out * factor),
        )

    axes = in_axis, out_axis, batch_axis
    peer = jax.nn.initializers.variance_scaling(scale, mode, distribution, *axes, dtype)
    return _initializer(scheme, peer, dtype)


def glorot_uniform(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` with scale 1, "fan_avg", "uniform": Glorot and Bengio, 2010, eq. 16."""
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype)


def glorot_normal(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` with scale 1, "fan_avg", "truncated_normal": Glorot and Bengio, 2010."""
    return variance_scaling(
        1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype
    )


def lecun_uniform(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` with scale 1, "fan_in", "uniform": LeCun et al., 1998."""
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def lecun_normal(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` with scale 1, "fan_in", "truncated_normal": LeCun et al., 1998."""
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def he_uniform(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` with scale 2, "fan_in", "uniform": He et al., 2015, for ReLU."""
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def he_normal(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` with scale 2, "fan_in", "truncated_normal": He et al., 2015, for ReLU."""
    return variance_scaling(2.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


xavier_uniform = glorot_uniform
xavier_normal = glorot_normal
kaiming_uniform = he_uniform
kaiming_normal = he_normal


def orthogonal(scale: float = 1.0, column_axis: int = -1, dtype: Any = None) -> Init:
    """Haar-distributed semi-orthogonal matrices: `jax.nn.initializers.orthogonal`.

    Parameters
    ----------
    scale : float
        Factor.
    column_axis : int
        The axis of the matrix's columns; all other axes form its rows.
    dtype
        See `normal`. For 16- and 8-bit types, which JAX's function refuses, the float32 matrix is
        rounded.

    Returns
    -------
    callable
        See `normal`.

    Examples
    --------
    >>> q = orthogonal()(jax.random.key(0), (64, 16))
    >>> abs(q.T @ q - jax.numpy.eye(16)).max() < 1e-5
    Array(True, dtype=bool)
    """
    finite("scale", scale)
    made = native.Orthogonal(scale, column_axis)

    def scheme(shape: Extents) -> Initializer | None:
        return _with_axis(made, column_axis, shape) if len(shape) > 1 else None

    return _initializer(scheme, jax.nn.initializers.orthogonal(scale, column_axis, dtype), dtype)


def delta_orthogonal(scale: float = 1.0, column_axis: int = -1, dtype: Any = None) -> Init:
    """Norm-preserving convolution kernels: `jax.nn.initializers.delta_orthogonal`.

    Parameters
    ----------
    scale : float
        Factor.
    column_axis : int
        The axis of the columns of the centre tap's matrix, from -2 to 1. The distribution is the
        same for all.
    dtype
        See `orthogonal`.

    Returns
    -------
    callable
        See `normal`. Shapes must be (kernel..., inputs, outputs) with one to three kernel axes, and
        at least as many outputs as inputs.

    Examples
    --------
    >>> w = delta_orthogonal()(jax.random.key(0), (3, 3, 8, 16))
    >>> abs(w[1, 1] @ w[1, 1].T - jax.numpy.eye(8)).max() < 1e-5
    Array(True, dtype=bool)
    """
    finite("scale", scale)
    made = native.DeltaOrthogonal(scale)

    def scheme(shape: Extents) -> Initializer | None:
        return _with_axis(made, column_axis, shape[-2:]) if 3 <= len(shape) <= 5 else None

    peer = jax.nn.initializers.delta_orthogonal(scale, column_axis, dtype)
    return _initializer(scheme, peer, dtype)


def _with_axis(made: Initializer, column_axis: int, shape: Extents) -> Initializer:
    if not -len(shape) <= column_axis < len(shape):
        raise IndexError(
            f"column_axis is {column_axis!r}, but the matrix has {len(shape)} axes: {shape}"
        )
    return made


# The rest of this file makes ``init`` for all schemes.


def _initializer(scheme: Scheme, peer: Init, dtype: Any) -> Init:
    """Make ``init`` from a scheme, and from JAX's own initializer for unsupported arguments."""

    def init(key: Any, shape: Any, dtype: Any = dtype, out_sharding: Any = None) -> jax.Array:
        kind, tensor, words = _kind(dtype), _tensor(shape), words_of(key)
        if kind is None or tensor is None or words is None:
            return peer(key, shape, dtype, out_sharding)
        initializer = scheme(tensor)
        if initializer is None:
            return peer(key, shape, dtype, out_sharding)
        kind = canonical(kind)
        tracing = traced(words)
        sharding = None if out_sharding is None else _named(out_sharding, tracing)
        if tracing:
            nothing = (slice(0, 0),) * len(tensor)
            initializer(tensor, dtype=kind, seed=0, index=nothing)  # raises its errors now
            return made_later(initializer, tensor, kind, words, sharding)
        seed, stream = seed_and_stream(words)
        if sharding is not None:
            return from_initializer(initializer, tensor, sharding, kind, seed=seed, name=stream)
        return placed(on_host(initializer, tensor, kind, seed, stream), key)

    return init


def _kind(dtype: Any) -> np.dtype[Any] | None:
    """Find the dtype, or return None if this package does not support it."""
    if dtype is None or dtype is float:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
    if isinstance(dtype, jax.Array):
        return None
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # np.dtype("f4,,") raises SyntaxError
        return None
    return kind if kind in FLOATS else None


def _tensor(shape: Any) -> Extents | None:
    """Convert a shape to a tuple, or return None if it has no elements or is invalid."""
    try:
        tensor = logical_shape(shape)
    except (TypeError, ValueError):
        return None
    return None if 0 in tensor else tensor


def _named(sharding: Any, tracing: bool) -> NamedSharding:
    """Convert ``out_sharding`` as JAX does: a PartitionSpec refers to the current mesh."""
    if isinstance(sharding, NamedSharding):
        return sharding
    if not isinstance(sharding, PartitionSpec):
        raise TypeError(
            f"out_sharding must be a NamedSharding or a PartitionSpec, got {sharding!r}"
        )
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        raise ValueError(
            "out_sharding must be a NamedSharding where no mesh is set (jax.set_mesh), "
            f"got {sharding!r}"
        )
    return NamedSharding(mesh if tracing else jax.sharding.get_mesh(), sharding)
