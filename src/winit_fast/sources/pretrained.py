"""Existing weights as a source: tensors are copied, extended or made anew.

Nothing is read here but headers. The plan says where each tensor comes from, and whoever fills it
reads the files box by box.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from winit_fast.base import dtypes, safetensors
from winit_fast.base.arguments import not_negative
from winit_fast.base.arguments import path as path_argument
from winit_fast.base.arrays import Array
from winit_fast.base.names import excerpt, located, one_of, unknown
from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant
from winit_fast.initializers.elementwise import RandomNormal
from winit_fast.initializers.expression import Expression, Operand
from winit_fast.initializers.pretrained import Pretrained
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.rows_like import RowsLike
from winit_fast.initializers.scaled import Scaled
from winit_fast.models.float8 import quantised, scales_by_weight, scales_of
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import NON_PERSISTENT, TensorSpec

if TYPE_CHECKING:
    from winit_fast.checkpoint.reader import Place

COPIED, CONVERTED, EXTENDED, ANEW = STATUSES = ("copied", "converted", "extended", "anew")
"""What became of a tensor. A converted one has another type than in the checkpoint."""

NEW_ROWS = ("scheme", "mean")

_LAYER = re.compile(r"(?<![^.])\d+(?![^.])")
"""The number of a layer: the first part of a name that is a number."""

_STARS = 2
"""Most stars in a mapping, so that matching is fast."""


class Row(NamedTuple):
    """What became of one tensor.

    Attributes
    ----------
    name : str
    status : {"copied", "converted", "extended", "anew"}
    shape : tuple of int
    source : str or None
        The name of the tensor in the checkpoint.
    source_shape : tuple of int or None
    """

    name: str
    status: str
    shape: tuple[int, ...]
    source: str | None = None
    source_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Report:
    """What became of every tensor, and which tensors of the checkpoint are not used.

    Attributes
    ----------
    rows : tuple of Row
        In the order of the plan, without the non-persistent buffers that the checkpoint has not.
    unused : tuple of str
    """

    rows: tuple[Row, ...]
    unused: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Count the tensors of each status.

        Examples
        --------
        >>> Report((Row("w", "copied", (3,), "w", (3,)),), ("v",)).counts()
        {'copied': 1, 'converted': 0, 'extended': 0, 'anew': 0, 'unused': 1}
        """
        counted = Counter(row.status for row in self.rows)
        return {**{status: counted[status] for status in STATUSES}, "unused": len(self.unused)}

    def names(self, status: str) -> list[str]:
        """List the tensors of a status, or those of the checkpoint that are "unused"."""
        if status == "unused":
            return list(self.unused)
        return [row.name for row in self.rows if row.status == status]

    def of_schemes(self, growth: Growth) -> list[str]:
        """List the tensors that the schemes of the model make, or a part of them."""
        return self.names(ANEW) + (self.names(EXTENDED) if growth.new_rows == "scheme" else [])

    def to_json(self) -> str:
        """Return the report as JSON."""
        content = {
            "counts": self.counts(),
            "tensors": [row._asdict() for row in self.rows],
            "unused": self.unused,
        }
        return json.dumps(content, indent=1) + "\n"


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


# ------------------------------------------------------------------------------------------ plans


