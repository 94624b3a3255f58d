"""The units of a layer: which weights come into them, and which go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import Module

from winit_fast.base.names import nearest
from winit_fast.diagnosis.torch.watching import (
    activation_of,
    is_parametrised,
    is_sequence,
    is_transposed,
    weight_of,
)
from winit_fast.torch.names import modules

_NAMED = [
    (("gate_proj", "up_proj"), "down_proj"),
    (("up_proj",), "down_proj"),
    (("wi_0", "wi_1"), "wo"),
    (("w1", "w3"), "w2"),
    (("fc1",), "fc2"),
    (("linear1",), "linear2"),
    (("lin1",), "lin2"),
    (("c_fc",), "c_proj"),
    (("wi",), "wo"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("intermediate.dense",), "output.dense"),
]
"""Children of one module that are the two halves of a transformer's MLP, by their names."""

_PASSING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity,
            nn.Flatten, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d,
            nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
            nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)  # fmt: skip
"""Modules that keep units apart, in their order."""

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class Units:
    """The units of one layer.

    Attributes
    ----------
    name : str
        The name of the layer.
    incoming : list of (str, torch.nn.Module)
        The layer, and another one whose output multiplies its own (a gate).
    outgoing : tuple of (str, torch.nn.Module)
        The layer that uses the units.
    norm : tuple of (str, torch.nn.Module) or None
        The batch normalisation between them.
    count : int
    each : int
        How many inputs of the outgoing layer a unit is, after a convolution is flattened.
    activation : torch.nn.Module or None
        The activation between them, if it is a module.
    """

    name: str
    incoming: list[tuple[str, Module]]
    outgoing: tuple[str, Module]
    count: int
    each: int = 1
    norm: tuple[str, Module] | None = None
    activation: Module | None = None
    between: list[Module] = field(default_factory=list)

    @property
    def before(self) -> list[tuple[str, Module]]:
        """The modules of which every parameter has entries for each unit."""
        return [*self.incoming, *([self.norm] if self.norm else [])]

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters that have entries for each unit, by name."""
        found = {
            full_name(name, attribute): held
            for name, one in self.before
            for attribute, held in one._parameters.items()
            if held is not None
        }
        name, one = self.outgoing
        return {**found, full_name(name, "weight"): parameter(one, "weight")}


def full_name(module: str, attribute: str) -> str:
    """Return the name of a module's parameter.

    Examples
    --------
    >>> full_name("fc", "weight"), full_name("", "weight")
    ('fc.weight', 'weight')
    """
    return f"{module}.{attribute}" if module else attribute


def is_unit_layer(module: Module) -> bool:
    """Return whether a layer has units that can be told apart: linear, or a plain convolution."""
    if not isinstance(module._parameters.get("weight"), Tensor):  # it is computed from others
        return False
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return bool(module.groups == 1)
    return isinstance(module, nn.Linear) or is_transposed(module)


def out_axis(module: Module) -> int:
    """Return the axis of a layer's weight along which its units are; the inputs are the other's."""
    return 1 if is_transposed(module) else 0


def parameter(module: Module, name: str) -> Tensor:
    """Return a parameter of a layer."""
    found = getattr(module, name)
    assert isinstance(found, Tensor)
    return found


def sizes(module: Module) -> tuple[int, int]:
    """Return how many units and inputs a layer has."""
    weight = parameter(module, "weight")
    axis = out_axis(module)
    return int(weight.shape[axis]), int(weight.shape[1 - axis])


def find_units(
    module: Module, given: Mapping[str, str] | None = None
) -> tuple[list[Units], dict[str, str]]:
    """Find the layers whose units' incoming and outgoing weights can be told.

    Parameters
    ----------
    module : torch.nn.Module
    given : mapping of str to str, optional
        For further layers, the name of the layer that uses their units.

    Returns
    -------
    units : list of Units
    unknown : dict of str to str
        The names of other layers, with the reason.

    Raises
    ------
    ValueError
        If a given name is not that of such a layer, or the sizes of two layers do not fit.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> units, unknown = find_units(net)
    >>> [(one.name, one.outgoing[0], one.count) for one in units], list(unknown)
    ([('0', '2', 8), ('2', '4', 8)], ['4'])
    """
    named = dict(modules(module))
    found: dict[str, Units] = {}
    for name, following in (given or {}).items():
        for one in (name, following):
            if one not in named or not is_unit_layer(named[one]):
                raise ValueError(
                    f"units must name linear layers and convolutions without groups, got {one!r}"
                    f"{nearest(one, named)}"
                )
        found[name] = _pair(named, (name,), following)
    for name, one in named.items():
        start = f"{name}." if name else ""
        for incoming, outgoing in _NAMED:
            names = [start + each for each in incoming]
            layers = [named.get(each) for each in (*names, start + outgoing)]
            if names[0] in found or any(each is None or not is_unit_layer(each) for each in layers):
                continue
            if any(names[0] == each[0] for own in found.values() for each in own.incoming[1:]):
                continue
            units = _pair_or_none(named, tuple(names), start + outgoing)
            if units is not None:
                found[names[0]] = units
        if is_sequence(one) and not any(_is_inside(name, each, named) for each in named):
            for units in _in_sequence(name, one):
                found.setdefault(units.name, units)
    unknown = {}
    holders = _holders(named)
    for name, units in list(found.items()):
        why = _shared(units, holders)
        if why is not None:
            del found[name]
            unknown[name] = why
    taken = {each for units in found.values() for each, _ in units.incoming}
    for name, one in named.items():
        if name in taken or name in unknown or name.endswith(".parametrizations.weight"):
            continue
        if weight_of(one) is None or (one._modules and not is_parametrised(one)):
            continue
        if "weight" not in one._parameters:
            unknown[name] = "its weight is computed from other parameters"
        elif is_unit_layer(one):
            unknown[name] = f"what uses its units is not known: say it by units={{{name!r}: ...}}"
        else:
            unknown[name] = f"a {type(one).__name__} has no units of its own"
    order = {name: place for place, name in enumerate(named)}
    return sorted(found.values(), key=lambda units: order[units.name]), unknown


def _holders(named: Mapping[str, Module]) -> dict[int, list[str]]:
    """List, by the id of a parameter, all its names."""
    found: dict[int, list[str]] = {}
    for name, one in named.items():
        for attribute, held in one._parameters.items():
            if held is not None:
                found.setdefault(id(held), []).append(full_name(name, attribute))
    return found


def _shared(units: Units, holders: Mapping[int, list[str]]) -> str | None:
    """Return why units cannot be changed alone: a parameter belongs to another layer as well."""
    for name, held in units.parameters().items():
        others = [other for other in holders[id(held)] if other != name]
        if others:
            return f"{name!r} is also {others[0]!r}"
    return None


def _is_inside(name: str, outer: str, named: Mapping[str, Module]) -> bool:
    """Return whether a sequence is a direct part of another one, which lists its layers too."""
    parent, _, _ = name.rpartition(".")
    return bool(name) and outer == parent and is_sequence(named[outer])


def _pair_or_none(
    named: Mapping[str, Module], incoming: tuple[str, ...], outgoing: str
) -> Units | None:
    try:
        return _pair(named, incoming, outgoing)
    except ValueError:
        return None


def _pair(named: Mapping[str, Module], incoming: tuple[str, ...], outgoing: str) -> Units:
    count, _ = sizes(named[incoming[0]])
    _, inputs = sizes(named[outgoing])
    if inputs % count or any(sizes(named[name])[0] != count for name in incoming):
        raise ValueError(
            f"units of {incoming[0]!r} cannot be the inputs of {outgoing!r}: it has {count} units, "
            f"and {outgoing!r} has {inputs} inputs"
        )
    return Units(incoming[0], [(name, named[name]) for name in incoming],
                 (outgoing, named[outgoing]), count, inputs // count)  # fmt: skip


def _flat(name: str, sequence: nn.Sequential) -> list[tuple[str, Module]]:
    """List the modules of a sequence, with those of sequences inside it."""
    start = f"{name}." if name else ""
    result: list[tuple[str, Module]] = []
    for child, one in sequence._modules.items():
        if is_sequence(one):
            result += _flat(start + child, one)
        elif one is not None:
            result.append((start + child, one))
    return result


def _in_sequence(name: str, sequence: nn.Sequential) -> list[Units]:
    found: list[Units] = []
    last: tuple[str, Module] | None = None
    norm: tuple[str, Module] | None = None
    activation: Module | None = None
    between: list[Module] = []
    listed = _flat(name, sequence)
    repeated = {id(one) for _, one in listed if sum(one is other for _, other in listed) > 1}
    for child, one in listed:
        if is_unit_layer(one) and id(one) not in repeated:
            if last is not None:
                units = _pair_or_none({last[0]: last[1], child: one}, (last[0],), child)
                if units is not None:
                    units.norm, units.activation, units.between = norm, activation, between
                    found.append(units)
            last, norm, activation, between = (child, one), None, None, []
        elif last is None:
            continue
        elif isinstance(one, _NORMS) and norm is None and activation is None:
            norm = child, one
        elif activation_of(one) is not None and not isinstance(one, nn.PReLU):
            activation = one
            between.append(one)
        elif isinstance(one, _PASSING):
            between.append(one)
        else:
            last = None
    return found


def columns(numbers: Tensor, each: int) -> Tensor:
    """Return the inputs of the outgoing layer that units are.

    Examples
    --------
    >>> columns(torch.tensor([0, 2]), 3).tolist()
    [0, 1, 2, 6, 7, 8]
    """
    return (numbers[:, None] * each + torch.arange(each)).flatten()
