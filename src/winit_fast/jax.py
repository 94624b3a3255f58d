"""``jax.nn.initializers`` with this package's numbers: the same functions, arguments and meaning.

A model moves over by one import, eager and under jit, vmap, scan, eval_shape and Flax:

>>> import jax
>>> import winit_fast.jax as initializers
>>> w = initializers.he_normal()(jax.random.key(0), (784, 256))
>>> w.shape, w.dtype
((784, 256), dtype('float32'))

**Keys.** The words of a key are the seed, and of a key of 128 bits the stream too: two words
``[high, low]`` are the seed ``high << 32 | low``, two more are the stream's number. So, with JAX's
usual keys (threefry), ``jax.random.key(n)`` is the seed n:

>>> import numpy as np
>>> import winit_fast as wf
>>> same = wf.HeNormal(distribution="truncated_normal")((784, 256), seed=0)
>>> bool((np.asarray(w) == same).all())
True

Typed keys and raw ones are taken, of any implementation of 32, 64 or 128 bits (rbg and unsafe_rbg
have 128). The same key with another shape or scheme starts the same stream anew, as in JAX: split
keys, or fold in a number.

**Tracing.** Under jit and its like the numbers come from a host callback (`jax.pure_callback`),
with the same bits. XLA runs it on one device and sends the parts round; with ``out_sharding=``, and
with `make`, every device's shard is made alone. What XLA can do as well itself, it does:
``zeros``, ``ones`` and ``constant`` *are* JAX's.

**What is JAX's own.** Complex types, the rarer float8 types and tensors without elements are left
to JAX, and so is every mistake: the error is JAX's. Parameters are Python numbers, not traced ones,
and a negative scale or deviation is refused.
"""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np

try:
    import jax
except ImportError as error:
    raise ImportError(
        "winit_fast.jax needs JAX, which is not installed: pip install 'winit_fast[jax]'"
    ) from error

import jax.numpy as jnp
from jax.nn.initializers import constant, ones, zeros
from jax.sharding import NamedSharding, PartitionSpec

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # JAX < 0.10
    from jax.core import get_opaque_trace_state

import winit_fast.initializers as native
from winit_fast.base.arguments import finite, not_negative, real
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Index, Shape, box, logical_shape
from winit_fast.base.dtypes import FLOATS, find
from winit_fast.base.names import unknown
from winit_fast.initializers.fans import Axes
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.variance_scaling import TRUNCATED_STDDEV
from winit_fast.streams.stream import Seed, seed_number

__all__ = [
    "constant",
    "delta_orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "make",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Init = Callable[..., jax.Array]
"""What the functions return: ``init(key, shape, dtype=dtype, out_sharding=None)``."""

Extents = tuple[int, ...]
Scheme = Callable[[Extents], Initializer | None]
"""From a shape to what fills it; None for a shape that JAX refuses."""

ALIGNMENT = 64
"""JAX takes a host array over without a copy if it is aligned to this many bytes, on the CPU."""

ZERO_COPY = 1 << 16
"""Bytes from which taking an array over is cheaper than copying it."""


def normal(stddev: float = 1e-2, dtype: Any = None) -> Init:
    """Normal numbers of mean 0: `jax.nn.initializers.normal`.

    Parameters
    ----------
    stddev : float
        Finite, at least 0.
    dtype : numpy.dtype or its like, optional
        Used where ``init`` is given none; by default JAX's own, float32 or float64.

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
    """Uniform numbers from 0 to ``scale``, which is never reached: `jax.nn.initializers.uniform`.

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
    """Normal numbers between two bounds: `jax.nn.initializers.truncated_normal`.

    Parameters
    ----------
    stddev : float
        Finite, at least 0: of the normal before it is cut; it is not corrected.
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
    r"""Draws of variance scale / fan: `jax.nn.initializers.variance_scaling`.

    Parameters
    ----------
    scale : float
        Finite, at least 0.
    mode : str
        Which fan: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
    distribution : str
        "uniform", "normal" or "truncated_normal": the last is cut at 2 standard deviations and
        widened so that what is left has the variance asked for.
    in_axis, out_axis, batch_axis : int or sequence of int
        The axes of the inputs, of the outputs, and those to leave out; all others are the receptive
        field. As in JAX, an axis may be named twice: Flax' Embed has it so.
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
    not_negative("scale", scale)
    if mode not in _FANS:
        raise ValueError(unknown("mode", mode, _FANS))
    if distribution not in _DISTRIBUTIONS:
        raise ValueError(unknown("distribution", distribution, _DISTRIBUTIONS))

    @lru_cache
    def scheme(shape: Extents) -> Initializer | None:
        if len(shape) < 2 and in_axis == -2:
            return None
        fan = _FANS[mode](*_fans(shape, in_axis, out_axis, batch_axis))
        return _DISTRIBUTIONS[distribution](math.sqrt(scale / fan))

    axes = in_axis, out_axis, batch_axis
    peer = jax.nn.initializers.variance_scaling(scale, mode, distribution, *axes, dtype)
    return _initializer(scheme, peer, dtype)


_FANS: dict[str, Callable[[float, float], float]] = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2,
    "fan_geo_avg": lambda fan_in, fan_out: math.sqrt(fan_in * fan_out),
}


