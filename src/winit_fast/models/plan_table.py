"""A table of a model's tensors: one line for tensors whose names differ only in numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from winit_fast.base.names import excerpt
from winit_fast.base.tables import table as aligned
from winit_fast.initializers.elementwise import TruncatedNormal
from winit_fast.initializers.parts import Parts
from winit_fast.initializers.protocol import Initializer
from winit_fast.models.tensor_spec import PARAMETER, TensorSpec

_NO_NORMAL = 10.0
"""Number of standard deviations that no normal draw reaches. If a bound is that far out, it was
meant as an absolute value."""

_NUMBER = re.compile(r"(?<![^\W_])\d+(?![^\W_])")
"""A number in a name, such as that of a layer or an expert."""


class Group(NamedTuple):
    """Tensors with the same name except for numbers, and the same shape, dtype and scheme class.

    Attributes
    ----------
    times : int
    name : str
        Numbers are replaced by ``*``, or by ``{i}`` if the initializer depends on the number.
    shape : tuple of int
    initializer : str
        Parameters that differ are shown as a formula of ``i`` or as a range.
    dtype, kind : str
    """

    times: int
    name: str
    shape: tuple[int, ...]
    initializer: str
    dtype: str
    kind: str


Formulas = Callable[[TensorSpec], tuple[str, object, dict[str, Any] | None]]
"""Returns the name of a tensor with the numbers of its rule, the rule, and its parameters, or None
if they are those of the scheme."""


def by_layer(tensors: Iterable[TensorSpec], formulas: Formulas | None = None) -> list[Group]:
    """Group the same tensors of all layers, in the order of the first tensor of each group.

    Parameters
    ----------
    tensors : iterable of TensorSpec
    formulas : callable, optional
        Returns the formulas from which a scheme's parameters were computed.

    Returns
    -------
    list of Group

    Examples
    --------
    >>> import winit_fast as wf
    >>> tensors = [
    ...     TensorSpec(f"h.{i}.w", (3, 3), wf.RandomNormal(0, 0.02 / (i + 1) ** 0.5))
    ...     for i in range(4)
    ... ]
    >>> by_layer(tensors)[0][:4]
    (4, 'h.{i}.w', (3, 3), 'RandomNormal(stddev=0.02 / sqrt(i + 1))')
    """
    groups: dict[tuple[object, ...], list[TensorSpec]] = {}
    said: dict[tuple[object, ...], tuple[str, dict[str, Any]]] = {}
    for tensor in tensors:
        name: str = tensor.name
        rule: object = None
        parameters: dict[str, Any] | None = None
        if formulas is not None:
            name, rule, parameters = formulas(tensor)
        template = _NUMBER.sub("*", name)
        scheme = type(tensor.initializer)
        key: tuple[object, ...] = (
            template, tensor.shape, tensor.dtype, tensor.drawn_in, tensor.kind, scheme, rule,
        )  # fmt: skip
        groups.setdefault(key, []).append(tensor)
        if parameters is not None:
            said.setdefault(key, (template, parameters))
    result = []
    for key, members in groups.items():
        first = members[0]
        if key in said:
            name, parameters = said[key]
            listed = _listed(first.initializer, parameters, _absolute_bounds(members))
        else:
            name, listed = str(key[0]), _common(members)
            if "sqrt(i + 1)" in listed:
                name = name.replace("*", "{i}", 1)
        if first.drawn_in is not None:
            listed += f" in {first.drawn_in}"
        result.append(Group(len(members), name, first.shape, listed, first.dtype, first.kind))
    return result


def table(tensors: Sequence[TensorSpec]) -> str:
    """Format tensors as a text table, in which all layers share one line.

    Examples
    --------
    >>> import winit_fast as wf
    >>> print(table([TensorSpec(f"h.{i}.bias", (3,), wf.Zeros()) for i in range(12)]))
    times  tensor    shape  type     initializer
       12  h.*.bias  3      float32  Zeros()
    """
    rows = [("times", "tensor", "shape", "type", "initializer")]
    for group in by_layer(tensors):
        shape = " x ".join(map(str, group.shape)) or "()"
        kind = "" if group.kind == PARAMETER else f"  ({group.kind})"
        row = (f"{group.times:,}", group.name, shape, group.dtype, group.initializer + kind)
        rows.append(row)
    return aligned(rows, right={0})


def _listed(
    scheme: Initializer, parameters: dict[str, Any], bounds: tuple[float, float] | None
) -> str:
    if bounds is not None:
        parameters = {k: v for k, v in parameters.items() if k not in ("low", "high")}
    listed = ", ".join(f"{name}={value}" for name, value in parameters.items())
    within = "" if bounds is None else f" within [{bounds[0]:.6g}, {bounds[1]:.6g}]"
    return f"{type(scheme).__name__}({listed}){within}"


def _common(tensors: Sequence[TensorSpec]) -> str:
    """Format the initializers of a group as one; parameters that differ become formula or range."""
    schemes = [tensor.initializer for tensor in tensors]
    first = schemes[0]
    bounds = _absolute_bounds(tensors)
    if bounds is None and all(scheme is first or scheme == first for scheme in schemes):
        return excerpt_of(first)
    if not is_dataclass(first) or isinstance(first, Parts):
        return f"{type(first).__name__}(...)"
    # the schemes differ, but not visibly
    if all(repr(scheme) == repr(first) for scheme in schemes):
        return excerpt_of(first)
    parameters: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(scheme, field.name) for scheme in schemes]
        if not field.init or all(value == field.default for value in values):
            continue
        parameters[field.name] = _range(tensors, values)
    return _listed(first, parameters, bounds)


def excerpt_of(scheme: Initializer) -> str:
    """Format a scheme in one line; the middle of a long repr is omitted."""
    shown = repr(scheme)
    if isinstance(scheme, Parts):
        shown = f"Parts({', '.join(repr(part.initializer) for part in scheme.parts)})"
    return shown if len(shown) <= 100 else f"{shown[:60]} ... {shown[-30:]}"


def _range(tensors: Sequence[TensorSpec], values: Sequence[Any]) -> str:
    first = values[0]
    if all(value == first for value in values):
        return f"{first:.6g}" if isinstance(first, float) else excerpt(first)
    if not all(isinstance(value, (int, float)) for value in values):
        return "..."
    numbers = [_NUMBER.findall(tensor.name) for tensor in tensors]
    if all(numbers):
        scaled = [
            value * math.sqrt(int(found[0]) + 1)
            for value, found in zip(values, numbers, strict=True)
        ]
        if all(math.isclose(one, scaled[0], rel_tol=1e-6) for one in scaled):
            return f"{scaled[0]:.6g} / sqrt(i + 1)"
    return f"{min(values):.6g} to {max(values):.6g}"


def _absolute_bounds(tensors: Sequence[TensorSpec]) -> tuple[float, float] | None:
    """Return the absolute bounds of truncated normals, if the bounds were meant as absolute values.

    Some authors call torch's ``trunc_normal_`` with bounds of -2 and 2 and a deviation of 0.02, so
    the bounds are 100 deviations out. They are the same in all layers, whatever the deviation.
    """
    found = []
    for tensor in tensors:
        scheme = tensor.initializer
        if not isinstance(scheme, TruncatedNormal):
            return None
        if max(abs(scheme.low), abs(scheme.high)) < _NO_NORMAL:
            return None
        found.append([scheme.mean + bound * scheme.stddev for bound in (scheme.low, scheme.high)])
    low, high = found[0]
    same = all(math.isclose(a, low) and math.isclose(b, high) for a, b in found)
    return (low, high) if same else None
