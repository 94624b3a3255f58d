"""Streams: a seed and a name determine every number of one logical tensor."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import winit_fast._core as _core
from winit_fast.base import threads
from winit_fast.base.arguments import word
from winit_fast.base.arrays import empty
from winit_fast.base.boxes import MAX_SIZE, Index, Shape, box, logical_shape
from winit_fast.base.dtypes import FLOATS, find
from winit_fast.streams import distributions
from winit_fast.streams.buffers import destination, written
from winit_fast.streams.fill import MIN_PIECE, fill
from winit_fast.streams.identity import Seed, seed_number, stream_id

__all__ = ["Seed", "Stream", "seed_number", "stream_id"]

_WORDS: dict[np.dtype[Any], int] = {np.dtype(np.uint32): 32, np.dtype(np.uint64): 64}

Make = Callable[..., _core.Distribution]


def _settled(parameter: Any) -> Any:
    """Convert a parameter to a number once, before the buffer is read: this may run user code.

    A value that is not a number is returned unchanged; a later error names its argument.
    """
    if type(parameter) is float or type(parameter) is int:
        return parameter
    try:
        return parameter if isinstance(parameter, (str, bytes)) else float(parameter)
    except (TypeError, ValueError, OverflowError):
        return parameter


# A dictionary, because finding a distribution in it takes half as long as with lru_cache; and the
# type that carries arrays to Cython, which a small fill then need not look up.
_made: dict[
    tuple[Make, np.dtype[Any], tuple[float, ...]], tuple[_core.Distribution, np.dtype[Any]]
] = {}
_MOST_MADE = 128


def _distribution(
    make: Make, dtype: np.dtype[Any], parameters: tuple[float, ...]
) -> _core.Distribution:
    """Return a cached distribution: computing the kernel's constants would dominate small calls."""
    key = make, dtype, parameters
    try:
        found = _made.get(key)
    except TypeError:  # not hashable, so not a number: `make` raises an error that names it
        return make(dtype, *parameters)
    if found is None:
        found = make(dtype, *parameters), FLOATS[dtype].carrier
        if len(_made) >= _MOST_MADE:
            _made.clear()
        _made[key] = found
    return found[0]