def from_checkpoint(
    plan: Plan, checkpoint: str | os.PathLike[str], growth: Growth | None = None, **options: Any
) -> tuple[Plan, Report]:
    """Return a plan whose tensors are those of a checkpoint, as far as it has them.

    A tensor of the same shape is copied, in the type of the plan. One that is larger along some
    axes keeps the elements that the checkpoint has, and its scheme makes the rest. Others keep
    their schemes. Numbers are read only when the plan is used.

    A float8 weight with scales is copied with its scales. If the checkpoint has numbers without
    scales, they are read once now, for the scale that follows from the largest of them.

    Parameters
    ----------
    plan : winit_fast.Plan
        Of the new model.
    checkpoint : path
        A folder with safetensors files, an index or a file.
    growth : winit_fast.sources.pretrained.Growth, optional
        Instead of the options.
    **options
        ``mapping``, ``new_rows``, ``layers`` and ``noise``: see
        `winit_fast.sources.pretrained.Growth`.

    Returns
    -------
    plan : winit_fast.Plan
    report : winit_fast.sources.pretrained.Report

    Raises
    ------
    ValueError, TypeError
        If nothing matches, a mapping matches nothing, a tensor is smaller than in the checkpoint or
        has other axes, the layers do not fit, or only one of two tensors has scales.
    OSError
        If the checkpoint cannot be read.
    """
    from winit_fast.checkpoint.reader import places  # needs fcntl, which not every system has

    path = Path(path_argument("checkpoint", checkpoint))
    growth = Growth(**options) if growth is None else growth
    old = places(path)
    scales = scales_by_weight(plan)
    follow = {scale.name for scale in scales.values()}
    own = [tensor for tensor in plan if tensor.name not in follow]
    found = {tensor.name: _found(tensor, old, growth) for tensor in own}
    _check(plan, old, growth, found, str(path))
    times = Counter(one[0] for one in found.values() if one is not None)
    if growth.noise and max(times.values()) == 1:
        raise ValueError(f"noise is for tensors that are copied more than once, got {growth.noise}")
    made: dict[str, tuple[TensorSpec, Row]] = {}
    for tensor in own:
        one = found[tensor.name]
        pair = [tensor] if tensor.name not in scales else [tensor, scales[tensor.name]]
        if one is None:
            made |= {each.name: (each, Row(each.name, ANEW, each.shape)) for each in pair}
            continue
        try:
            taken = _taken(pair, one[0], old, growth, times[one[0]] > 1)
        except (TypeError, ValueError) as error:
            raise located(error, f"tensor {tensor.name!r}") from None
        for each, status, name in taken:
            row = Row(each.name, status, each.shape, name, old[name].entry.shape)
            made[each.name] = each, row
    rows = [
        row
        for tensor, row in (made[tensor.name] for tensor in plan)
        if (tensor.kind, row.status) != (NON_PERSISTENT, ANEW)  # no file has these
    ]
    if growth.new_rows == "mean" and not any(row.status == EXTENDED for row in rows):
        raise ValueError(f"new_rows 'mean' is for a model with more rows than {path}")
    used = {row.source for row in rows}
    unused = tuple(name for name in old if name not in used)
    return Plan(made[tensor.name][0] for tensor in plan), Report(tuple(rows), unused)


def _found(
    tensor: TensorSpec, old: Mapping[str, Place], growth: Growth
) -> tuple[str, int | None] | None:
    """Find a tensor in the checkpoint, by any of its names."""
    for name in (tensor.name, *tensor.tied):
        source, mapping = growth.source(name)
        if source in old:
            return source, mapping
    return None


def _check(
    plan: Plan,
    old: Mapping[str, Place],
    growth: Growth,
    found: Mapping[str, tuple[str, int | None] | None],
    shown: str,
) -> None:
    if not any(found.values()):
        problem = unknown(f"a tensor of {shown}", plan[0].name if len(plan) else "", old)
        raise ValueError(f"no tensor is found: {problem}; a mapping (--map) gives other names")
    used = {one[1] for one in found.values() if one is not None}
    for place, (new, to) in enumerate(growth.mapping):
        if place not in used:
            raise ValueError(f"mapping {new!r} to {to!r} leads to no tensor of {shown}")
    if growth.layers is None:
        return
    numbers = [_LAYER.search(tensor.name) for tensor in plan]
    count = 1 + max((int(one[0]) for one in numbers if one is not None), default=-1)
    if count != len(growth.layers):
        raise ValueError(f"layers has {len(growth.layers)} layers, the model {count}")
    matches = [_LAYER.search(name) for name in old]
    known = {int(one[0]) for one in matches if one is not None}
    for layer in growth.layers:
        if layer not in known:
            raise ValueError(f"layers has layer {layer}, which {shown} has not")


def _copied(
    tensor: TensorSpec, name: str, place: Place, growth: Growth, is_repeated: bool
) -> tuple[TensorSpec, str]:
    """Return a tensor that is read from a checkpoint, and its status."""
    kind = safetensors.ALL_DTYPES.get(place.entry.tag)
    shape = place.entry.shape
    if kind is None or kind not in dtypes.FLOATS or tensor.dtype not in dtypes.NAMES:
        return _exact(tensor, place, kind)
    if len(shape) != len(tensor.shape) or any(
        own < size for own, size in zip(tensor.shape, shape, strict=True)
    ):
        raise ValueError(
            f"its shape {tensor.shape} must be at least that of {name!r} in the checkpoint, {shape}"
        )
    file = str(Path(place.file).absolute())
    scheme: Initializer = Pretrained(file, name)
    status = COPIED if kind.name == tensor.dtype else CONVERTED
    if shape != tensor.shape:
        status = EXTENDED
        rest = tensor.scheme if growth.new_rows == "scheme" else _rows(tensor, scheme, shape)
        scheme = Pretrained(file, name, fallback=rest)
    if is_repeated and growth.noise:
        noise = Operand("noise", RandomNormal(0.0, growth.noise))
        scheme = Expression("old + noise", [Operand("old", scheme), noise])
    return replace(tensor, initializer=scheme, drawn_in=None), status


