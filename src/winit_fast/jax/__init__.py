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
with `from_initializer`, every device's shard is made alone. A computation that calls the host
cannot be written to a file: `jax.export` refuses it. What XLA can do as well itself, it does:
``zeros``, ``ones`` and ``constant`` *are* JAX's.

**What is JAX's own.** Complex types, the rarer float8 types and tensors without elements are left
to JAX, and so is every mistake: the error is JAX's. Parameters are Python numbers, not traced ones,
and a negative scale or deviation is refused.
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

__all__ = [
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
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
