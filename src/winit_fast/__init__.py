"""Initial weights of neural networks, with the same bits in any shard and on any machine.

>>> import numpy as np
>>> import winit_fast as wf
>>> w = wf.HeNormal()((4096, 1024), seed=0, name="mlp.up", dtype="bfloat16")
>>> rows = np.empty((8, 1024), w.dtype)  # a shard: the same bits
>>> _ = wf.HeNormal().fill(rows, seed=0, name="mlp.up", shape=w.shape, index=np.s_[8:16, :])
>>> bool((rows == w[8:16]).all())
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

import ml_dtypes  # noqa: F401  # from now on NumPy knows "bfloat16" and other types by name

import winit_fast._core as _core  # noqa: F401  # a wrong WINIT_FAST_ISA is an error at once
from winit_fast.base.frameworks import FRAMEWORKS
from winit_fast.base.threads import get_num_threads, set_num_threads
from winit_fast.base.version import __version__ as __version__

if TYPE_CHECKING:  # importing these takes time: __getattr__ does it when one is first used
    import winit_fast.initializers as initializers
    from winit_fast.initializers import *  # noqa: F403
    from winit_fast.models.plan import Plan
    from winit_fast.streams.bit_generator import Philox4x32
    from winit_fast.streams.stream import Stream

    __all__ = ["Philox4x32", "Plan", "Stream", "get_num_threads", "set_num_threads"]
    __all__ += initializers.__all__


def __getattr__(name: str) -> object:
    """Import what is slow to import at its first use."""
    if name in FRAMEWORKS or name in ("advice", "checkpoint", "diagnosis", "dynamic", "models"):
        return import_module(f"winit_fast.{name}")
    if name == "Philox4x32":  # this imports numpy.random
        from winit_fast.streams.bit_generator import Philox4x32

        return Philox4x32
    if name == "Plan":
        return import_module("winit_fast.models.plan").Plan
    if name == "random":  # dask.array.random looks for this module next to a bit generator's class
        raise AttributeError(
            "winit_fast has no module random. Dask's Generator cannot draw from a Philox4x32, as "
            "it would lose the stream: give it NumPy's own, or see winit_fast.dask.from_initializer"
        )
    # "from winit_fast import *" asks for __all__
    if name == "__all__" or not name.startswith("_"):
        _import_schemes()
        if name in globals():
            found: object = globals()[name]
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    _import_schemes()
    return sorted({*globals(), *__all__})


def _import_schemes() -> None:
    """Make `Stream`, all schemes and `__all__` attributes of this module.

    All at once, since `get` looks a name up among all schemes.
    """
    import winit_fast.initializers as initializers
    from winit_fast.streams.stream import Stream

    names = ["Philox4x32", "Plan", "Stream", "get_num_threads", "set_num_threads"]
    schemes = {name: getattr(initializers, name) for name in initializers.__all__}
    globals().update(schemes, Stream=Stream, __all__=[*names, *schemes])
