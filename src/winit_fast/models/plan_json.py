"""Plans as JSON: one line for each tensor.

Files that `Plan.save` writes and the plans of checkpoints both have this format. The arrays of
schemes are in a file beside it; those of a checkpoint's plan are in the JSON itself, compressed,
each once.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from winit_fast.base import safetensors, strict_json
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import logical_shape
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import find, get
from winit_fast.models.tensor_spec import KINDS, PARAMETER, TensorSpec

FORMAT = 1
"""Version of the format."""

_MOST = 1 << 24
"""The compressed arrays of one JSON text may have so many bytes; larger ones are refused."""

_NEEDED = {"name", "shape", "dtype"}
_OPTIONAL = {"initializer", "not_written", "stream", "drawn_in", "tied", "kind"}


class NotWritten(Initializer):
    """A placeholder for a scheme that JSON could not hold.

    Parameters
    ----------
    shown : str
        The repr of the scheme.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse every tensor."""
        raise ValueError(f"the plan could not store {self.shown}")


def text(
    tensors: Iterable[TensorSpec],
    stored: MutableMapping[str, Array] | None = None,
    inline: bool = False,
    strict: bool = True,
) -> str:
    """Return tensors as JSON.

    Parameters
    ----------
    tensors : iterable of TensorSpec
    stored : mutable mapping of str to numpy.ndarray, optional
        Receives the arrays that schemes hold, each under its own key. Without it, schemes that
        hold arrays cannot be written, unless ``inline`` is set.
    inline : bool
        Whether the arrays are written into the text.
    strict : bool
        Whether a scheme that cannot be written is an error; otherwise its entry has
        ``"not_written"``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a scheme cannot be written; the message names the tensor.
    """
    lines = []
    arrays = _Arrays(stored, inline)
    known: dict[str, bool] = {}
    texts: dict[tuple[object, ...], str | None] = {}
    for tensor in tensors:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "dtype": tensor.dtype,
        }
        arrays.begin(tensor.name)
        written = _found(tensor.initializer, arrays, known, texts)
        if written is not None:
            entry["initializer"] = written
        elif not strict:
            entry["not_written"] = f"{tensor.initializer!r:.500}"
        else:
            hint = ": it holds an array, for which save() has a file" if arrays.homeless else ""
            if not _is_of_the_catalogue(tensor.initializer):
                hint = ": a reader of the plan need not have the class of your own in it"
            raise ValueError(
                f"tensor {tensor.name!r} cannot be written, its scheme is "
                f"{tensor.initializer!r:.500}{hint}"
            )
        if tensor.stream != tensor.name:
            entry["stream"] = tensor.stream
        if tensor.drawn_in is not None:
            entry["drawn_in"] = tensor.drawn_in
        if tensor.tied:
            entry["tied"] = tensor.tied
        if tensor.kind != PARAMETER:
            entry["kind"] = tensor.kind
        lines.append(_line(entry))
    rest = f',\n"arrays": {_encode(arrays.inline)}' if arrays.inline else ""
    return f'{{"format": {FORMAT}, "tensors": [\n' + ",\n".join(lines) + f"\n]{rest}}}\n"


_encode = json.JSONEncoder(allow_nan=False).encode


def _line(entry: dict[str, Any]) -> str:
    scheme = entry.pop("initializer", None)
    if scheme is None:
        return _encode(entry)
    needed = {key: entry.pop(key) for key in ("name", "shape", "dtype")}
    rest = f", {_encode(entry)[1:]}" if entry else "}"
    return f'{_encode(needed)[:-1]}, "initializer": {scheme}{rest}'


def read(content: bytes, fault: str, stored: Mapping[str, Array] | None = None) -> list[TensorSpec]:
    """Read the tensors that `text` wrote.

    Parameters
    ----------
    content : bytes
    fault : str
        Beginning of the error messages.
    stored : mapping of str to numpy.ndarray, optional
        The arrays from the file beside the plan.

    Returns
    -------
    list of TensorSpec
        A scheme that could not be written is replaced by `NotWritten`.

    Raises
    ------
    ValueError
        If the content is not a plan, or has another version.
    """
    whole = strict_json.read(content, fault)
    if whole.get("format") != FORMAT or not isinstance(whole.get("tensors"), list):
        raise ValueError(f"{fault}: its format is {whole.get('format')!r:.200}, not {FORMAT}")
    known: dict[str, Initializer] = {}
    stored = dict(stored or {}) | _inline(whole.get("arrays", {}), fault)
    return [_read(entry, fault, stored, known) for entry in whole["tensors"]]


def _read(
    entry: Any, fault: str, stored: Mapping[str, Array] | None, known: dict[str, Initializer]
) -> TensorSpec:
    try:
        strange = entry.keys() - _NEEDED - _OPTIONAL
        if strange:
            raise ValueError(f"a plan of this version has no key {min(strange)!r}")
        if "not_written" in entry:
            scheme: Initializer = NotWritten(str(entry["not_written"]))
        else:
            written = entry["initializer"]
            key = _encode(written)
            if key not in known:
                _check_class(written)
                known[key] = get(_decoded(written, stored))
            scheme = known[key]
        kind = entry.get("kind", PARAMETER)
        return TensorSpec(
            entry["name"],
            logical_shape(entry["shape"]),
            scheme,
            dtype=entry["dtype"],
            stream=entry.get("stream"),
            drawn_in=entry.get("drawn_in"),
            tied=entry.get("tied", ()),
            kind=KINDS[KINDS.index(kind)] if kind in KINDS else kind,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{fault}: it has {entry!r:.200}: {error}") from None


def _check_class(written: Any) -> None:
    """Refuse a class that is not known, which a user's module may define."""
    if isinstance(written, Mapping) and isinstance(written.get("class_name"), str):
        try:
            find(written["class_name"])
        except ValueError as error:
            raise ValueError(
                f"{error} (a scheme of your own is known once its module is imported)"
            ) from None


