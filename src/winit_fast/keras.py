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

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":  # Keras is there, and its backend is not
        raise
    raise ImportError(
        "winit_fast.keras needs Keras 3, which is not installed: pip install 'winit_fast[keras]'"
    ) from error

import winit_fast.initializers as native
from winit_fast.base import dtypes
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Index, logical_shape
from winit_fast.initializers.fans import fans
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.stream import stream_id

Constant = keras.initializers.Constant
Identity = keras.initializers.Identity
Ones = keras.initializers.Ones
STFT = keras.initializers.STFT
Zeros = keras.initializers.Zeros

_registered = keras.saving.register_keras_serializable("winit_fast")

LARGE_BYTES = 1 << 20
"""From this size on, JAX takes a buffer over: below, it is quicker to copy it."""


class _Draw(NamedTuple):
    """One tensor to be made: a scheme, the logical shape, the type and the name."""

    scheme: Initializer
    shape: tuple[int, ...]
    kind: dtypes.Float
    name: str | int | None

    def fill(self, out: Array, key: int) -> None:
        self.scheme.fill(out, seed=key, name=self.name)

    def __call__(self, key: int, index: Index | None = None) -> Array:
        return self.scheme(self.shape, seed=key, name=self.name, dtype=self.kind.name, index=index)


def _next(seed: Any) -> Any:
    """Take an int as it is; move a SeedGenerator on, whose words may be a tracer's."""
    if isinstance(seed, int):
        return seed
    if not isinstance(seed, keras.random.SeedGenerator):
        raise ValueError(f"seed must be an integer or a SeedGenerator, got {seed!r}")
    return seed.next()


def _key(state: Any) -> int:
    """Make 64 bits of an int, or of a SeedGenerator's two words."""
    if isinstance(state, int):
        return state & 0xFFFF_FFFF_FFFF_FFFF
    # PyTorch's words are of int32, and may be on a device.
    words = state.tolist() if keras.backend.backend() == "torch" else np.asarray(state).tolist()
    low, high = (word & 0xFFFF_FFFF for word in words)
    return int(low | high << 32)


def _distributed(tensor: Any, layout: Any) -> Any:
    return tensor if layout is None else keras.distribution.distribute_tensor(tensor, layout)


def _host_tensor(draw: _Draw, seed: Any, layout: Any) -> Any:
    """Make a tensor of any backend."""
    tensor = keras.ops.convert_to_tensor(draw(_key(_next(seed))), draw.kind.name)
    return _distributed(tensor, layout)


def _torch_tensor(draw: _Draw, seed: Any, layout: Any) -> Any:
    """Fill a tensor of PyTorch in place, or through host memory where it is not on the CPU."""
    import torch

    tensor = keras.ops.empty(draw.shape, draw.kind.name)
    if tensor.is_meta:  # shapes are being inferred: as in Keras, the seed does not move on
        return tensor
    host = tensor if tensor.device.type == "cpu" else torch.empty_like(tensor, device="cpu")
    # NumPy does not get bfloat16 and float8 from PyTorch: they travel as integers.
    carrier = {np.uint16: torch.int16, np.uint8: torch.uint8}.get(draw.kind.carrier.type)
    array = host.numpy() if carrier is None else host.view(carrier).numpy().view(draw.kind.dtype)
    draw.fill(array, _key(_next(seed)))
    return _distributed(tensor if host is tensor else tensor.copy_(host), layout)


