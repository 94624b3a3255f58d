"""Access to the memory of tensors: in place on the CPU, piece by piece on other devices."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

from winit_fast.base import dtypes
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.streams.buffers import overlap, view
from winit_fast.torch.placements import held_parts, is_sharded

FLOATS = {getattr(torch, kind.name): kind for kind in dtypes.FLOATS.values()}
"""The supported types by torch's."""

HOST_BYTES = 1 << 25
"""Most bytes of the host memory through which a tensor is filled that is not filled in place."""

Work = Callable[[Array, Box], object]
"""Fill an array with the box of the logical tensor that it holds."""


def watched() -> str | None:
    """Return the name of a tracer or mode that must see every operation of this thread, or None.

    A write by this package is not a torch operation, so a trace would not contain it. While
    tracing, tensors may also be fake or wrapped.

    Examples
    --------
    >>> watched() is None
    True
    """
    if is_dynamo_compiling():  # must be first: torch.compile does not trace what follows
        return "torch.compile"
    if _get_tracing_state() is not None:
        return "torch.jit.trace"
    if maybe_current_level() is not None:
        return "a transform of torch.func"
    return "a TorchDispatchMode" if _len_torch_dispatch_stack() else None


def fillable(tensor: Tensor) -> bool:
    """Return whether a tensor is one whose elements this package can set.

    No tensor is while operations are `watched`.
    """
    return watched() is None and is_memory(tensor)


def is_memory(tensor: Tensor) -> bool:
    """Return whether a tensor is memory that this package can write.

    Tensors of other dtypes and of the meta device are not. Nor are tensors that are more than
    strided memory (sparse, wrapped by a transform, or of a subclass with its own dispatch), and an
    inference tensor outside inference mode, which torch refuses to change.
    """
    if (
        tensor.dtype not in FLOATS
        or tensor.is_meta
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
        or (tensor.is_inference() and not torch.is_inference_mode_enabled())
    ):
        return False
    try:
        return bool(tensor.data_ptr() != 0 or tensor.numel() == 0)
    except RuntimeError:  # raised if the tensor has no single block of memory
        return False


def refuse_sharded(tensor: Any, what: str = "tensor") -> None:
    """Raise if an object is a DTensor, where only a whole tensor will do.

    Parameters
    ----------
    tensor : Any
    what : str
        Description for error messages, such as ``"parameter 'fc.weight'"``.

    Raises
    ------
    TypeError

    Examples
    --------
    >>> refuse_sharded(torch.empty(3))
    """
    if is_sharded(tensor):
        raise TypeError(
            f"{what} must be a whole tensor, got a DTensor of shape {tuple(tensor.shape)}: "
            "use winit_fast.torch with seed=, or fill its local part, with shape= and index="
        )


def check(out: Tensor) -> None:
    """Refuse a destination that is more than its memory, or that only torch may write.

    `winit_fast.streams.buffers` asks for the tensors that it is given.

    Raises
    ------
    TypeError, RuntimeError

    Examples
    --------
    >>> check(torch.empty(3))
    """
    refuse_sharded(out, "out")
    watcher = watched()
    if watcher is not None:
        raise RuntimeError(
            f"out is a tensor of torch, and {watcher} would not see it filled: "
            "use winit_fast.torch without seed=, or fill it outside"
        )
    if type(out).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise TypeError(
            f"out must be a plain tensor in memory, got a {type(out).__name__}, "
            "which has a __torch_dispatch__ of its own"
        )
    if out.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError("out is an inference tensor: torch changes it in inference_mode only")


def shared(tensor: Tensor, argument: str) -> Tensor:
    """Return a tensor that DLPack can export, detached because autograd does not record fills.

    Raises
    ------
    TypeError
        If the tensor is its memory's negative, as ``x.conj().imag`` is.

    Examples
    --------
    >>> shared(torch.nn.Parameter(torch.empty(3)), "out").requires_grad
    False
    """
    if tensor.is_neg():
        raise TypeError(
            f"{argument} must hold its values as they are, "
            f"got a {type(tensor).__name__} that is a negated view of its memory"
        )
    return tensor.detach() if tensor.requires_grad else tensor


def written(out: Tensor) -> None:
    """Let autograd know that a tensor has been filled, as by an operation without gradients.

    Its version moves, so that a backward pass that needs what was there before is an error. The
    tangent of forward-mode differentiation becomes zeros: the numbers depend on nothing.

    Examples
    --------
    >>> tensor = torch.empty(3)
    >>> written(tensor)
    >>> tensor._version
    1
    """
    increment_version((out,))
    if forward_ad._current_level >= 0:
        with torch.no_grad():
            out.copy_(out.detach())  # a source without a tangent sets the tangent to zero


def is_plain(tensor: object) -> bool:
    """Return whether an object is a tensor whose class leaves functions of torch as they are."""
    return isinstance(tensor, Tensor) and (
        type(tensor) is Tensor or type(tensor).__torch_function__ is Parameter.__torch_function__
    )


