"""Fills the tensors of modules by the entries of a plan, after everything has been checked."""

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from winit_fast._core import Distribution
from winit_fast.base.dtypes import find_any
from winit_fast.base.names import located
from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant, Ones, Zeros
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.protocol import Elementwise, Initializer, distribution_of
from winit_fast.initializers.protocol import check as check_scheme
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import stream_id
from winit_fast.streams.stream import Stream
from winit_fast.torch.draw import fill_by, fill_elementwise, fill_rounded, has_kernels
from winit_fast.torch.expressions import TorchExpression
from winit_fast.torch.memory import FLOATS, watched
from winit_fast.torch.names import Named
from winit_fast.torch.placements import is_sharded
from winit_fast.torch.shards import copy_, in_memory, local

Fill = Callable[[Tensor, str, int], object]
"""Fills a tensor, from the name of its stream and a seed."""


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


class Fills:
    """The tensors to be filled: each is checked when it is added, before any is filled.

    A scheme is checked once for all tensors of one shape and dtype.
    """

    def __init__(self) -> None:
        self._listed: list[tuple[Fill, Tensor, str]] = []
        self._known: dict[tuple[object, ...], _Way] = {}
        self._is_watched = watched() is not None

    def add(self, named: Named, scheme: Initializer, stream: str, drawn_in: torch.dtype) -> None:
        """Check that a scheme fits a tensor.

        Parameters
        ----------
        named : Named
        scheme : Initializer
        stream : str
        drawn_in : torch.dtype
            The dtype in which the author's code draws.

        Raises
        ------
        TypeError, ValueError
            If the scheme does not fit; the message names the tensor.
        """
        tensor = named.tensor
        place = (
            scheme if type(scheme) in _SIMPLE else id(scheme),
            tensor.shape, tensor.dtype, drawn_in,
        )  # fmt: skip
        way = self._known.get(place)
        if way is None:
            way = self._known[place] = _way(named, scheme, drawn_in)
        if way.is_direct and (self._is_watched or not in_memory(tensor)):
            what = f"{named.what} cannot be filled by {scheme}"
            raise TypeError(f"{what}: its memory is not writable")
        if not stream.isascii():
            stream_id(stream)  # raises an error for text that has no UTF-8 form
        self._listed.append((way.fill, tensor, stream))

    def add_spec(self, named: Named, spec: TensorSpec) -> None:
        """Check that an entry of a plan fits a tensor of its shape and dtype, as `add` does."""
        dtype = named.tensor.dtype if spec.drawn_in is None else getattr(torch, spec.drawn_in)
        self.add(named, spec.initializer, spec.stream, dtype)

    def run(self, seed: int) -> None:
        """Fill all tensors."""
        with torch.no_grad():
            for fill, tensor, stream in self._listed:
                fill(tensor, stream, seed)


_SIMPLE = {Ones, RandomNormal, RandomUniform, TruncatedNormal, Zeros}
"""Schemes that are compared by value, which is fast: a plan may have one for each tensor. Constants
are not, because 0.0 equals -0.0."""


class _Way(NamedTuple):
    """How a scheme fills tensors of a shape and a dtype.

    Attributes
    ----------
    scheme : Initializer
        Kept, so that no other scheme gets its id.
    fill : Fill
    is_direct : bool
        Whether the tensor's memory is written by this package, and not by torch.
    """

    scheme: Initializer
    fill: Fill
    is_direct: bool


