"""Keras 3's initializers, on any backend, with this package's numbers.

To use them, change the import: each class is a subclass of Keras' class of the same name, and
differs from it in nothing but the numbers that it draws. Arguments, defaults, checks, errors,
configurations, fans and truncation are those of Keras.

>>> import keras
>>> import winit_fast.keras
>>> layer = keras.layers.Dense(256, kernel_initializer=winit_fast.keras.HeNormal(seed=0))
>>> layer.build((None, 784))
>>> copy = keras.layers.Dense.from_config(layer.get_config())
>>> type(copy.kernel_initializer) is winit_fast.keras.HeNormal
True

**Seeds** have the meaning that they have in Keras. An int gives the same values at every call, so
all tensors with the same shape are equal. None draws an int from Python's ``random`` when the
initializer is constructed (`keras.utils.set_random_seed` seeds it). A
`keras.random.SeedGenerator` advances at every call. The key of the stream is the int modulo 2^64;
of a SeedGenerator, its seed is the low word of the key and its number of draws the high word. So
its first draw is equal to that of its seed as an int.

**Names.** Keras does not tell an initializer which tensor it initialises. All these classes have an
additional argument ``name=``. With an int seed and a name the values are those of the frozen
stream, the same as outside Keras, on any backend:

>>> import numpy as np
>>> import winit_fast as wf
>>> init = winit_fast.keras.GlorotUniform(seed=0, name="mlp.up")
>>> np.array_equal(init((784, 256)), wf.GlorotUniform()((784, 256), seed=0, name="mlp.up"))
True

**Layouts.** Under a `keras.distribution` on the JAX backend, or with ``layout=``, each shard is
generated separately by the process that holds it, with the bits of the whole tensor, which is never
in memory. If several processes hold it, a seed is required.

Keras' own code handles what this package does not support, and raises its errors: integer and
complex types, and parameters without a distribution (``RandomUniform(1.0, 1.0)``). ``Zeros``,
``Ones``, ``Constant``, ``Identity`` and ``STFT``, which are not random, *are* Keras' classes.
``XavierSimple``, ``Dirac``, ``Sparse``, ``DeltaOrthogonal``, ``Scaled`` and ``Pretrained`` are
initializers of this package, with Keras' order of axes.
"""

try:
    from keras.initializers import STFT, Constant, Identity, Ones, Zeros
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "keras":  # Keras is installed, but not its backend
        raise
    raise ImportError(
        "winit_fast.keras needs Keras 3, which is not installed: pip install 'winit_fast[keras]'"
    ) from error

from winit_fast.keras.additional import (
    DeltaOrthogonal,
    Dirac,
    Pretrained,
    Scaled,
    Sparse,
    XavierSimple,
)
from winit_fast.keras.initializers import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
)

__all__ = [
    "STFT",
    "Constant",
    "DeltaOrthogonal",
    "Dirac",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "Pretrained",
    "RandomNormal",
    "RandomUniform",
    "Scaled",
    "Sparse",
    "TruncatedNormal",
    "VarianceScaling",
    "XavierSimple",
    "Zeros",
]
