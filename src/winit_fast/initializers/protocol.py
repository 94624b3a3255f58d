"""The base classes of all initializers.

A user's own scheme is a subclass of `Elementwise`, if its elements are independent draws from one
distribution, or else of `Initializer`. It then works wherever the built-in initializers work: for
new arrays, buffers and any box, in checkpoints, and in the adapters of the frameworks.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

import winit_fast._core as _core
from winit_fast.base import dtypes, threads
from winit_fast.base.arguments import plain
from winit_fast.base.arrays import Array, empty
from winit_fast.base.boxes import Box, Index, Shape, box, logical_shape
from winit_fast.base.names import spelling, unknown
from winit_fast.initializers.fans import Convention, without_batch
from winit_fast.streams.buffers import destination, written
from winit_fast.streams.fill import fill
from winit_fast.streams.identity import Seed
from winit_fast.streams.stream import Stream

Out = TypeVar("Out")

Filler = Callable[[Array, Box, int | None], None]
"""Fills an array with a box of one tensor; the last argument is the number of threads."""


class Initializer:
    """A scheme with its parameters, as an immutable, comparable, hashable, printable object.

    A subclass is a ``@dataclass(frozen=True, repr=False)`` whose fields are its parameters. It
    overrides `fill_box`, and `check` if it does not support every shape and dtype. The class
    keyword ``names`` lists the names that `get` accepts.

    Examples
    --------
    A scheme that is not elementwise. In any box, its elements must equal those of the whole tensor:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> @dataclass(frozen=True, repr=False)
    ... class Ramp(wf.Initializer, names=("ramp",)):
    ...     step: float = 1.0
    ...
    ...     def check(self, shape, dtype):
    ...         if len(shape) != 1:
    ...             raise ValueError(f"Ramp is for tensors of one axis, got shape {shape}")
    ...
    ...     def fill_box(self, out, box, stream, num_threads):
    ...         (start,), (size,) = box.starts, box.sizes
    ...         box.expand(out)[:] = np.arange(start, start + size) * self.step
    >>> wf.get("ramp", step=0.5)(8, index=np.s_[2:5])
    array([1. , 1.5, 2. ], dtype=float32)
    """

    _registry: ClassVar[dict[str, type["Initializer"]]] = {}
    _by_spelling: ClassVar[dict[str, type["Initializer"]]] = {}

    is_exact: ClassVar[bool] = False
    """Whether elements are known and not drawn: then integers and bool are possible types."""

    def __init_subclass__(cls, names: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Initializer._registry.update(dict.fromkeys(names, cls))
        Initializer._by_spelling.update(dict.fromkeys(map(spelling, names), cls))

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
            An int must be at least 0; see `winit_fast.streams.stream.seed_number` for 2^64 or more.
            None takes a seed from the operating system.
        name : str, int or None
            The tensor's name, or its stream id. Tensors with different names are independent.
        dtype : str, type or numpy.dtype
            A floating-point type of 64 to 8 bits, "bfloat16" for example: docs/contract.md lists
            them. For normals and constants also complex128 and complex64, for constants and
            stored values integers and bool.
        index : tuple of slice, int or Ellipsis, optional
            The box to make, as in ``numpy.s_[1024:2048, :]``. Its bits are those of the same box of
            the whole tensor.
        num_threads : int, optional
            `get_num_threads` by default. It changes no bit.

        Returns
        -------
        numpy.ndarray
            Its shape is that of the box.
        """
        cut = box(logical_shape(shape), index)
        stream = Stream(seed, name)
        num_threads = threads.checked(num_threads)
        kind = dtypes.find_any(dtype) if self.is_exact else dtypes.find_with_complex(dtype)
        check(self, cut.tensor, kind)
        out = empty(cut.shape, kind)
        _draw(self, out, cut, stream, num_threads)
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
            On the CPU, with any strides and alignment.
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
        stream = Stream(seed, name)
        num_threads = threads.checked(num_threads)
        kinds = dtypes.ALL if self.is_exact else dtypes.WITH_COMPLEX
        array, cut = destination(out, shape, index, kinds)
        check(self, cut.tensor, array.dtype)
        _draw(self, array, cut, stream, num_threads)
        return written(out)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise an error for an unsupported shape or dtype, before anything is allocated.

        Parameters
        ----------
        shape : tuple of int
            The logical shape.
        dtype : numpy.dtype
            One of the floating-point types.

        Raises
        ------
        TypeError, ValueError
            The message has the parameter, shape or dtype that is wrong.
        """

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Raise an error for a box whose values are unsuitable, before anything is written.

        Only a scheme that reads its values from elsewhere, like `Pretrained`, needs this.
        """

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill a box of the logical tensor.

        Parameters
        ----------
        out : numpy.ndarray
            Writable, with shape ``box.shape``, any strides, and a dtype that `check` has accepted.
        box : winit_fast.base.boxes.Box
            The elements that ``out`` holds. Each must get the value it has in the whole tensor.
        stream : Stream
            The tensor's seed and name.
        num_threads : int or None
            The most threads that it may use; None means `get_num_threads`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot fill a tensor: it has no method fill_box"
        )

    def prepared(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> Filler:
        """Return a function that fills any box of one tensor; several threads may call it.

        Code that fills a tensor box by box calls this once for each tensor. A subclass overrides it
        if boxes share work, which is then done once and kept in bounded memory.

        Parameters
        ----------
        shape : tuple of int
            The logical shape.
        dtype : numpy.dtype
            Type of all boxes. `check` has accepted both.
        stream : Stream
            The tensor's seed and name.

        Returns
        -------
        callable
            Takes an array, the box of the tensor that it should hold, and ``num_threads``. It does
            the work of `check_box` and `fill_box`.
        """

        def fill_any(out: Array, box: Box, num_threads: int | None) -> None:
            self.check_box(box, dtype)
            self.fill_box(out, box, stream, num_threads)

        return fill_any

    def scaled(self, factor: float) -> "Initializer | None":
        """Return the scheme whose elements are ``factor`` times as large, or None."""
        return None

    def complex_parts(self, shape: tuple[int, ...]) -> "Initializer":
        """Return the scheme for the real and imaginary parts of a complex tensor of this shape.

        It fills a real tensor of shape ``(*shape, 2)``: see "Complex tensors" in docs/contract.md.
        """
        raise TypeError(
            f"{type(self).__name__} cannot fill complex types: only normal and constant schemes can"
        )

    def with_axes(self, convention: Convention, ndim: int) -> Self:
        """Set the axes that are None to those of a framework's convention.

        Parameters
        ----------
        convention : winit_fast.initializers.fans.Convention
        ndim : int
            How many axes the tensor has.

        Returns
        -------
        Initializer
            Of the same class. Initializers among its parameters are treated in the same way.

        Examples
        --------
        >>> import winit_fast as wf
        >>> from winit_fast.initializers.fans import TORCH
        >>> wf.HeNormal().with_axes(TORCH, 2)
        HeNormal(in_axis=1, out_axis=0)
        >>> wf.HeNormal(in_axis=-2, out_axis=-1).with_axes(TORCH, 2)
        HeNormal(in_axis=-2, out_axis=-1)
        """
        own = {field.name: getattr(self, field.name) for field in self._parameters()}
        axes = convention._asdict()
        changes: dict[str, Any] = {
            name: without_batch(axes[name], own.get("batch_axis", ()), ndim)
            for name, value in own.items()
            if value is None and name in axes
        }
        for name, value in own.items():
            if isinstance(value, Initializer):
                changes[name] = value.with_axes(convention, ndim)
        if not changes:
            return self
        said = copy(self)  # keeps any other attributes of a user's own class
        for name, value in changes.items():
            object.__setattr__(said, name, value)
        return said

    def with_streams(self, renamed: Callable[[str], str]) -> Self:
        """Rename the streams that the scheme itself gives, for parts of a tensor.

        Parameters
        ----------
        renamed : callable
            Takes the name of a stream and returns another.

        Returns
        -------
        Initializer
            Of the same class. Initializers among its parameters are treated in the same way.
        """
        said = self
        for field in self._parameters():
            value = getattr(self, field.name)
            if isinstance(value, Initializer) and value.with_streams(renamed) is not value:
                said = copy(self) if said is self else said
                object.__setattr__(said, field.name, value.with_streams(renamed))
        return said

    def get_config(self) -> dict[str, Any]:
        """Return the parameters, in the form that `from_config` accepts.

        An initializer among them becomes ``{"class_name": ..., "config": ...}``.
        """
        config = {field.name: plain(getattr(self, field.name)) for field in self._parameters()}
        for name, value in config.items():
            if isinstance(value, Initializer):
                config[name] = described(value)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an initializer from its parameters.

        Raises
        ------
        TypeError
            If ``config`` is not a mapping, or the scheme has no such parameter.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config must be a mapping of parameters by name, got {config!r}")
        known = [field.name for field in cls._parameters()]
        for name in config:
            if not known:
                raise TypeError(f"{cls.__name__} has no parameters, got {name!r}")
            if name not in known:
                raise TypeError(unknown(f"parameters of {cls.__name__}", name, known))
        return cls(**config)

    @classmethod
    def _parameters(cls) -> list[Field[Any]]:
        return [field for field in fields(cls) if field.init] if is_dataclass(cls) else []

    def _parse(self, parser: Callable[[str, Any], Any], *names: str) -> None:
        """Replace parameters by the parser's results, so that an int 1 becomes a float, say."""
        for name in names:
            object.__setattr__(self, name, parser(name, getattr(self, name)))

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={plain(getattr(self, field.name))!r}"
            for field in self._parameters()
            if field.default is MISSING or getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


class Elementwise(Initializer):
    """A scheme whose elements are independent draws from one distribution.

    A subclass overrides `draws_from`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import winit_fast as wf
    >>> from winit_fast.streams import distributions
    >>> @dataclass(frozen=True, repr=False)
    ... class DepthScaled(wf.Elementwise, names=("depth_scaled",)):
    ...     depth: int
    ...     stddev: float = 0.02
    ...
    ...     def draws_from(self, shape, dtype):
    ...         return distributions.normal(dtype, 0.0, self.stddev / (2 * self.depth) ** 0.5)
    >>> w = DepthScaled(depth=8)((4096, 1024), seed=0, name="mlp.down")
    >>> bool((w == wf.RandomNormal(0, 0.005)(w.shape, seed=0, name="mlp.down")).all())
    True
    """

    def draws_from(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _core.Distribution:
        """Return the distribution of all elements, for a logical shape and a dtype.

        Parameters
        ----------
        shape : tuple of int
        dtype : numpy.dtype

        Returns
        -------
        Distribution
            Made by a function of ``winit_fast.streams.distributions``.

        Raises
        ------
        TypeError, ValueError
            If the scheme does not support the shape or the dtype.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot fill a tensor: it has no method draws_from"
        )

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Make the distribution, which raises an error for unsupported arguments."""
        distribution_of(self, shape, dtype)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Draw every element."""
        distribution = distribution_of(self, box.tensor, out.dtype)
        fill(distribution, stream.seed, stream.id, out, box, num_threads)


@lru_cache(maxsize=1024)
def _kept(
    initializer: Elementwise, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> _core.Distribution:
    return initializer.draws_from(shape, dtype)


def distribution_of(
    initializer: Elementwise, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> _core.Distribution:
    """Return a cached distribution: a model has many tensors but few different shapes.

    Only frozen dataclasses are cached, because only they are determined by their parameters.
    """
    parameters = vars(type(initializer)).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return initializer.draws_from(shape, dtype)
    try:
        return _kept(initializer, shape, dtype)
    except TypeError:  # a parameter is not hashable; or a real error, which is raised again below
        return initializer.draws_from(shape, dtype)


def described(initializer: Initializer) -> dict[str, Any]:
    """Return a scheme as a mapping that `winit_fast.get` reads.

    Examples
    --------
    >>> from winit_fast import Constant
    >>> described(Constant(0.5))
    {'class_name': 'Constant', 'config': {'value': 0.5}}
    """
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}


def check(initializer: Initializer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Call a scheme's `check`; for a complex dtype, that of the scheme of its parts."""
    if dtype.kind == "c":
        initializer.complex_parts(shape).check((*shape, 2), dtypes.part_of(dtype))
    else:
        initializer.check(shape, dtype)


def draw(
    initializer: Initializer, out: Array, box: Box, stream: Stream, num_threads: int | None = None
) -> None:
    """Check a box of a tensor, and fill it.

    Parameters
    ----------
    initializer : Initializer
    out : numpy.ndarray
        Writable, of shape ``box.shape``.
    box : Box
    stream : Stream
    num_threads : int, optional
    """
    check(initializer, box.tensor, out.dtype)
    _draw(initializer, out, box, stream, num_threads)


def _draw(
    initializer: Initializer, out: Array, box: Box, stream: Stream, num_threads: int | None
) -> None:
    if out.dtype.kind == "c":
        initializer = initializer.complex_parts(box.tensor)
        out, box = dtypes.parts(out), box.with_axis(2)
    initializer.check_box(box, out.dtype)
    initializer.fill_box(out, box, stream, num_threads)
