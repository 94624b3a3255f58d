"""Rules: patterns of tensor names, each with the initializer for the tensors that match."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

import winit_fast.initializers as initializers
from winit_fast.base.arguments import path
from winit_fast.base.formulas import Number, evaluate
from winit_fast.base.names import excerpt, located, unknown
from winit_fast.base.patterns import Found, Matcher, Pattern
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import find
from winit_fast.models.architectures import Architecture
from winit_fast.models.data_files import load_all, naming_the_file, parse
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import BUFFER, PARAMETER, TensorSpec

_MAX_FILE = 1 << 20
"""Most bytes of a file of rules: a larger file is something else."""

_FEW = 5
"""Most names of tensors in an error message."""


def rule_names() -> list[str]:
    """Names of all built-in sets of rules."""
    return list(load_all("rules"))


@dataclass(frozen=True)
class Rule:
    """One rule: an initializer for the tensors whose names match a pattern.

    Parameters
    ----------
    pattern : str
        See ``winit_fast.base.patterns.Pattern``: ``*`` matches any text; ``{i}``, with any name in
        braces, matches a whole number, which the formulas may use under that name, for example if
        they depend on the depth of a layer.
    initializer : str
        A name that `winit_fast.get` accepts.
    parameters : mapping of str to (int, float, str, …)
        Arguments of the initializer. A str is a formula of the architecture's numbers, unless the
        argument takes text, as ``distribution`` does.

    Raises
    ------
    ValueError
        If the pattern is invalid.
    TypeError
        If an argument has the wrong type.
    """

    pattern: str
    initializer: str
    parameters: Mapping[str, Any]
    compiled: Pattern = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for argument, kind in (("pattern", str), ("initializer", str), ("parameters", Mapping)):
            value = getattr(self, argument)
            if not isinstance(value, kind):
                raise TypeError(f"{argument} must be a {kind.__name__}, got {excerpt(value)}")
        object.__setattr__(self, "compiled", Pattern(self.pattern))

    def match(self, name: str) -> dict[str, int] | None:
        """Return the numbers that the pattern finds in a name, or None if it does not match.

        Parameters
        ----------
        name : str

        Returns
        -------
        dict of str to int, or None

        Examples
        --------
        >>> Rule("h.{i}.*.bias", "zeros", {}).match("h.12.mlp.c_fc.bias")
        {'i': 12}
        """
        return self.compiled.match(name)

    def make(self, numbers: Mapping[str, Number]) -> Initializer:
        """Make the initializer.

        Parameters
        ----------
        numbers : mapping of str to int or float
            Those of the architecture, and those that the pattern found.

        Returns
        -------
        Initializer

        Examples
        --------
        >>> Rule("*", "he_normal", {"fan_in": "4 * d", "mode": "fan_in"}).make({"d": 8})
        HeNormal(fan_in=32)
        """
        hints = _hints(find(self.initializer))  # type: ignore[arg-type]  # a class has a hash
        parameters = {
            name: value if _takes_text(hints.get(name)) else evaluate(value, numbers)
            for name, value in self.parameters.items()
        }
        return initializers.get(self.initializer, **parameters)


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a class's parameters; none where they cannot be found: all are formulas then."""
    try:
        return get_type_hints(kind)
    except NameError:  # a user's class may use names that it imports only for type checkers
        return {}


def _takes_text(hint: Any) -> bool:
    """Whether an argument of this type is text, and not a number that a formula may compute.

    Examples
    --------
    >>> _takes_text(str), _takes_text(str | None), _takes_text(float | str), _takes_text(int)
    (True, True, False, False)
    """
    kinds = getattr(hint, "__args__", (hint,))
    return str in kinds and not {int, float}.intersection(kinds)


