"""Modules with DTensors: their code is recorded on whole tensors, and what a rank holds is filled.

An author's code knows nothing of shards, and what it does with one, another rank's does with
another. So while it is recorded it finds a tensor of the logical shape in the place of every
`DTensor`. No byte of these is read or written, so that they cost no memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from winit_fast.base.boxes import Box
from winit_fast.torch.memory import Work, fill_through_host, fillable, written
from winit_fast.torch.names import Named
from winit_fast.torch.placements import is_sharded, parts
from winit_fast.torch.seeding import draw_word

Wholes = Mapping[int, Tensor]
"""By the identity of a DTensor, what stands in for it."""


def wholes(found: Iterable[Named]) -> Wholes:
    """Make the stand-ins for the DTensors among a module's tensors.

    They are on the CPU, whatever the mesh: their memory is only the kernel's promise.
    """
    return {id(named.tensor): _whole(named.tensor) for named in found if is_sharded(named.tensor)}


def _whole(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        device = "meta"
    else:
        device = "cpu"
        for part, held in parts(tensor):
            if held.sizes == held.tensor:  # a replicated buffer, say, which the code may read
                return _like(part.detach(), tensor)
    return _like(torch.empty(tensor.shape, dtype=tensor.dtype, device=device), tensor)


def _like(whole: Tensor, tensor: Tensor) -> Tensor:
    if isinstance(tensor, Parameter):
        whole = Parameter(whole, tensor.requires_grad)
    vars(whole).update({key: own for key, own in vars(tensor).items() if key not in _OWN})
    return whole


_OWN = "_local_tensor", "_spec", "_is_param"
"""Attributes that make a DTensor."""


@contextmanager
def as_wholes(
    inside: list[tuple[str, Module]], found: list[Named], wholes: Wholes
) -> Iterator[list[Named]]:
    """Have modules find the stand-ins, and give the list of tensors with them in it."""
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


def key_for(found: Iterable[Named]) -> int:
    """Draw a key from torch's generator for tensors that no other rank has a part of.

    Raises
    ------
    ValueError
        If one is a DTensor.
    """
    for named in found:
        if is_sharded(named.tensor):
            raise ValueError(
                f"seed must be given, got None: {named.what} is a DTensor of shape "
                f"{tuple(named.tensor.shape)}, and every rank would draw numbers of its own"
            )
    return draw_word()


def local(tensor: Tensor) -> Tensor:
    """Give a tensor that is its memory: of a DTensor, this rank's part."""
    return tensor._local_tensor if is_sharded(tensor) else tensor


def all_fillable(tensor: Tensor) -> bool:
    """Tell whether all that this rank holds of a tensor is `fillable`."""
    if is_sharded(tensor):
        return all(fillable(part) for part, _ in parts(tensor))
    return fillable(tensor)


def copy_(tensor: Tensor, whole: Tensor) -> None:
    """Copy into a tensor what it holds of a whole one."""
    if not is_sharded(tensor):
        tensor.copy_(whole)
        return
    for part, held in parts(tensor):
        part.copy_(whole[_index(held)])
    written(tensor)


def _index(held: Box) -> tuple[slice, ...]:
    return tuple(
        slice(start, start + size) for start, size in zip(held.starts, held.sizes, strict=True)
    )


def fill_rounded(tensor: Tensor, drawn_in: torch.dtype, work: Work) -> None:
    """Fill what this rank holds of a DTensor by numbers of another type, a piece at a time."""
    for part, held in parts(tensor):
        fill_through_host(part, work, held=held, dtype=drawn_in)
    written(tensor)
