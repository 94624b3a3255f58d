"""The mixin with which a Keras initializer takes its numbers from this package."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import keras

from winit_fast.base import dtypes
from winit_fast.base.boxes import logical_shape
from winit_fast.initializers.protocol import Initializer
from winit_fast.keras.tensors import Draw, distributed, refuse_own_seed, sharding_of, tensor
from winit_fast.streams.identity import stream_id

Class = TypeVar("Class", bound=type)


def public(cls: Class) -> Class:
    """Register a class under its public path, which Keras writes to a model's file."""
    cls.__module__ = "winit_fast.keras"
    registered: Class = keras.saving.register_keras_serializable("winit_fast")(cls)
    return registered


class Drawn:
    """Mixin with which a Keras initializer takes its numbers from this package.

    A subclass has a Keras class as its second base, and overrides `_scheme`.
    """

    seed: Any = 0  # for subclasses that are not random
    _keras_has_it: ClassVar[bool] = True

    def __init__(self, *args: Any, name: str | int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stream_id(name)  # raises for invalid arguments
        self.name = name

    def __call__(self, shape: Sequence[int], dtype: Any = None, layout: Any = None) -> Any:
        """Make a tensor of the backend.

        Parameters
        ----------
        shape : sequence of int
        dtype : str, optional
            `keras.config.floatx` by default.
        layout : keras.distribution.TensorLayout or jax.sharding.Sharding, optional
            How the tensor is sharded over devices; each shard is generated separately.

        Returns
        -------
        tensor
        """
        sharding = None
        if layout is not None:
            sharding = sharding_of(layout, logical_shape(shape))
            if self._drew_its_seed():
                refuse_own_seed(sharding)
        try:
            if not isinstance(shape, Iterable):
                raise TypeError(f"shape must be a sequence of integers, got {shape!r}")
            extents = logical_shape(tuple(shape))
            draw = Draw(
                self._scheme(extents),
                extents,
                dtypes.find(keras.backend.standardize_dtype(dtype)),
                self.name,
            )
        except (TypeError, ValueError, OverflowError):  # OverflowError: a huge int
            if not self._keras_has_it:
                raise
            # Not supported by this package: Keras makes the tensor, or raises an error.
            return distributed(super().__call__(shape, dtype), sharding)  # type: ignore[misc]
        return tensor(draw, self.seed, sharding)

    def _drew_its_seed(self) -> bool:
        """Whether no seed was given, so that Keras has drawn one."""
        seed = super().get_config().get("seed", 0)  # type: ignore[misc]
        if isinstance(seed, Mapping):  # a SeedGenerator
            seed = seed["config"]["seed"]
        return seed is None

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        """Make this package's scheme for a shape; on TypeError or ValueError, Keras is used."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return {**super().get_config(), "name": self.name}  # type: ignore[misc]
