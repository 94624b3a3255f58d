"""Making arrays of JAX on the host: without a copy, on one device or each shard alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from winit_fast.base.arrays import Array, aligned
from winit_fast.base.boxes import Index, Shape, box, logical_shape
from winit_fast.base.dtypes import find
from winit_fast.initializers.protocol import Initializer, get
from winit_fast.streams.stream import Seed, seed_number

Extents = tuple[int, ...]

ZERO_COPY = 1 << 16
"""Bytes from which taking an array over is cheaper than copying it."""


def from_initializer(
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
        A floating-point type of docs/contract.md; by default JAX's own.
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
    >>> w = from_initializer("he_normal", (64, 128), sharding, seed=0, name="mlp.up")
    >>> bool((np.asarray(w) == wf.HeNormal()((64, 128), seed=0, name="mlp.up")).all())
    True
    """
    if seed is None and jax.process_count() > 1:
        raise ValueError("seed must be given where there are several processes, got None")
    tensor = logical_shape(shape)
    wanted = jax.dtypes.canonicalize_dtype(np.float64) if dtype is None else dtype
    kind = canonical(find(wanted).dtype)
    found, key = get(initializer), seed_number(seed)
    # What is refused is refused by every process, with and without a shard: this makes no elements.
    nothing = (slice(0, 0),) * len(tensor)
    found(tensor, seed=key, name=name, dtype=kind, index=nothing, num_threads=num_threads)

    def shard(index: Index) -> Array:
        return on_host(found, tensor, kind, key, name, index, num_threads)

    return jax.make_array_from_callback(tensor, sharding, shard, kind)


def canonical(kind: np.dtype[Any]) -> np.dtype[Any]:
    """Make float64 float32 where JAX does, with its warning."""
    if kind != np.float64 or jax.dtypes.canonicalize_dtype(kind) == kind:
        return kind
    truncated: np.dtype[Any] = jnp.zeros((), kind).dtype
    return truncated


def on_host(
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
    if math.prod(shape) * kind.itemsize < ZERO_COPY:
        return initializer(
            tensor, seed=seed, name=name, dtype=kind, index=index, num_threads=num_threads
        )
    # JAX takes over what begins with a line of the cache, on the CPU.
    out = aligned(shape, kind)
    return initializer.fill(
        out, seed=seed, name=name, shape=tensor, index=index, num_threads=num_threads
    )


def placed(array: Array, key: Any) -> jax.Array:
    """Hand an array to JAX, on the devices of a key that was put there."""
    if getattr(key, "committed", False):
        device = key.sharding
        if isinstance(device, NamedSharding):
            device = NamedSharding(device.mesh, PartitionSpec())
        return jax.device_put(array, device)
    return jnp.asarray(array) if array.nbytes < ZERO_COPY else jax.device_put(array)
