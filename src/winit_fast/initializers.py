"""The catalogue of schemes: what every element of a tensor is drawn from."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np

from winit_fast import _core, distributions, dtypes
from winit_fast.fans import Axes, axes_tuple, fans
from winit_fast.fill import Array, Box, Index, Shape, box, constant, destination, fill, fit, logical_shape
from winit_fast.names import unknown
from winit_fast.stream import Seed, Stream

Out = TypeVar("Out")


class Initializer:
    """A scheme and its parameters, as a value: frozen, comparable, hashable, printable.

    A subclass is a frozen dataclass whose fields are its parameters, and overrides `_fill`. The
    class keyword ``names`` lists what `get` finds it by.

    Examples
    --------
    >>> import winit_fast as wf
    >>> wf.HeNormal()((2, 3), seed=0, name="fc.weight", dtype="bfloat16").shape
    (2, 3)
    """

    _registry: ClassVar[dict[str, type["Initializer"]]] = {}

    def __init_subclass__(cls, names: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Initializer._registry.update(dict.fromkeys(names, cls))

    def __call__(
        self,
        shape: Shape,
        *,
        seed: Seed = None,
        name: str | int | None = None,
        dtype: Any = "float32",
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Make a new array.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the logical tensor.
        seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
            From 0 to 2^64 - 1. None draws one from the operating system.
        name : str, int or None
            The tensor's name, or the number of its stream. Tensors of different names are
            independent.
        dtype : str, type or numpy.dtype
            One of float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2.
        index : tuple of slice, int or Ellipsis, optional
            The box to make, as in ``numpy.s_[1024:2048, :]``: the same bits as the same box cut
            from the whole tensor.
        num_threads : int, optional
            `get_num_threads` by default. It changes no bit.

        Returns
        -------
        numpy.ndarray
            Of the box's shape.
        """
        cut = box(logical_shape(shape), index)
        out = np.empty(cut.shape, dtypes.find(dtype).dtype)
        self._fill(out, cut, Stream(seed, name), num_threads)
        return out

    def fill(
        self,
        out: Out,
        *,
        seed: Seed = None,
        name: str | int | None = None,
        shape: Shape | None = None,
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Out:
        """Fill a buffer in place.

        Parameters
        ----------
        out : numpy.ndarray, torch.Tensor, or an object with the buffer protocol or DLPack
            On the CPU; of any strides and any alignment.
        seed, name, num_threads
            As in `__call__`.
        shape : int or tuple of int, optional
            Shape of the logical tensor; by default that of ``out``.
        index : tuple of slice, int or Ellipsis, optional
            The box of the logical tensor that ``out`` holds; by default all of it.

        Returns
        -------
        out
        """
        array = destination(out)
        if shape is None and index is not None:
            raise ValueError(f"index {index!r} needs the shape of the logical tensor: give shape=")
        cut = box(array.shape if shape is None else logical_shape(shape), index)
        fit(array, cut)
        self._fill(array, cut, Stream(seed, name), num_threads)
        return out

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill a checked, writable array of ``box.shape`` with a box of the tensor ``box.tensor``."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the parameters, as `from_config` takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an initializer from its parameters."""
        return cls(**config)

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)  # type: ignore[arg-type]
            if field.default is MISSING or getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"