def _taken(
    pair: Sequence[TensorSpec],
    name: str,
    old: Mapping[str, Place],
    growth: Growth,
    is_repeated: bool,
) -> list[tuple[TensorSpec, str, str]]:
    """Take a tensor, and its scales if it has some, from one of a checkpoint.

    Returns
    -------
    list of (TensorSpec, str, str)
        Each with its status, and the name in the checkpoint.
    """
    beside = scales_of(name, old) if old[name].entry.tag.startswith("F8") else None
    if beside is not None:
        names = name, beside
        _check_scales(pair, names, old, growth)
        return [
            (*_copied(each, own, old[own], growth, is_repeated), own)
            for each, own in zip(pair, names, strict=True)
        ]
    tensor, *scale = pair
    product = tensor if not scale else _product(tensor, *scale)
    changed, status = _copied(product, name, old[name], growth, is_repeated)
    if not scale:
        return [(changed, status, name)]
    weight, made = quantised(changed, scale[0].name, scale[0].shape)
    made = replace(scale[0], initializer=made.initializer, drawn_in=None)
    return [(weight, CONVERTED if status == COPIED else status, name), (made, CONVERTED, name)]


def _check_scales(
    pair: Sequence[TensorSpec], names: tuple[str, str], old: Mapping[str, Place], growth: Growth
) -> None:
    """Refuse float8 numbers whose scales are not copied with them, as they are."""
    if len(pair) == 1:
        raise ValueError(
            f"its numbers are those of {names[0]!r} times {names[1]!r} in the checkpoint, and the "
            "model has no scales for it: convert the checkpoint to another type first"
        )
    for tensor, name in zip(pair, names, strict=True):
        kind = safetensors.ALL_DTYPES.get(old[name].entry.tag)
        if tensor.shape != old[name].entry.shape or kind is None or kind.name != tensor.dtype:
            raise ValueError(
                f"it has scales, so {tensor.name!r}, {tensor.dtype} of shape {tensor.shape}, must "
                f"be as {name!r} in the checkpoint, {old[name].entry.tag} of shape "
                f"{old[name].entry.shape}"
            )
    if growth.noise:
        raise ValueError(f"noise is for tensors without scales, got {growth.noise}")


def _product(weight: TensorSpec, scale: TensorSpec) -> TensorSpec:
    """Return what a float8 weight and its scale stand for, as far as a plan can say it."""
    step, own = scale.initializer, weight.initializer
    if isinstance(step, Constant):
        own = own.scaled(step.value) or Scaled(own, step.value)
    return replace(weight, initializer=own, dtype="float32", drawn_in=None)


def _rows(tensor: TensorSpec, old: Initializer, shape: tuple[int, ...]) -> Initializer:
    """Return the scheme of new rows from the old ones; that of the tensor for other growth."""
    if tensor.shape[1:] != shape[1:] or not 1 <= len(shape) <= 2 or not shape[0]:
        return tensor.scheme
    if len(shape) == 2:
        return RowsLike(old)
    assert isinstance(old, Pretrained)
    values = old.opened().astype(np.float64)
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return RandomNormal(float(values.mean()), 1e-9 * deviation)


def _exact(tensor: TensorSpec, place: Place, kind: np.dtype[Any] | None) -> tuple[TensorSpec, str]:
    """Return a tensor of integers or bool, whose values are in the plan."""
    if kind is None or kind.name != tensor.dtype or place.entry.shape != tensor.shape:
        raise ValueError(
            f"its type {tensor.dtype} and shape {tensor.shape} must be those of the checkpoint, "
            f"{place.entry.tag} and {place.entry.shape}"
        )
    values: Array = np.empty(tensor.shape, kind)
    place.read(0, values.reshape(-1).view(np.uint8))
    return replace(tensor, initializer=Computed(values)), COPIED


def summary(report: Report, few: int = 8) -> Iterable[tuple[str, str, str]]:
    """Yield status, number of tensors and the first names, for a table."""
    for status, count in report.counts().items():
        if not count:
            continue
        names = report.names(status)
        more = f", ... and {count - few} more" if count > few else ""
        listed = "" if status in (COPIED, CONVERTED) else ", ".join(names[:few]) + more
        yield status, f"{count:,}", listed
