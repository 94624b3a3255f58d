"""``jax.nn.initializers`` with this package's numbers: the same functions, arguments and meaning.

Only the import changes. The initializers work eagerly, under jit, vmap, scan, eval_shape, in Flax:

>>> import jax
>>> import winit_fast.jax as initializers
>>> w = initializers.he_normal()(jax.random.key(0), (784, 256))
>>> w.shape, w.dtype
((784, 256), dtype('float32'))

**Keys.** The words of a key determine the seed: ``[high, low]`` is the seed ``high << 32 | low``.
In a 128-bit key two more words are the stream id. So with JAX's default keys (threefry),
``jax.random.key(n)`` is the seed n:

>>> import numpy as np
>>> import winit_fast as wf
>>> same = wf.HeNormal(distribution="truncated_normal")((784, 256), seed=0)
>>> bool((np.asarray(w) == same).all())
True

Typed and raw keys are accepted, of any implementation with 32, 64 or 128 bits (rbg and unsafe_rbg
have 128). Every use of a key starts the same stream, whatever the shape or scheme. So, as in JAX,
use a key once: split it, or fold in a number.

**Tracing.** Under jit and other transformations the numbers come from a host callback
(`jax.pure_callback`), with the same bits. XLA runs the callback on one device and distributes the
result. With ``out_sharding=``, and with `from_initializer`, each device's shard is generated
separately; `sharded` makes all arrays of a model so, by name. `jax.export` refuses a computation
with a host callback. ``zeros``, ``ones`` and ``constant`` *are* JAX's functions, because XLA
computes them just as well.

**What is left to JAX.** JAX's own initializers handle complex types, the rarer float8 types and
tensors without elements; they also raise the errors for invalid arguments. Parameters must be
Python numbers, not tracers, and a negative scale or standard deviation is an error.
"""

try:
    from jax.nn.initializers import constant, ones, zeros
except ImportError as error:
    raise ImportError(
        "winit_fast.jax needs JAX, which is not installed: pip install 'winit_fast[jax]'"
    ) from error

from winit_fast.jax.arrays import from_initializer
from winit_fast.jax.initializers import (
    delta_orthogonal,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
)
from winit_fast.jax.rearranged import Rearranged
from winit_fast.jax.sharded import sharded

__all__ = [
    "Rearranged",
    "constant",
    "delta_orthogonal",
    "from_initializer",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sharded",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
