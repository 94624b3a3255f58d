"""Finds the plan of a model, and the small files that a checkpoint of it has."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from winit_fast.base import dtypes
from winit_fast.base.names import excerpt
from winit_fast.models.architectures import Architecture, model_names
from winit_fast.models.plan import Plan
from winit_fast.models.rules import Rules
from winit_fast.sources import configuration


@dataclass(frozen=True)
class Source:
    """A model to be written.

    Attributes
    ----------
    name : str
    plan : winit_fast.Plan
        Its tensors as they are in files.
    dtype : str or None
        Type of the model's floating-point tensors; None if each has its own.
    texts : dict of str to str
        The content of config.json and of other small files.
    metadata : dict of str to str
        For the headers of the files.
    """

    name: str
    plan: Plan
    dtype: str | None
    texts: Mapping[str, str]
    metadata: Mapping[str, str]


def find(
    source: str, *, dtype: str | None = None, rules: str | None = None, out: str | None = None
) -> Source:
    """Find a model.

    Parameters
    ----------
    source : str
        The path of a config.json or of a folder that has one, the path of a plan (.json), or the
        name of a built-in model. They are tried in this order.
    dtype : str, optional
        Type of the floating-point tensors. By default that of the configuration, those of the plan,
        or bfloat16 for a built-in model.
    rules : str, optional
        Other rules for a built-in model: the name of built-in rules, or a .toml file.
    out : str, optional
        The folder that is going to be written: it is not taken for a source if a built-in model has
        this name, so that a command that is repeated means the same.

    Returns
    -------
    Source

    Raises
    ------
    ValueError, TypeError, OSError
        If there is no such model, or it cannot be made.
    """
    kind = None if dtype is None else dtypes.find(dtype).name
    path = Path(source)
    is_own = out is not None and source in model_names() and path == Path(out)
    if (path / configuration.FILE).is_file() and not is_own:
        path /= configuration.FILE
    if path.suffix == ".json":
        if rules is not None:
            raise ValueError(f"--rules is for built-in models, got {excerpt(rules)} for {path}")
        return _of_file(path, kind)
    try:
        architecture = Architecture.load(source)
    except ValueError as error:
        if os.sep in source or path.exists():
            raise ValueError(
                f"{source} has no {configuration.FILE}, and is no plan (.json) nor the name of a "
                "built-in model"
            ) from None
        raise error
    return _built_in(architecture, kind or "bfloat16", rules)


def _of_file(path: Path, dtype: str | None) -> Source:
    """Read a JSON file, which is a plan or a configuration."""
    content = configuration.read(path)
    if "tensors" in content and "model_type" not in content:
        plan = Plan.load(path)
        if dtype is not None:
            plan = plan.cast(dtype)
        return Source(path.name, plan, dtype, {}, {})
    model = configuration.recorded(content | ({} if dtype is None else {"dtype": dtype}), str(path))
    return Source(
        model.name,
        model.saved,
        model.dtype,
        model.texts,
        {"winit_fast.model": model.name, "winit_fast.rules": model.by},
    )


def _built_in(architecture: Architecture, dtype: str, rules: str | None) -> Source:
    chosen = find_rules(architecture, rules)
    content = {**architecture.configuration, "dtype": dtype, "torch_dtype": dtype}
    return Source(
        architecture.name,
        chosen.tensors(architecture).cast(dtype),
        dtype,
        {configuration.FILE: json.dumps(content, indent=2) + "\n"},
        {"winit_fast.model": architecture.name, "winit_fast.rules": chosen.name},
    )


def find_rules(architecture: Architecture, rules: str | None) -> Rules:
    """Load the rules of an architecture's authors, or others.

    Parameters
    ----------
    architecture : Architecture
    rules : str, optional
        The name of built-in rules, or a .toml file.

    Returns
    -------
    Rules

    Raises
    ------
    ValueError, OSError
        If there are no such rules, or they cannot be read.
    """
    if rules is None:
        return Rules.load(architecture.rules)
    if rules.endswith(".toml"):
        return Rules.read(rules)
    try:
        return Rules.load(rules)
    except ValueError as error:
        raise ValueError(f"--rules {excerpt(rules)} is not a .toml file, and {error}") from None
