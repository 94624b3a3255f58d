"""The part of a tensor that this rank holds: filled, copied to, and asked for."""

from collections.abc import Iterable

import torch
from torch import Tensor

from winit_fast.torch.memory import is_memory, written
from winit_fast.torch.names import Named
from winit_fast.torch.placements import held_parts, is_sharded, parts
from winit_fast.torch.seeding import draw_word

_FEW = 16
"""Part of the positions along an axis from which on filling by a mask is faster than by index."""


def key_for(found: Iterable[Named]) -> int:
    """Draw a key from torch's generator, which is valid only if no tensor is shared among ranks.

    Raises
    ------
    ValueError
        If a tensor is a DTensor.
    """
    for named in found:
        if is_sharded(named.tensor):
            raise ValueError(
                f"seed must be given, got None: {named.what} is a DTensor of shape "
                f"{tuple(named.tensor.shape)}, and every rank would draw numbers of its own"
            )
    return draw_word()


def local(tensor: Tensor) -> Tensor:
    """Return a plain tensor; for a DTensor, this rank's part."""
    return tensor._local_tensor if is_sharded(tensor) else tensor


def in_memory(tensor: Tensor) -> bool:
    """Return whether a tensor, of a DTensor this rank's part, `is_memory`."""
    return is_memory(local(tensor))


def whole(tensor: Tensor) -> Tensor:
    """Return a plain tensor; of a DTensor the whole, for which all ranks must ask."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def copy_(tensor: Tensor, whole: Tensor) -> None:
    """Copy into a tensor the part of a whole tensor that it holds."""
    if not is_sharded(tensor):
        tensor.copy_(whole)
        return
    for part, held in parts(tensor):
        part.copy_(whole[held.slices])
    written(tensor)


def fill_along(tensor: Tensor, axis: int, numbers: Tensor, value: float) -> None:
    """Set the elements at some different positions along an axis to a value.

    Examples
    --------
    >>> weight = torch.ones(2, 3)
    >>> fill_along(weight, 1, torch.tensor([2, 0]), 0.0)
    >>> weight.tolist()
    [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """
    for part, box in held_parts(tensor.detach()):
        first, size = box.starts[axis], box.sizes[axis]
        own = (numbers[(numbers >= first) & (numbers < first + size)] - first).to(part.device)
        if own.numel() == size:
            part.fill_(value)
        elif _FEW * own.numel() < size:
            part.index_fill_(axis, own, value)
        else:
            shape = [1] * part.ndim
            shape[axis] = size
            mask = torch.zeros(size, dtype=torch.bool, device=part.device).index_fill_(0, own, True)
            part.masked_fill_(mask.reshape(shape), value)
    if is_sharded(tensor):
        written(tensor)
