"""Compares schemes: what becomes of the signals of one network with each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.diagnosis.comparison import Comparison
from winit_fast.diagnosis.torch.propagation import Loss, propagate
from winit_fast.diagnosis.torch.watching import is_parametrised, layers, weight_of
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.modules import init_
from winit_fast.torch.names import tensors
from winit_fast.torch.rules import Rules


def compare(
    schemes: Mapping[str, Initializer | str | Rules],
    network: Module,
    batch: Any,
    *,
    seed: Seed = 0,
    loss: Loss | None = None,
) -> Comparison:
    """Measure one network with several schemes; afterwards it has its own weights again.

    Parameters
    ----------
    schemes : mapping of str to (Initializer, str or rules)
        By the name that the figure shows. An initializer, or its name as in `winit_fast.get`, is
        for the weights of all layers; rules are those of `winit_fast.torch.init_`. All other
        parameters keep their values.
    network : torch.nn.Module
    batch : Tensor, tuple or dict
        As in `winit_fast.diagnosis.propagate`.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
        Of the weights.
    loss : callable, optional
        As in `winit_fast.diagnosis.propagate`.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        If there is no scheme, or as in `winit_fast.torch.init_` and
        `winit_fast.diagnosis.propagate`. The network has its own weights then, too.

    Examples
    --------
    >>> import torch
    >>> layers = [part for _ in range(9) for part in (torch.nn.Linear(64, 64), torch.nn.ReLU())]
    >>> net = torch.nn.Sequential(*layers, torch.nn.Linear(64, 8))
    >>> batch = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    >>> found = compare({"He": "he_normal", "Glorot": "glorot_normal"}, net, batch)
    >>> [one.layers[-2].deviation > 0.5 for one in found.values()]
    [True, False]
    """
    if not isinstance(schemes, Mapping) or not schemes:
        raise TypeError(f"schemes must be a mapping that is not empty, got {schemes!r}")
    key = seed_number(seed)
    held = {id(one): one for one in (*network.parameters(), *network.buffers())}
    before = [(one, one.detach().clone()) for one in held.values()]
    found = {}
    try:
        for name, scheme in schemes.items():
            init_(network, rules_of(network, scheme), seed=key)
            found[name] = propagate(network, batch, loss)
            _put_back(before)
    finally:
        _put_back(before)
    return Comparison(found)


def rules_of(network: Module, scheme: Initializer | str | Rules) -> Rules:
    """Make rules for all parameters: an initializer is for the weights of layers.

    Examples
    --------
    >>> rules_of(torch.nn.Linear(2, 2), "he_normal")
    {'weight': 'he_normal', '*': 'keep'}
    """
    if isinstance(scheme, Mapping):
        return {**scheme, "*": "keep"}
    if not isinstance(scheme, (Initializer, str)):
        return scheme
    own = layers(network)
    weights = {id(weight_of(one)) for _, one in own if not is_parametrised(one)}
    names = [named.name for named in tensors(network) if id(named.tensor) in weights]
    names += [f"{name}.weight" if name else "weight" for name, one in own if is_parametrised(one)]
    return {**dict.fromkeys(names, scheme), "*": "keep"}


def _put_back(before: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for one, copy in before:
            one.copy_(copy)
