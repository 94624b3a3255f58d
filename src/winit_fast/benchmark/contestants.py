"""The contestants: winit_fast, memset as the upper limit, and the peers, which are other libraries.

Each peer draws the standard case: uniform on [0, 1), normal(0, 1), normal(0, 1) truncated at two
standard deviations, or one Haar-distributed matrix. It fills memory in place if it can, and makes a
new array otherwise (JAX, Keras, mkl_random), as it does for its users.
"""

import ctypes
import importlib
import os
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arrays import Array
from winit_fast.benchmark.race import Contestant
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.streams.stream import Stream

DISTRIBUTIONS = "uniform", "normal", "truncated_normal"

TORCH = {
    "uniform": "Tensor.uniform_",
    "normal": "Tensor.normal_",
    "truncated_normal": "nn.init.trunc_normal_",
}
"""Those that PyTorch draws, with what draws them."""

_KERAS_BACKENDS = "tensorflow", "jax", "torch"

# bytes; from this size on memset is faster with several threads, which must be woken
_SHARED = 1 << 22
_PIECE = 1 << 20  # elements that NumPy draws at one time
_LARGE = 1 << 22  # bytes from which JAX and Keras return memory to the system after the call
_REST = 0.1


def ours(distribution: str, out: Array, num_threads: int | None = None) -> Contestant:
    """Fill an array with ``Stream``, by the method of that name."""
    draw = getattr(Stream(1, "bench"), distribution)
    if num_threads is None:
        return lambda: draw(out=out)
    return lambda: draw(out=out, num_threads=num_threads)


