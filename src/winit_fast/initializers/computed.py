"""Stored values: tables that a model's code computes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from winit_fast.base import dtypes
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.stream import Stream

MAX_SIZE = 1 << 22
"""Largest number of elements; more belong into a checkpoint (`Pretrained`)."""


@dataclass(frozen=True, repr=False, eq=False)
class Computed(Initializer, names=("computed",)):
    """Stored values: positions, frequencies, masks, counters.

    Parameters
    ----------
    values : array_like
        Of any floating-point type of docs/contract.md, complex, integer or bool; at most 2^22
        elements. The values are copied.

    Notes
    -----
    In a tensor of another floating-point type, floating-point values are rounded as `Pretrained`
    does. Other values fill only tensors of their own type. Two `Computed` objects are equal if
    their types, shapes and bits are equal.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> positions = wf.Computed(np.arange(6)[None])
    >>> positions((1, 6), dtype="int64", index=np.s_[:, 2:4])
    array([[2, 3]])
    """

    is_exact: ClassVar[bool] = True

    values: Any

    def __post_init__(self) -> None:
        try:
            values = np.array(self.values, order="C")
        except ValueError as error:  # lists of unequal lengths
            raise ValueError(f"values must be an array: {error}") from None
        if values.dtype.newbyteorder("=") not in dtypes.ALL:
            raise TypeError(f"values must be numbers of a known type, got {values.dtype}")
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if values.size > MAX_SIZE:
            raise ValueError(
                f"values must have at most {MAX_SIZE:,} elements, got shape {values.shape}"
            )
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Computed):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self.values.dtype, self.values.shape, self.values.tobytes()

    def __repr__(self) -> str:
        return f"Computed({self.values.dtype} of shape {self.values.shape})"

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape other than that of the values, and a type that cannot hold them."""
        values: Array = self.values
        if values.shape != shape:
            raise ValueError(f"values must have the tensor's shape {shape}, got {values.shape}")
        if values.dtype == dtype:
            return
        if values.dtype not in dtypes.FLOATS or dtype not in dtypes.FLOATS:
            raise TypeError(f"values must have the tensor's type {dtype}, got {values.dtype}")
        with np.errstate(over="ignore"):
            lost = np.isfinite(values) & ~np.isfinite(dtypes.converted(values, dtype))
        if lost.any():
            raise ValueError(f"values must fit {dtype}, got {float(values[lost][0])!r}")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Copy the values of the box."""
        values = self.values[(*box.slices, ...)]
        if values.dtype != out.dtype:
            values = dtypes.converted(values, out.dtype)
        box.expand(out)[...] = values

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return an initializer for the real and imaginary parts of complex values."""
        if self.values.dtype.kind != "c":
            raise TypeError(f"values must be complex for a complex tensor, got {self.values.dtype}")
        return Computed(dtypes.parts(self.values))