def _symmetric(stddev: float) -> Initializer:
    limit = math.sqrt(3.0) * stddev
    return native.RandomUniform(-limit, limit) if limit else native.Zeros()


_DISTRIBUTIONS: dict[str, Callable[[float], Initializer]] = {
    "uniform": _symmetric,
    "normal": partial(native.RandomNormal, 0.0),
    "truncated_normal": lambda stddev: native.TruncatedNormal(0.0, stddev / TRUNCATED_STDDEV),
}


def _fans(shape: Extents, in_axis: Axes, out_axis: Axes, batch_axis: Axes) -> tuple[float, float]:
    """Count as JAX does: an axis may be named twice, and fans need not be whole numbers."""
    sizes = []
    for argument, axes in ("in_axis", in_axis), ("out_axis", out_axis), ("batch_axis", batch_axis):
        try:
            extents = [shape[axis] for axis in (axes if isinstance(axes, Iterable) else (axes,))]
        except TypeError:
            raise TypeError(
                f"{argument} must be an integer or a sequence of them, got {axes!r}"
            ) from None
        except IndexError:
            raise IndexError(
                f"{argument} is {axes!r}, but shape {shape} has {len(shape)} axes"
            ) from None
        sizes.append(math.prod(extents))
    inputs, outputs, batch = sizes
    receptive_field = math.prod(shape) / (inputs * outputs * batch)
    return inputs * receptive_field, outputs * receptive_field


