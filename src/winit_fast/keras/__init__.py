"""Keras 3's initializers, on any backend, with this package's numbers.

A model moves over by one import: each class is a subclass of Keras' own of the same name, so that
arguments, defaults, checks, errors and configurations are Keras', and fans and truncation mean what
they mean there. Only where the numbers come from is new.

>>> import keras
>>> import winit_fast.keras
>>> layer = keras.layers.Dense(256, kernel_initializer=winit_fast.keras.HeNormal(seed=0))
>>> layer.build((None, 784))
>>> copy = keras.layers.Dense.from_config(layer.get_config())
>>> type(copy.kernel_initializer) is winit_fast.keras.HeNormal
True

**Seeds** mean what they mean in Keras. An int gives the same values at every call, and so to every
tensor of one shape; None is an int drawn from Python's ``random`` when the initializer is made
(`keras.utils.set_random_seed` governs it); a `keras.random.SeedGenerator` moves on at every call.
The 64 bits of the stream's key are the int's (modulo 2^64) or, of a SeedGenerator, its two words:
the seed below, the count of its draws above. So its first draw is that of its seed as an int.

**Names.** Keras does not tell an initializer which tensor it makes. All these classes take a
further argument ``name=``, and with an int seed and a name the values are those of the frozen
stream, the same as outside Keras, whatever the backend:

>>> import numpy as np
>>> import winit_fast as wf
>>> init = winit_fast.keras.GlorotUniform(seed=0, name="mlp.up")
>>> np.array_equal(init((784, 256)), wf.GlorotUniform()((784, 256), seed=0, name="mlp.up"))
True

**Layouts.** Under a distribution of the JAX backend, every device's shard is made alone, and the
whole tensor nowhere.

What this package does not have is left to Keras' own code, errors included: integer and complex
types, and parameters that make no distribution (``RandomUniform(1.0, 1.0)``). ``Zeros``, ``Ones``,
``Constant``, ``Identity`` and ``STFT``, which draw nothing, *are* those of Keras. ``XavierSimple``,
``Dirac``, ``Sparse``, ``DeltaOrthogonal``, ``Scaled`` and ``Pretrained`` are this package's, for
Keras' order of axes.
"""

try:
    from keras.initializers import STFT, Constant, Identity, Ones, Zeros
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "keras":  # Keras is there, and its backend is not
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
