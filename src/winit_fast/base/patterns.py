"""Patterns of tensor names, for rules from files and from Python."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

from winit_fast.base.names import excerpt

Value = TypeVar("Value")

_PART = re.compile(r"(\*|\{\w+\})")
_NUMBER = r"(?<![0-9])([0-9]{1,18})(?![0-9])"


@dataclass(frozen=True)
class Pattern:
    """A pattern of tensor names.

    ``*`` matches any text, including none; ``{i}``, with any name in braces, matches a whole
    number. Every other character matches itself, brackets and question marks too. If there are
    several ways to match, an earlier ``*`` takes as much as it can.

    Parameters
    ----------
    text : str
        The pattern.

    Raises
    ------
    TypeError
        If the pattern is not a str.
    ValueError
        If braces do not contain a name, a name is used twice, or a number is next to a digit or to
        another number, so that its end would be ambiguous.

    Notes
    -----
    The time is at most proportional to the product of the lengths of pattern and name. The text
    after a ``*`` is searched for once, in an atomic group, which the regular expression does not
    backtrack into: if any place of that text leads to a match, so does the last. Pattern and name
    are reversed, because a regular expression searches from the left. It is compiled for the first
    name that ends as the pattern does: of the built-in naming schemes, most patterns meet no such
    name.

    Examples
    --------
    >>> Pattern("h.{i}.*.bias").match("h.12.mlp.c_fc.bias")
    {'i': 12}
    >>> Pattern("w[0]").match("w0") is None
    True
    """

    text: str
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _end: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"pattern must be a str, got {excerpt(self.text)}")
        parts = _PART.split(self.text)
        names = [part[1:-1] for part in parts[1::2] if part != "*"]
        if len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
            raise ValueError(
                f"pattern must have different names in its braces, got {excerpt(self.text)}"
            )
        for before, part, after in zip(parts[0::2], parts[1::2], parts[2::2], strict=False):
            if part != "*" and re.search("[0-9]", before[-1:] + after[:1]):
                raise ValueError(
                    f"pattern must not have a digit next to {part}, got {excerpt(self.text)}"
                )
        if re.search(r"\{\w+\}\{\w+\}", self.text):
            raise ValueError(
                f"pattern must have text between two numbers in braces, got {excerpt(self.text)}"
            )
        object.__setattr__(self, "_names", tuple(reversed(names)))
        object.__setattr__(self, "_end", parts[-1])

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        """The regular expression for reversed names."""
        # The first and the last stretch of the pattern without "*" must be at the ends of the name.
        first, *others = (_reversed(stretch) for stretch in reversed(re.split(r"\*+", self.text)))
        last = f".*{others.pop()}" if others else ""
        middle = "".join(f"(?>.*?{stretch})" for stretch in others)
        return re.compile(f"{first}{middle}{last}", re.S)

    def _fullmatch(self, name: str) -> re.Match[str] | None:
        return self._expression.fullmatch(name[::-1]) if name.endswith(self._end) else None

    @property
    def is_exact(self) -> bool:
        """Whether the pattern matches only one name, its own text."""
        return "*" not in self.text and not self._names

    def match(self, name: str) -> dict[str, int] | None:
        """Return the numbers that the pattern finds in a name, or None if the name does not match.

        Parameters
        ----------
        name : str

        Returns
        -------
        dict of str to int, or None
        """
        found = self._fullmatch(name)
        if found is None:
            return None
        numbers = (int(digits[::-1]) for digits in found.groups())
        return dict(reversed(list(zip(self._names, numbers, strict=True))))

    def template(self, name: str) -> str:
        """Replace the numbers in a matching name by the pattern's braces.

        Examples
        --------
        >>> Pattern("h.{i}.*").template("h.12.mlp.3")
        'h.{i}.mlp.3'
        """
        found = self._fullmatch(name)
        if found is None:
            raise ValueError(f"name must match {excerpt(self.text)}, got {excerpt(name)}")
        text = name[::-1]
        # the last number first, so that the positions of the others stay valid
        for group in range(len(self._names), 0, -1):
            begin, end = found.span(group)
            text = f"{text[:begin]}}}{self._names[group - 1][::-1]}{{{text[end:]}"
        return text[::-1]


def _reversed(stretch: str) -> str:
    """Return the regular expression of a pattern without "*", for reversed names."""
    parts = reversed(_PART.split(stretch))
    return "".join(
        _NUMBER if number % 2 else re.escape(part[::-1]) for number, part in enumerate(parts)
    )


class Found(NamedTuple, Generic[Value]):
    """The first pattern that a name matches.

    Attributes
    ----------
    pattern : Pattern
    value : object
        The pattern's value.
    numbers : dict of str to int
        The numbers found in the name, by the names in the pattern's braces.
    """

    pattern: Pattern
    value: Value
    numbers: dict[str, int]


class Matcher(Generic[Value]):
    """An ordered list of patterns, each with a value; the first pattern that matches applies.

    The patterns are compiled once. Patterns that are plain names are looked up in a dict, so any
    number of them costs nothing.

    Parameters
    ----------
    rules : iterable of (Pattern or str, object)

    Examples
    --------
    >>> matcher = Matcher([("h.{i}.weight", "normal"), ("*", "zeros")])
    >>> found = matcher.find("h.3.weight")
    >>> found.value, found.numbers
    ('normal', {'i': 3})
    >>> matcher.find("bias").value
    'zeros'
    """

    def __init__(self, rules: Iterable[tuple[Pattern | str, Value]]) -> None:
        self._rules = [
            (pattern if isinstance(pattern, Pattern) else Pattern(pattern), value)
            for pattern, value in rules
        ]
        self._exact: dict[str, int] = {}
        self._open: list[int] = []
        for place, (pattern, _) in enumerate(self._rules):
            if pattern.is_exact:
                self._exact.setdefault(pattern.text, place)
            else:
                self._open.append(place)

    def find(self, name: str) -> Found[Value] | None:
        """Return the first pattern that matches a name, or None.

        Parameters
        ----------
        name : str

        Returns
        -------
        Found or None
        """
        exact = self._exact.get(name, len(self._rules))
        for place in self._open:
            if place > exact:
                break
            pattern, value = self._rules[place]
            numbers = pattern.match(name)
            if numbers is not None:
                return Found(pattern, value, numbers)
        return Found(*self._rules[exact], {}) if exact < len(self._rules) else None

    def idle(self, names: Iterable[str]) -> list[Pattern]:
        """Return the patterns that match none of the names, without regard to earlier patterns.

        Parameters
        ----------
        names : iterable of str

        Returns
        -------
        list of Pattern

        Examples
        --------
        >>> Matcher([("*.weight", 1), ("*.wieght", 2)]).idle(["a.weight"])
        [Pattern(text='*.wieght')]
        """
        known = set(names)
        return [
            pattern
            for pattern, _ in self._rules
            if (
                pattern.text not in known
                if pattern.is_exact
                else all(pattern.match(name) is None for name in known)
            )
        ]
