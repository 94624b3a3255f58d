"""Making tensors of Keras' backends: in place, without a copy, or each device's shard alone."""

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
"""From this size on, JAX takes a buffer over: below, it is quicker to copy it."""


class Draw(NamedTuple):
    """One tensor to be made: a scheme, the logical shape, the type and the name."""

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
    """Make a tensor of any backend."""
    tensor = keras.ops.convert_to_tensor(draw(key_of(next_state(seed))), draw.kind.name)
    return distributed(tensor, layout)


def _torch_tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Fill a tensor of PyTorch in place, or through host memory where it is not on the CPU."""
    import torch

    tensor = keras.ops.empty(draw.shape, draw.kind.name)
    if tensor.is_meta:  # shapes are being inferred: as in Keras, the seed does not move on
        return tensor
    host = tensor if tensor.device.type == "cpu" else torch.empty_like(tensor, device="cpu")
    # NumPy does not get bfloat16 and float8 from PyTorch: they travel as integers.
    carrier = {np.uint16: torch.int16, np.uint8: torch.uint8}.get(draw.kind.carrier.type)
    array = host.numpy() if carrier is None else host.view(carrier).numpy().view(draw.kind.dtype)
    draw.fill(array, key_of(next_state(seed)))
    return distributed(tensor if host is tensor else tensor.copy_(host), layout)


def _jax_tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Make an array of JAX: each shard alone, a large array without a copy, a traced one later."""
    import jax

    dtype = draw.kind.dtype
    if dtype == np.float64 and not jax.config.jax_enable_x64:
        dtype = np.dtype(np.float32)  # what JAX makes of it
    nbytes = math.prod(draw.shape) * dtype.itemsize
    # To ask costs as much as a small array, which may as well be a constant of the program.
    ask = nbytes >= LARGE_BYTES or layout is not None
    traced = ask and isinstance(keras.ops.zeros(()), jax.core.Tracer)
    layout = getattr(layout, "backend_layout", layout)  # of a keras.distribution.TensorLayout
    if not traced and isinstance(getattr(layout, "mesh", None), jax.sharding.AbstractMesh):
        # Keras calls inside an abstract mesh of explicit axes, which its own seeds are not for.
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
    host = aligned(draw.shape, dtype)  # what JAX can take over
    draw.fill(host, key)
    return jax.device_put(host, may_alias=True)


_MAKERS: dict[str, Callable[[Draw, Any, Any], Any]] = {
    "torch": _torch_tensor,
    "jax": _jax_tensor,
}


def tensor(draw: Draw, seed: Any, layout: Any) -> Any:
    """Make a tensor of the backend that Keras runs on."""
    return _MAKERS.get(keras.backend.backend(), _host_tensor)(draw, seed, layout)
