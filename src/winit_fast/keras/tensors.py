"""Making tensors of Keras' backends: in place, without a copy, or shard by shard."""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from winit_fast.base import dtypes
from winit_fast.base.arrays import Array, aligned
from winit_fast.base.boxes import Box, Index, box
from winit_fast.initializers.protocol import Initializer
from winit_fast.keras.seeds import key_of, next_state

LARGE_BYTES = 1 << 20
"""From this size on, JAX uses an array's memory without a copy; copying a smaller one is faster."""


class Draw(NamedTuple):
    """A tensor to make: its scheme, logical shape, dtype and name."""

    scheme: Initializer
    shape: tuple[int, ...]
    kind: dtypes.Float
    name: str | int | None

    def fill(self, out: Array, key: int) -> None:
        self.scheme.fill(out, seed=key, name=self.name)

    def __call__(self, key: int, index: Index | None = None) -> Array:
        return self.scheme(self.shape, seed=key, name=self.name, dtype=self.kind.name, index=index)


def sharding_of(layout: Any, shape: tuple[int, ...]) -> Any:
    """Convert a ``layout`` to a sharding over devices, or None.

    Parameters
    ----------
    layout : keras.distribution.TensorLayout, jax.sharding.Sharding or None
        Keras calls an initializer inside a mesh with explicit axes, and the layout's mesh is then
        abstract.
    shape : tuple of int

    Returns
    -------
    jax.sharding.Sharding or None

    Raises
    ------
    TypeError, ValueError
        If the layout is none of these, cannot divide the shape, or Keras shards nothing with
        this backend.
    """
    if layout is None:
        return None
    if keras.backend.backend() == "tensorflow":
        return layout  # Keras' own code reads it
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"layout must be None with the backend {keras.backend.backend()!r}, which has no "
            f"layouts, got {layout!r}"
        )
    import jax

    try:
        found = getattr(layout, "backend_layout", layout)
    except ValueError as error:  # a TensorLayout without a mesh
        raise ValueError(f"layout must have a device_mesh, got {layout!r}: {error}") from None
    if not isinstance(found, jax.sharding.Sharding):
        raise TypeError(
            "layout must be a keras.distribution.TensorLayout, a jax.sharding.Sharding or None, "
            f"got {layout!r}"
        )
    if isinstance(getattr(found, "mesh", None), jax.sharding.AbstractMesh):
        mesh = jax.sharding.get_mesh()
        if mesh.empty:
            raise ValueError(
                f"layout must have a mesh of devices where none is set, got {layout!r}"
            )
        found = jax.sharding.NamedSharding(mesh, found.spec)
    if len(getattr(found, "spec", ())) > len(shape):
        raise ValueError(f"layout has more axes than shape {shape}, got {layout!r}")
    try:
        found.shard_shape(shape)
    except ValueError as error:  # an axis that is not divided evenly
        raise ValueError(f"layout does not divide shape {shape}: {error}") from None
    return found


def distributed(tensor: Any, sharding: Any) -> Any:
    return tensor if sharding is None else keras.distribution.distribute_tensor(tensor, sharding)


def refuse_own_seed(sharding: Any) -> None:
    """Refuse an initializer without a seed where each of several processes would draw its own."""
    if sharding is None or keras.backend.backend() != "jax" or sharding.is_fully_addressable:
        return
    if sys.modules[keras.utils.set_random_seed.__module__].get_random_seed() is None:
        raise ValueError(
            "seed must be given where several processes hold a tensor, got None: give an int, or "
            "call keras.utils.set_random_seed in all processes, as keras.distribution.initialize "
            "does"
        )


def _host_tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Make a NumPy array and convert it to a tensor of any backend."""
    tensor = keras.ops.convert_to_tensor(draw(key_of(next_state(seed))), draw.kind.name)
    return distributed(tensor, layout)


def _torch_tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Fill a PyTorch tensor in place, or through host memory if it is not on the CPU."""
    import torch

    tensor = keras.ops.empty(draw.shape, draw.kind.name)
    if tensor.is_meta:  # shape inference: as in Keras, the SeedGenerator does not advance
        return tensor
    host = tensor if tensor.device.type == "cpu" else torch.empty_like(tensor, device="cpu")
    # PyTorch cannot give NumPy bfloat16 and float8 tensors, so they are viewed as integers.
    carrier = {np.uint16: torch.int16, np.uint8: torch.uint8}.get(draw.kind.carrier.type)
    array = host.numpy() if carrier is None else host.view(carrier).numpy().view(draw.kind.dtype)
    draw.fill(array, key_of(next_state(seed)))
    return distributed(tensor if host is tensor else tensor.copy_(host), layout)


def _jax_tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Make a JAX array: shard by shard, a large one without a copy, a traced one by callback."""
    import jax

    dtype = draw.kind.dtype
    if dtype == np.float64 and not jax.config.jax_enable_x64:
        dtype = np.dtype(np.float32)  # JAX would make float32 of it
    nbytes = math.prod(draw.shape) * dtype.itemsize
    # Asking JAX whether it is tracing takes as long as making a small array. So it is not asked for
    # small ones, which become constants if the program is traced.
    ask = nbytes >= LARGE_BYTES or layout is not None
    traced = ask and isinstance(keras.ops.zeros(()), jax.core.Tracer)
    if not traced and not jax.sharding.get_abstract_mesh().empty:
        # Keras calls this inside an abstract mesh with explicit axes, where its seeds do not work.
        with jax.set_mesh(jax.sharding.get_mesh()):
            state = next_state(seed)
    else:
        state = next_state(seed)
    if traced or isinstance(state, jax.core.Tracer):
        array = jax.pure_callback(
            lambda *words: draw(key_of(words[0] if words else state)).astype(dtype, copy=False),
            jax.ShapeDtypeStruct(draw.shape, dtype),
            *(() if isinstance(state, int) else (state,)),
            vmap_method="sequential",
        )
        return distributed(array, layout)
    key = key_of(state)
    if layout is not None:
        made: dict[Box, Array] = {}  # replicas of a shard are made once

        def shard(index: Index) -> Array:
            cut = box(draw.shape, index)
            if cut not in made:
                made[cut] = draw(key, cut.slices).astype(dtype, copy=False)
            return made[cut]

        return jax.make_array_from_callback(draw.shape, layout, shard)
    if nbytes < LARGE_BYTES or dtype != draw.kind.dtype:
        return keras.ops.convert_to_tensor(draw(key), draw.kind.name)
    host = aligned(draw.shape, dtype)  # so that JAX need not copy it
    draw.fill(host, key)
    return jax.device_put(host, may_alias=True)


_MAKERS: dict[str, Callable[[Draw, Any, Any], Any]] = {
    "torch": _torch_tensor,
    "jax": _jax_tensor,
}


def tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Make a tensor of the current Keras backend."""
    return _MAKERS.get(keras.backend.backend(), _host_tensor)(draw, seed, layout)
