"""The provenance of a checkpoint's numbers, in the headers and in a JSON file.

The metadata of every header has the stream version, the seed and the digest of the plan. The plan
is the list of all tensors' names, shapes, dtypes and schemes; it is a JSON file of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from winit_fast.base import strict_json
from winit_fast.base.boxes import logical_shape
from winit_fast.base.dtypes import Float, find
from winit_fast.base.files import regular_file
from winit_fast.initializers.protocol import Initializer, get
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import STREAM_VERSION

PLAN = "winit_fast.plan.json"
"""Name of the plan's file."""

FORMAT = 1
"""Version of the plan's file format."""

STREAM_KEY, SEED_KEY, DIGEST_KEY = "winit_fast.stream", "winit_fast.seed", "winit_fast.plan"
"""The keys in a header's metadata."""


def plan_text(tensors: Iterable[TensorSpec], kinds: Mapping[str, Float]) -> str:
    """Make the JSON text of a checkpoint's plan.

    A scheme that JSON cannot hold (of a user's own class, or with an array) is listed as
    ``"not_written"``, with its repr.

    Parameters
    ----------
    tensors : iterable of TensorSpec
    kinds : mapping of str to Float
        Type of each tensor, by its name.

    Returns
    -------
    str
        JSON with one line for each tensor.

    Examples
    --------
    >>> import winit_fast as wf
    >>> from winit_fast.base.dtypes import find
    >>> print(plan_text([TensorSpec("b", (3,), wf.Constant(0.5))], {"b": find("float32")}))
    {"format": 1, "tensors": [
    {"name": "b", "shape": [3], "dtype": "float32", "initializer": {"class_name": "Constant", \
"config": {"value": 0.5}}}
    ]}
    <BLANKLINE>
    """
    lines = []
    for tensor in tensors:
        kind = kinds[tensor.name].name
        entry: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "dtype": kind}
        scheme = scheme_to_json(tensor.initializer)
        if scheme is None:
            entry["not_written"] = f"{tensor.initializer!r:.500}"
        else:
            entry["initializer"] = scheme
        lines.append(json.dumps(entry, allow_nan=False))
    return f'{{"format": {FORMAT}, "tensors": [\n' + ",\n".join(lines) + "\n]}\n"


def metadata(seed: int, plan: str) -> dict[str, str]:
    """Return the metadata of every header that records the provenance.

    Parameters
    ----------
    seed : int
    plan : str
        The result of `plan_text`.

    Returns
    -------
    dict of str to str
    """
    return {
        STREAM_KEY: str(STREAM_VERSION),
        SEED_KEY: str(seed),
        DIGEST_KEY: _digest(plan.encode()),
    }


class Planned(NamedTuple):
    """A tensor of a plan.

    Attributes
    ----------
    name : str
    shape : tuple of int
    kind : Float
        Its dtype.
    initializer : Initializer or None
        None if JSON could not hold it.
    shown : str
        The repr of the scheme.
    """

    name: str
    shape: tuple[int, ...]
    kind: Float
    initializer: Initializer | None
    shown: str


def read_plan(path: Path) -> tuple[list[Planned], str]:
    """Read a plan that `plan_text` made.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tensors : list of Planned
    digest : str
        The SHA-256 of the file, as in the headers' metadata.

    Raises
    ------
    ValueError
        If the file is not a plan, or has another version.
    """
    with regular_file(str(path)) as file:
        text = file.read()
    fault = f"{path} is no plan of this version"
    content = strict_json.read(text, fault)
    if content.get("format") != FORMAT or not isinstance(content.get("tensors"), list):
        raise ValueError(f"{fault}: its format is {content.get('format')!r:.200}, not {FORMAT}")
    return [_planned(entry, fault) for entry in content["tensors"]], _digest(text)


def _planned(entry: Any, fault: str) -> Planned:
    try:
        shape = logical_shape(entry["shape"])
        kind = find(entry["dtype"])
        if "not_written" in entry:
            return Planned(entry["name"], shape, kind, None, str(entry["not_written"]))
        initializer = scheme_from_json(entry["initializer"])
        tensor = TensorSpec(entry["name"], shape, initializer)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{fault}: it has {entry!r:.200}: {error}") from None
    return Planned(tensor.name, shape, kind, initializer, repr(initializer))


def _digest(text: bytes) -> str:
    return f"sha256:{sha256(text).hexdigest()}"


def scheme_to_json(initializer: Initializer) -> dict[str, Any] | None:
    """Convert a scheme to JSON objects, or return None if it could not be made again from them.

    Parameters
    ----------
    initializer : Initializer

    Returns
    -------
    dict or None
    """
    if not _is_of_the_catalogue(initializer):
        return None
    config = _without_infinities(initializer.get_config())
    scheme = {"class_name": type(initializer).__name__, "config": config}
    try:
        again = scheme_from_json(json.loads(json.dumps(scheme, allow_nan=False)))
    except (TypeError, ValueError):  # JSON cannot hold an array or NaN
        return None
    return scheme if again == initializer else None


def scheme_from_json(scheme: Mapping[str, Any]) -> Initializer:
    """Make a scheme from the result of `scheme_to_json`.

    Parameters
    ----------
    scheme : mapping

    Returns
    -------
    Initializer

    Raises
    ------
    TypeError, ValueError
        If ``scheme`` is not such a result.

    Examples
    --------
    >>> scheme_from_json({"class_name": "RandomNormal", "config": {"stddev": 0.02}})
    RandomNormal(stddev=0.02)
    """
    return get(_with_infinities(scheme))


def _is_of_the_catalogue(initializer: Initializer) -> bool:
    """Return whether a scheme consists only of this package's classes, not of a user's own."""
    values = [getattr(initializer, field.name) for field in fields(initializer)]  # type: ignore[arg-type]
    return type(initializer).__module__.startswith("winit_fast.") and all(
        _is_of_the_catalogue(value) for value in values if isinstance(value, Initializer)
    )


def _without_infinities(value: Any) -> Any:
    """Replace infinite numbers, which JSON does not have, by ``{"float": "inf"}``."""
    if isinstance(value, Mapping):
        return {key: _without_infinities(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(each) for each in value]
    if isinstance(value, float) and math.isinf(value):
        return {"float": str(value)}
    return value


def _with_infinities(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {"float"} and value["float"] in ("inf", "-inf"):
            return float(value["float"])
        return {key: _with_infinities(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_infinities(each) for each in value]
    return value