def _way(named: Named, scheme: Initializer, drawn_in: torch.dtype) -> _Way:
    """Find how a scheme fills a tensor; errors name the tensor."""
    shape, dtype = tuple(named.tensor.shape), named.tensor.dtype
    if isinstance(scheme, Computed) and dtype not in FLOATS:
        known = torch.from_numpy(scheme.values.copy())
        return _Way(scheme, partial(_fill_with_stored, known), False)
    if isinstance(scheme, TorchExpression):
        return _Way(scheme, partial(_fill_with_expression, scheme), False)
    number = _constant(scheme)
    if number is not None and (dtype not in FLOATS or number in (0.0, 1.0)):
        if not _is_exact(number, dtype):
            raise ValueError(f"{named.what} cannot be filled by {scheme}: {dtype}")
        if number == 0 and math.copysign(1.0, number) > 0:
            return _Way(scheme, _fill_with_zero, False)
        return _Way(scheme, partial(_fill_with_number, number), False)
    if dtype.is_complex:
        check_scheme(scheme, shape, find_any(dtype))
        return _Way(scheme, partial(_fill_complex, scheme), False)
    if dtype not in FLOATS:
        raise TypeError(f"{named.what} cannot be filled by {scheme}: {dtype}")
    kind, distribution = FLOATS[drawn_in].dtype, None
    try:
        if isinstance(scheme, Elementwise):
            distribution = distribution_of(scheme, shape, kind)
        else:
            check_scheme(scheme, shape, kind)
    except (TypeError, ValueError) as error:
        raise located(error, f"{named.what} cannot be filled by {scheme}") from None
    if drawn_in != dtype:
        return _Way(scheme, partial(_fill_rounded, scheme, drawn_in), True)
    if distribution is not None:
        return _Way(scheme, partial(_fill_elementwise, distribution), True)
    return _Way(scheme, partial(_fill_with_scheme, scheme), True)


@lru_cache
def _is_exact(number: float, dtype: torch.dtype) -> bool:
    """Return whether a number is exactly representable in a dtype."""
    return bool(torch.tensor(number).to(dtype).item() == number)


def _fill_with_stored(known: Tensor, tensor: Tensor, stream: str, seed: int) -> None:
    copy_(tensor, known)


def _fill_with_expression(scheme: TorchExpression, tensor: Tensor, stream: str, seed: int) -> None:
    copy_(tensor, scheme.evaluated(Stream(seed, stream)))


def _fill_with_zero(tensor: Tensor, stream: str, seed: int) -> None:
    local(tensor).zero_()  # takes a third of the time of fill_(0)


def _fill_with_number(number: float, tensor: Tensor, stream: str, seed: int) -> None:
    local(tensor).fill_(number)


def _fill_elementwise(distribution: Distribution, tensor: Tensor, stream: str, seed: int) -> None:
    if tensor.numel():
        fill_elementwise(tensor, distribution, seed, stream)


def _fill_with_scheme(scheme: Initializer, tensor: Tensor, stream: str, seed: int) -> None:
    if tensor.numel():
        fill_by(tensor, scheme, seed, stream)


def _fill_rounded(
    scheme: Initializer, drawn_in: torch.dtype, tensor: Tensor, stream: str, seed: int
) -> None:
    """Draw a tensor in the dtype in which its author's code draws."""
    if not tensor.numel():
        return
    if isinstance(scheme, Elementwise) or is_sharded(tensor):
        fill_rounded(tensor, drawn_in, scheme, seed, stream)
        return
    device = tensor.device if has_kernels(tensor) else "cpu"
    whole = torch.empty(tensor.shape, dtype=drawn_in, device=device)
    fill_by(whole, scheme, seed, stream)
    tensor.copy_(whole)


def _fill_complex(scheme: Initializer, tensor: Tensor, stream: str, seed: int) -> None:
    """Fill a complex tensor as its real and imaginary parts, or through an array."""
    shape, dtype = tuple(tensor.shape), find_any(tensor.dtype)
    if has_kernels(tensor) and not (is_sharded(tensor) or tensor.is_conj() or tensor.is_neg()):
        fill_by(torch.view_as_real(tensor), scheme.complex_parts(shape), seed, stream)
        return
    copy_(tensor, torch.from_numpy(scheme(shape, seed=seed, name=stream, dtype=dtype)))


def _constant(scheme: Initializer) -> float | None:
    if isinstance(scheme, Constant):
        return float(scheme.value)
    return _NUMBERS.get(type(scheme))


_NUMBERS: Mapping[type[Initializer], float] = {Zeros: 0.0, Ones: 1.0}
