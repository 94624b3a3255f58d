"""Schemes without random numbers: constants and the identity."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from winit_fast.base.arguments import finite, real
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.fill import constant, rounded
from winit_fast.streams.stream import Stream


@dataclass(frozen=True, repr=False)
class Constant(Initializer, names=("constant",)):
    """Every element is the same number.

    Do not use a constant for a weight matrix: the units of the layer would have equal gradients and
    so remain equal. Constants are for biases, for gains, and for tensors that multiply random ones.

    Parameters
    ----------
    value : float
        Must be representable in the destination's dtype after rounding; infinities and NaN are
        allowed.

    Examples
    --------
    >>> Constant(0.5)((2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    is_exact: ClassVar[bool] = True

    value: float = 0.0

    def __post_init__(self) -> None:
        self._parse(real, "value")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a dtype whose range the value exceeds."""
        rounded(self.value, dtype)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Set every element."""
        constant(self.value, out, box, num_threads)

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return a scheme with the value as real part and 0 as imaginary part."""
        return _RealParts(self.value)

    def scaled(self, factor: float) -> Initializer:
        return Constant(factor * self.value)


@dataclass(frozen=True, repr=False)
class _RealParts(Initializer):
    """The real and imaginary parts of a complex tensor that holds one real number."""

    value: float

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        rounded(self.value, dtype)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        constant(0.0, out, box, num_threads)
        out[..., 0] = self.value


@dataclass(frozen=True, repr=False)
class Zeros(Initializer, names=("zeros", "zero")):
    """Every element is 0: for biases, and for the last layer of a residual branch.

    Examples
    --------
    >>> Zeros()(3)
    array([0., 0., 0.], dtype=float32)
    """

    is_exact: ClassVar[bool] = True

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Set every element to 0."""
        constant(0.0, out, box, num_threads)

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return zeros for both parts."""
        return self

    def scaled(self, factor: float) -> Initializer:
        """Return this scheme: zeros remain zeros."""
        return self


@dataclass(frozen=True, repr=False)
class Ones(Initializer, names=("ones", "one")):
    """Every element is 1: for the gains of normalisation layers.

    Examples
    --------
    >>> Ones()(3)
    array([1., 1., 1.], dtype=float32)
    """

    is_exact: ClassVar[bool] = True

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Set every element to 1."""
        constant(1.0, out, box, num_threads)

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return a scheme with 1 as real part and 0 as imaginary part."""
        return _RealParts(1.0)

    def scaled(self, factor: float) -> Initializer:
        return Constant(factor)


@dataclass(frozen=True, repr=False)
class Identity(Initializer, names=("identity", "eye", "identity_initializer")):
    """A matrix with ``gain`` on its diagonal and 0 elsewhere; it need not be square.

    Parameters
    ----------
    gain : float

    References
    ----------
    Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear
    units", 2015.

    Examples
    --------
    >>> Identity(2.0)((2, 3))
    array([[2., 0., 0.],
           [0., 2., 0.]], dtype=float32)
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        self._parse(finite, "gain")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape that is not a matrix's, and a dtype whose range the gain exceeds."""
        if len(shape) != 2:
            raise ValueError(f"Identity is for matrices, got shape {shape}")
        rounded(self.gain, dtype, "gain")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Set every element to 0, and then the diagonal to the gain."""
        gain = rounded(self.gain, out.dtype, "gain")
        constant(0.0, out, box, num_threads)
        # Positions p for which the element (p, p) of the tensor is in the box.
        (row, column), (rows, columns) = box.starts, box.sizes
        diagonal = np.arange(max(row, column), min(row + rows, column + columns))
        box.expand(out)[diagonal - row, diagonal - column] = gain

    def scaled(self, factor: float) -> Initializer:
        return replace(self, gain=factor * self.gain)
