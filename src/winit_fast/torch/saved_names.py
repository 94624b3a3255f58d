"""The keys that transformers' ``save_pretrained`` writes for the tensors of a model.

A model may hold the tensors of several keys in one: gate and up projections, all experts. How
transformers splits them follows from its conversion of a state dict before saving. That conversion
is recorded here, on tensors without memory.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.nn import Module

from winit_fast.base.boxes import whole
from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant, Ones, Zeros
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.parts import Part, Parts, covers
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.torch.names import Named, tensors, unwrapped
from winit_fast.torch.recorder import CannotRecord, Recorder
from winit_fast.torch.recording import recording
from winit_fast.torch.reduce import Reduced
from winit_fast.torch.values import Call, Held, Region, Value, View, c_strides


class Key(NamedTuple):
    """A key of a checkpoint, and the box of a model's tensor that is saved under it.

    Attributes
    ----------
    key : str
    starts, stops : tuple of int
    shape : tuple of int
        The shape under the key, which may lack axes of the box.
    """

    key: str
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    shape: tuple[int, ...]


def saved_keys(module: Module, found: list[Named]) -> dict[str, list[Key]]:
    """Find the keys of the tensors that are saved in parts, or under another name.

    A tensor is left out unless each of its keys holds a box of it, with the elements in order.

    Parameters
    ----------
    module : torch.nn.Module
    found : list of Named
        The module's tensors.

    Returns
    -------
    dict of str to list of Key
        Empty for a model that is not from transformers.
    """
    model: Any = unwrapped(module)
    if not any(kind.__name__ == "PreTrainedModel" for kind in type(model).__mro__):
        return {}
    revert = getattr(sys.modules.get("transformers.core_model_loading"),
                     "revert_weight_conversion", None)  # fmt: skip
    if revert is None:
        return {}
    twins = {
        named.name: torch.empty_strided(
            named.tensor.shape, c_strides(tuple(named.tensor.shape)), device="meta",
            dtype=named.tensor.dtype,
        )
        for named in found if named.is_persistent and named.tensor.numel()
    }  # fmt: skip
    recorder = Recorder(twins)
    keys: dict[str, list[Key]] = {}
    lost: set[str] = set()
    try:
        with recording(recorder):
            written = revert(model, dict(twins))
        for key, tensor in written.items():
            name, place = _origin(recorder.read(tensor))
            box = None if place is None else place.box(tuple(twins[name].shape))
            if place is None or box is None or not place.in_order():
                lost.add(name)
            else:
                keys.setdefault(name, []).append(Key(key, *box, tuple(tensor.shape)))
    except (CannotRecord, _Mixed):
        return {}
    return {
        name: own for name, own in keys.items()
        if name not in lost and [key.key for key in own] != [name]
    }  # fmt: skip


class SavedStreams:
    """Streams named by the keys of a checkpoint, so that fused and separate tensors agree.

    Parameters
    ----------
    module : torch.nn.Module
    found : list of Named
        The module's tensors.
    streams : dict of str to str
        The streams of the tensors; changed for tensors that are saved under another name.
    """

    def __init__(self, module: Module, found: list[Named], streams: dict[str, str]) -> None:
        self._parts: dict[str, list[Part]] = {}
        saved = saved_keys(module, found)
        shapes = {named.name: tuple(named.tensor.shape) for named in found if named.name in saved}
        for name, keys in saved.items():
            start = streams[name].removesuffix(name)
            if len(keys) == 1 and keys[0].stops == shapes[name]:
                streams[name] = start + keys[0].key
                continue
            parts = [Part(key.starts, key.stops, Zeros(), start + key.key) for key in keys]
            if covers([part[:2] for part in parts], whole(shapes[name])):
                self._parts[name] = parts
        self._streams = streams

    def __call__(self, name: str, reduced: Reduced) -> Reduced:
        """Draw each part of a tensor from its own stream, if one plain draw fills all of it."""
        scheme, parts = reduced.scheme, self._parts.get(name)
        if (
            parts is None
            or not isinstance(scheme, (RandomNormal, RandomUniform, TruncatedNormal))
            or reduced.stream != self._streams[name]
        ):
            return reduced
        own = Parts([part._replace(initializer=scheme) for part in parts])
        return reduced._replace(scheme=own)


def as_saved(plan: Plan, module: Module) -> Plan:
    """Convert the plan of a module to that of its checkpoint: the same bits, other tensors.

    Parameters
    ----------
    plan : winit_fast.Plan
        Of `winit_fast.torch.record`.
    module : torch.nn.Module
        The module that was recorded.

    Returns
    -------
    winit_fast.Plan

    Raises
    ------
    ValueError
        If the scheme of a tensor that is saved in parts cannot be divided.
    """
    keys = saved_keys(module, tensors(module))
    if not keys:
        return plan
    made: list[TensorSpec] = []
    for tensor in plan:
        own = keys.get(tensor.name)
        if own is None:
            made.append(tensor)
        elif len(own) == 1 and own[0].shape == tensor.shape:
            made.append(replace(tensor, name=own[0].key, stream=tensor.stream))
        else:
            made += _divided(tensor, own)
    return Plan(made)


def _divided(tensor: TensorSpec, keys: list[Key]) -> Iterator[TensorSpec]:
    scheme = tensor.initializer
    parts = {}
    if isinstance(scheme, Parts):
        parts = {
            part[:2]: part for part in scheme.parts if part.stream is not None and part.of is None
        }
    for key in keys:
        part = parts.get((key.starts, key.stops))
        if part is not None:
            own, stream = part.initializer, part.stream
        elif isinstance(scheme, (Zeros, Ones, Constant)):
            own, stream = scheme, None
        elif isinstance(scheme, Computed):
            box = tuple(map(slice, key.starts, key.stops))
            own, stream = Computed(scheme.values[box].reshape(key.shape)), None
        else:
            raise CannotRecord(
                f"tensor {tensor.name!r} is saved in parts, such as {key.key!r}, but its scheme "
                f"cannot be divided: {scheme!r:.200}"
            )
        yield replace(
            tensor, name=key.key, shape=key.shape, initializer=own, stream=stream, tied=()
        )


class _Mixed(Exception):
    """A key holds elements of several tensors."""


def _origin(value: Value) -> tuple[str, Region | None]:
    """Find the tensor that a value is taken from, and the region of it."""
    if isinstance(value, Held):
        return value.name, Region(value.shape, c_strides(value.shape), 0)
    if isinstance(value, Call) and value.function._schema.name in _COPIES:
        name, place = _origin(value.args[0])
        return name, place
    if isinstance(value, View):
        name, place = _origin(value.base)
        if place is None or not isinstance(value.base, (Held, Call)):
            return name, None
        return name, _within(place, value.region)
    raise _Mixed


_COPIES = {"aten::clone", "aten::contiguous", "aten::_to_copy", "aten::detach"}


def _within(place: Region, region: Region) -> Region | None:
    """Return the place in the tensor of a region that is relative to another place."""
    if place.offset == 0 and place.strides == c_strides(place.sizes):
        return region
    digits, steps = [], c_strides(place.sizes)
    for stride in region.strides:
        if stride not in steps:
            return None
        digits.append(place.strides[steps.index(stride)])
    offset, rest = place.offset, region.offset
    for step, stride in zip(steps, place.strides, strict=True):
        count, rest = divmod(rest, step)
        offset += count * stride
    return Region(region.sizes, tuple(digits), offset)
