"""One tensor of a model: its name, its logical shape and its initializer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from winit_fast.base import dtypes
from winit_fast.base.arguments import integer
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, Index, logical_shape
from winit_fast.base.names import located, one_of
from winit_fast.initializers.protocol import Filler, Initializer, draw
from winit_fast.initializers.protocol import check as check_scheme
from winit_fast.initializers.rounded import Rounded
from winit_fast.streams.identity import Seed, of_generation, stream_id
from winit_fast.streams.stream import Stream

PARAMETER, BUFFER, NON_PERSISTENT = KINDS = ("parameter", "buffer", "non-persistent buffer")
"""The role of a tensor in its model; tensors of the last kind are not written to files."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor of a model together with its initializer.

    A `winit_fast.Plan` is a list of these.

    Parameters
    ----------
    name : str
        Full name inside the model.
    shape : tuple of int
        Logical shape: that of the whole tensor, never of a shard.
    initializer : Initializer
        Fills any part of the tensor.
    dtype : str, type or numpy.dtype
        A type that ``Initializer.__call__`` accepts; for constants and stored values also an
        integer type or bool. The attribute is the type's name.
    stream : str, optional
        Name of the tensor's stream; by default the tensor's name.
    drawn_in : str, type or numpy.dtype, optional
        The floating-point type in which the author's code draws, if it is not the stored type.
    tied : sequence of str
        Further names of the same tensor.
    kind : {"parameter", "buffer", "non-persistent buffer"}
        The role of the tensor in the model.

    Raises
    ------
    TypeError, ValueError
        If the name is not a str, the shape is invalid, or ``initializer`` is not an Initializer.

    Examples
    --------
    >>> import winit_fast as wf
    >>> tensor = TensorSpec("fc.weight", (2, 3), wf.RandomNormal(0, 0.02), dtype="bfloat16")
    >>> same = wf.RandomNormal(0, 0.02)((2, 3), seed=1, name="fc.weight", dtype="bfloat16")
    >>> bool((tensor.array(seed=1) == same).all())
    True
    """

    name: str
    shape: tuple[int, ...]
    initializer: Initializer
    dtype: str = "float32"
    stream: str = None  # type: ignore[assignment]  # its name
    drawn_in: str | None = None
    tied: tuple[str, ...] = ()
    kind: str = PARAMETER

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a str, got {self.name!r}")
        _check_name(self.name)
        shape = logical_shape(self.shape)
        if shape is not self.shape:
            object.__setattr__(self, "shape", shape)
        if not isinstance(self.initializer, Initializer):
            raise TypeError(f"initializer must be an Initializer, got {self.initializer!r}")
        if not isinstance(self.dtype, str) or self.dtype not in dtypes.NAMES:
            object.__setattr__(self, "dtype", dtypes.find_any(self.dtype).name)
        if self.stream is None:
            object.__setattr__(self, "stream", self.name)
        elif not isinstance(self.stream, str):
            raise TypeError(f"stream must be a str, got {self.stream!r}")
        else:
            _check_name(self.stream)
        if self.drawn_in is not None:
            drawn_in = dtypes.find(self.drawn_in).name
            object.__setattr__(self, "drawn_in", None if drawn_in == self.dtype else drawn_in)
        if self.tied != ():
            object.__setattr__(self, "tied", _names(self.tied))
        if self.kind is not PARAMETER:
            one_of("kind", self.kind, KINDS)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def scheme(self) -> Initializer:
        """The initializer, which draws in ``drawn_in`` if that is set."""
        if self.drawn_in is None:
            return self.initializer
        return Rounded(self.initializer, self.drawn_in)

    def of_generation(self, generation: int) -> TensorSpec:
        """Return the tensor with other random numbers for the same seed.

        Parameters
        ----------
        generation : int
            At least 0, which is the tensor as it is first drawn. The names of the streams end in a
            NUL character and ``"generation 1"``, and so on.

        Returns
        -------
        TensorSpec
        """
        number = integer("generation", generation)
        if number < 0:
            raise ValueError(f"generation must be >= 0, got {number}")

        def renamed(stream: str) -> str:
            return of_generation(stream, number)

        try:
            scheme = self.initializer.with_streams(renamed)
        except ValueError as error:
            raise located(error, f"tensor {self.name!r}") from None
        return replace(self, initializer=scheme, stream=renamed(self.stream))

    def check(self) -> None:
        """Check that the initializer supports the shape and the dtype.

        Raises
        ------
        TypeError, ValueError
            If it does not; the message names the tensor.
        """
        dtype = dtypes.find_any(self.dtype)
        try:
            if dtype not in dtypes.WITH_COMPLEX and not self.initializer.is_exact:
                raise TypeError(
                    f"{self.initializer!r} draws real numbers, which {dtype} cannot hold"
                )
            check_scheme(self.scheme, self.shape, dtype)
        except (TypeError, ValueError) as error:
            raise located(error, f"tensor {self.name!r}") from None

    def filler(self, seed: int) -> Filler:
        """Return a function that fills any box of the tensor, which `check` has accepted.

        Parameters
        ----------
        seed : int

        Returns
        -------
        callable
            As ``Initializer.prepared`` returns it.
        """
        scheme, stream = self.scheme, Stream(seed, self.stream)
        dtype = dtypes.find_any(self.dtype)
        if dtype.kind != "c":
            return scheme.prepared(self.shape, dtype, stream)

        def fill(out: Array, box: Box, num_threads: int | None) -> None:
            draw(scheme, out, box, stream, num_threads)

        return fill

    def array(
        self, seed: Seed = None, *, index: Index | None = None, num_threads: int | None = None
    ) -> Array:
        """Make the tensor, or a box of it, as a new array.

        Parameters
        ----------
        seed, index, num_threads
            As in ``Initializer.__call__``.

        Returns
        -------
        numpy.ndarray
        """
        return self.scheme(
            self.shape,
            seed=seed,
            name=self.stream,
            dtype=self.dtype,
            index=index,
            num_threads=num_threads,
        )


def _check_name(name: str) -> None:
    """Refuse a name that has no UTF-8 form, and so no stream."""
    if not name.isascii():
        stream_id(name)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"tied must be a sequence of names, got {names!r}")
    listed = tuple(names)
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"tied must hold names, got {name!r}")
        _check_name(name)
    return listed