def memory(out: Array, num_threads: int | None = None) -> Contestant:
    """Write a contiguous array with memset, the upper limit of a fill.

    Several threads write a part each, if that is faster than one thread. The byte is not zero,
    because some processors (AMD's Zen 4) write zeros two to three times as fast as other values,
    which no random numbers could reach.
    """
    num_threads = 1 if out.nbytes <= _SHARED else num_threads or threads.get_num_threads()
    address, part = out.ctypes.data, -(-out.nbytes // num_threads)
    parts = [(address + at, min(part, out.nbytes - at)) for at in range(0, out.nbytes, part)]

    def write(span: tuple[int, int], owner: Array = out) -> None:
        # The argument `owner` keeps the memory alive. ctypes releases the GIL during memset.
        ctypes.memset(span[0], 0x5A, span[1])

    return lambda: threads.run(write, parts, num_threads)


def rest(names: Iterable[str], nbytes: int) -> float:
    """Return the pause before each turn of a race, in seconds.

    JAX and Keras return the memory of large arrays to the operating system after the call. During
    that tenth of a second a fill takes 1.5 times as long.

    Examples
    --------
    >>> rest(["winit_fast", "NumPy", "JAX"], 1 << 27), rest(["winit_fast", "NumPy"], 1 << 27)
    (0.1, 0.0)
    >>> rest(["winit_fast", "JAX"], 4000)
    0.0
    """
    return _REST if nbytes >= _LARGE and not {"JAX", "Keras"}.isdisjoint(names) else 0.0


def _load(name: str) -> Any:
    """Import a peer, without the warnings that its import may issue."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _numpy(distribution: str, out: Array, num_threads: int) -> Contestant | None:
    """NumPy: one thread, float64 and float32; truncated normals by rejection.

    Truncated normals are drawn in pieces, which stay in the caches and need little extra memory.
    The narrow types are rounded from float32, as NumPy's users do.
    """
    rng = np.random.default_rng(1)
    wide = out if out.dtype in (np.float32, np.float64) else np.ones(out.shape, np.float32)
    dtype: Any = wide.dtype

    def uniform() -> None:
        rng.random(dtype=dtype, out=wide)

    def normal() -> None:
        rng.standard_normal(dtype=dtype, out=wide)

    def truncated_normal() -> None:
        for start in range(0, wide.size, _PIECE):
            piece = wide.reshape(-1)[start : start + _PIECE]
            rng.standard_normal(dtype=dtype, out=piece)
            (outside,) = np.nonzero(np.abs(piece) > 2)
            while outside.size:
                again = rng.standard_normal(outside.size, dtype=dtype)
                piece[outside] = again
                outside = outside[np.abs(again) > 2]

    draw = {
        "uniform": uniform,
        "normal": normal,
        "truncated_normal": truncated_normal,
    }[distribution]
    if wide is out:
        return draw

    def rounded() -> None:
        draw()
        out[...] = wide

    return rounded


def _in_torch_threads(call: Contestant, num_threads: int) -> Contestant:
    """Make a contestant that sets PyTorch's number of threads, and restores it after the call."""
    torch = _load("torch")

    def run() -> None:
        before = torch.get_num_threads()
        if before == num_threads:
            call()
            return
        torch.set_num_threads(num_threads)
        try:
            call()
        finally:
            torch.set_num_threads(before)

    return run


def _torch(
    distribution: str, out: Array, num_threads: int, fresh: bool = False
) -> Contestant | None:
    torch = _load("torch")
    dtype = getattr(torch, out.dtype.name, None)
    known = torch.float64, torch.float32, torch.float16, torch.bfloat16
    if dtype not in known or distribution not in TORCH:
        return None
    draw: Callable[[Any], Any] = attrgetter(TORCH[distribution])(torch)
    if fresh:
        return _in_torch_threads(lambda: draw(torch.empty(out.shape, dtype=dtype)), num_threads)
    tensor = torch.ones(out.shape, dtype=dtype)
    return _in_torch_threads(lambda: draw(tensor), num_threads)


def _jax_and_keras_can(out: Array, num_threads: int) -> bool:
    """Return whether JAX and Keras can take part: they use all processors, and no float64."""
    known = out.dtype.name in ("float32", "float16", "bfloat16")
    return known and num_threads >= threads.get_num_threads()


def _jax(distribution: str, out: Array, num_threads: int) -> Contestant | None:
    """JAX, compiled with jit."""
    if not _jax_and_keras_can(out, num_threads):
        return None
    jax = _load("jax")
    random, shape, dtype = jax.random, out.shape, out.dtype
    draws: dict[str, Callable[[Any], Any]] = {
        "uniform": lambda key: random.uniform(key, shape, dtype),
        "normal": lambda key: random.normal(key, shape, dtype),
        "truncated_normal": lambda key: random.truncated_normal(key, -2.0, 2.0, shape, dtype),
    }
    if distribution not in draws:
        return None
    draw, key = jax.jit(draws[distribution]), random.key(1)
    return lambda: draw(key).block_until_ready()


def _load_keras() -> Any:
    for backend in _KERAS_BACKENDS:
        if find_spec(backend):
            os.environ.setdefault("KERAS_BACKEND", backend)
    return _load("keras")


def _finished(array: Any) -> None:
    """Wait for an array of a library that computes asynchronously."""
    if hasattr(array, "block_until_ready"):
        array.block_until_ready()


def _keras(distribution: str, out: Array, num_threads: int) -> Contestant | None:
    if not _jax_and_keras_can(out, num_threads):
        return None
    keras, shape, dtype = _load_keras(), out.shape, out.dtype.name
    schemes = {
        "uniform": keras.initializers.RandomUniform,
        "normal": keras.initializers.RandomNormal,
        "truncated_normal": keras.initializers.TruncatedNormal,
    }
    if distribution not in schemes:
        return None
    scheme = schemes[distribution](0.0, 1.0, seed=1)
    return lambda: _finished(scheme(shape, dtype))


def _mkl_random(distribution: str, out: Array, num_threads: int) -> Contestant | None:
    """Intel's mkl_random with its fastest generator: float64, one thread, always a new array."""
    if out.dtype != np.float64 or distribution not in ("uniform", "normal"):
        return None
    mkl = _load("mkl_random")
    rng = getattr(mkl, "MKLRandomState", mkl.RandomState)(1, brng="ARS5")
    if distribution == "uniform":
        return lambda: rng.uniform(size=out.shape)
    return lambda: rng.standard_normal(out.shape, method="ICDF")


PEERS: dict[str, tuple[str, Callable[[str, Array, int], Contestant | None]]] = {
    "NumPy": ("numpy", _numpy),
    "PyTorch": ("torch", _torch),
    "JAX": ("jax", _jax),
    "Keras": ("keras", _keras),
    "mkl_random": ("mkl_random", _mkl_random),
}
"""The peers by name: the module that must be installed, and the function that makes contestants."""


def installed() -> list[str]:
    """Names of the peers that are installed.

    Examples
    --------
    >>> installed()[0]
    'NumPy'
    """
    found = [name for name, (module, _) in PEERS.items() if find_spec(module)]
    if not any(map(find_spec, _KERAS_BACKENDS)) and "Keras" in found:
        found.remove("Keras")
    return found


def peers(
    distribution: str, out: Array, num_threads: int | None = None, names: list[str] | None = None
) -> dict[str, Contestant]:
    """Make contestants of all installed peers that can fill such an array.

    Parameters
    ----------
    distribution : str
        "uniform", "normal", ... (``contestants.DISTRIBUTIONS``).
    out : numpy.ndarray
        Memory that was written to before. Peers that can fill it in place do so.
    num_threads : int, optional
        Used by the peers whose number of threads can be set. NumPy always has one.
    names : list of str, optional
        Some of `installed`; all by default.

    Returns
    -------
    dict of str to callable

    Examples
    --------
    >>> x = np.ones(100, np.float32)
    >>> peers("truncated_normal", x, names=["NumPy"])["NumPy"]()
    >>> bool(abs(x).max() <= 2)
    True
    """
    num_threads = num_threads or threads.get_num_threads()
    made = {
        name: PEERS[name][1](distribution, out, num_threads)
        for name in (installed() if names is None else names)
    }
    return {name: contestant for name, contestant in made.items() if contestant is not None}


def fresh(
    distribution: str, shape: tuple[int, ...], dtype: Any, num_threads: int | None = None
) -> dict[str, Contestant]:
    """Make contestants that allocate new memory in every call: ours, memset, NumPy and PyTorch.

    Examples
    --------
    >>> fresh("normal", (10,), np.float32)["NumPy"]()
    """
    num_threads = num_threads or threads.get_num_threads()

    def touched(make: Callable[[Array], Contestant]) -> Contestant:
        return lambda: make(np.empty(shape, dtype))()

    made: dict[str, Contestant | None] = {
        "winit_fast": touched(lambda out: ours(distribution, out, num_threads)),
        "memory": touched(lambda out: memory(out, num_threads)),
        "NumPy": touched(lambda out: peers(distribution, out, num_threads, ["NumPy"])["NumPy"]),
    }
    if "PyTorch" in installed():
        made["PyTorch"] = _torch(distribution, np.empty(shape, dtype), num_threads, fresh=True)
    return {name: contestant for name, contestant in made.items() if contestant is not None}


def orthogonal(
    out: Array, num_threads: int | None = None, names: list[str] | None = None
) -> dict[str, Contestant]:
    """Make contestants for one semi-orthogonal float32 matrix: ours and all installed peers.

    With NumPy, users factor a Gaussian matrix by QR and correct the signs; its BLAS chooses its own
    number of threads. JAX and Keras take part only if all processors may be used.
    """
    num_threads = num_threads or threads.get_num_threads()
    shape, rng = out.shape, np.random.default_rng(1)
    names = installed() if names is None else names
    if num_threads < threads.get_num_threads():
        names = [name for name in names if name not in ("JAX", "Keras")]
    tall = max(shape), min(shape)

    def numpy() -> None:
        q, r = np.linalg.qr(rng.standard_normal(tall, np.float32))
        q *= np.sign(np.diag(r))
        out[...] = q if shape[0] >= shape[1] else q.T

    scheme = Orthogonal()
    made: dict[str, Contestant] = {
        "winit_fast": lambda: scheme.fill(out, seed=1, num_threads=num_threads)
    }
    if "NumPy" in names:
        made["NumPy"] = numpy
    if "PyTorch" in names:
        torch = _load("torch")
        tensor = torch.ones(shape)
        made["PyTorch"] = _in_torch_threads(lambda: torch.nn.init.orthogonal_(tensor), num_threads)
    if "JAX" in names:
        jax = _load("jax")
        draw = jax.jit(lambda key: jax.nn.initializers.orthogonal()(key, shape))
        key = jax.random.key(1)
        made["JAX"] = lambda: draw(key).block_until_ready()
    if "Keras" in names:
        keras = _load_keras()
        theirs = keras.initializers.Orthogonal(seed=1)
        made["Keras"] = lambda: _finished(theirs(shape))
    return made
