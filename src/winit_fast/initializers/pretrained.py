"""Existing weights, from an array, a .npy file or a safetensors file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.base import dtypes, threads
from winit_fast.base.arguments import path
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts
from winit_fast.base.dtypes import converted, largest
from winit_fast.base.files import regular_file
from winit_fast.initializers.protocol import Filler, Initializer
from winit_fast.initializers.registry import get
from winit_fast.streams.buffers import from_dlpack
from winit_fast.streams.stream import Stream

_CUT = 1 << 17
"""Elements copied at a time."""


@dataclass(frozen=True, repr=False, eq=False)
class Pretrained(Initializer, names=("pretrained",)):
    """Elements of an existing tensor, and another scheme for the elements that it does not have.

    Files are memory-mapped, so only the parts that a box needs are read.

    Parameters
    ----------
    source : str, os.PathLike, array_like or an object with DLPack (on the CPU)
        A file that ends in .npy or .safetensors; the index of a safetensors checkpoint with several
        files, which ends in .safetensors.index.json; or an array of floating-point numbers, which
        is not copied, so it should not change.
    tensor : str, optional
        The tensor's name in a safetensors file.
    fallback : Initializer, str or mapping, optional
        Fills the elements that the source does not have, if the logical shape is larger along some
        axis (because a vocabulary grew, for example). Elements that the source has keep their
        indices. Without a fallback the shapes must be equal.
    dtype : str, type or numpy.dtype, optional
        The actual type of the elements, for a .npy file or an array that holds them as void or
        unsigned integers. NumPy saves bfloat16, for example, but loads it as ``|V2``.

    Notes
    -----
    Numbers of another type are converted: to float64 exactly, to float32 with one rounding, and to
    narrower types by rounding the float32 number. A finite number that would become infinite or NaN
    in the destination's type is an error, before anything is written.

    Two `Pretrained` are equal if their files have the same name, or their arrays the same type,
    shape and bits. The result of `Initializer.get_config` can be written as JSON if the source is a
    file; otherwise it contains the array.

    References
    ----------
    The safetensors format: https://github.com/huggingface/safetensors.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> old = np.arange(6, dtype=np.float32).reshape(3, 2)
    >>> wf.Pretrained(old, fallback=wf.Constant(-1))((4, 2), dtype="bfloat16")
    array([[0, 1],
           [2, 3],
           [4, 5],
           [-1, -1]], dtype=bfloat16)
    >>> wf.Pretrained("model.safetensors", "wte.weight")
    Pretrained(source='model.safetensors', tensor='wte.weight')
    """

    source: Any
    tensor: str | None = None
    fallback: Initializer | str | Mapping[str, Any] | None = None
    dtype: Any = None

    def __post_init__(self) -> None:
        if self.fallback is not None:
            object.__setattr__(self, "fallback", get(self.fallback))
        if self.dtype is not None:
            object.__setattr__(self, "dtype", dtypes.find(self.dtype).name)
        if isinstance(self.source, (str, os.PathLike)):
            source: Any = path("source", self.source)
            named = source.endswith((".safetensors", ".safetensors.index.json"))
            if not named and not source.endswith(".npy"):
                raise ValueError(
                    "source must end in .npy, .safetensors or .safetensors.index.json, "
                    f"got {source!r}"
                )
        else:
            named, source = False, self.source
            if not isinstance(source, np.ndarray) and hasattr(source, "__dlpack__"):
                source = from_dlpack(source, "source")
            try:
                source = _typed(np.asarray(source), self.dtype, "source").view()
            except ValueError as error:  # lists of unequal lengths
                raise ValueError(f"source must be a file or an array: {error}") from None
            source.flags.writeable = False
        if named and not isinstance(self.tensor, str):
            raise TypeError(
                f"tensor must be the name of a tensor in {source!r}, got {self.tensor!r}"
            )
        if named and self.dtype is not None:
            raise ValueError(
                f"dtype is for .npy files and arrays, got {self.dtype!r} for {source!r}"
            )
        if not named and self.tensor is not None:
            raise ValueError(
                f"tensor is for safetensors files, got {self.tensor!r} for {_shown(source)}"
            )
        object.__setattr__(self, "source", source)

    def _key(self) -> tuple[object, ...]:
        source = self.source
        if isinstance(source, np.ndarray):
            source = (source.dtype, source.shape)
        return source, self.tensor, self.fallback, self.dtype

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pretrained):
            return NotImplemented
        if self._key() != other._key():
            return False
        if not isinstance(self.source, np.ndarray):
            return True
        words = f"u{self.source.itemsize}"
        return np.array_equal(self.source.view(words), other.source.view(words))

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        shown = [f"source={_shown(self.source)}"]
        if self.tensor is not None:
            shown.append(f"tensor={self.tensor!r}")
        if self.fallback is not None:
            shown.append(f"fallback={self.fallback!r}")
        if self.dtype is not None:
            shown.append(f"dtype={self.dtype!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def opened(self) -> Array:
        """Return the source as an array, memory-mapped if it is a file."""
        if isinstance(self.source, np.ndarray):
            return self.source
        if self.tensor is None:
            return _typed(_mapped_npy(self.source), self.dtype, f"source {self.source!r}")
        from winit_fast.base import safetensors  # needed only for files

        return safetensors.mapped(self.source, self.tensor)

    def magnitude(self) -> float:
        """Read the source, and return the largest magnitude of its elements, 0 if it has none.

        Raises
        ------
        ValueError
            If an element is not finite.
        """
        source = self.opened()
        found = [0.0]

        def measure(cut: tuple[slice, ...]) -> None:
            part = _part(source, cut).astype(np.float64)
            found.append(float(np.abs(part).max()))

        if source.size:
            threads.run(measure, cuts(source.shape, _CUT), threads.resolve(None))
        if not np.isfinite(found).all():
            raise ValueError(f"source must be finite, got {self!r}")
        return max(found)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape that is not the source's, unless there is a fallback."""
        source = self.opened()
        if source.ndim != len(shape):
            raise ValueError(
                f"source must have as many axes as the tensor, got shape {source.shape} for {shape}"
            )
        if source.shape != shape and self.fallback is None:
            raise ValueError(
                "source must have the tensor's shape if no fallback is given, "
                f"got {source.shape} for {shape}"
            )
        if isinstance(self.fallback, Initializer):
            self.fallback.check(shape, dtype)

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Refuse finite numbers that would become infinite or NaN in the dtype."""
        self._check_values(self.opened(), box, dtype)
        if isinstance(self.fallback, Initializer):
            self.fallback.check_box(box, dtype)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Copy the elements that the source has, and fill the rest with the fallback."""
        source = self.opened()
        if box.sizes != _shared(source, box)[0].shape and isinstance(self.fallback, Initializer):
            self.fallback.fill_box(out, box, stream, num_threads)
        _copy(source, out, box, num_threads)

    def prepared(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> Filler:
        """Open the file once for all boxes."""
        source = self.opened()
        fallback = self.fallback
        fill_rest = (
            fallback.prepared(shape, dtype, stream) if isinstance(fallback, Initializer) else None
        )

        def fill_any(out: Array, box: Box, num_threads: int | None) -> None:
            self._check_values(source, box, dtype)
            if fill_rest is not None and box.sizes != _shared(source, box)[0].shape:
                fill_rest(out, box, num_threads)
            _copy(source, out, box, num_threads)

        return fill_any

    def _check_values(self, source: Array, box: Box, dtype: np.dtype[Any]) -> None:
        values, _ = _shared(source, box)

        def check(cut: tuple[slice, ...]) -> None:
            part = values[cut]
            suspects = part[abs(part) > largest(dtype)]  # some of these still round to the largest
            with np.errstate(over="ignore"):
                lost = np.isfinite(suspects) & ~np.isfinite(converted(suspects, dtype))
            if lost.any():
                first = float(suspects[lost][0])
                raise ValueError(f"source must fit {dtype}, got {first!r} in {self!r}")

        if values.size and largest(values.dtype) > largest(dtype):
            threads.run(check, cuts(values.shape, _CUT), threads.resolve(None))


def _shared(source: Array, box: Box) -> tuple[Array, tuple[slice, ...]]:
    """Return the elements of a box that a source has, and their place in the box."""
    # Slices within the box, which count from 0 on every axis.
    shared = tuple(
        slice(0, max(0, min(start + size, extent) - start))
        for start, size, extent in zip(box.starts, box.sizes, source.shape, strict=True)
    )
    at = tuple(
        slice(start, start + part.stop) for start, part in zip(box.starts, shared, strict=True)
    )
    return _part(source, at), shared


def _copy(source: Array, out: Array, box: Box, num_threads: int | None) -> None:
    """Copy the elements of a box that a source has."""
    values, shared = _shared(source, box)
    place = _part(box.expand(out), shared)

    def copy(cut: tuple[slice, ...]) -> None:
        place[cut] = converted(values[cut], out.dtype)

    if values.size:
        threads.run(copy, cuts(values.shape, _CUT), threads.resolve(num_threads))


def _shown(source: Any) -> str:
    if isinstance(source, np.ndarray):
        return f"<{source.dtype} array of shape {source.shape}>"
    return repr(source)


def _part(array: Array, at: tuple[slice, ...]) -> Array:
    """Return a part of an array, as an array even if it has no axes."""
    index: tuple[Any, ...] = (Ellipsis, *at)
    part: Array = array[index]
    return part


def _typed(array: Array, dtype: str | None, shown: str) -> Array:
    """Check an array's type, or view an array of bytes as the given type."""
    kind = array.dtype.newbyteorder("=")
    if dtype is not None and kind != dtypes.find(dtype).dtype:
        said = dtypes.find(dtype).dtype
        bare = kind.kind in "Vu" and array.dtype.fields is None and array.dtype.subdtype is None
        if not (bare and kind.itemsize == said.itemsize and array.dtype.isnative):
            raise TypeError(f"{shown} must hold {dtype}, as dtype= says, got {array.dtype}")
        return array.view(said)
    if kind not in dtypes.FLOATS:
        hint = " or ".join(
            repr(one.name)
            for one in dtypes.FLOATS.values()
            if one.carrier is not one.dtype and kind.str == f"|V{one.dtype.itemsize}"
        )
        raise TypeError(
            f"{shown} must have one of the types {', '.join(dtypes.NAMES)}, got {array.dtype}"
            + (f", as NumPy loads {hint}: give dtype=" if hint else "")
        )
    return array


def _mapped_npy(path: str) -> Array:
    """Memory-map a .npy file.

    NumPy reads the header, a Python literal, with Python's own tokenizer and parser, so a damaged
    header can raise almost any exception.
    """
    try:
        with regular_file(path):  # NumPy would block on a pipe
            return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:
        # NumPy saves float8_e5m2 with a type name that it does not recognise when loading the file.
        hint = ": save float8_e5m2 as its bytes, w.view('uint8')" if "'<f1'" in str(error) else ""
        raise ValueError(f"source {path!r} is not a .npy file: {error!r}{hint}") from None
