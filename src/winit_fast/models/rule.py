"""One rule: an initializer, with formulas as parameters, for the names or roles of a pattern."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, get_type_hints

import winit_fast.initializers as initializers
from winit_fast.base.formulas import Number, evaluate
from winit_fast.base.names import excerpt, one_of, unknown
from winit_fast.base.patterns import Pattern
from winit_fast.initializers.expression import Expression
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import find
from winit_fast.models.naming import known_roles

_STACKS = ("encoder", "decoder", "only")

OWN = "own"
"""In the place of an initializer: what the model's own code does."""

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Rule:
    """One rule: an initializer for the tensors whose names, or whose roles, match a pattern.

    Parameters
    ----------
    pattern : str or None
        See ``winit_fast.base.patterns.Pattern``: ``*`` matches any text; ``{i}``, or any other name
        in braces, matches a whole number, which the formulas may use under that name, for example
        if they depend on the depth of a layer. None for a rule of roles.
    initializer : str
        A name that `winit_fast.get` accepts; or "own", with which the tensors keep the schemes that
        the model's own code gives them.
    parameters : mapping of str to (int, float, str, …)
        Arguments of the initializer. A str is a formula of the model's numbers, unless the
        argument takes text, as ``distribution`` does.
    roles : sequence of str
        Patterns of roles, such as ``attention.*``. The role of a bias ends in ".bias"; only a
        pattern that ends so matches it.
    stack : {"encoder", "decoder", "only"}, optional
        Restricts a rule of roles: to the encoder or the decoder of a model that has both, or
        ("only") to models that do not have both.
    keep : bool
        Whether a tensor that the model's own code sets to a known value, such as 1, keeps it.
    optional : bool
        Whether the rule may apply to no tensor. That is an error otherwise, except for built-in
        rules of roles, which are for many models.

    Raises
    ------
    ValueError
        If a pattern is invalid, or fits no role.
    TypeError
        If an argument has the wrong type.
    """

    pattern: str | None
    initializer: str
    parameters: Mapping[str, Any]
    roles: Sequence[str] = ()
    stack: str | None = None
    keep: bool = False
    optional: bool = False
    compiled: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_role = self.pattern is None
        object.__setattr__(self, "roles", strings("roles", self.roles))
        if by_role != bool(self.roles):
            raise ValueError("a rule must have either a pattern of names or roles")
        for argument, kind in (("pattern", str), ("initializer", str), ("parameters", Mapping)):
            value = getattr(self, argument)
            if not isinstance(value, kind) and not (by_role and argument == "pattern"):
                raise TypeError(f"{argument} must be a {kind.__name__}, got {excerpt(value)}")
        for argument in ("keep", "optional"):
            if not isinstance(getattr(self, argument), bool):
                shown = excerpt(getattr(self, argument))
                raise TypeError(f"{argument} must be a bool, got {shown}")
        if self.stack is not None:
            one_of("stack", self.stack, _STACKS)
            if not by_role:
                raise ValueError(f"stack is for rules of roles, got {self.stack!r}")
        if self.initializer == OWN and self.parameters:
            raise ValueError(f"{OWN!r} has no parameters, got {excerpt(dict(self.parameters))}")
        patterns = self.roles if by_role else (self.pattern,)
        compiled = tuple(Pattern(pattern) for pattern in patterns if pattern is not None)
        if by_role:
            known = [name for role in known_roles() for name in (role, f"{role}.bias")]
            for pattern in compiled:
                if all(pattern.match(role) is None for role in known):
                    raise ValueError(unknown("roles", pattern.text, known_roles()))
        object.__setattr__(self, "compiled", compiled)

    def match(self, name: str) -> dict[str, int] | None:
        """Return the numbers that the pattern finds in a name, or None if it does not match.

        Parameters
        ----------
        name : str
            Of a tensor, or a role if the rule is for roles.

        Returns
        -------
        dict of str to int, or None

        Examples
        --------
        >>> Rule("h.{i}.*.bias", "zeros", {}).match("h.12.mlp.c_fc.bias")
        {'i': 12}
        """
        for pattern in self.compiled:
            numbers = pattern.match(name)
            if numbers is not None and not (
                self.roles and _is_bias(name) != _is_bias(pattern.text)
            ):
                return numbers
        return None

    @property
    def shown(self) -> str:
        """What the rule is for, in messages: its pattern, or its roles."""
        if self.pattern is not None:
            return excerpt(self.pattern)
        of = "" if self.stack is None else f" of the {self.stack}"
        return f"{', '.join(self.roles)}{of}"

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
        if self.initializer == OWN:
            raise ValueError(f"{OWN!r} is the scheme of the model's own code, which is not here")
        kind = find(self.initializer)
        hints = _hints(kind)  # type: ignore[arg-type]  # a class has a hash
        parameters = {
            name: value if _takes_text(hints.get(name)) else evaluate(value, numbers)
            for name, value in self.parameters.items()
        }
        if kind is Expression and isinstance(parameters.get("text"), str):
            operands: Any = parameters.get("operands", {})
            known = {name: n for name, n in numbers.items() if name not in operands}
            parameters["text"] = _with_numbers(str(parameters["text"]), known)
        return initializers.get(self.initializer, **parameters)

    def check(self) -> None:
        """Check that the initializer exists and has the parameters.

        Raises
        ------
        ValueError, TypeError
            If not; the message names the most similar one.
        """
        if self.initializer == OWN:
            return
        try:
            kind = find(self.initializer)
        except ValueError as error:
            raise ValueError(
                f"{error} (a scheme of your own is known once its module is imported)"
            ) from None
        known = [one.name for one in fields(kind) if one.init]  # type: ignore[arg-type]
        for name in self.parameters:
            if name not in known:
                raise TypeError(unknown(f"parameters of {self.initializer}", name, known))


def _is_bias(role: str) -> bool:
    return role.endswith("bias")


def strings(argument: str, value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        raise TypeError(f"{argument} must be a list of str, got {excerpt(value)}")
    return tuple(listed)


def words(value: Any) -> set[str]:
    """List the names in formulas, also in those of nested tables.

    Examples
    --------
    >>> sorted(words({"stddev": "std / sqrt(2 * layers)", "mean": 0.0}))
    ['layers', 'sqrt', 'std']
    """
    if isinstance(value, Mapping):
        return set().union(*map(words, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(words, value))
    return set(_WORD.findall(value)) if isinstance(value, str) else set()


def _with_numbers(text: str, numbers: Mapping[str, Number]) -> str:
    """Replace the names of numbers in an expression by the numbers.

    Examples
    --------
    >>> _with_numbers("d = exp(x * dt_max); d + dt_min", {"dt_max": 0.1, "dt_min": -1, "d": 3})
    'd = exp(x * 0.1); d + (-1)'
    """
    assigned = set(re.findall(r"([^\W\d]\w*)\s*=", text))

    def number(found: re.Match[str]) -> str:
        if found[0] not in numbers or found[0] in assigned:
            return found[0]
        value = repr(numbers[found[0]])
        return f"({value})" if value.startswith("-") else value

    return _WORD.sub(number, text)


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a class's parameters.

    If they cannot be found, none, and every str is a formula.
    """
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