def on_host(tensor: Tensor) -> bool:
    """Return whether a tensor lies in memory that the processor can write."""
    return bool(tensor.is_cpu)


def as_array(tensor: Tensor) -> Array | None:
    """View a fillable tensor on the CPU as an array, or None where its elements overlap.

    A tensor with the negation bit (``x.conj().imag``) is its memory's negative: it cannot be
    viewed either.
    """
    if tensor.is_neg() or has_overlap(tensor):
        return None
    dtype = FLOATS[tensor.dtype].dtype
    strides = [step * dtype.itemsize for step in tensor.stride()]
    return view(tensor.data_ptr(), tuple(tensor.shape), strides, dtype, tensor)


def has_overlap(tensor: Tensor) -> bool:
    """Return whether elements of a tensor overlap or interleave in memory.

    Examples
    --------
    >>> has_overlap(torch.empty(3, 1).expand(3, 2)), has_overlap(torch.empty(4, 4)[::2, 1:])
    (True, False)
    """
    return overlap(tuple(tensor.shape), tensor.stride(), 1)


def fill_through_host(
    tensor: Tensor,
    work: Work,
    axis: int | None = None,
    held: Box | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Fill a tensor of any device by way of buffers of at most `HOST_BYTES` on the CPU.

    Parameters
    ----------
    tensor : Tensor
        Fillable.
    work : callable
        Takes an array and the box of the logical tensor to fill it with.
    axis : int, optional
        The only one to cut: see `winit_fast.base.boxes.cuts`.
    held : Box, optional
        The box of the logical tensor that ``tensor`` holds; by default all of it.
    dtype : torch.dtype, optional
        The dtype of the buffers, which are then rounded; by default that of the tensor.
    """
    shape, dtype = tuple(tensor.shape), dtype or tensor.dtype
    held = held or whole(shape)
    staging = _Staging(tensor.device, dtype)
    for cut in cuts(shape, max(1, HOST_BYTES // dtype.itemsize // staging.count), axis):
        part = tensor[cut]
        piece = staging.next(part.shape)
        array = as_array(piece)
        assert array is not None  # elements of a new tensor do not overlap
        work(array, held.cut(cut))
        staging.copy(piece, part)


class _Staging:
    """The buffers on the host for the pieces of a tensor that is not filled in place.

    For a GPU there are two, of pinned memory, in turn: one is filled while the other is copied on
    the current stream of the tensor's device. Nothing waits for the last copies: torch keeps pinned
    memory until they are done.

    Attributes
    ----------
    count : int
        How many buffers there are.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._overlaps = _copies_by_itself(device)
        self.count = 2 if self._overlaps else 1
        self._device, self._dtype = device, dtype
        self._used: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def next(self, shape: Sequence[int]) -> Tensor:
        """Return a buffer of a shape that is not being copied."""
        size = math.prod(shape)
        if not self._overlaps:
            return torch.empty(shape, dtype=self._dtype, device="cpu")
        if len(self._used) == self.count:
            buffer, copied = self._used.popleft()
            copied.synchronize()
            if buffer.numel() >= size:
                return buffer[:size].view(shape)
        return _pinned(size, self._dtype).view(shape)

    def copy(self, piece: Tensor, part: Tensor) -> None:
        """Copy a buffer to a part of the tensor, which may end later."""
        part.copy_(piece, non_blocking=self._overlaps)
        if self._overlaps:
            self._used.append((piece.view(-1), _mark(self._device)))


def _copies_by_itself(device: torch.device) -> bool:
    """Return whether a device copies from pinned memory while the processor works.

    Raises
    ------
    RuntimeError
        If a CUDA graph is captured: it would copy what is in the buffer whenever it runs.
    """
    if device.type != "cuda":
        return False
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"a tensor of {device} is to be filled through host memory, which a CUDA graph cannot "
            "capture: fill it before"
        )
    return True


def _pinned(size: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, device="cpu", pin_memory=True)


def _mark(device: torch.device) -> torch.cuda.Event:
    """Return an event that happens when the current stream of a device has done all work so far."""
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def fill_tensor(tensor: Tensor, work: Work, axis: int | None = None) -> None:
    """Fill any fillable tensor, on any device, as one step that autograd does not record.

    Of a `DTensor`, only this rank's part is filled. A tensor whose memory cannot be written in
    place (`as_array`) is filled through a buffer; torch itself then refuses overlapping elements.
    """
    with torch.no_grad():
        for part, held in held_parts(tensor):
            fill_part(part, held, work, axis)
        if is_sharded(tensor):
            written(tensor)


def fill_part(tensor: Tensor, held: Box, work: Work, axis: int | None = None) -> None:
    """Fill a plain tensor with a box of a logical tensor, in place if it lies on the host."""
    array = as_array(tensor) if on_host(tensor) else None
    if array is None:
        fill_through_host(tensor, work, axis, held)
    else:
        work(array, held)
        written(tensor)
