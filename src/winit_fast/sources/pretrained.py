"""Existing weights as a source: tensors are copied, extended or made anew.

Nothing is read here but headers. The plan says where each tensor comes from, and whoever fills it
reads the files box by box.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winit_fast.base import dtypes, safetensors
from winit_fast.base.arguments import path as path_argument
from winit_fast.base.arrays import Array
from winit_fast.base.names import located, unknown
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
from winit_fast.sources.growth import Growth, layer
from winit_fast.sources.report import ANEW, CONVERTED, COPIED, EXTENDED, Report, Row

if TYPE_CHECKING:
    from winit_fast.checkpoint.reader import Place

__all__ = ["Growth", "Report", "Row", "from_checkpoint"]


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
    numbers = [layer(tensor.name) for tensor in plan]
    count = 1 + max((number for number in numbers if number is not None), default=-1)
    if count != len(growth.layers):
        raise ValueError(f"layers has {len(growth.layers)} layers, the model {count}")
    known = {layer(name) for name in old}
    for number in growth.layers:
        if number not in known:
            raise ValueError(f"layers has layer {number}, which {shown} has not")


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
