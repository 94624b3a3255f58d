"""The provenance of a checkpoint's numbers, in the headers and in a JSON file.

The metadata of every header has the stream version, the seed and the digest of the plan. The plan
is the list of all tensors' names, shapes, dtypes and schemes; it is a JSON file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from winit_fast.base.files import regular_file
from winit_fast.models import plan_json
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import STREAM_VERSION

PLAN = "winit_fast.plan.json"
"""Name of the plan's file."""

STREAM_KEY, SEED_KEY, DIGEST_KEY = "winit_fast.stream", "winit_fast.seed", "winit_fast.plan"
"""The keys in a header's metadata."""


def plan_text(tensors: Iterable[TensorSpec]) -> str:
    """Make the JSON text of a checkpoint's plan.

    Arrays that schemes hold are in the text, compressed: loaders take every safetensors file in
    the folder for weights. A scheme that JSON cannot hold (of a user's own class, for example) is
    listed as ``"not_written"``, with its repr.

    Parameters
    ----------
    tensors : iterable of TensorSpec

    Returns
    -------
    str
        JSON with one line for each tensor.

    Examples
    --------
    >>> import winit_fast as wf
    >>> print(plan_text([TensorSpec("b", (3,), wf.Constant(0.5))]))
    {"format": 1, "tensors": [
    {"name": "b", "shape": [3], "dtype": "float32", "initializer": {"class_name": "Constant", \
"config": {"value": 0.5}}}
    ]}
    <BLANKLINE>
    """
    return plan_json.text(tensors, inline=True, strict=False)


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
        DIGEST_KEY: digest(plan.encode()),
    }


def read_plan(path: Path) -> tuple[list[TensorSpec], str]:
    """Read a plan that `plan_text` made.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tensors : list of TensorSpec
        A scheme that JSON could not hold is a `NotWritten`.
    digest : str
        The SHA-256 of the file, as in the headers' metadata.

    Raises
    ------
    ValueError
        If the file is not a plan, or has another version.
    """
    with regular_file(str(path)) as file:
        text = file.read()
    tensors = plan_json.read(text, f"{path} is not a plan of this version")
    return tensors, digest(text)


def digest(text: bytes) -> str:
    """Return the digest of a plan's text."""
    return f"sha256:{sha256(text).hexdigest()}"
