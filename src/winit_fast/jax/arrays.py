"""Making JAX arrays on the host, without a copy, for one device or shard by shard."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from winit_fast.base.arrays import Array, aligned, empty
from winit_fast.base.boxes import Box, Index, Shape, box, logical_shape
from winit_fast.base.dtypes import find
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import get
from winit_fast.streams.identity import Seed, seed_number

Extents = tuple[int, ...]

ZERO_COPY = 1 << 16
"""From this many bytes on, letting JAX use an array's memory is faster than copying it."""


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
    """Make an array that is sharded over devices, shard by shard and never as a whole.

    The values are those of ``initializer(shape, seed=seed, name=name)``, whatever the sharding.
    Each process generates only the shards of its own devices. (The shards of an orthogonal matrix
    may agree with the whole only to rounding: see `winit_fast.Orthogonal`.)

    Parameters
    ----------
    initializer : Initializer or str
        An initializer, or its name: see `winit_fast.get`.
    shape : int or tuple of int
        Shape of the whole array.
    sharding : jax.sharding.Sharding
    dtype : numpy.dtype or similar, optional
        A floating-point type of docs/contract.md; by default JAX's default type.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        Must be the same in all processes. None is allowed only with a single process.
    name : str, int or None
        The tensor's name, or its stream id.
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
    # Filling an empty box checks the arguments in every process, also in those without a shard.
    nothing = (slice(0, 0),) * len(tensor)
    found(tensor, seed=key, name=name, dtype=kind, index=nothing, num_threads=num_threads)

    def fill(out: Array, cut: Box) -> None:
        found.fill(
            out, seed=key, name=name, shape=tensor, index=cut.slices, num_threads=num_threads
        )

    return from_boxes(tensor, sharding, kind, fill)


def from_boxes(
    shape: Extents,
    sharding: jax.sharding.Sharding,
    kind: np.dtype[Any],
    fill: Callable[[Array, Box], None],
) -> jax.Array:
    """Make an array from the boxes that this process holds; replicas of one share its memory.

    Parameters
    ----------
    shape : tuple of int
        The logical shape.
    sharding : jax.sharding.Sharding
    kind : numpy.dtype
    fill : callable
        Fills an array with a box of the tensor.
    """
    made: dict[Box, Array] = {}

    def shard(index: Index) -> Array:
        cut = box(shape, index)
        if cut not in made:
            made[cut] = out = for_device(cut.shape, kind)
            fill(out, cut)
        return made[cut]

    return jax.make_array_from_callback(shape, sharding, shard, kind)


def canonical(kind: np.dtype[Any]) -> np.dtype[Any]:
    """Convert float64 to float32 unless JAX has 64-bit types enabled, with JAX's warning."""
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
) -> Array:
    """Make a tensor on the host; JAX can use the memory of a large one without a copy."""
    if math.prod(tensor) * kind.itemsize < ZERO_COPY:
        return initializer(tensor, seed=seed, name=name, dtype=kind)
    return initializer.fill(aligned(tensor, kind), seed=seed, name=name)


def for_device(shape: Extents, kind: np.dtype[Any]) -> Array:
    """Allocate an array for JAX; on the CPU it uses the memory of an aligned one without a copy."""
    if math.prod(shape) * kind.itemsize < ZERO_COPY:
        return empty(shape, kind)
    return aligned(shape, kind)


def placed(array: Array, key: Any) -> jax.Array:
    """Convert to a JAX array, on the key's devices if the key is committed to them."""
    if getattr(key, "committed", False):
        device = key.sharding
        if isinstance(device, NamedSharding):
            device = NamedSharding(device.mesh, PartitionSpec())
        return jax.device_put(array, device)
    return jnp.asarray(array) if array.nbytes < ZERO_COPY else jax.device_put(array)
