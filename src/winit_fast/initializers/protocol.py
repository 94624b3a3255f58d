"""What an initializer is: a scheme with its parameters, as a value; and finding one by its name."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, Self, TypeVar

import winit_fast._core as _core
from winit_fast.base import dtypes
from winit_fast.base.arguments import plain
from winit_fast.base.arrays import Array, empty
from winit_fast.base.boxes import Box, Index, Shape, box, logical_shape
from winit_fast.base.names import spelling, unknown
from winit_fast.streams.buffers import destination, written
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Seed, Stream

Out = TypeVar("Out")


class Initializer:
    """A scheme and its parameters, as a value: frozen, comparable, hashable, printable.

    A subclass is a ``@dataclass(frozen=True, repr=False)`` whose fields are its parameters, and
    overrides ``_fill``. The class keyword ``names`` lists what `get` finds it by.

    Examples
    --------
    >>> import winit_fast as wf
    >>> wf.HeNormal()((2, 3), seed=0, name="fc.weight", dtype="bfloat16").shape
    (2, 3)
    """

    _registry: ClassVar[dict[str, type["Initializer"]]] = {}
    _by_spelling: ClassVar[dict[str, type["Initializer"]]] = {}

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
        out = empty(cut.shape, dtypes.find(dtype).dtype)
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
        array, cut = destination(out, shape, index)
        self._fill(array, cut, Stream(seed, name), num_threads)
        return written(out)

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill a checked, writable array of ``box.shape`` with that box of the logical tensor."""
        raise NotImplementedError(f"{type(self).__name__} is no scheme: it has no _fill")

    def _times(self, factor: float) -> "Initializer | None":
        """Give the scheme of ``factor`` times as large elements, or None if there is none."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the parameters, as `from_config` takes them.

        An initializer among them becomes ``{"class_name": ..., "config": ...}``.
        """
        config = {field.name: plain(getattr(self, field.name)) for field in self._parameters()}
        for name, value in config.items():
            if isinstance(value, Initializer):
                config[name] = {"class_name": type(value).__name__, "config": value.get_config()}
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an initializer from its parameters.

        Raises
        ------
        TypeError
            If it is no mapping, or the scheme has no such parameter.
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
        return [field for field in fields(cls) if field.init]  # type: ignore[arg-type]

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={plain(getattr(self, field.name))!r}"
            for field in self._parameters()
            if field.default is MISSING or getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


class _Elementwise(Initializer):
    """A scheme whose elements are independent draws from one distribution."""

    def _distribution(self, code: int, tensor: tuple[int, ...]) -> _core.Distribution:
        """Make the distribution for a type's code and a logical shape."""
        raise NotImplementedError(f"{type(self).__name__} is no scheme: it has no _distribution")

    def _fill(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        distribution = self._distribution(dtypes.FLOATS[out.dtype].code, box.tensor)
        fill(distribution, stream.seed, stream.id, out, box, num_threads)


def get(identifier: str | Mapping[str, Any] | Initializer, **parameters: Any) -> Initializer:
    """Find an initializer by any name that PyTorch, Keras, JAX or this package gives it.

    A name stands for the scheme. Parameters that are left out have the defaults of this package,
    whoever the name is from: ``"normal_"`` is ``RandomNormal()``, of standard deviation 0.05.

    Parameters
    ----------
    identifier : str, mapping or Initializer
        For example ``"he_normal"``, ``"kaiming_normal_"``, ``"GlorotUniform"``. Case, underscores
        and hyphens do not matter. A mapping is ``{"class_name": ..., "config": ...}``, as in Keras
        and in `Initializer.get_config`. An initializer is returned as it is.
    **parameters
        The initializer's own, for a name.

    Returns
    -------
    Initializer

    Raises
    ------
    ValueError
        If no initializer has that name.
    TypeError
        If the identifier is of another type or has its parameters already, or the initializer has
        no such parameter.

    Examples
    --------
    >>> get("xavier_uniform"), get("constant", value=0.5)
    (GlorotUniform(), Constant(value=0.5))
    >>> get({"class_name": "RandomNormal", "config": {"stddev": 0.02}})
    RandomNormal(stddev=0.02)
    >>> get("he_norml")
    Traceback (most recent call last):
    ValueError: identifier must be one of ...; did you mean 'he_normal'?
    """
    if isinstance(identifier, str):
        try:
            cls = Initializer._by_spelling[spelling(identifier)]
        except KeyError:
            raise ValueError(unknown("identifier", identifier, Initializer._registry)) from None
        return cls.from_config(parameters)
    if parameters:
        raise TypeError(f"an initializer has its parameters already, got {parameters}")
    if isinstance(identifier, Mapping) and isinstance(identifier.get("class_name"), str):
        config = identifier.get("config") or {}
        if isinstance(config, Mapping):
            return get(identifier["class_name"], **config)
    if not isinstance(identifier, Initializer):
        raise TypeError(
            'identifier must be a name, a mapping with "class_name" and "config", or an '
            f"initializer, got {identifier!r}"
        )
    return identifier
