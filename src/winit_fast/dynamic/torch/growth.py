"""Net2Net: wider and deeper networks that compute the same function."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from winit_fast.base.arguments import not_negative, positive
from winit_fast.base.names import nearest
from winit_fast.diagnosis.torch.watching import activation_of, is_sequence
from winit_fast.dynamic.growth import copied
from winit_fast.dynamic.torch.blocks import deepen_block
from winit_fast.dynamic.torch.units import Units, columns, find_units, is_unit_layer, out_axis
from winit_fast.dynamic.torch.units import parameter as parameter_of
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.streams.stream import Stream
from winit_fast.torch.names import modules, unwrapped
from winit_fast.torch.placements import is_sharded


def widen_(
    module: Module,
    name: str,
    width: int,
    *,
    seed: Seed = 0,
    noise: float = 0.0,
    units: Mapping[str, str] | None = None,
) -> Module:
    """Give a layer more units, which are copies of its own, without changing the function.

    The outgoing weights of copies are shared out among them. The parameters are replaced by larger
    ones, so make the optimizer afterwards.

    Parameters
    ----------
    module : torch.nn.Module
        In training mode too the function is the same, unless there is dropout.
    name : str
        A linear layer or a convolution without groups. Of gated units it is the gate.
    width : int
        The number of units afterwards, more than before.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
        Of the choice of units, and of the noise.
    noise : float
        The deviation of noise on the incoming weights of copies, relative to that of the weight, so
        that copies learn different things. The function is the same only without it.
    units : mapping of str to str, optional
        As in `winit_fast.dynamic.DynamicInit`: the layer that uses the units of a layer.

    Returns
    -------
    torch.nn.Module
        The same module.

    Raises
    ------
    ValueError
        If it cannot be told which weights are outgoing, or the width is not larger. Nothing has
        changed then.
    TypeError
        If a parameter is sharded or on the meta device.

    References
    ----------
    Chen et al., "Net2Net: accelerating learning via knowledge transfer", ICLR 2016.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> batch = torch.randn(16, 4)
    >>> before = net(batch)
    >>> net = widen_(net, "0", 13, seed=0)
    >>> net[0].weight.shape, torch.allclose(net(batch), before, atol=1e-6)
    (torch.Size([13, 4]), True)
    """
    inner = unwrapped(module)
    key, most = seed_number(seed), positive("width", width)
    deviation = not_negative("noise", noise)
    found, unknown = find_units(inner, units)
    own = {one.name: one for one in found}.get(name)
    if own is None:
        why = unknown.get(name)
        known = dict(modules(inner))
        raise ValueError(
            f"layer {name!r} cannot be widened: {why}"
            if why
            else f"name must be that of a layer, got {name!r}{nearest(name, known)}"
        )
    if most <= own.count:
        raise ValueError(f"width must be more than the {own.count} units of {name!r}, got {width}")
    holders = [*own.incoming, *([own.norm] if own.norm else []), own.outgoing]
    for place, holder in holders:
        for attribute, tensor in holder._parameters.items():
            if tensor is not None and (is_sharded(tensor) or tensor.is_meta):
                raise TypeError(
                    f"{place}.{attribute} must be a tensor in the memory of this process, got "
                    f"{type(tensor).__name__} on {tensor.device}"
                )
    source, share = copied(own.count, most, key, name)
    index = torch.from_numpy(source)
    with torch.no_grad():
        for place, holder in own.incoming:
            for attribute, tensor in list(holder._parameters.items()):
                if tensor is None:
                    continue
                axis = out_axis(holder) if tensor.ndim > 1 else 0
                wider = tensor.detach().index_select(axis, index.to(tensor.device))
                if deviation and tensor.ndim > 1:
                    _add_noise(wider, axis, own.count, deviation * float(tensor.std()), key,
                               f"{place}.{attribute}")  # fmt: skip
                _replace(holder, attribute, wider)
            _set_sizes(holder, outputs=most)
        if own.norm is not None:
            _widen_norm(own.norm[1], index)
        _widen_outgoing(own, index, torch.from_numpy(share), most)
    return module


def _widen_outgoing(own: Units, index: Tensor, share: Tensor, width: int) -> None:
    holder = own.outgoing[1]
    weight = parameter_of(holder, "weight")
    axis = 1 - out_axis(holder)
    wider = weight.detach().index_select(axis, columns(index, own.each).to(weight.device))
    shape = [1] * weight.ndim
    shape[axis] = -1
    wider *= share.repeat_interleave(own.each).reshape(shape).to(wider)
    _replace(holder, "weight", wider)
    _set_sizes(holder, inputs=width * own.each)


def _widen_norm(norm: Module, index: Tensor) -> None:
    for attribute, tensor in list(norm._parameters.items()):
        if tensor is not None:
            _replace(norm, attribute, tensor.detach()[index.to(tensor.device)])
    for attribute in ("running_mean", "running_var"):
        held = norm._buffers.get(attribute)
        if held is not None:
            norm._buffers[attribute] = held[index.to(held.device)].clone()
    norm.num_features = index.numel()


def _replace(holder: Module, attribute: str, tensor: Tensor) -> None:
    old = holder._parameters[attribute]
    assert old is not None
    new = nn.Parameter(tensor.contiguous(), requires_grad=old.requires_grad)
    holder._parameters[attribute] = new


def _set_sizes(holder: Module, outputs: int | None = None, inputs: int | None = None) -> None:
    """Set the sizes that a layer shows and checks."""
    names = ("in_channels", "out_channels") if hasattr(holder, "out_channels") else (
        ("in_features", "out_features") if hasattr(holder, "out_features") else ("nx", "nf")
    )  # fmt: skip
    for name, size in zip(names, (inputs, outputs), strict=True):
        if size is not None and hasattr(holder, name):
            setattr(holder, name, size)


def _add_noise(wider: Tensor, axis: int, count: int, deviation: float, key: int, name: str) -> None:
    """Add noise to the copies, which are behind the units themselves."""
    part = wider.narrow(axis, count, wider.shape[axis] - count)
    numbers = Stream(key, f"{name}\0widen").normal(0.0, deviation, tuple(part.shape))
    part += torch.from_numpy(numbers).to(part)


_IDEMPOTENT = {"relu", "relu6", "hard_tanh"}
"""Activations f with f(f(x)) = f(x)."""


def deepen_(
    module: Module,
    name: str,
    *,
    seed: Seed = 0,
    noise: float = 0.0,
    batch: Any = None,
    outputs: Sequence[str] | None = None,
) -> Module:
    """Insert a layer or block that computes the identity, without changing the function.

    Parameters
    ----------
    module : torch.nn.Module
    name : str
        A linear layer or a convolution of an ``nn.Sequential``, which gets two new parts behind the
        layer's activation: a layer of the same kind, and the same activation. Without an activation
        behind it, it gets only the layer. Or a residual block of an ``nn.ModuleList`` or
        ``nn.Sequential``, such as a transformer's: it gets a copy behind it in which the last layer
        of each branch is 0. The names of later parts move on; so do the numbers of layers, and
        their count in the configuration, of models of transformers.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
        Of the noise.
    noise : float
        The deviation of noise on the new weights; in a block, on those that are 0. The function is
        the same only without it.
    batch : Tensor, tuple or dict, optional
        The arguments of the module's call: required for a block, which is refused if the module's
        output changes.
    outputs : sequence of str, optional
        The names, in the block, of the last layers of its residual branches; by default those that
        have a usual name, such as "o_proj" and "down_proj".

    Returns
    -------
    torch.nn.Module
        The same module. Make the optimizer afterwards.

    Raises
    ------
    ValueError
        If the layer is not part of an ``nn.Sequential``, its activation changes its own output (so
        that no linear layer before it can be the identity), or a kernel has no middle; if a block
        has no known branches, or its copy changes the output. Nothing has changed then.

    References
    ----------
    Chen et al., "Net2Net: accelerating learning via knowledge transfer", ICLR 2016, section 2.4.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> batch = torch.randn(16, 4)
    >>> before = net(batch)
    >>> net = deepen_(net, "0")
    >>> len(net), torch.allclose(net(batch), before, atol=1e-6)
    (5, True)
    """
    inner = unwrapped(module)
    key, deviation = seed_number(seed), not_negative("noise", noise)
    known = dict(modules(inner))
    if name not in known:
        raise ValueError(f"name must be that of a layer, got {name!r}{nearest(name, known)}")
    layer = known[name]
    parent_name, _, child = name.rpartition(".")
    parent: Any = known.get(parent_name)
    if (type(parent) is nn.ModuleList or is_sequence(parent)) and layer._modules:
        deepen_block(inner, name, parent, batch=batch, outputs=outputs, key=key, noise=deviation)
        return module
    if batch is not None or outputs is not None:
        raise ValueError(f"batch and outputs must be None for {name!r}, which is no block")
    if not is_sequence(parent) or not is_unit_layer(layer):
        raise ValueError(
            f"layer {name!r} cannot be followed by an identity: it must be a linear layer or a "
            f"convolution of an nn.Sequential, or a block of a list, got a {type(layer).__name__} "
            f"of a {type(parent).__name__}"
        )
    children = list(parent._modules)
    place = children.index(child) + 1
    between: list[Module] = []
    activation: Module | None = None
    for following in children[place:]:
        one = parent._modules[following]
        if one is None or is_unit_layer(one):
            break
        between.append(one)
        if activation_of(one) is not None:
            activation = one
            break
    if activation is not None:
        known_as, _ = activation_of(activation) or ("", None)
        if known_as not in _IDEMPOTENT:
            raise ValueError(
                f"layer {name!r} cannot be followed by an identity: {type(activation).__name__} "
                "changes its own output"
            )
        place += len(between)
    added: list[Module] = [_identity(name, layer, key, deviation)]
    if activation is not None:
        added.append(copy.deepcopy(activation))
    for number, one in enumerate(added):
        parent.insert(place + number, one)
    return module


def _identity(name: str, layer: Module, key: int, deviation: float) -> Module:
    """Make a layer of the same kind whose output is its input."""
    weight = parameter_of(layer, "weight")
    bias = getattr(layer, "bias", None) is not None
    made: Any
    if isinstance(layer, nn.modules.conv._ConvNd):
        if any(size % 2 == 0 for size in layer.kernel_size):
            raise ValueError(
                f"the kernel of {name!r} must have a middle to be an identity, got sizes "
                f"{tuple(layer.kernel_size)}"
            )
        made = type(layer)(layer.out_channels, layer.out_channels, layer.kernel_size, bias=bias,
                           padding="same", device=weight.device, dtype=weight.dtype)  # fmt: skip
        nn.init.dirac_(made.weight)
    elif isinstance(layer, nn.Linear):
        made = nn.Linear(layer.out_features, layer.out_features, bias=bias, device=weight.device,
                         dtype=weight.dtype)  # fmt: skip
        nn.init.eye_(made.weight)
    else:
        raise ValueError(f"layer {name!r} must be a Linear or a convolution, got {layer!r:.100}")
    with torch.no_grad():
        if made.bias is not None:
            made.bias.zero_()
        if deviation:
            numbers = Stream(key, f"{name}\0deepen").normal(
                0.0, deviation, tuple(made.weight.shape)
            )
            made.weight += torch.from_numpy(numbers).to(made.weight)
    made.train(layer.training)
    return made
