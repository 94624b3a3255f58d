"""The layers of a module that can be scaled, and deviations over all ranks of a group."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from winit_fast.diagnosis.torch.watching import layers, weight_of
from winit_fast.torch.names import modules, tensors
from winit_fast.torch.placements import is_sharded
from winit_fast.torch.refusals import refuse
from winit_fast.torch.shards import whole


@dataclass
class Scalable:
    """A layer whose output is proportional to its weight, up to its bias.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
    weight : Tensor
    bias : Tensor or None
    shards : list of (torch.nn.Module, str, Tensor)
        Its parameters that are DTensors, with the modules and attributes that hold them.
    """

    name: str
    module: Module
    weight: Tensor
    bias: Tensor | None
    shards: list[tuple[Module, str, Tensor]] = field(default_factory=list)

    @property
    def axis(self) -> int:
        """The axis of the output along which its units are."""
        return 1 if isinstance(self.module, nn.modules.conv._ConvNd) else -1

    def run(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Run the layer once more, with its weights as they are now.

        What ``fully_shard`` has gathered for the layer is older than its shards, so these are
        gathered again.
        """
        before = [(holder, name, holder._parameters[name]) for holder, name, _ in self.shards]
        try:
            for (holder, name, shard), (_, _, own) in zip(self.shards, before, strict=True):
                dtype = shard.dtype if own is None or is_sharded(own) else own.dtype
                holder._parameters[name] = nn.Parameter(whole(shard.detach()).to(dtype))
            return self.module.forward(*arguments, **named)
        finally:
            for holder, name, own in before:
                holder._parameters[name] = own


def scalable(module: Module) -> list[Scalable]:
    """List the layers that can be scaled: linear ones, convolutions and attention.

    Embeddings cannot, nor layers that share their weight with one.

    Raises
    ------
    ValueError
        If there is no such layer.
    TypeError
        If a weight is no floating-point parameter in memory, or computed from others, or cut by
        anything but ``fully_shard``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    >>> [one.name for one in scalable(net)]
    ['1']
    """
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    inside = list(modules(module))
    refuse(inside, tensors(module, inside=inside))
    shared = {id(one.weight) for _, one in inside if isinstance(one, embeddings)}
    is_by_fsdp = any(hasattr(type(one), "_get_fsdp_state") for _, one in inside)
    found = []
    for name, one in layers(module):
        weight = weight_of(one)
        if weight is None or id(weight) in shared or "weight" in one._buffers:
            continue
        if not isinstance(weight, nn.Parameter):
            raise TypeError(
                f"the weight of layer {name!r} must be a parameter, but it is computed from "
                "others: scale the layer before it is parametrised, or remove the parametrisation"
            )
        if weight.is_meta or not weight.is_floating_point():
            raise TypeError(
                f"the weight of layer {name!r} must be a floating-point tensor in memory, got one "
                f"of {weight.dtype} on {weight.device}"
            )
        if is_sharded(weight) and not is_by_fsdp:
            raise TypeError(
                f"the weight of layer {name!r} must be whole or cut by fully_shard, got a DTensor "
                f"with placements {weight.placements}"
            )
        holder = one.out_proj if isinstance(one, nn.MultiheadAttention) else one
        bias = getattr(holder, "bias", None)
        shards = [
            (part, attribute, held)
            for part in one.modules()
            for attribute, held in part._parameters.items()
            if held is not None and is_sharded(held)
        ]
        found.append(
            Scalable(name, one, weight, bias if isinstance(bias, Tensor) else None, shards)
        )
    if not found:
        raise ValueError("module must have a layer with a weight of at least two axes, got none")
    return found


class Sums:
    """Count, sum and sum of squares of the elements of several outputs.

    Examples
    --------
    >>> sums = Sums()
    >>> sums.add(torch.tensor([1.0, 3.0]))
    >>> sums.deviation(None), sums.calls
    (1.0, 1)
    """

    def __init__(self) -> None:
        self.values = torch.zeros(3, dtype=torch.float64)
        self.calls = 0

    def add(self, output: Tensor) -> None:
        """Add the elements of an output."""
        output = output.detach()
        if output.itemsize < 4:
            output = output.float()
        variance, mean = torch.var_mean(output, unbiased=False)
        # By mean and variance, as a sum of squares loses the digits of a small deviation.
        part = torch.stack([variance.double() + mean.double() ** 2, mean.double()]).cpu()
        count = output.numel()
        self.values += torch.tensor([float(count), float(part[1]) * count, float(part[0]) * count],
                                    dtype=torch.float64)  # fmt: skip
        self.calls += 1

    def deviation(self, group: Any) -> float:
        """Return the deviation of all elements, on all ranks of the group."""
        return deviation_of(*summed(self.values, group).tolist())


def deviation_of(count: float, total: float, squares: float) -> float:
    """Return the deviation of numbers by their sums; NaN if there are none, or one is NaN.

    Examples
    --------
    >>> deviation_of(2, 4.0, 10.0)
    1.0
    """
    if not count:
        return math.nan
    variance = squares / count - (total / count) ** 2
    return math.nan if math.isnan(variance) else math.sqrt(max(0.0, variance))


def summed(values: Tensor, group: Any) -> Tensor:
    """Return the sum of a tensor over the ranks of a group; without one it is the tensor itself."""
    if group is None:
        return values
    import torch.distributed as distributed

    if not distributed.is_initialized():
        raise ValueError("group must be None where torch.distributed is not initialised, "
                         f"got {group!r}")  # fmt: skip
    backend = distributed.get_backend(group)
    device = torch.device("cuda") if backend == "nccl" else torch.device("cpu")
    whole = values.to(device, copy=True)
    distributed.all_reduce(whole, group=group)
    return whole.to(values.device)
