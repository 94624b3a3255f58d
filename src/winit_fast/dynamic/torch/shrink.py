"""Shrink and perturb: weights of a trained model pulled towards zero, with fresh noise."""

from __future__ import annotations

import torch
from torch.nn import Module

from winit_fast.base.arguments import finite
from winit_fast.dynamic.torch.schemes import fill, schemes
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.memory import written
from winit_fast.torch.names import Names, tensors, unwrapped
from winit_fast.torch.placements import held_parts
from winit_fast.torch.rules import Rules


def shrink_and_perturb_(
    module: Module,
    shrink: float = 0.4,
    perturb: float = 0.1,
    *,
    seed: Seed = 0,
    generation: int = 1,
    rules: Rules | None = None,
    names: Names | None = None,
    prefix: str = "",
) -> Module:
    """Multiply all parameters by a factor, and add fresh initial weights times another.

    Parameters
    ----------
    module : torch.nn.Module
        Its buffers and frozen parameters do not change. Of a DTensor, every rank changes its part.
    shrink, perturb : float
        A parameter p becomes shrink * p + perturb * n, where n is drawn from its own scheme.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
        Of the fresh weights.
    generation : int
        Of the streams of the fresh weights; another one for every call.
    rules, names, prefix
        As in `winit_fast.torch.init_`; by default the schemes are those of the author's code.

    Returns
    -------
    torch.nn.Module
        The same module.

    Raises
    ------
    ValueError, TypeError
        As in `winit_fast.torch.init_`; nothing has been written then.

    References
    ----------
    Ash and Adams, "On warm-starting neural network training", NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> layer = winit_fast.torch.init_(torch.nn.Linear(64, 64), seed=0)
    >>> before = layer.weight.detach().clone()
    >>> layer = shrink_and_perturb_(layer, 0.5, 0.5, seed=0)
    >>> fresh = winit_fast.torch.init_(torch.nn.Linear(64, 64), seed=0, generation=1).weight
    >>> torch.allclose(layer.weight, (before + fresh) / 2)
    True
    """
    kept, added = finite("shrink", shrink), finite("perturb", perturb)
    key = seed_number(seed)
    inner = unwrapped(module)
    found = {
        named.name: named.tensor
        for named in tensors(inner)
        if named.is_parameter and named.tensor.requires_grad
    }
    if not found:
        raise ValueError("module must have parameters that require gradients, got none")
    specs = schemes(inner, list(found), rules, names, prefix)
    fresh = {name: spec.of_generation(generation) for name, spec in specs.items()}
    with torch.no_grad():
        for name, tensor in found.items():
            for part, box in held_parts(tensor.detach()):
                noise = torch.empty(part.shape, dtype=part.dtype, device="cpu")
                fill(fresh[name], noise, key, box.slices)
                part.mul_(kept).add_(noise.to(part.device), alpha=added)
            written(tensor)
    return module
