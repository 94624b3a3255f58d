"""Fills tensors of a GPU where they are, by any scheme that consists of what the kernels draw.

Each way here does on a device what one scheme's `fill_box` does on the processor, from the same
draws. A scheme without a way is filled through host memory.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from winit_fast._core import Distribution
from winit_fast.base.boxes import Box, cuts
from winit_fast.base.dtypes import working
from winit_fast.initializers.constants import Constant, Identity, Ones, Zeros
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.fans import convolution_axes
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.parts import Parts
from winit_fast.initializers.protocol import Elementwise, Initializer, distribution_of
from winit_fast.initializers.registry import get
from winit_fast.initializers.scaled import Scaled
from winit_fast.initializers.sparse import Mask, Sparse
from winit_fast.streams import distributions
from winit_fast.streams.fill import rounded
from winit_fast.streams.stream import Stream
from winit_fast.torch.expressions import Given
from winit_fast.torch.memory import FLOATS, fill_through_host
from winit_fast.torch.reflectors import fill_orthogonal

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers of each number of bytes, in which elements are set: exactly, whatever they are."""

_KEYS = 1 << 24
"""Sort keys of a sparse matrix that exist at one time."""

Way = Callable[[Tensor, Box, Any, Stream], bool]
"""Fills a tensor with a box, which has all axes; returns False if the kernels cannot draw it. Then
the tensor may be changed in part."""


def fill_box(out: Tensor, box: Box, scheme: Initializer, stream: Stream) -> bool:
    """Fill a tensor of a device with a box of a logical tensor.

    Parameters
    ----------
    out : Tensor
        Of a dtype of `FLOATS`, with strides that do not overlap and no negation bit.
    box : Box
        With all axes; `scheme` has accepted it.
    scheme : Initializer
    stream : Stream

    Returns
    -------
    bool
        False if this scheme has no way here, or its kernel was found to be wrong on the device. The
        tensor is then to be filled through host memory.
    """
    way = _WAYS.get(type(scheme).fill_box)  # not by class: a subclass may override the method
    return way is not None and (out.numel() == 0 or way(out, box, scheme, stream))


def draw(out: Tensor, box: Box, distribution: Distribution, key: int, stream: int) -> bool:
    """Draw every element by a kernel, if that one is right on the device."""
    from winit_fast.gpu.self_check import fill  # imports triton

    return fill(distribution, key, stream, out, box)


def _set(out: Tensor, value: float) -> None:
    """Set every element to the rounded value, as `winit_fast.streams.fill.constant` does."""
    element = rounded(value, FLOATS[out.dtype].dtype)
    _bits(out).fill_(element.view(f"{'u' if out.itemsize == 1 else 'i'}{out.itemsize}").item())


def _bits(out: Tensor) -> Tensor:
    return out.view(_BITS[out.itemsize])


def _elementwise(out: Tensor, box: Box, scheme: Elementwise, stream: Stream) -> bool:
    distribution = distribution_of(scheme, box.tensor, FLOATS[out.dtype].dtype)
    return draw(out, box, distribution, stream.seed, stream.id)


def _constant(out: Tensor, box: Box, scheme: Constant, stream: Stream) -> bool:
    _set(out, scheme.value)
    return True


def _same(value: float, out: Tensor, box: Box, scheme: Initializer, stream: Stream) -> bool:
    _set(out, value)
    return True


def _identity(out: Tensor, box: Box, scheme: Identity, stream: Stream) -> bool:
    _set(out, 0.0)
    row, column = box.starts
    if -out.shape[0] < row - column < out.shape[1]:
        _set(out.diagonal(row - column), scheme.gain)
    return True