def _jax_tensor(draw: _Draw, seed: Any, layout: Any) -> Any:
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
            state = _next(seed)
    else:
        state = _next(seed)
    if traced or isinstance(state, jax.core.Tracer):
        array = jax.pure_callback(
            lambda *words: draw(_key(words[0] if words else state)).astype(dtype, copy=False),
            jax.ShapeDtypeStruct(draw.shape, dtype),
            *(() if isinstance(state, int) else (state,)),
            vmap_method="sequential",
        )
        return _distributed(array, layout)
    key = _key(state)
    if layout is not None:
        return jax.make_array_from_callback(
            draw.shape, layout, lambda box: draw(key, box).astype(dtype, copy=False)
        )
    if nbytes < LARGE_BYTES or dtype != draw.kind.dtype:
        return keras.ops.convert_to_tensor(draw(key), draw.kind.name)
    # JAX takes over memory that begins with a line of the cache.
    memory = np.empty(nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    host = memory[start : start + nbytes].view(dtype).reshape(draw.shape)
    draw.fill(host, key)
    return jax.device_put(host, may_alias=True)


_TENSORS: dict[str, Callable[[_Draw, Any, Any], Any]] = {
    "torch": _torch_tensor,
    "jax": _jax_tensor,
}

# A model has many layers of few shapes.
_fans = lru_cache(fans)
_variance_scaling = lru_cache(native.VarianceScaling)
_orthogonal = lru_cache(native.Orthogonal)


class _Drawn:
    """What a Keras initializer becomes when it takes its numbers from here.

    A subclass names one of Keras' classes as its second base, and overrides `_scheme`.
    """

    seed: Any = 0  # of what draws nothing
    _keras_has_it: ClassVar[bool] = True

    def __init__(self, *args: Any, name: str | int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stream_id(name)  # checks
        self.name = name

    def __call__(self, shape: Sequence[int], dtype: Any = None, layout: Any = None) -> Any:
        """Make a tensor of the backend.

        Parameters
        ----------
        shape : sequence of int
        dtype : str, optional
            `keras.config.floatx` by default.
        layout : keras.distribution.TensorLayout or the backend's own, optional
            How the tensor is spread over devices.

        Returns
        -------
        tensor
        """
        try:
            if not isinstance(shape, Iterable):
                raise TypeError(f"shape must be a sequence of integers, got {shape!r}")
            extents = logical_shape(tuple(shape))
            draw = _Draw(
                self._scheme(extents),
                extents,
                dtypes.find(keras.backend.standardize_dtype(dtype)),
                self.name,
            )
        except (TypeError, ValueError, OverflowError):  # the last of an int past float64
            if not self._keras_has_it:
                raise
            # Not for this package: Keras makes it, or says why not.
            return _distributed(super().__call__(shape, dtype), layout)  # type: ignore[misc]
        return _TENSORS.get(keras.backend.backend(), _host_tensor)(draw, self.seed, layout)

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        """Make this package's scheme for a shape; a TypeError or ValueError is left to Keras."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return {**super().get_config(), "name": self.name}  # type: ignore[misc]


@_registered
class RandomNormal(_Drawn, keras.initializers.RandomNormal):
    """N(mean, stddev^2)."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.RandomNormal(float(self.mean), float(self.stddev))


@_registered
class TruncatedNormal(_Drawn, keras.initializers.TruncatedNormal):
    """N(mean, stddev^2) cut at mean +- 2 stddev, not widened: its deviation is 0.8796 stddev."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.TruncatedNormal(float(self.mean), float(self.stddev))


@_registered
class RandomUniform(_Drawn, keras.initializers.RandomUniform):
    """U[minval, maxval), in every type."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.RandomUniform(float(self.minval), float(self.maxval))


# Keras' names of the distributions, and this package's.
_DISTRIBUTIONS = {
    "uniform": "uniform",
    "truncated_normal": "truncated_normal",  # Keras has made this of "normal", too
    "untruncated_normal": "normal",
}


@_registered
class VarianceScaling(_Drawn, keras.initializers.VarianceScaling):
    """Variance scale / max(1, fan), where "normal" and "truncated_normal" are cut at 2 deviations.

    "untruncated_normal" is the plain normal. What is cut has been widened, so that the variance is
    that asked for. A tensor of one axis has fans of its size, and a scalar of 1; with both
    ``input_axes`` and ``output_axes``, a fan is the product of these axes alone.
    """

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        # Older versions of Keras 3 have no such arguments.
        inputs, outputs = getattr(self, "input_axes", None), getattr(self, "output_axes", None)
        if inputs is not None and outputs is not None:
            fan_in, fan_out = (math.prod(shape[at] for at in axes) for axes in (inputs, outputs))
        else:
            fan_in, fan_out = _fans(shape) if shape else (1, 1)
        return _variance_scaling(
            self.scale,
            self.mode,
            _DISTRIBUTIONS[self.distribution],
            # A fan of 0 is one of a tensor without elements.
            fan_in=max(1, fan_in),
            fan_out=max(1, fan_out),
        )


@_registered
class GlorotUniform(VarianceScaling, keras.initializers.GlorotUniform):
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out))."""


@_registered
class GlorotNormal(VarianceScaling, keras.initializers.GlorotNormal):
    """Truncated normal of variance 2 / (fan_in + fan_out)."""


@_registered
class HeUniform(VarianceScaling, keras.initializers.HeUniform):
    """U(-a, a), a = sqrt(6 / fan_in)."""


@_registered
class HeNormal(VarianceScaling, keras.initializers.HeNormal):
    """Truncated normal of variance 2 / fan_in."""


@_registered
class LecunUniform(VarianceScaling, keras.initializers.LecunUniform):
    """U(-a, a), a = sqrt(3 / fan_in)."""


@_registered
class LecunNormal(VarianceScaling, keras.initializers.LecunNormal):
    """Truncated normal of variance 1 / fan_in."""


@_registered
class Orthogonal(_Drawn, keras.initializers.Orthogonal):
    """A random semi-orthogonal matrix (prod(shape[:-1]), shape[-1]), times gain: without QR."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        if len(shape) < 2:
            raise ValueError  # Keras has the words
        return _orthogonal(float(self.gain))


