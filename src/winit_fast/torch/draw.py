"""Draws the elements of tensors: in place on the CPU and on GPUs, elsewhere through host memory."""

from functools import partial

import torch
from torch import Tensor

import winit_fast._core as _core
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.gpu.choice import usable, wanted
from winit_fast.initializers.protocol import Initializer, check
from winit_fast.initializers.protocol import draw as draw_box
from winit_fast.streams.fill import MIN_PIECE, fill
from winit_fast.streams.identity import stream_id
from winit_fast.streams.stream import Stream
from winit_fast.torch import on_device
from winit_fast.torch.memory import (
    FLOATS,
    HOST_BYTES,
    fill_part,
    fill_through_host,
    has_overlap,
    on_host,
    written,
)
from winit_fast.torch.placements import held_parts, is_sharded, joined_parts
from winit_fast.torch.seeding import Name

wanted()  # an invalid WINIT_FAST_GPU is an error at once, as of the other variables


def has_kernels(tensor: Tensor) -> bool:
    """Return whether the kernels of GPUs are to fill a tensor where it is.

    Raises
    ------
    RuntimeError
        If ``WINIT_FAST_GPU=on``, and they cannot.

    Examples
    --------
    >>> has_kernels(torch.empty(3))
    False
    """
    if on_host(tensor) or tensor.is_meta:
        return False
    return usable(tensor.device)


def fill_elementwise(
    tensor: Tensor, distribution: _core.Distribution, key: int, name: Name
) -> None:
    """Draw every element of a fillable tensor: fewer steps for what is small and contiguous."""
    stream = stream_id(name)
    if is_sharded(tensor):
        for part, held in joined_parts(tensor):
            _draw(part, held, distribution, key, stream)
        written(tensor)
        return
    size = tensor.numel()
    if size <= MIN_PIECE and _is_simple(tensor):
        address, step = tensor.data_ptr(), FLOATS[tensor.dtype].dtype.itemsize
        _core.fill(distribution, key, stream, address, 0, (size,), (1,), (step,), False)
        written(tensor)
        return
    _draw(tensor, whole(tuple(tensor.shape)), distribution, key, stream)


def _is_simple(tensor: Tensor) -> bool:
    return on_host(tensor) and tensor.is_contiguous() and not tensor.is_neg()


def _draw(
    tensor: Tensor, held: Box, distribution: _core.Distribution, key: int, stream: int
) -> None:
    """Draw the box of a logical tensor that a tensor holds."""
    if held.sizes and tensor.numel() <= MIN_PIECE and _is_simple(tensor):
        step = FLOATS[tensor.dtype].dtype.itemsize
        steps = tuple([step * stride for stride in tensor.stride()])
        _core.fill(
            distribution, key, stream, tensor.data_ptr(), held.first,
            held.sizes, held.tensor_strides, steps, False,
        )  # fmt: skip
        written(tensor)
        return
    with torch.no_grad():
        if (
            has_kernels(tensor)
            and _is_writable(tensor)
            and on_device.draw(tensor.detach(), held, distribution, key, stream)
        ):
            written(tensor)
        else:
            fill_part(tensor, held, lambda out, cut: fill(distribution, key, stream, out, cut))


def _is_writable(tensor: Tensor) -> bool:
    """Return whether each element has memory of its own, which holds its value as it is.

    Where elements overlap, torch refuses the copy from the host.
    """
    return not (tensor.is_neg() or has_overlap(tensor))


def fill_by(
    tensor: Tensor, initializer: Initializer, key: int, name: Name, axis: int | None = None
) -> None:
    """Fill a fillable tensor by any scheme; ``axis`` as in `fill_through_host`."""
    stream = Stream(key, name)
    work = partial(_draw_box, initializer, stream)
    with torch.no_grad():
        for part, held in held_parts(tensor):
            if not _fill_on_device(part, held, initializer, stream):
                fill_part(part, held, work, axis)
        if is_sharded(tensor):
            written(tensor)


def _draw_box(initializer: Initializer, stream: Stream, out: Array, cut: Box) -> None:
    draw_box(initializer, out, cut, stream)


def _fill_on_device(part: Tensor, held: Box, initializer: Initializer, stream: Stream) -> bool:
    """Fill a part of a tensor by any scheme, if the kernels can."""
    if not (has_kernels(part) and _is_writable(part)):
        return False
    dtype = FLOATS[part.dtype].dtype
    check(initializer, held.tensor, dtype)
    initializer.check_box(held, dtype)
    if not on_device.fill_box(part.detach(), held, initializer, stream):
        return False
    written(part)
    return True


def fill_rounded(
    tensor: Tensor, drawn_in: torch.dtype, initializer: Initializer, key: int, name: Name
) -> None:
    """Fill a tensor, of a DTensor this rank's part, with numbers drawn in another dtype."""
    stream = Stream(key, name)
    work = partial(_draw_box, initializer, stream)
    with torch.no_grad():
        for part, held in held_parts(tensor):
            if not has_kernels(part):
                fill_through_host(part, work, held=held, dtype=drawn_in)
                continue
            for cut in cuts(tuple(part.shape), HOST_BYTES // drawn_in.itemsize):
                own = held.cut(cut)
                values = torch.empty(own.sizes, dtype=drawn_in, device=part.device)
                if _fill_on_device(values, own, initializer, stream):
                    part[cut].copy_(values)
                else:
                    fill_through_host(part[cut], work, held=own, dtype=drawn_in)
        if is_sharded(tensor):
            written(tensor)
