"""Finds the plan of a model, and the small files that a checkpoint of it has."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from winit_fast.base import dtypes
from winit_fast.base.formulas import Number
from winit_fast.base.names import excerpt
from winit_fast.models.architectures import Architecture, model_names
from winit_fast.models.plan import Plan
from winit_fast.models.roles import NUMBERS, width
from winit_fast.models.rules import Rules
from winit_fast.sources import configuration
from winit_fast.sources.growth import Growth
from winit_fast.sources.like import tensors_of, with_schemes
from winit_fast.sources.pretrained import from_checkpoint
from winit_fast.sources.report import Report


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


@dataclass(frozen=True)
class Wanted:
    """Rules as a user names them.

    Attributes
    ----------
    rules : str or None
        The name of built-in rules, or a .toml file.
    settings : mapping of str to float
        Other numbers for their formulas.
    base : str or None
        For rules that need ``base_width``: a number, or the source of a model that has it.
    """

    rules: str | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    base: str | None = None

    def load(self, default: str | None = None) -> Rules | None:
        """Load the rules.

        Parameters
        ----------
        default : str, optional
            The name of the rules if none are wanted.

        Returns
        -------
        Rules or None

        Raises
        ------
        ValueError, TypeError, OSError
            If there are no such rules or settings, or they cannot be read.
        """
        named = default if self.rules is None else self.rules
        if named is None:
            if self.settings or self.base is not None:
                given = "--base" if self.base is not None else "--set"
                raise ValueError(f"{given} is for --rules, which is not given")
            return None
        try:
            found = Rules.read(named) if named.endswith(".toml") else Rules.load(named)
        except ValueError as error:
            if named.endswith(".toml"):
                raise
            raise ValueError(
                f"--rules {excerpt(self.rules)} is not a .toml file, and {error}"
            ) from None
        settings = dict(self.settings)
        if self.base is not None:
            if "base_width" in settings:
                raise ValueError(f"--base is the setting base_width, got both: {self.base!r}")
            settings["base_width"] = _base_width(self.base)
        return found.with_settings(**settings) if settings else found


def _base_width(base: str) -> int:
    """Read a width, or find that of a model."""
    if base.isdecimal() and base.isascii():
        if int(base) < 1:
            raise ValueError(f"--base must be a width of at least 1, got {base}")
        return int(base)
    found = width(find(base).plan)
    if found is None:
        raise ValueError(f"--base {base} has no norm and no embedding that shows its width")
    return found


def find(
    source: str | None,
    *,
    dtype: str | None = None,
    rules: str | Wanted | None = None,
    out: str | None = None,
    like: str | None = None,
) -> Source:
    """Find a model.

    Parameters
    ----------
    source : str or None
        The path of a config.json or of a folder that has one, the path of a plan (.json), or the
        name of a built-in model. They are tried in this order.
    dtype : str, optional
        Type of the floating-point tensors. By default that of the configuration, those of the plan,
        or bfloat16 for a built-in model.
    rules : str or Wanted, optional
        Other rules than the authors': the name of built-in rules, or a .toml file.
    out : str, optional
        The folder that is going to be written: it is not taken for a source if a built-in model has
        this name, so that a command that is repeated means the same.
    like : str, optional
        A checkpoint whose names, shapes and types the model has. The schemes are those of the
        source, or of the rules if there is none.

    Returns
    -------
    Source

    Raises
    ------
    ValueError, TypeError, OSError
        If there is no such model, or it cannot be made.
    """
    kind = None if dtype is None else dtypes.find(dtype).name
    wanted = rules if isinstance(rules, Wanted) else Wanted(rules)
    if like is not None:
        if kind is not None:
            raise ValueError(f"--like gives the types too, got --dtype {dtype}")
        return _like(like, source, wanted, out)
    if source is None:
        raise ValueError("a source is needed")
    path = Path(source)
    is_own = out is not None and source in model_names() and path == Path(out)
    if (path / configuration.FILE).is_file() and not is_own:
        path /= configuration.FILE
    if path.suffix == ".json":
        if not path.exists():
            raise FileNotFoundError(f"source must exist, got {source!r}: there is no such file")
        return _of_file(path, kind, wanted.load())
    try:
        architecture = Architecture.load(source)
    except ValueError as error:
        if os.sep in source or path.exists():
            raise ValueError(
                f"{source} has no {configuration.FILE}, and is no plan (.json) nor the name of a "
                "built-in model"
            ) from None
        raise error
    return _built_in(architecture, kind or "bfloat16", wanted)


def _like(like: str, source: str | None, wanted: Wanted, out: str | None) -> Source:
    """Make a model with the names, shapes and types of a checkpoint."""
    tensors = tensors_of(Path(like))
    if source is not None:
        model = find(source, rules=wanted, out=out)
        return replace(model, plan=with_schemes(tensors, model.plan, like), dtype=None)
    rules = wanted.load()
    if rules is None:
        raise ValueError("--like needs a SOURCE or --rules: a checkpoint has no schemes")
    folder = Path(like) if Path(like).is_dir() else Path(like).parent
    file = folder / configuration.FILE
    content = configuration.read(file) if file.is_file() else {}
    plan = ruled(Plan(tensors.values()), rules, numbers_of(content), like)
    texts = {configuration.FILE: json.dumps(content, indent=2) + "\n"} if content else {}
    return Source(Path(like).name, plan, None, texts, {"winit_fast.rules": rules.name})


def grown(model: Source, checkpoint: str, growth: Growth) -> tuple[Source, Report]:
    """Take the tensors of a checkpoint, as far as it has them: see `from_checkpoint`."""
    plan, report = from_checkpoint(model.plan, checkpoint, growth)
    metadata = {**model.metadata, "winit_fast.from": str(Path(checkpoint).absolute())}
    return replace(model, plan=plan, metadata=metadata), report


def _of_file(path: Path, dtype: str | None, rules: Rules | None) -> Source:
    """Read a JSON file, which is a plan or a configuration."""
    content = configuration.read(path)
    if "tensors" in content and "model_type" not in content:
        plan = Plan.load(path)
        if dtype is not None:
            plan = plan.cast(dtype)
        metadata = {} if rules is None else {"winit_fast.rules": rules.name}
        return Source(path.name, ruled(plan, rules, {}, path.name), dtype, {}, metadata)
    model = configuration.recorded(content | ({} if dtype is None else {"dtype": dtype}), str(path))
    numbers = numbers_of(json.loads(model.texts[configuration.FILE]))
    return Source(
        model.name,
        ruled(model.saved, rules, numbers, model.name),
        model.dtype,
        model.texts,
        {
            "winit_fast.model": model.name,
            "winit_fast.rules": model.by if rules is None else rules.name,
        },
    )


def numbers_of(content: Mapping[str, Any]) -> dict[str, Number]:
    """Return the numbers of a configuration, those of its language model included.

    Numbers that follow from the tensors, such as ``layers``, are left out.

    Examples
    --------
    >>> numbers_of({"n_layer": 2, "layers": 3, "tie": True, "text_config": {"d": 8}})
    {'d': 8, 'n_layer': 2}
    """
    inner = content.get("text_config")
    found = numbers_of(inner) if isinstance(inner, Mapping) else {}
    for name, value in content.items():
        if type(value) in (int, float) and math.isfinite(value) and name not in NUMBERS:
            found[name] = value
    return found


def ruled(plan: Plan, rules: Rules | None, numbers: Mapping[str, Number], model: str) -> Plan:
    """Give the tensors of a plan the schemes of rules, if there are any."""
    if rules is None:
        return plan
    return Plan(one.tensor for one in rules.applied(list(plan), numbers, model))


def _built_in(architecture: Architecture, dtype: str, wanted: Wanted) -> Source:
    chosen = wanted.load(architecture.rules)
    assert chosen is not None
    content = {**architecture.configuration, "dtype": dtype, "torch_dtype": dtype}
    return Source(
        architecture.name,
        chosen.tensors(architecture).cast(dtype),
        dtype,
        {configuration.FILE: json.dumps(content, indent=2) + "\n"},
        {"winit_fast.model": architecture.name, "winit_fast.rules": chosen.name},
    )