@_registered
class XavierSimple(VarianceScaling):
    """U(-a, a), a = 1 / sqrt(fan_in)."""

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        *,
        name: str | int | None = None,
    ) -> None:
        axes = {"input_axes": input_axes, "output_axes": output_axes}
        given = {argument: value for argument, value in axes.items() if value is not None}
        super().__init__(1 / 3, "fan_in", "uniform", seed, name=name, **given)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        fixed = ("scale", "mode", "distribution")
        return {key: value for key, value in super().get_config().items() if key not in fixed}


@_registered
class DeltaOrthogonal(Orthogonal):
    """A convolution that preserves norms: ``winit_fast.DeltaOrthogonal``."""

    _keras_has_it = False

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.DeltaOrthogonal(self.gain)


@_registered
class Sparse(RandomNormal):
    """N(0, stddev^2), ceil(sparsity * rows) of every column 0: ``winit_fast.Sparse``."""

    _keras_has_it = False

    def __init__(
        self,
        sparsity: float,
        stddev: float = 0.01,
        seed: Any = None,
        *,
        name: str | int | None = None,
    ) -> None:
        super().__init__(0.0, stddev, seed, name=name)
        self.sparsity = sparsity
        self._scheme(())  # checks

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.Sparse(self.sparsity, self.stddev)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        config = super().get_config() | {"sparsity": self.sparsity}
        del config["mean"]
        return config


@_registered
class Dirac(_Drawn, keras.initializers.Initializer):
    """A convolution that passes its inputs on: ``winit_fast.Dirac``."""

    _keras_has_it = False

    def __init__(
        self, groups: int = 1, gain: float = 1.0, *, name: str | int | None = None
    ) -> None:
        super().__init__(name=name)
        self.groups, self.gain = groups, gain
        self._scheme(())  # checks

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.Dirac(self.groups, self.gain)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return super().get_config() | {"groups": self.groups, "gain": self.gain}


# This package's schemes for Keras' classes that draw nothing.
_FIXED: dict[Any, type[Initializer]] = {
    Constant: native.Constant,
    Identity: native.Identity,
    Ones: native.Ones,
    STFT: native.STFT,
    Zeros: native.Zeros,
}


class _Wrapper(_Drawn, keras.initializers.Initializer):
    """An initializer over another one, whose seed and name it takes."""

    _keras_has_it = False

    def _wrap(self, argument: str, identifier: Any) -> Any:
        """Find a Keras initializer, as one that this package has numbers for."""
        wanted = f"{argument} must be an initializer of Keras or of this package"
        try:
            inner = keras.initializers.get(identifier)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{wanted}, got {identifier!r}: {error}") from error
        theirs = getattr(keras.initializers, type(inner).__name__, None)
        if type(inner) is theirs and theirs not in _FIXED:
            inner = globals()[theirs.__name__].from_config(inner.get_config())
        if not isinstance(inner, _Drawn) and type(inner) not in _FIXED:
            raise TypeError(f"{wanted}, got {identifier!r}")
        if isinstance(inner, _Drawn):
            self.name, self.seed = inner.name, inner.seed
        return inner

    @staticmethod
    def _inner_scheme(inner: Any, shape: tuple[int, ...]) -> Initializer:
        if isinstance(inner, _Drawn):
            return inner._scheme(shape)
        return _FIXED[type(inner)](**inner.get_config())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """Make an initializer from its arguments."""
        return cls(
            **{key: keras.saving.deserialize_keras_object(value) for key, value in config.items()}
        )


@_registered
class Scaled(_Wrapper):
    """Another initializer times a factor, which may be a formula: ``winit_fast.Scaled``.

    ``initializer`` is anything that `keras.initializers.get` takes; what Keras itself would draw,
    by a name say, is drawn here, with Keras' meaning.
    """

    def __init__(
        self,
        initializer: Any,
        factor: float | str = 1.0,
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.initializer = self._wrap("initializer", initializer)
        native.Scaled(native.Ones(), factor, numbers or {})  # checks
        self.factor, self.numbers = factor, dict(numbers or {})

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        inner = self._inner_scheme(self.initializer, shape)
        return native.Scaled(inner, self.factor, self.numbers)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return {
            "initializer": keras.saving.serialize_keras_object(self.initializer),
            "factor": self.factor,
            "numbers": self.numbers,
        }


@_registered
class Pretrained(_Wrapper):
    """Elements of an array, .npy file or safetensors tensor: ``winit_fast.Pretrained``.

    ``fallback`` is anything that `keras.initializers.get` takes.
    """

    def __init__(self, source: Any, tensor: str | None = None, fallback: Any = None) -> None:
        super().__init__()
        checked = native.Pretrained(source, tensor)
        self.source, self.tensor = checked.source, tensor
        self.fallback = None if fallback is None else self._wrap("fallback", fallback)

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        inner = None if self.fallback is None else self._inner_scheme(self.fallback, shape)
        return native.Pretrained(self.source, self.tensor, inner)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return {
            "source": keras.saving.serialize_keras_object(self.source),
            "tensor": self.tensor,
            "fallback": keras.saving.serialize_keras_object(self.fallback),
        }
