"""Fills the tensors of modules by the entries of a plan, after everything has been checked."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial

import torch
from torch import Tensor

from winit_fast._core import Distribution
from winit_fast.base.dtypes import find_any
from winit_fast.base.names import located
from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant, Ones, Zeros
from winit_fast.initializers.protocol import Elementwise, Initializer, distribution_of, draw
from winit_fast.initializers.protocol import check as check_scheme
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import Stream
from winit_fast.torch.expressions import TorchExpression
from winit_fast.torch.memory import FLOATS, fill_by, fill_elementwise
from winit_fast.torch.names import Named
from winit_fast.torch.placements import is_sharded
from winit_fast.torch.shards import all_fillable, copy_, fill_rounded, local

Fill = Callable[[int], object]
"""Fills one tensor, from a seed."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable the cyclic garbage collector, which would scan the many objects of a plan in vain.

    It would take most of the time, and grow faster than the model. The setting applies to the whole
    process: cycles that other threads leave meanwhile are collected afterwards.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def check_kept(named: Named) -> None:
    """Refuse a tensor that is not filled and is not finite, as may be the case after to_empty()."""
    tensor = local(named.tensor)
    if tensor.is_meta or not tensor.dtype.is_floating_point or not tensor.numel():
        return
    tensor = tensor.detach()
    if tensor.itemsize == 1:
        tensor = tensor.float()
    # A buffer may be a mask of infinities.
    is_right = torch.isfinite(tensor).all() if named.is_parameter else ~torch.isnan(tensor).any()
    if not bool(is_right):
        raise ValueError(f"{named.what} is kept as it is, but is not finite: give a rule for it")


def checked(spec: TensorSpec, named: Named) -> Fill:
    """Check that a scheme fits its tensor, before any is filled, and return the fill function.

    Parameters
    ----------
    spec : TensorSpec
        Of the shape and the dtype of the tensor.
    named : Named

    Raises
    ------
    TypeError, ValueError
        If the scheme does not fit; the message names the tensor.
    """
    scheme, tensor = spec.initializer, named.tensor
    dtype = tensor.dtype
    if isinstance(scheme, Computed) and dtype not in FLOATS:
        return partial(_fill_with_stored, tensor, torch.from_numpy(scheme.values.copy()))
    if isinstance(scheme, TorchExpression):
        return partial(_fill_with_expression, tensor, scheme, spec.stream)
    number = _constant(scheme)
    if number is not None and (dtype not in FLOATS or number in (0.0, 1.0)):
        if not _is_exact(number, dtype):
            raise ValueError(f"{named.what} cannot be filled by {scheme}: {dtype}")
        return partial(_fill_with_number, tensor, number)
    if dtype.is_complex:
        check_scheme(scheme, spec.shape, find_any(dtype))
        return partial(_fill_complex, tensor, spec)
    if dtype not in FLOATS:
        raise TypeError(f"{named.what} cannot be filled by {scheme}: {dtype}")
    if not all_fillable(tensor):
        raise TypeError(f"{named.what} cannot be filled by {scheme}: its memory is not writable")
    drawn_in = dtype if spec.drawn_in is None else getattr(torch, spec.drawn_in)
    kind, distribution = FLOATS[drawn_in].dtype, None
    try:
        if isinstance(scheme, Elementwise):
            distribution = distribution_of(scheme, spec.shape, kind)
        else:
            check_scheme(scheme, spec.shape, kind)
    except (TypeError, ValueError) as error:
        raise located(error, f"{named.what} cannot be filled by {scheme}") from None
    if drawn_in != dtype:
        return partial(_fill_rounded, tensor, spec, drawn_in)
    if distribution is not None:
        return partial(_fill_elementwise, tensor, distribution, spec.stream)
    return partial(_fill_with_scheme, tensor, scheme, spec.stream)


@lru_cache
def _is_exact(number: float, dtype: torch.dtype) -> bool:
    """Return whether a number is exactly representable in a dtype."""
    return bool(torch.tensor(number).to(dtype).item() == number)


def _fill_with_stored(tensor: Tensor, known: Tensor, key: int) -> None:
    copy_(tensor, known)


def _fill_with_expression(tensor: Tensor, scheme: TorchExpression, stream: str, key: int) -> None:
    copy_(tensor, scheme.evaluated(Stream(key, stream)))


def _fill_with_number(tensor: Tensor, number: float, key: int) -> None:
    local(tensor).fill_(number)


def _fill_elementwise(tensor: Tensor, distribution: Distribution, stream: str, key: int) -> None:
    if tensor.numel():
        fill_elementwise(tensor, distribution, key, stream)


def _fill_with_scheme(tensor: Tensor, scheme: Initializer, stream: str, key: int) -> None:
    if tensor.numel():
        fill_by(tensor, scheme, key, stream)


def _fill_rounded(tensor: Tensor, spec: TensorSpec, drawn_in: torch.dtype, key: int) -> None:
    """Draw a tensor in the dtype in which its author's code draws."""
    if not tensor.numel():
        return
    scheme = spec.initializer
    if is_sharded(tensor):
        stream = Stream(key, spec.stream)
        fill_rounded(tensor, drawn_in, lambda out, held: draw(scheme, out, held, stream))
        return
    out = torch.empty(spec.shape, dtype=drawn_in, device="cpu")
    fill_by(out, scheme, key, spec.stream)
    tensor.copy_(out)


def _fill_complex(tensor: Tensor, spec: TensorSpec, key: int) -> None:
    """Fill a complex tensor through an array."""
    array = spec.initializer(spec.shape, seed=key, name=spec.stream, dtype=spec.dtype)
    copy_(tensor, torch.from_numpy(array))


def _constant(scheme: Initializer) -> float | None:
    if isinstance(scheme, Constant):
        return float(scheme.value)
    return _NUMBERS.get(type(scheme))


_NUMBERS: Mapping[type[Initializer], float] = {Zeros: 0.0, Ones: 1.0}
