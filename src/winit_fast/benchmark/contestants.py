"""Who races: ourselves, memory as the limit, and the packages that people initialise with today.

Each peer is asked for the standard case: uniform on [0, 1), normal(0, 1), normal(0, 1) truncated at
two deviations, one Haar matrix. It fills memory in place where it can, and makes a new array where
it cannot (JAX, Keras, mkl_random), since that is what its users get.
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

_SHARED = 1 << 22  # bytes from which memset gains by a second thread, whose waking takes its time
_PIECE = 1 << 20  # elements that NumPy draws and mends at a time
_LARGE = 1 << 22  # bytes from which JAX and Keras leave memory to give back
_REST = 0.1


def ours(distribution: str, out: Array, num_threads: int | None = None) -> Contestant:
    """Fill an array with ``Stream``, by the method of that name."""
    draw = getattr(Stream(1, "bench"), distribution)
    if num_threads is None:
        return lambda: draw(out=out)
    return lambda: draw(out=out, num_threads=num_threads)


def memory(out: Array, num_threads: int | None = None) -> Contestant:
    """Write all of a contiguous array with memset: the limit of a fill.

    Each thread writes its own part, where that is faster than one thread. The byte is not zero,
    since some processors write zeros at two to three times the speed of anything else (AMD's Zen 4
    does), which no numbers can take.
    """
    num_threads = 1 if out.nbytes <= _SHARED else num_threads or threads.get_num_threads()
    address, part = out.ctypes.data, -(-out.nbytes // num_threads)
    parts = [(address + at, min(part, out.nbytes - at)) for at in range(0, out.nbytes, part)]

    def write(span: tuple[int, int], owner: Array = out) -> None:
        # The owner keeps the memory alive. memset lets go of the interpreter's lock.
        ctypes.memset(span[0], 0x5A, span[1])

    return lambda: threads.run(write, parts, num_threads)


def rest(names: Iterable[str], nbytes: int) -> float:
    """Tell how long to pause before each turn of a race, in seconds.

    Large arrays of JAX and Keras go back to the system after the call, and for a tenth of a second
    a fill takes half as long again.

    Examples
    --------
    >>> rest(["winit_fast", "NumPy", "JAX"], 1 << 27), rest(["winit_fast", "NumPy"], 1 << 27)
    (0.1, 0.0)
    >>> rest(["winit_fast", "JAX"], 4000)
    0.0
    """
    return _REST if nbytes >= _LARGE and not {"JAX", "Keras"}.isdisjoint(names) else 0.0


def _load(name: str) -> Any:
    """Import a peer; what it has to say about that is its own business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _numpy(distribution: str, out: Array, num_threads: int) -> Contestant | None:
    """NumPy has one thread, float64 and float32, and no truncated normal: redraw what is outside.

    That goes in pieces, which stay in the caches and need little memory beside the array. The
    narrow types are rounded from float32, as NumPy's users do.
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
    """Call with so many of PyTorch's threads; whoever comes after finds as many as before."""
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
    """JAX and Keras have no float64 by default, and use all processors, whatever is asked for."""
    known = out.dtype.name in ("float32", "float16", "bfloat16")
    return known and num_threads >= threads.get_num_threads()


def _jax(distribution: str, out: Array, num_threads: int) -> Contestant | None:
    """Compiled."""
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
    """Wait for an array of a library that computes behind the caller's back."""
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
    """Intel's, with its fastest generator: float64 only, one thread, a new array each time."""
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
"""By name: the module that must be installed, and the contestant."""


def installed() -> list[str]:
    """Names of the peers that can be imported here.

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
    """All peers that are installed and can fill such an array.

    Parameters
    ----------
    distribution : str
        "uniform", "normal", ... (``contestants.DISTRIBUTIONS``).
    out : numpy.ndarray
        Warm. Those who can fill it in place.
    num_threads : int, optional
        Those that can be told so use as many. NumPy always has one.
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
    """Ourselves, memory, NumPy and PyTorch, into memory that every call gets anew and gives back.

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
    """Ourselves and all peers that are installed, making one semi-orthogonal float32 matrix.

    NumPy's users take the QR factors of a Gaussian matrix and mend the signs; its BLAS has as many
    threads as it will. JAX and Keras take part where all processors may.
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
