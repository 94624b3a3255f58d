"""Initializers that Keras does not have, as Keras classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras.initializers import STFT, Constant, Identity, Ones, Zeros

import winit_fast.initializers as native
import winit_fast.keras.initializers as keras_own
from winit_fast.initializers.protocol import Initializer
from winit_fast.keras.initializers import Orthogonal, RandomNormal, VarianceScaling
from winit_fast.keras.mixin import Drawn, public


@public
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


@public
class DeltaOrthogonal(Orthogonal):
    """A norm-preserving convolution kernel: ``winit_fast.DeltaOrthogonal``."""

    _keras_has_it = False

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.DeltaOrthogonal(self.gain)


@public
class Sparse(RandomNormal):
    """N(0, stddev^2) with ceil(sparsity * rows) zeros in each column: ``winit_fast.Sparse``."""

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
        self._scheme(())  # raises for invalid arguments

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.Sparse(self.sparsity, self.stddev)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        config = super().get_config() | {"sparsity": self.sparsity}
        del config["mean"]
        return config


@public
class Dirac(Drawn, keras.initializers.Initializer):
    """A convolution kernel that copies its input channels: ``winit_fast.Dirac``."""

    _keras_has_it = False

    def __init__(
        self, groups: int = 1, gain: float = 1.0, *, name: str | int | None = None
    ) -> None:
        super().__init__(name=name)
        self.groups, self.gain = groups, gain
        self._scheme(())  # raises for invalid arguments

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.Dirac(self.groups, self.gain)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return super().get_config() | {"groups": self.groups, "gain": self.gain}


# This package's schemes for Keras' classes that are not random.
_FIXED: dict[Any, type[Initializer]] = {
    Constant: native.Constant,
    Identity: native.Identity,
    Ones: native.Ones,
    STFT: native.STFT,
    Zeros: native.Zeros,
}


class _Wrapper(Drawn, keras.initializers.Initializer):
    """An initializer that wraps another one, and uses its seed and name."""

    _keras_has_it = False

    def _wrap(self, argument: str, identifier: Any) -> Any:
        """Find a Keras initializer, and convert it to the class of this package."""
        wanted = f"{argument} must be an initializer of Keras or of this package"
        try:
            inner = keras.initializers.get(identifier)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{wanted}, got {identifier!r}: {error}") from error
        theirs = getattr(keras.initializers, type(inner).__name__, None)
        if type(inner) is theirs and theirs not in _FIXED:
            inner = getattr(keras_own, theirs.__name__).from_config(inner.get_config())
        if not isinstance(inner, Drawn) and type(inner) not in _FIXED:
            raise TypeError(f"{wanted}, got {identifier!r}")
        if isinstance(inner, Drawn):
            self.name, self.seed = inner.name, inner.seed
        return inner

    @staticmethod
    def _inner_scheme(inner: Any, shape: tuple[int, ...]) -> Initializer:
        if isinstance(inner, Drawn):
            return inner._scheme(shape)
        return _FIXED[type(inner)](**inner.get_config())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """Make an initializer from its arguments."""
        return cls(
            **{key: keras.saving.deserialize_keras_object(value) for key, value in config.items()}
        )


@public
class Scaled(_Wrapper):
    """Another initializer times a factor, which may be a formula: ``winit_fast.Scaled``.

    ``initializer`` is anything that `keras.initializers.get` accepts. A Keras initializer, also one
    given by its name, is converted to the class of this package.
    """

    def __init__(
        self,
        initializer: Any,
        factor: float | str = 1.0,
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.initializer = self._wrap("initializer", initializer)
        native.Scaled(native.Ones(), factor, numbers or {})  # raises for invalid arguments
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


@public
class Pretrained(_Wrapper):
    """Elements of an array, .npy file or safetensors tensor: ``winit_fast.Pretrained``.

    ``fallback`` is anything that `keras.initializers.get` accepts.
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