def _dirac(out: Tensor, box: Box, scheme: Dirac, stream: Stream) -> bool:
    _set(out, 0.0)
    shape = box.tensor
    fan_in, fan_out = convolution_axes("Dirac", shape, scheme.in_axis, scheme.out_axis)
    position: list[int | slice] = [slice(None)] * len(shape)
    for axis, (start, size) in enumerate(zip(box.starts, box.sizes, strict=True)):
        if axis not in (fan_in, fan_out):
            position[axis] = shape[axis] // 2 - start
            if not 0 <= shape[axis] // 2 - start < size:
                return True
    tap = out[tuple(position)]
    tap = tap if fan_in < fan_out else tap.T
    inputs, outputs = (
        torch.arange(box.starts[axis], box.starts[axis] + box.sizes[axis], device=out.device)
        for axis in (fan_in, fan_out)
    )
    copied = inputs[:, None] == outputs % max(1, shape[fan_out] // scheme.groups)
    gain = torch.empty((), dtype=out.dtype, device=out.device)
    _set(gain, scheme.gain)
    _bits(tap).copy_(torch.where(copied, _bits(gain), 0))
    return True


def _sparse(out: Tensor, box: Box, scheme: Sparse, stream: Stream) -> bool:
    normal = distributions.normal(FLOATS[out.dtype].dtype, 0.0, scheme.stddev)
    if not draw(out, box, normal, stream.seed, stream.id):
        return False
    mask = Mask.of(scheme.sparsity, box.tensor, stream)
    if not mask.zeros:
        return True
    rows = box.tensor[0]
    own = slice(box.starts[0], box.starts[0] + box.sizes[0])
    for _, columns in cuts((rows, box.sizes[1]), _KEYS, axis=1):
        every = Box(
            box.tensor, (0, box.starts[1] + columns.start), (rows, columns.stop - columns.start),
            (0, 1),
        )  # fmt: skip
        keys = torch.empty(every.sizes, dtype=torch.int64, device=out.device)
        words = distributions.bits(64)
        if not draw(keys, every, words, mask.stream.seed, mask.stream.id):
            return False
        keys &= -(1 << (rows - 1).bit_length())
        keys |= torch.arange(rows, device=out.device)[:, None]
        keys ^= -(1 << 63)  # in the order of unsigned numbers
        last = keys.sort(dim=0).values[mask.zeros - 1]  # kthvalue may be barred on a GPU
        _bits(out)[:, columns].masked_fill_(keys[own] <= last, 0)
    return True


def _orthogonal(out: Tensor, box: Box, scheme: Orthogonal, stream: Stream) -> bool:
    kind = working(FLOATS[out.dtype].dtype)
    normal = distributions.normal(kind, 0.0, 1.0)
    return fill_orthogonal(
        out, box, scheme, lambda to, of: draw(to, of, normal, stream.seed, stream.id)
    )


def _delta_orthogonal(out: Tensor, box: Box, scheme: DeltaOrthogonal, stream: Stream) -> bool:
    _set(out, 0.0)
    tap = scheme.tap(box)
    if tap is None:
        return True
    position, matrix, is_transposed = tap
    own = out[position].T if is_transposed else out[position]
    return own.numel() == 0 or _orthogonal(own, matrix, Orthogonal(scheme.gain), stream)


def _parts(out: Tensor, box: Box, scheme: Parts, stream: Stream) -> bool:
    kind = FLOATS[out.dtype].dtype
    for at, initializer, own, its, distribution in scheme.shares(box, stream, kind):
        if distribution is not None:
            if not draw(out[at], own, distribution, its.seed, its.id):
                return False
        elif not fill_box(out[at], own, initializer, its):
            host = partial(initializer.fill_box, stream=its, num_threads=None)
            fill_through_host(out[at], host, held=own)
    return True


def _scaled(out: Tensor, box: Box, scheme: Scaled, stream: Stream) -> bool:
    direct = get(scheme.initializer).scaled(scheme.value)
    return direct is not None and fill_box(out, box, direct, stream)


def _given(out: Tensor, box: Box, scheme: Given, stream: Stream) -> bool:
    return fill_box(out, box, scheme.initializer, Stream(scheme.key, scheme.stream))


_WAYS: Mapping[object, Way] = {
    Constant.fill_box: _constant,
    DeltaOrthogonal.fill_box: _delta_orthogonal,
    Dirac.fill_box: _dirac,
    Elementwise.fill_box: _elementwise,
    Given.fill_box: _given,
    Identity.fill_box: _identity,
    Ones.fill_box: partial(_same, 1.0),
    Orthogonal.fill_box: _orthogonal,
    Parts.fill_box: _parts,
    Scaled.fill_box: _scaled,
    Sparse.fill_box: _sparse,
    Zeros.fill_box: partial(_same, 0.0),
}
"""The ways, by the method of the scheme that each stands for."""