# ---------------------------------------------------------------------------------------- schemes


class _Arrays:
    """The destination of the arrays that schemes hold: a mapping, or the text itself.

    Attributes
    ----------
    inline : dict of str to list
        Compressed arrays: type, shape and bytes.
    all : mapping of str to numpy.ndarray
        Those of the last tensor, or of all.
    homeless : bool
        Whether the last tensor's scheme has an array for which there is no place.
    """

    def __init__(self, stored: MutableMapping[str, Array] | None, inline: bool) -> None:
        self._stored = stored
        self._is_inline = inline
        self.inline: dict[str, list[Any]] = {}
        self._room = _MOST
        self.begin("")

    def begin(self, name: str) -> None:
        """Go on to the next tensor."""
        self._name = name
        self._count = 0
        self.homeless = False
        self.all: MutableMapping[str, Array] = {} if self._stored is None else self._stored

    def keep(self, array: Array) -> dict[str, Any]:
        """Find a place for an array, and return what the scheme says of it."""
        if self._is_inline:
            digest, tag = _digest(array), safetensors.ALL_TAGS[array.dtype]
            key = f"{tag} {'x'.join(map(str, array.shape))} {digest[:16]}"
            self.all[key] = array
            if key not in self.inline:
                packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes()))
                if len(packed) > self._room:
                    raise TypeError("the text has as many arrays as it may")
                self._room -= len(packed)
                self.inline[key] = [tag, array.shape, packed.decode()]
            return {"stored": key, "sha256": digest}
        if self._stored is None:
            self.homeless = True
            raise TypeError("there is no place for an array")
        self._count += 1
        key = self._name if self._count == 1 else f"{self._name}:{self._count}"
        self._stored[key] = array
        return {"stored": key, "sha256": _digest(array)}


