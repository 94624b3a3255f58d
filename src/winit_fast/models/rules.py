"""Rules: patterns of tensor names, each with the initializer of the tensors that match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import winit_fast.initializers as initializers
from winit_fast.base.formulas import Number, evaluate
from winit_fast.base.names import one_of
from winit_fast.initializers.protocol import Initializer
from winit_fast.models.architectures import Architecture
from winit_fast.models.data_files import load_all, naming_the_file
from winit_fast.models.tensor_spec import Tensor


def rule_names() -> list[str]:
    """Names of all sets of rules that ship with the package."""
    return list(load_all("rules"))


@dataclass(frozen=True)
class Rule:
    """One rule: an initializer for the tensors whose name matches a pattern.

    Parameters
    ----------
    pattern : str
        ``*`` stands for any characters; ``{i}`` (any name in braces) for a number, which the
        formulas may use under that name, as rules that depend on the depth of a layer do.
    initializer : str
        Name as in `winit_fast.get`.
    parameters : mapping of str to (int, float or str)
        Arguments of the initializer; a string is a formula over the architecture's numbers.

    Raises
    ------
    ValueError
        If a name in braces is used twice or begins with a digit.
    TypeError
        If something has another type than it should.
    """

    pattern: str
    initializer: str
    parameters: Mapping[str, Number | str]

    def __post_init__(self) -> None:
        for argument, kind in (("pattern", str), ("initializer", str), ("parameters", Mapping)):
            value = getattr(self, argument)
            if not isinstance(value, kind):
                raise TypeError(f"{argument} must be a {kind.__name__}, got {value!r}")
        names = re.findall(r"\{(\w+)\}", self.pattern)
        if len(set(names)) < len(names) or not all(map(str.isidentifier, names)):
            raise ValueError(
                f"pattern must have different names in its braces, got {self.pattern!r}"
            )

    def match(self, name: str) -> dict[str, int] | None:
        """Numbers that the pattern finds in a tensor's name, None if it does not match.

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
        pieces = re.split(r"(\*|\{\w+\})", self.pattern)
        regex = "".join(
            ".*" if piece == "*"
            else rf"(?P<{piece[1:-1]}>[0-9]{{1,18}})" if re.fullmatch(r"\{\w+\}", piece)
            else re.escape(piece)
            for piece in pieces
        )  # fmt: skip
        found = re.fullmatch(regex, name)
        return found and {key: int(value) for key, value in found.groupdict().items()}


@dataclass(frozen=True)
class Rules:
    """An ordered set of rules for a whole model; of several that match a tensor the first counts.

    Attributes
    ----------
    name : str
    title : str
        What the rules are, in one line.
    references : tuple of str
        Where they come from.
    rules : tuple of Rule
    """

    name: str
    title: str
    references: tuple[str, ...]
    rules: tuple[Rule, ...]

    @classmethod
    def load(cls, name: str) -> Rules:
        """Rules that ship with the package.

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
            If the name is not known; the message has the nearest one that is.
        """
        known = load_all("rules")
        one_of("recipe", name, known)
        data: dict[str, Any] = known[name]
        with naming_the_file(f"rules/{name}.toml"):
            return cls(
                name=name,
                title=data["title"],
                references=tuple(data["references"]),
                rules=tuple(
                    Rule(rule["tensors"], rule["initializer"], rule.get("parameters", {}))
                    for rule in data["rules"]
                ),
            )

    def initializer(self, tensor: str, numbers: Mapping[str, Number]) -> Initializer:
        """The initializer of one tensor.

        Parameters
        ----------
        tensor : str
            Its name.
        numbers : mapping of str to int or float
            The architecture's numbers.

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
        for rule in self.rules:
            found = rule.match(tensor)
            if found is not None:
                known = {**numbers, **found}
                return initializers.get(
                    rule.initializer,
                    **{key: evaluate(formula, known) for key, formula in rule.parameters.items()},
                )
        raise ValueError(f"recipe {self.name!r} has no rule for tensor {tensor!r}")

    def tensors(self, architecture: Architecture) -> tuple[Tensor, ...]:
        """Every tensor of a model with its initializer, in the model's order.

        Parameters
        ----------
        architecture : Architecture

        Returns
        -------
        tuple of Tensor

        Raises
        ------
        ValueError
            If a tensor is matched by no rule.
        """
        return tuple(
            Tensor(name, shape, self.initializer(name, architecture.numbers))
            for name, shape in architecture.shapes.items()
        )