@dataclass(frozen=True, slots=True)
class Stream:
    """The numbers of one logical tensor: element ``i`` is a function of seed, name and ``i``.

    A stream has no state: the same call gives the same numbers. Streams with different names are
    independent.

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        See `winit_fast.streams.stream.seed_number`.
    name : str, int or None
        The tensor's name, or its stream id.

    Attributes
    ----------
    seed : int
        The 64-bit key, also if it was drawn at random.
    name : str, int or None
    id : int
        The stream id: see `winit_fast.streams.stream.stream_id`.

    Notes
    -----
    The generator is Philox4x32-10 [1]_. Its key is the seed; its counter holds the stream id and
    the index of the block. In all methods, ``shape`` is that of the logical tensor, and ``index``
    (slices and integers, as in ``numpy.s_[1024:2048, :]``) selects the box to draw, whose bits are
    those of the same box of the whole tensor. ``out`` is filled in place and returned: a NumPy
    array, or an object that supports DLPack or the buffer protocol. ``num_threads`` changes no bit.

    References
    ----------
    .. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, 2011.

    Examples
    --------
    >>> stream = Stream(0, "fc.weight")
    >>> whole = stream.normal(0.0, 0.02, (4, 6))
    >>> part = stream.normal(0.0, 0.02, (4, 6), index=np.s_[1:3, 4])
    >>> bool((part == whole[1:3, 4]).all())
    True
    """

    seed: int
    name: str | int | None = field(compare=False)
    id: int = field(repr=False)

    def __init__(self, seed: Seed = None, name: str | int | None = None) -> None:
        object.__setattr__(self, "seed", seed_number(seed))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "id", stream_id(name))

    def part(self, part: str) -> "Stream":
        """Return the stream of a part of the tensor that needs random numbers of its own.

        Parameters
        ----------
        part : str
            Name of the part, such as "mask" for the zeros of a sparse tensor.

        Returns
        -------
        Stream
            With the same seed. Its name is the tensor's name, a NUL character and the part's name.
            If the tensor has a stream id instead of a name, a NUL and the id take the name's place.

        Examples
        --------
        >>> Stream(0, "fc.weight").part("mask").name, Stream(0, 7).part("mask").name
        ('fc.weight\\x00mask', '\\x007\\x00mask')
        """
        tensor = self.name if isinstance(self.name, str) else f"\0{self.id}"
        return Stream(self.seed, f"{tensor}\0{part}")

    def bits(
        self,
        n: Shape | None = None,
        offset: int = 0,
        *,
        dtype: Any = None,
        out: Any = None,
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """Return raw words of the generator.

        Parameters
        ----------
        n : int or tuple of int
            The number of words, or the logical shape.
        offset : int
            Index of the first word.
        dtype : str, type or numpy.dtype
            uint32 (the default) or uint64.
        out, index, num_threads
            See `Stream`.

        Returns
        -------
        numpy.ndarray or ``out``

        Examples
        --------
        >>> Stream(0).bits(4)  # Philox4x32-10 with key 0 and counter 0
        array([1713891541, 3781805453, 3159862348, 2600524760], dtype=uint32)
        """
        offset, num_threads = word("offset", offset), threads.checked(num_threads)
        kind = None if dtype is None else _word_type(dtype)
        if out is None:
            cut = box(_given(n, "n"), index)
            out = array = empty(cut.shape, kind or np.dtype(np.uint32))
        else:
            array, cut = destination(out, n, index, _WORDS, "n")
            if kind not in (None, array.dtype):
                raise TypeError(f"dtype is {dtype!r}, but out has {array.dtype}")
        if offset + math.prod(cut.tensor) > MAX_SIZE:
            raise ValueError(f"offset must leave the indices below 2^63, got {offset}")
        bits = distributions.bits(_WORDS[array.dtype])
        fill(bits, self.seed, self.id, array, cut, num_threads, offset)
        return written(out)

    def uniform(
        self,
        low: float = 0.0,
        high: float = 1.0,
        shape: Shape | None = None,
        *,
        dtype: Any = None,
        out: Any = None,
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """Draw from the uniform distribution on [low, high). No dtype ever gives ``high``.

        Parameters
        ----------
        low, high : float
            Finite, low < high.
        shape : int or tuple of int
            May be omitted if ``out`` has this shape.
        dtype : str, type or numpy.dtype
            The dtype of a new array, float32 by default.
        out, index, num_threads
            See `Stream`.

        Returns
        -------
        numpy.ndarray or ``out``

        Examples
        --------
        >>> x = Stream(0, "x").uniform(-1, 1, 1000, dtype="float8_e5m2")
        >>> float(x.min()), float(x.max())
        (-1.0, 0.875)
        """
        return self._draw(distributions.uniform, (low, high), shape, dtype, out, index, num_threads)

    def normal(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        shape: Shape | None = None,
        *,
        dtype: Any = None,
        out: Any = None,
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """Draw from the normal distribution.

        Numbers beyond the range of a narrow dtype become infinite, or NaN in float8_e4m3fn.

        Parameters
        ----------
        loc : float
            Mean.
        scale : float
            Standard deviation, finite and at least 0.
        shape, dtype, out, index, num_threads
            As in `uniform`.

        Returns
        -------
        numpy.ndarray or ``out``

        Examples
        --------
        >>> x = np.empty(1000, np.float32)
        >>> Stream(0, "x").normal(out=x) is x
        True
        """
        return self._draw(distributions.normal, (loc, scale), shape, dtype, out, index, num_threads)

    def truncated_normal(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        shape: Shape | None = None,
        *,
        dtype: Any = None,
        out: Any = None,
        index: Index | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """Draw from the normal distribution truncated to two bounds, which hold in every dtype.

        Parameters
        ----------
        loc, scale : float
            Mean and standard deviation of the normal before truncation.
        low, high : float
            Bounds in standard deviations, low < high; the interval is
            [loc + low * scale, loc + high * scale].
        shape, dtype, out, index, num_threads
            As in `uniform`.

        Returns
        -------
        numpy.ndarray or ``out``

        Examples
        --------
        >>> x = Stream(0, "x").truncated_normal(0, 1, 4, 6, 1000)
        >>> bool((4 <= x).all() and (x <= 6).all())
        True
        """
        make, parameters = distributions.truncated_normal, (loc, scale, low, high)
        return self._draw(make, parameters, shape, dtype, out, index, num_threads)

    def _draw(
        self,
        make: Make,
        parameters: tuple[float, ...],
        shape: Shape | None,
        dtype: Any,
        out: Any,
        index: Index | None,
        num_threads: int | None,
    ) -> Any:
        for parameter in parameters:
            if type(parameter) is not float:  # a loop: the usual case costs a small call nothing
                parameters = tuple(map(_settled, parameters))
                break
        if num_threads is not None:
            num_threads = threads.checked(num_threads)
        # A fast path for plain arrays: for small ones the overhead of the call dominates.
        if type(out) is np.ndarray and shape is dtype is index is None:
            kind = out.dtype
            try:
                distribution, carrier = _made[make, kind, parameters]
            except (KeyError, TypeError):  # not made yet, or no numbers: see below
                pass
            else:
                carried = out if carrier is kind else out.view(carrier)
                if _core.fill_array(distribution, self.seed, self.id, carried, MIN_PIECE):
                    return out
        if out is None:
            cut = box(_given(shape), index)
            out = array = empty(cut.shape, find("float32" if dtype is None else dtype).dtype)
        else:
            array, cut = destination(out, shape, index)
            if dtype is not None and find(dtype).dtype != array.dtype:
                raise TypeError(f"dtype is {dtype!r}, but out has {array.dtype}")
        distribution = _distribution(make, array.dtype, parameters)
        fill(distribution, self.seed, self.id, array, cut, num_threads)
        return written(out)


def _word_type(dtype: Any) -> np.dtype[Any]:
    kind: np.dtype[Any] | None = None
    with suppress(TypeError, ValueError, SyntaxError):  # np.dtype("f4,,") raises SyntaxError
        kind = np.dtype(dtype)
    if kind is None or kind not in _WORDS:
        raise TypeError(f"dtype must be uint32 or uint64, got {dtype!r}")
    return kind


def _given(shape: Shape | None, argument: str = "shape") -> tuple[int, ...]:
    if shape is None:
        raise TypeError(f"{argument} must be given, or out")
    return logical_shape(shape, argument)