def _digest(array: Array) -> str:
    """Return the SHA-256 of an array's bytes, in C order.

    Examples
    --------
    >>> import numpy as np
    >>> _digest(np.zeros(1))[:8]
    'af5570f5'
    """
    return sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _found(
    initializer: Initializer,
    arrays: _Arrays,
    known: dict[str, bool],
    texts: dict[tuple[object, ...], str | None],
) -> str | None:
    """Write a scheme, or return the cached text: most tensors share one of a few schemes."""
    values: list[Any] = list(vars(initializer).values())
    if not is_dataclass(initializer) or not _PLAIN.issuperset(map(type, values)):
        return _written(initializer, arrays, known)
    key = type(initializer), *map(repr, values)  # repr tells 0.0 from -0.0, which are equal
    if key not in texts:
        texts[key] = _written(initializer, arrays, known)
    return texts[key]


_PLAIN = {float, int, bool, str, type(None)}


def _written(initializer: Initializer, arrays: _Arrays, known: dict[str, bool]) -> str | None:
    """Write a scheme; None if the text would not restore an equal scheme."""
    if not _is_of_the_catalogue(initializer):
        return None
    try:
        config = _encoded(initializer.get_config(), arrays)
        scheme = {"class_name": type(initializer).__name__, "config": config}
        written = _encode(scheme)
    except (KeyError, TypeError, ValueError):  # an array that cannot be stored, or NaN
        return None
    if written not in known:
        try:
            again = get(_decoded(json.loads(written), arrays.all))
        except (TypeError, ValueError):
            return None
        known[written] = again == initializer
    return written if known[written] else None


def _is_of_the_catalogue(initializer: Initializer) -> bool:
    """Return whether a scheme consists of this package's classes only, so others can load it."""
    if not type(initializer).__module__.startswith("winit_fast.initializers."):
        return False
    return _holds_only_the_catalogue(
        [getattr(initializer, field.name) for field in fields(initializer)]  # type: ignore[arg-type]
    )


def _holds_only_the_catalogue(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, Initializer):
            if not _is_of_the_catalogue(value):
                return False
        elif isinstance(value, tuple) and not _holds_only_the_catalogue(value):
            return False
    return True


def _encoded(value: Any, arrays: _Arrays) -> Any:
    """Encode values that JSON lacks: infinite numbers as ``{"float": "inf"}``, and arrays."""
    if isinstance(value, Mapping):
        return {key: _encoded(each, arrays) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encoded(each, arrays) for each in value]
    if isinstance(value, float) and math.isinf(value):
        return {"float": str(value)}
    if isinstance(value, np.ndarray):
        return arrays.keep(value)
    return value


def _decoded(value: Any, stored: Mapping[str, Array] | None) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {"float"} and value["float"] in ("inf", "-inf"):
            return float(value["float"])
        if value.keys() == {"stored", "sha256"}:
            return _kept(value, stored)
        return {key: _decoded(each, stored) for key, each in value.items()}
    if isinstance(value, list):
        return [_decoded(each, stored) for each in value]
    return value


def _inline(packed: Any, fault: str) -> dict[str, Array]:
    """Unpack the arrays that are in the text; their digests are checked where they are used."""
    arrays = {}
    try:
        for key, (tag, extents, text) in packed.items():
            dtype, shape = safetensors.ALL_DTYPES[tag], logical_shape(extents)
            nbytes = math.prod(shape) * dtype.itemsize
            unpacking = zlib.decompressobj()  # no more than it should be, whatever the text says
            content = unpacking.decompress(base64.b64decode(text, validate=True), nbytes + 1)
            if len(content) != nbytes:
                raise ValueError(f"{key!r} has other bytes than {tag} {shape} takes")
            arrays[key] = np.frombuffer(content, dtype).reshape(shape)
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"{fault}: its arrays cannot be read: {error}") from None
    return arrays


def _kept(place: Mapping[str, Any], stored: Mapping[str, Array] | None) -> Array:
    """Return a stored array, and check its digest."""
    if not stored:
        raise ValueError("its values are in a file beside the plan: use load()")
    array = stored.get(place["stored"])
    if array is None:
        raise ValueError(f"no array is stored as {place['stored']!r}")
    if _digest(array) != place["sha256"]:
        raise ValueError(f"other values are stored as {place['stored']!r} than the plan's")
    return array
