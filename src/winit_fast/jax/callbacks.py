"""Making arrays inside JAX transformations, with a callback to the host at run time."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # JAX < 0.10
    from jax.core import get_opaque_trace_state

from winit_fast.base.arrays import Array
from winit_fast.initializers.protocol import Initializer
from winit_fast.jax.keys import seed_and_stream

Extents = tuple[int, ...]

_trace = partial(get_opaque_trace_state, convention="nnx")  # the only value that JAX accepts

with jax.ensure_compile_time_eval():
    _EAGER = _trace()


def traced(words: Any) -> bool:
    """Return whether JAX is tracing, so that an array made now is part of a later computation."""
    return isinstance(words, jax.core.Tracer) or _trace() != _EAGER


def made_later(
    initializer: Initializer,
    tensor: Extents,
    kind: np.dtype[Any],
    words: Any,
    sharding: NamedSharding | None,
) -> jax.Array:
    """Add a host callback to the computation, which makes the array shard by shard at run time."""
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
        check_vma=False,  # each device gets its own values from the host
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
    """Make one shard of a tensor on the host; under vmap, one for every key."""

    def fill(words: Any, places: Any) -> Array:
        words, places = np.asarray(words), np.asarray(places)
        out = np.empty((*words.shape[:-1], *shape), kind)
        for at in np.ndindex(words.shape[:-1]):
            seed, stream = seed_and_stream(words[at])
            starts = places[at] * np.array(shape, np.int64)
            index = tuple(slice(a, a + n) for a, n in zip(starts.tolist(), shape, strict=True))
            initializer.fill(out[(*at, ...)], seed=seed, name=stream, shape=tensor, index=index)
        return out

    result = jax.ShapeDtypeStruct(shape, kind)
    made: jax.Array = jax.pure_callback(fill, result, words, place, vmap_method="broadcast_all")
    return made
