"""How the weights of a checkpoint become those of a larger model: other names, repeated layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from winit_fast.base.arguments import not_negative
from winit_fast.base.names import excerpt, one_of

NEW_ROWS = ("scheme", "mean")

_LAYER = re.compile(r"(?<![^.])\d+(?![^.])")
"""The number of a layer: the first part of a name that is a number."""

_STARS = 2
"""Most stars in a mapping, so that matching is fast."""


@dataclass(frozen=True)
class Growth:
    """How existing weights become those of a larger model.

    Attributes
    ----------
    mapping : sequence of (str, str)
        Patterns of names of the new model, each with the name in the checkpoint. ``*`` and numbers
        in braces stand for the same text in both.
    new_rows : {"scheme", "mean"}
        How rows of an embedding or head are made that the checkpoint does not have: by the
        scheme of the tensor, or by `winit_fast.RowsLike`.
    layers : sequence of int, optional
        For each layer of the new model, the layer of the checkpoint that it repeats.
    noise : float
        Standard deviation of normal noise that is added to tensors that are copied more than once.
    """

    mapping: Sequence[tuple[str, str]] = ()
    new_rows: str = "scheme"
    layers: Sequence[int] | None = None
    noise: float = 0.0
    _mappings: tuple[_Mapping, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        one_of("new_rows", self.new_rows, NEW_ROWS)
        not_negative("noise", self.noise)
        object.__setattr__(self, "_mappings", tuple(_Mapping.of(*pair) for pair in self.mapping))

    def source(self, name: str) -> tuple[str, int | None]:
        """Return the name in the checkpoint, and the position of the mapping that says it."""
        if self.layers is not None:
            found = _LAYER.search(name)
            if found is not None and int(found[0]) < len(self.layers):
                start, end = found.span()
                name = f"{name[:start]}{self.layers[int(found[0])]}{name[end:]}"
        for place, mapping in enumerate(self._mappings):
            old = mapping.apply(name)
            if old is not None:
                return old, place
        return name, None


@dataclass(frozen=True)
class _Mapping:
    """A pattern of new names, and how the old one is made of it."""

    new: re.Pattern[str]
    old: tuple[str, ...]

    @classmethod
    def of(cls, new: str, old: str) -> _Mapping:
        parts = re.compile(r"(\*|\{\w+\})")
        if new.count("*") > _STARS:
            raise ValueError(f"mapping must have at most {_STARS} stars, got {excerpt(new)}")
        keys: list[str] = []
        text = ""
        for at, part in enumerate(parts.split(new)):
            if at % 2 == 0:
                text += re.escape(part)
            else:
                keys.append(part if part != "*" else f"*{sum(key[0] == '*' for key in keys)}")
                text += "(.*)" if part == "*" else "([0-9]+)"
        if len(set(keys)) < len(keys):
            raise ValueError(f"mapping must have different names in braces, got {excerpt(new)}")
        made, stars = [], 0
        for at, part in enumerate(parts.split(old)):
            key = part if part != "*" else f"*{stars}"
            stars += part == "*"
            if at % 2 and key not in keys:
                raise ValueError(f"mapping has {part} in {excerpt(old)}, but not in {excerpt(new)}")
            made.append(f"\\{keys.index(key) + 1}" if at % 2 else part.replace("\\", "\\\\"))
        return cls(re.compile(text, re.S), tuple(made))

    def apply(self, name: str) -> str | None:
        """Return the old name, or None if the pattern does not match.

        Examples
        --------
        >>> _Mapping.of("*.experts.{e}.*", "*.*").apply("h.3.experts.7.up")
        'h.3.up'
        """
        found = self.new.fullmatch(name)
        return None if found is None else found.expand("".join(self.old))


def layer(name: str) -> int | None:
    """Return the number of the layer that a tensor belongs to.

    Examples
    --------
    >>> layer("h.12.mlp.3.weight"), layer("wte.weight")
    (12, None)
    """
    found = _LAYER.search(name)
    return None if found is None else int(found[0])


def parse_layers(text: str) -> list[int]:
    """Read which layers are repeated, such as ``18=0..11,6..11``; both ends count.

    Examples
    --------
    >>> parse_layers("5=0..2,1,0")
    [0, 1, 2, 1, 0]
    >>> parse_layers("18=0..2")
    Traceback (most recent call last):
    ValueError: layers '18=0..2' lists 3 layers, not 18
    """
    total, equals, listed = text.rpartition("=")
    layers: list[int] = []
    for part in listed.split(","):
        found = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", part.strip(), re.A)
        if found is None or int(found[1]) > int(found[2] or found[1]):
            raise ValueError(f"layers must be like 24=0..15,8..15, got {text!r}")
        layers += range(int(found[1]), int(found[2] or found[1]) + 1)
    if equals and total.strip() != str(len(layers)):
        raise ValueError(f"layers {text!r} lists {len(layers)} layers, not {total.strip()}")
    return layers
