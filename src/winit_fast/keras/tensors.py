"""Making tensors of Keras' backends: in place, without a copy, or shard by shard."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from winit_fast.base import dtypes
from winit_fast.base.arrays import Array, aligned
from winit_fast.base.boxes import Index
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


def distributed(tensor: Any, layout: Any) -> Any:
    return tensor if layout is None else keras.distribution.distribute_tensor(tensor, layout)


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
    layout = getattr(layout, "backend_layout", layout)  # a keras.distribution.TensorLayout has this
    if not traced and isinstance(getattr(layout, "mesh", None), jax.sharding.AbstractMesh):
        # Keras calls this inside an abstract mesh with explicit axes, where its seeds do not work.
        mesh = jax.sharding.get_mesh()
        layout = jax.sharding.NamedSharding(mesh, layout.spec)
        with jax.set_mesh(mesh):
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
        return jax.make_array_from_callback(
            draw.shape, layout, lambda box: draw(key, box).astype(dtype, copy=False)
        )
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
