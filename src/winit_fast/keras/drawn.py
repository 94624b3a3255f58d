"""What a Keras initializer becomes when it takes its numbers from here."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import keras

from winit_fast.base import dtypes
from winit_fast.base.boxes import logical_shape
from winit_fast.initializers.protocol import Initializer
from winit_fast.keras.tensors import Draw, distributed, tensor
from winit_fast.streams.stream import stream_id

Class = TypeVar("Class", bound=type)


def public(cls: Class) -> Class:
    """Register a class under the path that users know, which Keras writes in a model's file."""
    cls.__module__ = "winit_fast.keras"
    registered: Class = keras.saving.register_keras_serializable("winit_fast")(cls)
    return registered


class Drawn:
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
            draw = Draw(
                self._scheme(extents),
                extents,
                dtypes.find(keras.backend.standardize_dtype(dtype)),
                self.name,
            )
        except (TypeError, ValueError, OverflowError):  # the last of an int past float64
            if not self._keras_has_it:
                raise
            # Not for this package: Keras makes it, or says why not.
            return distributed(super().__call__(shape, dtype), layout)  # type: ignore[misc]
        return tensor(draw, self.seed, layout)

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        """Make this package's scheme for a shape; a TypeError or ValueError is left to Keras."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as `from_config` takes them."""
        return {**super().get_config(), "name": self.name}  # type: ignore[misc]
