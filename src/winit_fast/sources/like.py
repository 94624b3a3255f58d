"""Names, shapes and types of an existing checkpoint, as a plan without schemes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from winit_fast.base import safetensors
from winit_fast.base.names import unknown
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import NON_PERSISTENT, TensorSpec
from winit_fast.models.unset import Unset

if TYPE_CHECKING:
    from winit_fast.checkpoint.reader import Place

_FEW = 5
"""Most names of tensors in an error message."""


def tensors_of(path: Path) -> dict[str, TensorSpec]:
    """List the tensors of a checkpoint.

    Parameters
    ----------
    path : Path
        Its folder, its index, or a safetensors file.

    Returns
    -------
    dict of str to TensorSpec
        In the order of the files. No tensor has a scheme.

    Raises
    ------
    ValueError, OSError
        If there is no checkpoint, or it is damaged, or has a type that is not known.
    """
    from winit_fast.checkpoint.reader import places  # needs fcntl, which not every system has

    return {name: _spec(name, place) for name, place in places(path).items()}


def _spec(name: str, place: Place) -> TensorSpec:
    if place.entry.tag not in safetensors.ALL_DTYPES:
        raise ValueError(f"tensor {name!r} in {place.file} has the type {place.entry.tag}")
    dtype = safetensors.ALL_DTYPES[place.entry.tag].name
    return TensorSpec(name, place.entry.shape, Unset(), dtype=dtype)


def with_schemes(wanted: Mapping[str, TensorSpec], plan: Plan, shown: str) -> Plan:
    """Give the tensors of a checkpoint the schemes of a plan that has the same names and shapes.

    Parameters
    ----------
    wanted : mapping of str to TensorSpec
    plan : winit_fast.Plan
    shown : str
        What errors call the checkpoint.

    Returns
    -------
    winit_fast.Plan
        In the order of the checkpoint, in its types.

    Raises
    ------
    ValueError
        If a tensor of one is not in the other, or has another shape.
    """
    made, used = [], set()
    known = {own for tensor in plan for own in (tensor.name, *tensor.tied)}
    for name, tensor in wanted.items():
        if name not in known:
            raise ValueError(f"{shown}: {unknown('a tensor', name, plan.names)}")
        own = plan[name]
        if own.shape != tensor.shape:
            raise ValueError(
                f"{shown} has {name!r} with shape {tensor.shape}, the model with {own.shape}"
            )
        used.add(own.name)
        drawn_in = own.drawn_in if tensor.dtype == own.dtype else None
        made.append(replace(own, name=name, tied=(), dtype=tensor.dtype, drawn_in=drawn_in))
    missing = [own.name for own in plan if own.name not in used and own.kind != NON_PERSISTENT]
    if missing:
        more = ", ..." if len(missing) > _FEW else ""
        raise ValueError(
            f"{shown} lacks {len(missing):,} tensors of the model: "
            f"{', '.join(missing[:_FEW])}{more}"
        )
    return Plan(made)
