"""The part of a tensor that this rank holds: filled, copied to, and asked for."""

from collections.abc import Iterable

from torch import Tensor

from winit_fast.torch.memory import is_memory, written
from winit_fast.torch.names import Named
from winit_fast.torch.placements import is_sharded, parts
from winit_fast.torch.seeding import draw_word


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


def copy_(tensor: Tensor, whole: Tensor) -> None:
    """Copy into a tensor the part of a whole tensor that it holds."""
    if not is_sharded(tensor):
        tensor.copy_(whole)
        return
    for part, held in parts(tensor):
        part.copy_(whole[held.slices])
    written(tensor)
