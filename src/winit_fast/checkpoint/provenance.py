"""Where the numbers of a checkpoint come from: in its headers, and in a file beside it.

Every header's metadata has the stream version, the seed and the digest of the plan: the list of all
tensors' names, shapes, types and schemes, which stands in a JSON file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from winit_fast.base.dtypes import Float, find
from winit_fast.base.files import regular_file
from winit_fast.initializers.protocol import Initializer
from winit_fast.models import plan_json
from winit_fast.models.plan_json import NotWritten
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import STREAM_VERSION

PLAN = "winit_fast.plan.json"
"""Name of the file that holds the plan."""

STREAM_KEY, SEED_KEY, DIGEST_KEY = "winit_fast.stream", "winit_fast.seed", "winit_fast.plan"
"""The keys in a header's metadata."""


def plan_text(tensors: Iterable[TensorSpec], kind: Float) -> str:
    """Write the plan of a checkpoint.

    A scheme that JSON cannot hold (one of a class of the user's own, or one that holds an array) is
    there as ``"not_written"``, with what it looks like.

    Parameters
    ----------
    tensors : iterable of TensorSpec
    kind : Float
        Type of all tensors.

    Returns
    -------
    str
        JSON, a line a tensor.

    Examples
    --------
    >>> import winit_fast as wf
    >>> from winit_fast.base.dtypes import find
    >>> print(plan_text([TensorSpec("b", (3,), wf.Constant(0.5))], find("float32")))
    {"format": 1, "tensors": [
    {"name": "b", "shape": [3], "dtype": "float32", "initializer": {"class_name": "Constant", \
"config": {"value": 0.5}}}
    ]}
    <BLANKLINE>
    """
    as_stored = (replace(tensor, dtype=kind.name) for tensor in tensors)
    return plan_json.text(as_stored, strict=False)


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
    stream : str
        The name of its numbers.
    """

    name: str
    shape: tuple[int, ...]
    kind: Float
    initializer: Initializer | None
    shown: str
    stream: str


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
    tensors = plan_json.read(text, f"{path} is no plan of this version")
    return [_planned(tensor) for tensor in tensors], _digest(text)


def _planned(tensor: TensorSpec) -> Planned:
    kind, scheme = find(tensor.dtype), tensor.scheme
    if isinstance(scheme, NotWritten):
        return Planned(tensor.name, tensor.shape, kind, None, scheme.shown, tensor.stream)
    return Planned(tensor.name, tensor.shape, kind, scheme, repr(scheme), tensor.stream)


def _digest(text: bytes) -> str:
    return f"sha256:{sha256(text).hexdigest()}"
