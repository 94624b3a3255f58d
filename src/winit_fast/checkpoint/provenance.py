"""Where the numbers of a checkpoint come from: in its headers, and in a file beside it.

Every header's metadata has the stream version, the seed and the digest of the plan: the list of all
tensors' names, shapes, types and schemes, which stands in a JSON file of its own.
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
"""Name of the file that holds the plan."""

FORMAT = 1
"""Version of that file's form."""

STREAM_KEY, SEED_KEY, DIGEST_KEY = "winit_fast.stream", "winit_fast.seed", "winit_fast.plan"
"""The keys in a header's metadata."""


def plan_text(tensors: Iterable[TensorSpec], kinds: Mapping[str, Float]) -> str:
    """Write the plan of a checkpoint.

    A scheme that JSON cannot hold (one of a class of the user's own, or one that holds an array) is
    there as ``"not_written"``, with what it looks like.

    Parameters
    ----------
    tensors : iterable of TensorSpec
    kinds : mapping of str to Float
        Type of each tensor, by its name.

    Returns
    -------
    str
        JSON, a line a tensor.

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
    """Give what every header says of the numbers' origin.

    Parameters
    ----------
    seed : int
    plan : str
        As `plan_text` makes it.

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
    """A tensor as a plan has it.

    Attributes
    ----------
    name : str
    shape : tuple of int
    kind : Float
        Its type.
    initializer : Initializer or None
        None where JSON could not hold it.
    shown : str
        What the scheme looks like.
    """

    name: str
    shape: tuple[int, ...]
    kind: Float
    initializer: Initializer | None
    shown: str


def read_plan(path: Path) -> tuple[list[Planned], str]:
    """Read what `plan_text` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tensors : list of Planned
    digest : str
        As in a header's metadata.

    Raises
    ------
    ValueError
        If it is no such file, or of another version.
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
    """Give a scheme as JSON holds it, or None where it cannot be made again from that.

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
    except (TypeError, ValueError):  # an array, NaN
        return None
    return scheme if again == initializer else None


def scheme_from_json(scheme: Mapping[str, Any]) -> Initializer:
    """Make a scheme from what `scheme_to_json` gives.

    Parameters
    ----------
    scheme : mapping

    Returns
    -------
    Initializer

    Raises
    ------
    TypeError, ValueError
        If it is none.

    Examples
    --------
    >>> scheme_from_json({"class_name": "RandomNormal", "config": {"stddev": 0.02}})
    RandomNormal(stddev=0.02)
    """
    return get(_with_infinities(scheme))


def _is_of_the_catalogue(initializer: Initializer) -> bool:
    """Tell whether any process that has this package can make a scheme again."""
    values = [getattr(initializer, field.name) for field in fields(initializer)]  # type: ignore[arg-type]
    return type(initializer).__module__.startswith("winit_fast.") and all(
        _is_of_the_catalogue(value) for value in values if isinstance(value, Initializer)
    )


def _without_infinities(value: Any) -> Any:
    """Replace infinite numbers, which JSON lacks, by ``{"float": "inf"}``."""
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
