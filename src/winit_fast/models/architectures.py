"""Architectures: the tensors of a family of models, as formulas of a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from winit_fast.base.formulas import Number, evaluate
from winit_fast.base.names import unknown
from winit_fast.models.data_files import load_all, naming_the_file


def model_names() -> list[str]:
    """Names of all built-in models, from the smallest to the largest in each family."""
    return [name for family in load_all("architectures").values() for name in _models(family)]


def _models(family: dict[str, Any]) -> dict[str, Any]:
    models = family["models"]
    if not isinstance(models, dict):
        raise ValueError(f"models must be a table, got {models!r}")
    return models


@dataclass(frozen=True)
class Architecture:
    """One model: its numbers and the list of its tensors.

    Attributes
    ----------
    name : str
        Name of the model.
    numbers : dict of str to int or float
        The numbers in the formulas of shapes and rules, with their names in config.json.
    shapes : dict of str to tuple of int
        Logical shape of every tensor, in the order of the model.
    buffers : dict of str to str
        The dtypes of those tensors that are buffers, such as running statistics.
    rules : str
        Name of the rules that the model's authors used.
    configuration : dict
        The content of config.json, from which Hugging Face's libraries build the model: the
        numbers, and the settings that do not affect shapes.
    """

    name: str
    numbers: dict[str, Number]
    shapes: dict[str, tuple[int, ...]]
    buffers: dict[str, str]
    rules: str
    configuration: dict[str, Any]

    @classmethod
    def load(cls, model: str) -> Architecture:
        """Load the architecture of a model.

        Parameters
        ----------
        model : str
            One of `model_names`, or an alias that the family declares.

        Returns
        -------
        Architecture

        Raises
        ------
        ValueError
            If the name is not known; the message suggests the most similar one.
        TypeError
            If the name is not a str.

        Examples
        --------
        >>> xl = Architecture.load("gpt2-xl")
        >>> xl.shapes["h.47.attn.c_attn.weight"]
        (1600, 4800)
        """
        if not isinstance(model, str):
            raise TypeError(f"model must be a name, got {model!r}")
        for file, family in load_all("architectures").items():
            with naming_the_file(f"architectures/{file}.toml"):
                name = family.get("aliases", {}).get(model, model)
                if name in _models(family):
                    return cls._read(name, family)
        raise ValueError(unknown("model", model, model_names()))

    @classmethod
    def _read(cls, name: str, family: dict[str, Any]) -> Architecture:
        numbers: dict[str, Number] = dict(_models(family)[name])
        for key, formula in family["numbers"].items():
            numbers[key] = evaluate(formula, numbers)
        shapes, buffers = dict[str, tuple[int, ...]](), dict[str, str]()
        for tensor, shape, dtype in _tensors(family["groups"], numbers):
            shapes[tensor] = shape
            if dtype is not None:
                buffers[tensor] = dtype
        return cls(
            name=name,
            numbers=numbers,
            shapes=shapes,
            buffers=buffers,
            rules=family["rules"],
            configuration=family["configuration"] | numbers,
        )


def _tensors(
    groups: list[dict[str, Any]], numbers: dict[str, Number]
) -> Iterator[tuple[str, tuple[int, ...], str | None]]:
    """Yield name, shape and buffers' dtype of all groups' tensors, each repeated over indices."""
    for group in groups:
        repeat: dict[str, Number | str] = group.get("repeat", {})
        for values in product(*(range(int(evaluate(n, numbers))) for n in repeat.values())):
            indices = dict(zip(repeat, values, strict=True))
            prefix = group.get("prefix", "").format(**indices)
            known = {**numbers, **indices}
            for name, formulas in group["tensors"].items():
                shape = tuple(int(evaluate(formula, known)) for formula in formulas)
                yield prefix + name, shape, group.get("buffers")
