"""Access to the memory of tensors: in place on the CPU, piece by piece on other devices."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

import winit_fast._core as _core
from winit_fast.base import dtypes
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.initializers.protocol import Initializer, draw
from winit_fast.streams.buffers import overlaps, view
from winit_fast.streams.fill import MIN_PIECE, fill
from winit_fast.streams.stream import Stream, stream_id
from winit_fast.torch.placements import is_sharded, joined_parts, parts
from winit_fast.torch.seeding import Name

FLOATS = {getattr(torch, kind.name): kind for kind in dtypes.FLOATS.values()}
"""The supported types by torch's."""

HOST_BYTES = 1 << 25
"""Most bytes of the host memory through which a tensor is filled that is not filled in place."""

Work = Callable[[Array, Box], object]
"""Fill an array with the box of the logical tensor that it holds."""


def watched() -> str | None:
    """Return the name of a tracer or mode that must see every operation of this thread, or None.

    A write by this package is not a torch operation, so a trace would not contain it. Also, tensors
    may be fake or wrapped while tracing.

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
    if tensor.is_neg():
        return None
    dtype = FLOATS[tensor.dtype].dtype
    strides = [step * dtype.itemsize for step in tensor.stride()]
    array = view(tensor.data_ptr(), tuple(tensor.shape), strides, dtype, tensor)
    return None if overlaps(array) else array


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
    for cut in cuts(shape, max(1, HOST_BYTES // dtype.itemsize), axis):
        part = tensor[cut]
        piece = torch.empty(part.shape, dtype=dtype, device="cpu")
        array = as_array(piece)
        assert array is not None  # a new tensor always has memory
        work(array, held.cut(cut))
        part.copy_(piece)


def fill_tensor(tensor: Tensor, work: Work, axis: int | None = None) -> None:
    """Fill any fillable tensor, on any device, as one step that autograd does not record.

    Of a `DTensor`, only this rank's part is filled. A tensor whose memory cannot be written in
    place (`as_array`) is filled through a buffer; torch itself then refuses overlapping elements.
    """
    with torch.no_grad():
        if is_sharded(tensor):
            for part, held in parts(tensor):
                _fill(part, held, work, axis)
            written(tensor)
        else:
            _fill(tensor, whole(tuple(tensor.shape)), work, axis)


def _fill(tensor: Tensor, held: Box, work: Work, axis: int | None) -> None:
    array = as_array(tensor) if on_host(tensor) else None
    if array is None:
        fill_through_host(tensor, work, axis, held)
    else:
        work(array, held)
        written(tensor)


def fill_elementwise(
    tensor: Tensor, distribution: _core.Distribution, key: int, name: Name
) -> None:
    """Draw every element of a fillable tensor: fewer steps for what is small and contiguous."""
    stream = stream_id(name)
    if is_sharded(tensor):
        _fill_parts(tensor, distribution, key, stream)
        return
    size = tensor.numel()
    if size <= MIN_PIECE and _is_simple(tensor):
        address, step = tensor.data_ptr(), FLOATS[tensor.dtype].dtype.itemsize
        _core.fill(distribution, key, stream, address, 0, (size,), (1,), (step,), False)
        written(tensor)
        return
    fill_tensor(tensor, lambda out, cut: fill(distribution, key, stream, out, cut))


def _is_simple(tensor: Tensor) -> bool:
    return on_host(tensor) and tensor.is_contiguous() and not tensor.is_neg()


def _fill_parts(tensor: Tensor, distribution: _core.Distribution, key: int, stream: int) -> None:
    """Draw this rank's part of a `DTensor`."""
    for part, held in joined_parts(tensor):
        if held.sizes and part.numel() <= MIN_PIECE and _is_simple(part):
            step = FLOATS[part.dtype].dtype.itemsize
            steps = tuple([step * stride for stride in part.stride()])
            _core.fill(
                distribution, key, stream, part.data_ptr(), held.first,
                held.sizes, held.tensor_strides, steps, False,
            )  # fmt: skip
            written(part)
        else:
            with torch.no_grad():
                _fill(part, held, lambda out, cut: fill(distribution, key, stream, out, cut), None)
    written(tensor)


def fill_by(
    tensor: Tensor, initializer: Initializer, key: int, name: Name, axis: int | None = None
) -> None:
    """Fill a fillable tensor by any scheme; ``axis`` as in `fill_through_host`."""
    stream = Stream(key, name)
    fill_tensor(tensor, lambda out, cut: draw(initializer, out, cut, stream), axis)
