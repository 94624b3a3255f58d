"""Stand-ins for DTensors: an author's code is recorded on whole tensors, which use no memory.

An author's code does not know of shards, and would act differently on those of different ranks. So
during recording every `DTensor` is replaced by a stand-in of the logical shape. No byte of the
stand-ins is read or written, so they use no memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from winit_fast.torch.names import Named
from winit_fast.torch.placements import is_sharded, parts

Wholes = Mapping[int, Tensor]
"""The stand-in of each DTensor, by the DTensor's id."""


def wholes(found: Iterable[Named]) -> Wholes:
    """Make the stand-ins for the DTensors among a module's tensors.

    A stand-in is memory of the CPU, whatever the mesh, that is reserved but never touched. Two
    exceptions: a tensor of the meta device gets one there, and a tensor that this rank holds whole
    stands in for itself, since its values are known.
    """
    return {id(named.tensor): _whole(named.tensor) for named in found if is_sharded(named.tensor)}


def _whole(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        device = "meta"
    else:
        device = "cpu"
        for part, held in parts(tensor):
            if held.sizes == held.tensor:  # e.g. a replicated buffer: its values are known
                return _like(part.detach(), tensor)
    return _like(torch.empty(tensor.shape, dtype=tensor.dtype, device=device), tensor)


def _like(whole: Tensor, tensor: Tensor) -> Tensor:
    if isinstance(tensor, Parameter):
        whole = Parameter(whole, tensor.requires_grad)
    vars(whole).update({key: own for key, own in vars(tensor).items() if key not in _OWN})
    return whole


_OWN = "_local_tensor", "_spec", "_is_param"
"""Attributes that belong to a DTensor itself."""


@contextmanager
def as_wholes(
    inside: list[tuple[str, Module]], found: list[Named], wholes: Wholes
) -> Iterator[list[Named]]:
    """Put the stand-ins into the modules, and yield the list of tensors with the stand-ins."""
    if not wholes:
        yield found
        return
    replaced = [
        (held, attribute, tensor)
        for _, one in inside
        for held in (one._parameters, one._buffers)
        for attribute, tensor in held.items()
        if id(tensor) in wholes
    ]
    for held, attribute, tensor in replaced:
        held[attribute] = wholes[id(tensor)]
    try:
        yield [replace(named, tensor=wholes.get(id(named.tensor), named.tensor)) for named in found]
    finally:
        for held, attribute, tensor in replaced:
            held[attribute] = tensor
