"""LSUV: orthonormal weights, then every layer scaled to unit deviation of its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import Module

from winit_fast.base.arguments import finite, positive
from winit_fast.dynamic.adjustment import Adjustment
from winit_fast.dynamic.torch.forward import all_or_nothing, to_deviation
from winit_fast.dynamic.torch.layers import Scalable, scalable
from winit_fast.dynamic.torch.ranks import group_of
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.initializers.parts import Parts
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.draw import fill_by
from winit_fast.torch.init import orthogonal_
from winit_fast.torch.names import unwrapped


def lsuv_(
    module: Module,
    batch: Any,
    *,
    seed: Seed = 0,
    deviation: float = 1.0,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    orthonormal: bool = True,
    group: Any = None,
) -> Adjustment:
    """Initialise layers by LSUV: orthonormal weights, each scaled to a deviation of its output.

    Parameters
    ----------
    module : torch.nn.Module
        Any module; its structure, flags and buffers do not change. It runs in the mode it is in.
        Linear layers, convolutions and attention are scaled; embeddings, normalisations, biases and
        layers that share their weight with an embedding keep their values.
    batch : Tensor, tuple or dict
        The arguments of the module's call.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
        Of the orthonormal weights, whose streams have the names of the weights, and of dropout.
    deviation : float
        The deviation of all elements of a layer's output to which the layer is scaled.
    tolerance : float
        The relative difference from it that is accepted.
    max_iterations : int
        How often a layer is scaled before it is an error. Once is enough without biases.
    orthonormal : bool
        Whether weights are drawn, or keep their values until they are scaled.
    group : torch.distributed.ProcessGroup, optional
        Statistics are those of the batches of all its ranks, so all ranks scale alike. By default
        that of a ``DistributedDataParallel``; required if ``fully_shard`` has cut weights.

    Returns
    -------
    Adjustment
        What was done, by layer.

    Raises
    ------
    ValueError
        If the module has no layer to scale, the batch does not fit, or a layer yields numbers that
        are not finite or all alike, or does not get to the target. All weights are as before then.
    TypeError
        If a weight is computed from other parameters, or cut by anything but ``fully_shard``, or an
        argument has the wrong type.

    Notes
    -----
    A layer is scaled while it runs in a forward pass, so all layers take one pass, in which each
    runs about twice, and one pass that measures the result. A layer that runs more than once for a
    batch, or shares its weight, is scaled by all its outputs together, which takes further passes.

    References
    ----------
    Mishkin and Matas, "All you need is a good init", ICLR 2016.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> layers = [part for _ in range(20) for part in (torch.nn.Linear(64, 64), torch.nn.Tanh())]
    >>> net = torch.nn.Sequential(*layers)
    >>> batch = winit_fast.torch.normal_(torch.empty(128, 64), seed=0)
    >>> found = lsuv_(net, batch, seed=1)
    >>> all(0.9 <= layer.after <= 1.1 for layer in found.layers), len(found.layers)
    (True, 20)
    """
    key = seed_number(seed)
    target, accepted = above_0("deviation", deviation), above_0("tolerance", tolerance)
    most = positive("max_iterations", max_iterations)
    inner = unwrapped(module)
    found = scalable(inner)
    ranks = group_of(module, group, [layer.weight for layer in found])
    held = {id(one): one for layer in found for one in (layer.weight, *_of_attention(layer))}
    with all_or_nothing(list(held.values())):
        if orthonormal:
            draw_orthonormal(found, key)
        return to_deviation(
            inner, batch, found, target=target, tolerance=accepted, iterations=most, center=False,
            seed=key & 0x7FFFFFFFFFFFFFFF, group=ranks,
        )  # fmt: skip


def above_0(argument: str, value: Any) -> float:
    """Read a finite number of more than 0.

    Examples
    --------
    >>> above_0("tolerance", 0)
    Traceback (most recent call last):
    ValueError: tolerance must be more than 0, got 0
    """
    number = finite(argument, value)
    if number <= 0:
        raise ValueError(f"{argument} must be more than 0, got {value!r}")
    return number


def _of_attention(layer: Scalable) -> list[nn.Parameter]:
    """Return the weights of an attention's inputs, which are drawn but not scaled."""
    if not isinstance(layer.module, nn.MultiheadAttention):
        return []
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return [own for name in names if (own := getattr(layer.module, name)) is not None]


def draw_orthonormal(found: list[Scalable], key: int) -> None:
    """Draw orthonormal weights; those of fused queries, keys and values separately."""
    drawn: set[int] = set()
    with torch.no_grad():
        for layer in found:
            start = f"{layer.name}." if layer.name else ""
            module = layer.module
            if id(layer.weight) not in drawn:
                own = "out_proj.weight" if isinstance(module, nn.MultiheadAttention) else "weight"
                orthogonal_(layer.weight, seed=key, name=start + own)
                drawn.add(id(layer.weight))
            if not isinstance(module, nn.MultiheadAttention):
                continue
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                if getattr(module, name) is not None:
                    orthogonal_(getattr(module, name), seed=key, name=start + name)
            if module.in_proj_weight is not None:
                rows = module.embed_dim
                scheme = Orthogonal(column_axis=0)
                three = Parts([((low, 0), (low + rows, rows), scheme)
                               for low in range(0, 3 * rows, rows)])  # fmt: skip
                fill_by(module.in_proj_weight, three, key, f"{start}in_proj_weight")