def glorot_uniform(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` of scale 1, "fan_avg", "uniform": Glorot and Bengio, 2010, eq. 16."""
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype)


def glorot_normal(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` of scale 1, "fan_avg", "truncated_normal": Glorot and Bengio, 2010."""
    return variance_scaling(
        1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype
    )


def lecun_uniform(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` of scale 1, "fan_in", "uniform": LeCun et al., 1998."""
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def lecun_normal(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` of scale 1, "fan_in", "truncated_normal": LeCun et al., 1998."""
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def he_uniform(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` of scale 2, "fan_in", "uniform": He et al., 2015, for ReLU."""
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def he_normal(
    in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None
) -> Init:
    """`variance_scaling` of scale 2, "fan_in", "truncated_normal": He et al., 2015, for ReLU."""
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
        The axis of the matrix' columns; all others make up its rows.
    dtype
        See `normal`. The types of 16 and 8 bits, which JAX's refuses, are float32 rounded.

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
    """Convolutions that preserve norms: `jax.nn.initializers.delta_orthogonal`.

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
        See `normal`. Shapes are (kernel..., inputs, outputs) of one to three kernel axes, with at
        least as many outputs as inputs.

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


def make(
    initializer: Initializer | str,
    shape: Shape,
    sharding: jax.sharding.Sharding,
    dtype: Any = None,
    *,
    seed: Seed,
    name: str | int | None = None,
    num_threads: int | None = None,
) -> jax.Array:
    """Make an array that is sharded over devices: each shard alone, and the whole nowhere.

    The values are those of ``initializer(shape, seed=seed, name=name)``, however the array is cut:
    the same model on one device and on many, and each process makes what its own devices hold. (A
    cut orthogonal matrix agrees to rounding: see `winit_fast.Orthogonal`.)

    Parameters
    ----------
    initializer : Initializer or str
        Or its name: see `winit_fast.get`.
    shape : int or tuple of int
        Of the whole array.
    sharding : jax.sharding.Sharding
    dtype : numpy.dtype or its like, optional
        float64, float32, float16, bfloat16, float8_e4m3fn or float8_e5m2; by default JAX's own.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        The same on all processes; None is for one process only.
    name : str, int or None
        The tensor's name, or the number of its stream.
    num_threads : int, optional
        `winit_fast.get_num_threads` by default. It changes no bit.

    Returns
    -------
    jax.Array

    Examples
    --------
    >>> import winit_fast as wf
    >>> mesh = jax.make_mesh((jax.device_count(),), ("model",))
    >>> sharding = NamedSharding(mesh, PartitionSpec(None, "model"))
    >>> w = make("he_normal", (64, 128), sharding, seed=0, name="mlp.up")
    >>> bool((np.asarray(w) == wf.HeNormal()((64, 128), seed=0, name="mlp.up")).all())
    True
    """
    if seed is None and jax.process_count() > 1:
        raise ValueError("seed must be given where there are several processes, got None")
    tensor = logical_shape(shape)
    wanted = jax.dtypes.canonicalize_dtype(np.float64) if dtype is None else dtype
    kind = _canonical(find(wanted).dtype)
    found, key = native.get(initializer), seed_number(seed)

    def shard(index: Index) -> Array:
        return _filled(found, tensor, kind, key, name, index, num_threads)

    return jax.make_array_from_callback(tensor, sharding, shard)


# From here on: one init for all schemes.


def _initializer(scheme: Scheme, peer: Init, dtype: Any) -> Init:
    """Make ``init`` from a scheme and from JAX's own initializer, for what the scheme is not."""

    def init(key: Any, shape: Any, dtype: Any = dtype, out_sharding: Any = None) -> jax.Array:
        kind, tensor, words = _kind(dtype), _tensor(shape), _words(key)
        if kind is None or tensor is None or words is None:
            return peer(key, shape, dtype, out_sharding)
        initializer = scheme(tensor)
        if initializer is None:
            return peer(key, shape, dtype, out_sharding)
        kind = _canonical(kind)
        tracing = isinstance(words, jax.core.Tracer) or _trace() != _EAGER
        sharding = None if out_sharding is None else _named(out_sharding, tracing)
        if tracing:
            nothing = (slice(0, 0),) * len(tensor)
            initializer(tensor, dtype=kind, seed=0, index=nothing)  # refuses now what it refuses
            return _traced(initializer, tensor, kind, words, sharding)
        seed, stream = _seed_and_stream(words)
        if sharding is not None:
            return make(initializer, tensor, sharding, kind, seed=seed, name=stream)
        return _placed(_filled(initializer, tensor, kind, seed, stream), key)

    return init


_trace = partial(get_opaque_trace_state, convention="nnx")  # the name of the only format there is

with jax.ensure_compile_time_eval():
    _EAGER = _trace()


def _kind(dtype: Any) -> np.dtype[Any] | None:
    """Find the type, or None if it is not one of ours."""
    if dtype is None or dtype is float:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
    if isinstance(dtype, jax.Array):
        return None
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # the last one from "f4,,"
        return None
    return kind if kind in FLOATS else None


def _canonical(kind: np.dtype[Any]) -> np.dtype[Any]:
    """Make float64 float32 where JAX does, with its warning."""
    if kind != np.float64 or jax.dtypes.canonicalize_dtype(kind) == kind:
        return kind
    truncated: np.dtype[Any] = jnp.zeros((), kind).dtype
    return truncated


def _tensor(shape: Any) -> Extents | None:
    """Read a shape, or return None if it has no elements or is a mistake."""
    try:
        tensor = logical_shape(shape)
    except (TypeError, ValueError):
        return None
    return None if 0 in tensor else tensor


def _words(key: Any) -> Any:
    """Take the words of a key, or None if it is not a single one."""
    if not hasattr(key, "dtype"):
        return None
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        try:
            key = jax.random.wrap_key_data(key)
        except (TypeError, ValueError):
            return None
    if key.ndim:
        return None
    # The public function is an operation of JAX, and costs more than a small tensor.
    words = None if isinstance(key, jax.core.Tracer) else getattr(key, "_base_array", None)
    words = jax.random.key_data(key) if words is None else words
    if words.shape not in ((1,), (2,), (4,)):
        raise ValueError(f"key must have 32, 64 or 128 bits, got {32 * words.size}")
    return words


def _seed_and_stream(words: Any) -> tuple[int, int]:
    seed, stream = 0, 0
    for at, word in enumerate(np.asarray(words).tolist()):
        if at < 2:
            seed = seed << 32 | word
        else:
            stream = stream << 32 | word
    return seed, stream


def _filled(
    initializer: Initializer,
    tensor: Extents,
    kind: np.dtype[Any],
    seed: int,
    name: str | int | None,
    index: Index | None = None,
    num_threads: int | None = None,
) -> Array:
    """Make a box of a tensor on the host; a large one so that JAX can take it over."""
    shape = tensor if index is None else box(tensor, index).shape
    size = math.prod(shape) * kind.itemsize
    if size < ZERO_COPY:
        return initializer(
            tensor, seed=seed, name=name, dtype=kind, index=index, num_threads=num_threads
        )
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    array = memory[start : start + size].view(kind).reshape(shape)
    return initializer.fill(
        array, seed=seed, name=name, shape=tensor, index=index, num_threads=num_threads
    )


def _placed(array: Array, key: Any) -> jax.Array:
    """Hand an array to JAX, on the devices of a key that was put there."""
    if getattr(key, "committed", False):
        device = key.sharding
        if isinstance(device, NamedSharding):
            device = NamedSharding(device.mesh, PartitionSpec())
        return jax.device_put(array, device)
    return jnp.asarray(array) if array.nbytes < ZERO_COPY else jax.device_put(array)


def _named(sharding: Any, tracing: bool) -> NamedSharding:
    """Read ``out_sharding`` as JAX does: a PartitionSpec is for the mesh that was set."""
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


def _traced(
    initializer: Initializer,
    tensor: Extents,
    kind: np.dtype[Any],
    words: Any,
    sharding: NamedSharding | None,
) -> jax.Array:
    """Call the host when the computation runs."""
    mesh = jax.sharding.get_abstract_mesh()
    if sharding is None:
        made = _called(initializer, tensor, kind, words, tensor, jnp.zeros(len(tensor), int))
        explicit = jax.sharding.AxisType.Explicit in mesh.axis_types
        return jax.sharding.reshard(made, PartitionSpec()) if explicit else made

    parts = [() if part is None else part for part in sharding.spec]
    names = [part if isinstance(part, tuple) else (part,) for part in parts]
    names += [()] * (len(tensor) - len(names))
    cuts = [math.prod(sharding.mesh.shape[name] for name in axis) for axis in names]
    if len(cuts) > len(tensor) or any(n % cut for n, cut in zip(tensor, cuts, strict=True)):
        raise ValueError(f"out_sharding must cut shape {tensor} evenly, got {sharding}")
    shape = tuple(n // cut for n, cut in zip(tensor, cuts, strict=True))

    def shard(words: Any) -> jax.Array:
        place = [jax.lax.axis_index(axis) if axis else 0 for axis in names]
        return _called(initializer, tensor, kind, words, shape, jnp.array(place, int))

    over = jax.shard_map(
        shard,
        mesh=sharding.mesh if mesh.empty else None,
        in_specs=PartitionSpec(),
        out_specs=sharding.spec,
        check_vma=False,  # what comes from the host differs from device to device
    )
    shards: jax.Array = over(words)
    return shards


def _called(
    initializer: Initializer,
    tensor: Extents,
    kind: np.dtype[Any],
    words: Any,
    shape: Extents,
    place: Any,
) -> jax.Array:
    """Have the host make one shard of a tensor, or under vmap one for every key."""

    def fill(words: Any, places: Any) -> Array:
        words, places = np.asarray(words), np.asarray(places)
        out = np.empty((*words.shape[:-1], *shape), kind)
        for at in np.ndindex(words.shape[:-1]):
            seed, stream = _seed_and_stream(words[at])
            starts = places[at] * np.array(shape, np.int64)
            index = tuple(slice(a, a + n) for a, n in zip(starts.tolist(), shape, strict=True))
            initializer.fill(out[(*at, ...)], seed=seed, name=stream, shape=tensor, index=index)
        return out

    result = jax.ShapeDtypeStruct(shape, kind)
    made: jax.Array = jax.pure_callback(fill, result, words, place, vmap_method="broadcast_all")
    return made
