"""Orthogonal matrices on a device, from the same reflectors as the processor's, by torch.

The Gaussian vectors are the bits of the stream, drawn on the device. From there on the arithmetic
is in float64, whatever the tensor's dtype: neither TF32 nor autocast touches it, and one rounding
to the working type is left. So the matrix is the processor's but for the rounding errors there;
docs/gpu.md has the bound. `winit_fast.initializers.reflectors` has the algorithm.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, slices
from winit_fast.initializers.orthogonal import Orthogonal, matrix_axes, numbers_of

TOGETHER = 64
"""Reflectors that are applied at one time, in compact WY form."""

BYTES = 1 << 28
"""Memory for the vectors to which reflectors are applied at one time."""

Draw = Callable[[Tensor, Box], bool]
"""Draws standard normals of the tensor's stream; returns False if that is not possible."""


def fill_orthogonal(out: Tensor, box: Box, scheme: Orthogonal, draw: Draw) -> bool:
    """Compute a box of the matrices of a tensor.

    Parameters
    ----------
    out : Tensor
        Of shape ``box.sizes``.
    box : Box
    scheme : Orthogonal
    draw : callable
        Takes a float64 tensor if ``out`` is one, else a float32 tensor.

    Returns
    -------
    bool
        False if the normals could not be drawn. Then nothing is written.
    """
    axes = matrix_axes(box.tensor, scheme.column_axis, scheme.batch_axis)
    batch, rows, columns = (numbers_of(box, part) for part in axes)
    total, length, width = (math.prod(box.tensor[axis] for axis in part) for part in axes)
    working = torch.float64 if out.dtype == torch.float64 else torch.float32
    to = out.permute(*axes.batch, *axes.rows, *axes.columns)
    shape = (batch.size, rows.size, columns.size)
    try:
        flat = to.view(shape)
    except RuntimeError:  # its axes cannot be joined
        flat = torch.empty(shape, dtype=working, device=out.device)

    backward = columns.size <= rows.size
    vectors, cut = (columns, rows) if backward else (rows, columns)
    apply = _columns if backward else _rows
    matrices = max(1, BYTES // (8 * length * vectors.size))  # at one time
    for run in _runs(batch, matrices):
        own = _Gaussian(draw, (total, width, length), int(batch[run.start]), run.stop - run.start)
        for part in slices(vectors.size, max(1, BYTES // (8 * length))):
            values = apply(own, vectors[part], cut, working, out.device)
            if values is None:
                return False
            place = flat[run, :, part] if backward else flat[run, part]
            place.copy_(values.mul_(scheme.gain).to(working))
    if flat.data_ptr() != to.data_ptr():
        to.copy_(flat.view(to.shape))
    return True


def _runs(numbers: Array, most: int) -> Iterator[slice]:
    """Yield slices of at most ``most`` consecutive numbers."""
    ends = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    for start, stop in zip([0, *ends], [*ends, numbers.size], strict=True):
        for part in slices(stop - start, most):
            yield slice(start + part.start, start + part.stop)


class _Gaussian(NamedTuple):
    """The Gaussian vectors of some consecutive tall matrices of a tensor.

    Attributes
    ----------
    draw : callable
    shape : tuple of int
        Number of all matrices, width and length: the normals as a logical tensor.
    first, together : int
        The first of these, and how many they are.
    """

    draw: Draw
    shape: tuple[int, int, int]
    first: int
    together: int

    def reflectors(
        self, start: int, stop: int, working: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Make reflectors ``start`` to ``stop``, without their first ``start`` elements.

        Returns
        -------
        v : Tensor
            (together, stop - start, length - start): a reflector in each row.
        inverse : Tensor
            T^-1, upper triangular: the product of the reflectors is I - V' T V.
        signs : Tensor
            (together, stop - start): the diagonal of D for these columns of Q.
        """
        sizes = (self.together, stop - start, self.shape[2] - start)
        drawn = torch.empty(sizes, dtype=working, device=device)
        if not self.draw(drawn, Box(self.shape, (self.first, start, start), sizes, (0, 1, 2))):
            return None
        v = drawn.to(torch.float64).triu_()
        head = v.diagonal(dim1=1, dim2=2).clone()
        norm = torch.linalg.vector_norm(v, dim=2)
        signs = torch.where(head < 0, 1.0, -1.0).to(torch.float64)
        pivot = head - signs * norm
        v /= torch.where(norm > 0, pivot, 1.0).unsqueeze(2)
        v.diagonal(dim1=1, dim2=2).fill_(1.0)
        inverse = (v @ v.mT).triu_(1)
        # 1 / tau = v'v / 2; a sum in pairs is more exact than the product's
        inverse.diagonal(dim1=1, dim2=2).copy_((v * v).sum(2) / 2)
        return v, inverse, signs


def _columns(
    own: _Gaussian, index: Array, cut: Array, working: torch.dtype, device: torch.device
) -> Tensor | None:
    """Compute columns ``index`` of Q, of these the rows ``cut``, from the last reflector on."""
    length, stop = own.shape[2], int(index[-1]) + 1
    q = torch.zeros((own.together, length, index.size), dtype=torch.float64, device=device)
    where = torch.arange(index.size, device=device)
    chosen = _on(device, index)
    for start in reversed(range(0, stop, TOGETHER)):
        end = min(start + TOGETHER, stop)
        made = own.reflectors(start, end, working, device)
        if made is None:
            return None
        v, inverse, signs = made
        here, there = (int(at) for at in np.searchsorted(index, (start, end)))
        q[:, chosen[here:there], where[here:there]] = signs[:, chosen[here:there] - start]
        part = q[:, start:, here:]  # the reflectors leave other columns as they are: 0
        factor = torch.linalg.solve_triangular(inverse, v @ part, upper=True)
        part -= v.mT @ factor
    return q if cut.size == length else q[:, _on(device, cut)]


def _rows(
    own: _Gaussian, index: Array, cut: Array, working: torch.dtype, device: torch.device
) -> Tensor | None:
    """Compute rows ``index`` of Q, of these the columns ``cut``, from the first reflector on."""
    length, stop = own.shape[2], int(cut[-1]) + 1
    q = torch.zeros((own.together, index.size, length), dtype=torch.float64, device=device)
    q[:, torch.arange(index.size, device=device), _on(device, index)] = 1.0
    for start in range(0, stop, TOGETHER):
        end = min(start + TOGETHER, stop)
        made = own.reflectors(start, end, working, device)
        if made is None:
            return None
        v, inverse, signs = made
        part = q[:, :, start:]
        factor = torch.linalg.solve_triangular(inverse, part @ v.mT, upper=True, left=False)
        part -= factor @ v
        q[:, :, start:end] *= signs.unsqueeze(1)
    return q[:, :, :stop] if cut.size == stop else q[:, :, _on(device, cut)]


def _on(device: torch.device, numbers: Array) -> Tensor:
    """Copy numbers to a device, for an index."""
    return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(device)
