"""Naming schemes: patterns of tensor names, each with the roles of what matches.

A naming scheme (``data/naming/*.toml``) maps patterns of names to roles such as ``attention.q`` or
``mlp.out``, whatever a family of models calls its tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from winit_fast.base.formulas import Number
from winit_fast.base.patterns import Matcher, Pattern
from winit_fast.initializers.fans import JAX, TORCH, Convention
from winit_fast.models.data_files import load_all, naming_the_file

_COMMON = "common"
"""The naming scheme that all others include."""

_GUESSES = "guesses"
"""The naming scheme for names that no other has."""

_AXES = {"torch": TORCH, "jax": JAX}


class Layout(NamedTuple):
    """How a tensor is made of sections, each with a role.

    Attributes
    ----------
    roles : tuple of str
        In their order along the output axis.
    shares : tuple of (int or str)
        How much of the axis each has, as formulas.
    groups : int or str
        How often the roles repeat along the axis.
    axes : Convention
        The axes of inputs and outputs, not counting ``batch``.
    batch : int
        Number of leading axes that count independent tensors, such as experts.
    widens : bool
        Whether layers of this kind have more outputs than inputs: a shape that says the opposite
        shows that weights are stored the other way round.
    inputs : tuple of int
        The axes of inputs, if all others are those of outputs; otherwise ``axes`` has them.
    """

    roles: tuple[str, ...]
    shares: tuple[Number | str, ...]
    groups: Number | str
    axes: Convention
    batch: int
    widens: bool = False
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Naming:
    """A naming scheme.

    Attributes
    ----------
    name, title : str
    layouts : Matcher
    needs : tuple of Pattern
        Each must match a tensor of the model.
    stacks : Matcher
        Which tensors belong to the encoder, and which to the decoder.
    numbers : mapping of str to int or float
    layers : str or None
        The key of the configuration that holds the number of layers, if names do not show it.
    """

    name: str
    title: str
    layouts: Matcher[Layout]
    needs: tuple[Pattern, ...]
    stacks: Matcher[str]
    numbers: Mapping[str, Number]
    layers: str | None = None


@cache
def namings() -> dict[str, Naming]:
    """Read all naming schemes, in alphabetical order, without the one of guesses."""
    return {
        name: _read(name, content)
        for name, content in load_all("naming").items()
        if name not in (_COMMON, _GUESSES)
    }


@cache
def guesses() -> Naming:
    """Read the naming scheme that says what unknown names most likely mean."""
    return _read(_GUESSES, load_all("naming")[_GUESSES])


@cache
def known_roles() -> tuple[str, ...]:
    """List the roles that a tensor can have, without those of biases."""
    roles = [role for naming in load_all("naming").values() for role in _listed(naming["roles"])]
    return tuple(sorted({*roles, "bias", "linear", "conv"}))


def _listed(table: Mapping[str, Any]) -> Iterable[str]:
    for entry in table.values():
        yield from _split(entry if isinstance(entry, str) else entry["roles"])


def _split(roles: str) -> tuple[str, ...]:
    return tuple(role.strip() for role in roles.split("|"))


@cache
def _common() -> list[tuple[Pattern, Layout]]:
    return _layouts(_COMMON, load_all("naming")[_COMMON])


def _layouts(name: str, content: Mapping[str, Any]) -> list[tuple[Pattern, Layout]]:
    with naming_the_file(f"naming/{name}.toml"):
        axes = _AXES[content.get("axes", "torch")]
        return [
            (Pattern(pattern), _layout(entry, axes)) for pattern, entry in content["roles"].items()
        ]


def _read(name: str, content: Mapping[str, Any]) -> Naming:
    layouts = _layouts(name, content)
    with naming_the_file(f"naming/{name}.toml"):
        return Naming(
            name,
            content["title"],
            Matcher([*layouts, *_common()]),
            tuple(map(Pattern, content.get("needs", []))),
            Matcher((pattern, stack) for stack, pattern in content.get("stacks", {}).items()),
            content.get("numbers", {}),
            content.get("layers"),
        )


def _layout(entry: str | Mapping[str, Any], axes: Convention) -> Layout:
    if isinstance(entry, str):
        entry = {"roles": entry}
    roles = _split(entry["roles"])
    return Layout(
        roles,
        tuple(entry.get("shares", [1] * len(roles))),
        entry.get("groups", 1),
        _AXES[entry["axes"]] if "axes" in entry else axes,
        entry.get("batch", 0),
        entry.get("widens", False),
        tuple(entry.get("inputs", ())),
    )