@dataclass(frozen=True)
class Rules:
    """An ordered list of rules for a whole model; the first rule that matches a tensor applies.

    Attributes
    ----------
    name : str
    title : str
        Description in one line.
    references : tuple of str
        Where they come from.
    rules : tuple of Rule
    """

    name: str
    title: str
    references: tuple[str, ...]
    rules: tuple[Rule, ...]
    _matcher: Matcher[Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        matcher = Matcher((rule.compiled, rule) for rule in self.rules)
        object.__setattr__(self, "_matcher", matcher)

    @classmethod
    def load(cls, name: str) -> Rules:
        """Load built-in rules.

        Parameters
        ----------
        name : str
            One of `rule_names`.

        Returns
        -------
        Rules

        Raises
        ------
        ValueError
            If the name is not known; the message suggests the most similar one.
        """
        known = load_all("rules")
        if not (isinstance(name, str) and name in known):
            raise ValueError(unknown("rules", name, known))
        return cls._read(name, f"rules/{name}.toml", known[name])

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> Rules:
        """Read rules from a TOML file.

        Parameters
        ----------
        file : path
            Contains a list ``[[rules]]``, each with ``tensors`` (the pattern), ``initializer`` and
            optionally ``parameters``. ``title`` and ``references`` are optional too.

        Returns
        -------
        Rules
            Their name is that of the file.

        Raises
        ------
        ValueError
            If the file has another form; the message names the file and the place in it.
        OSError
            If the file cannot be read.
        """
        file = Path(path("file", file))
        if not file.is_file():  # reading a pipe or a device may never end
            raise FileNotFoundError(f"rules must be a file, got {str(file)!r}")
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise ValueError(f"{file} is not a file of rules: it has more than {_MAX_FILE:,} bytes")
        return cls._read(file.name, str(file), parse(str(file), content))

    @classmethod
    def _read(cls, name: str, shown: str, content: dict[str, Any]) -> Rules:
        """Make the rules of a file's content; every error names the file."""
        with naming_the_file(shown):
            _only(content, "the file", {"title", "references", "rules"}, {"rules"})
            title, references = content.get("title", name), content.get("references", [])
            if not isinstance(title, str):
                raise TypeError(f"title must be a str, got {excerpt(title)}")
            if not (isinstance(references, list) and all(isinstance(r, str) for r in references)):
                raise TypeError(f"references must be a list of str, got {excerpt(references)}")
            entries = content["rules"]
            if not (isinstance(entries, list) and all(isinstance(e, dict) for e in entries)):
                raise TypeError(f"rules must be tables, [[rules]], got {excerpt(entries)}")
            rules = []
            for number, entry in enumerate(entries, start=1):
                needed = {"tensors", "initializer"}
                _only(entry, f"rule {number}", {*needed, "parameters"}, needed)
                try:
                    rules.append(
                        Rule(entry["tensors"], entry["initializer"], entry.get("parameters", {}))
                    )
                except (TypeError, ValueError) as error:
                    raise ValueError(f"rule {number}: {error}") from None
            return cls(name, title, tuple(references), tuple(rules))

    def find(self, tensor: str) -> Found[Rule] | None:
        """Find the rule of a tensor and the numbers in its name.

        Parameters
        ----------
        tensor : str
            Its name.

        Returns
        -------
        Found or None
        """
        return self._matcher.find(tensor)

    def initializer(self, tensor: str, numbers: Mapping[str, Number]) -> Initializer:
        """Make the initializer of one tensor.

        Parameters
        ----------
        tensor : str
            Its name.
        numbers : mapping of str to int or float
            The architecture's numbers. A number that the pattern finds in the tensor's name takes
            precedence over a number with the same name here.

        Returns
        -------
        Initializer

        Raises
        ------
        ValueError
            If no rule matches the name.

        Examples
        --------
        >>> Rules.load("gpt2").initializer("h.0.ln_1.bias", {"n_layer": 12})
        Zeros()
        """
        found = self.find(tensor)
        if found is None:
            raise ValueError(f"rules {self.name!r} have no rule for tensor {excerpt(tensor)}")
        try:
            return found.value.make({**numbers, **found.numbers})
        except (TypeError, ValueError) as error:
            where = f"rule {excerpt(found.pattern.text)} of {self.name!r}, tensor {excerpt(tensor)}"
            raise located(error, where) from None

    def tensors(self, architecture: Architecture) -> Plan:
        """List the tensors of a model with their initializers, in the model's order.

        Parameters
        ----------
        architecture : Architecture

        Returns
        -------
        Plan

        Raises
        ------
        ValueError
            If no rule matches a tensor, or a rule applies to no tensor.
        """
        found = {name: self.find(name) for name in architecture.shapes}
        missing = [name for name, rule in found.items() if rule is None]
        if missing:
            first = ", ".join(missing[:_FEW]) + (", ..." if len(missing) > _FEW else "")
            raise ValueError(
                f"rules {self.name!r} have no rule for {len(missing):,} of {len(found):,} tensors "
                f"of {architecture.name}: {first}"
            )
        deciding = {id(rule.value) for rule in found.values() if rule}
        for rule in self.rules:
            if id(rule) in deciding:
                continue
            if any(rule.match(name) is not None for name in found):
                raise ValueError(
                    f"rule {rule.pattern!r} of {self.name!r} applies to no tensor of "
                    f"{architecture.name}: earlier rules apply to all tensors that it matches"
                )
            problem = unknown(f"rule {rule.pattern!r} of {self.name!r}", rule.pattern, found)
            raise ValueError(f"a rule matches no tensor of {architecture.name}: {problem}")
        return Plan(
            TensorSpec(
                name,
                shape,
                self.initializer(name, architecture.numbers),
                dtype=architecture.buffers.get(name, "float32"),
                kind=BUFFER if name in architecture.buffers else PARAMETER,
            )
            for name, shape in architecture.shapes.items()
        )


def _only(table: Mapping[str, Any], where: str, allowed: set[str], needed: set[str]) -> None:
    """Refuse a table that has unknown keys or lacks a required one."""
    for key in table:
        if key not in allowed:
            raise ValueError(unknown(f"keys of {where}", key, sorted(allowed)))
    for key in sorted(needed):
        if key not in table:
            raise ValueError(f"{where} has no {key!r}")
