"""Rules as a file holds them: an ordered list, and the numbers that their formulas use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from winit_fast.base.arguments import finite, path
from winit_fast.base.formulas import Number
from winit_fast.base.names import excerpt, located, one_of, spelling, unknown
from winit_fast.base.patterns import Found, Matcher
from winit_fast.initializers.protocol import Initializer
from winit_fast.models.data_files import load_all, naming_the_file, parse
from winit_fast.models.naming import known_roles
from winit_fast.models.rule import Rule, strings, words

_MAX_FILE = 1 << 20
"""Most bytes of a file of rules: a larger file is something else."""


def rule_names() -> list[str]:
    """Names of all built-in sets of rules."""
    return list(load_all("rules"))


@dataclass(frozen=True)
class RuleList:
    """The data of `winit_fast.models.Rules`, and the methods that need no plan.

    The attributes are described there.
    """

    name: str
    title: str
    references: tuple[str, ...]
    rules: tuple[Rule, ...]
    applies_to: str = ""
    settings: Mapping[str, Number] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    inherited: int = 0
    requires: tuple[str, ...] = ()
    _matcher: Matcher[Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        matcher = Matcher(
            (pattern, rule)
            for rule in self.rules
            if rule.pattern is not None
            for pattern in rule.compiled
        )
        object.__setattr__(self, "_matcher", matcher)

    @classmethod
    def load(cls, name: str, **settings: float) -> Self:
        """Load built-in rules.

        Parameters
        ----------
        name : str
            One of `rule_names`. Hyphens and underscores are the same.
        **settings
            As in `with_settings`.

        Returns
        -------
        Rules

        Raises
        ------
        ValueError
            If the name or a setting is not known; the message suggests the most similar one.

        Examples
        --------
        >>> from winit_fast.models import Rules
        >>> Rules.load("megatron", std=0.006).settings
        {'std': 0.006}
        """
        known = load_all("rules")
        found = None
        if isinstance(name, str):
            found = {spelling(one): one for one in known}.get(spelling(name))
        if found is None:
            raise ValueError(unknown("rules", name, known))
        loaded = cls._read(found, f"rules/{found}.toml", known[found])
        return loaded.with_settings(**settings) if settings else loaded

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> Self:
        """Read rules from a TOML file.

        Parameters
        ----------
        file : path
            Contains a list ``[[rules]]``, each with ``tensors`` (a pattern of names) or ``roles``,
            ``initializer`` and perhaps ``parameters``, ``stack``, ``keep`` and ``optional``: see
            `winit_fast.models.Rule`.
            Optional: ``title``, ``references``, ``applies_to``, ``settings``, ``needs``,
            ``requires``, and ``extends``, the name of built-in rules, which apply after those of
            the file.

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
    def _read(
        cls, name: str, shown: str, content: dict[str, Any], after: tuple[str, ...] = ()
    ) -> Self:
        """Make the rules of a file's content; every error names the file.

        ``after`` has the names of the rules that extend these.
        """
        with naming_the_file(shown):
            optional = {"title", "references", "applies_to", "settings", "needs", "extends"}
            optional.add("requires")
            _only(content, "the file", {*optional, "rules"}, {"rules"})
            texts = {key: content.get(key, "") for key in ("applies_to", "extends")}
            for key, text in {"title": content.get("title", name), **texts}.items():
                if not isinstance(text, str):
                    raise TypeError(f"{key} must be a str, got {excerpt(text)}")
            references = content.get("references", [])
            if not (isinstance(references, list) and all(isinstance(r, str) for r in references)):
                raise TypeError(f"references must be a list of str, got {excerpt(references)}")
            settings = content.get("settings", {})
            if not isinstance(settings, dict):
                raise TypeError(f"settings must be a table of numbers, got {excerpt(settings)}")
            for key, value in settings.items():
                finite(f"setting {key}", value)
            entries = content["rules"]
            if not (isinstance(entries, list) and all(isinstance(e, dict) for e in entries)):
                raise TypeError(f"rules must be tables, [[rules]], got {excerpt(entries)}")
            rules = [_rule(entry, number) for number, entry in enumerate(entries, start=1)]
            needs = strings("needs", content.get("needs", []))
            more: tuple[Rule, ...] = ()
            if texts["extends"]:
                known = load_all("rules")
                base = one_of("extends", texts["extends"], known)
                if base in (*after, name):
                    raise ValueError(f"extends must be other rules, got {base!r}")
                inner = cls._read(base, f"rules/{base}.toml", known[base], (*after, name))
                more, settings = inner.rules, {**inner.settings, **settings}
                needs = tuple(dict.fromkeys([*needs, *inner.needs]))
            used = {word for rule in (*rules, *more) for word in words(rule.parameters)}
            for key in (*settings, *needs):
                if key not in used:
                    raise ValueError(f"setting {key} is in no formula of the rules")
            return cls(
                name,
                content.get("title", name),
                tuple(references),
                (*rules, *more),
                texts["applies_to"],
                settings,
                tuple(need for need in needs if need not in settings),
                len(more),
                _known("requires", strings("requires", content.get("requires", []))),
            )

    def with_settings(self, **settings: float) -> Self:
        """Return the same rules with other numbers in their formulas.

        Parameters
        ----------
        **settings
            New values of names in ``settings`` and ``needs``.

        Returns
        -------
        Rules

        Raises
        ------
        ValueError, TypeError
            If a setting is not known, or is no finite number.
        """
        known = [*self.settings, *self.needs]
        for name, value in settings.items():
            if not known:
                raise ValueError(f"rules {self.name!r} have no settings, got {name!r}")
            if name not in known:
                raise ValueError(unknown(f"settings of rules {self.name!r}", name, known))
            finite(f"setting {name}", value)
        needs = tuple(need for need in self.needs if need not in settings)
        return replace(self, settings={**self.settings, **settings}, needs=needs)

    def find(self, tensor: str) -> Found[Rule] | None:
        """Find a rule of names for a tensor, and the numbers in its name.

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
        """Make the initializer of one tensor by its name; rules of roles do not count.

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
        >>> from winit_fast.models import Rules
        >>> rules = Rules.load("huggingface")
        >>> rules.initializer("model.norm.weight", {"initializer_range": 0.02})
        Ones()
        """
        found = self.find(tensor)
        if found is None:
            raise ValueError(f"rules {self.name!r} have no rule for tensor {excerpt(tensor)}")
        return make(self, found.value, tensor, {**numbers, **self.settings, **found.numbers})


def make(rules: RuleList, rule: Rule, tensor: str, numbers: Mapping[str, Number]) -> Initializer:
    """Make the initializer of a rule for a tensor; an error names both."""
    try:
        return rule.make(numbers)
    except (TypeError, ValueError) as error:
        where = f"rule {rule.shown} of {rules.name!r}, tensor {excerpt(tensor)}"
        raise located(error, where) from None


def _known(argument: str, roles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one_of(argument, role, known_roles()) for role in roles)


def _rule(entry: Mapping[str, Any], number: int) -> Rule:
    """Make one rule of a file; an error names its number."""
    names = {"tensors", "initializer", "parameters", "roles", "stack", "keep", "optional"}
    _only(entry, f"rule {number}", names, {"initializer"})
    if ("tensors" in entry) == ("roles" in entry):
        both = "both 'tensors' and 'roles'" if "tensors" in entry else "no 'tensors' or 'roles'"
        raise ValueError(f"rule {number} has {both}")
    try:
        rule = Rule(
            entry.get("tensors"),
            entry["initializer"],
            entry.get("parameters", {}),
            entry.get("roles", ()),
            entry.get("stack"),
            entry.get("keep", False),
            entry.get("optional", False),
        )
        rule.check()
    except (TypeError, ValueError) as error:
        raise ValueError(f"rule {number}: {error}") from None
    return rule


def _only(table: Mapping[str, Any], where: str, allowed: set[str], needed: set[str]) -> None:
    """Refuse a table that has unknown keys or lacks a required one."""
    for key in table:
        if key not in allowed:
            raise ValueError(unknown(f"keys of {where}", key, sorted(allowed)))
    for key in sorted(needed):
        if key not in table:
            raise ValueError(f"{where} has no {key!r}")
