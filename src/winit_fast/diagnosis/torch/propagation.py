"""Measures what becomes of signals and gradients: one forward and one backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Module

from winit_fast.base.arguments import positive, word
from winit_fast.diagnosis.report import Propagation
from winit_fast.diagnosis.rows import ACTIVATION, LAYER, Row
from winit_fast.diagnosis.singular_values import (
    EXACT,
    bidiagonalised,
    extreme_singular_values,
)
from winit_fast.diagnosis.torch.undisturbed import call, floats, undisturbed
from winit_fast.diagnosis.torch.watching import Seen, fans_of, watched, weight_of
from winit_fast.streams.stream import Stream
from winit_fast.torch.names import unwrapped
from winit_fast.torch.shards import whole

Loss = Callable[[Any, Any], Tensor]

_SAMPLE = 1 << 14
"""How many elements of a large output are counted in its histogram, or up to twice as many."""

_BINS = 60


def propagate(
    module: Module,
    batch: Any,
    loss: Loss | None = None,
    *,
    seed: int = 0,
    singular_steps: int = 4,
) -> Propagation:
    """Measure the outputs and gradients of every layer, in one forward and one backward pass.

    Nothing changes: neither parameters and their gradients, nor buffers, flags and generators. The
    gradients of parameters are not computed.

    Parameters
    ----------
    module : torch.nn.Module
        It runs in the mode it is in, so dropout is applied in training mode.
    batch : Tensor, tuple or dict
        The arguments of the module's call.
    loss : callable, optional
        A function of the output and the batch that returns a number, from which gradients begin.
        Without one they begin with numbers from N(0, 1) at every floating-point output.
    seed : int
        Of these numbers and of dropout.
    singular_steps : int
        How many products with each weight bound its singular values; see
        `winit_fast.diagnosis.extreme_singular_values`.

    Returns
    -------
    Propagation
        With a row for every layer, normalisation and activation in the order of execution, also for
        activations that are called as functions. It prints as a table, and its method ``save``
        writes a figure or a report.

    Raises
    ------
    ValueError
        If the module has no parameters, the batch does not fit, a layer yields a number that is not
        finite, or the loss is not one number.
    TypeError
        If the batch is no tensor, tuple or dict.

    Examples
    --------
    >>> import torch
    >>> import winit_fast as wf
    >>> import winit_fast.torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> net = winit_fast.torch.init_(net, {"*.weight": "he_normal", "*.bias": "zeros"}, seed=0)
    >>> found = propagate(net, wf.torch.normal_(torch.empty(256, 64), seed=1))
    >>> [(row.name, row.type) for row in found.rows]
    [('0', 'Linear'), ('1', 'ReLU'), ('2', 'Linear')]
    >>> 1.2 < found["0"].deviation < 1.6
    True
    """
    key = word("seed", seed)
    steps = positive("singular_steps", singular_steps)
    inner = unwrapped(module)
    if not any(one.is_floating_point() for one in inner.parameters()):
        raise ValueError("module must have parameters, got one without any")
    rows: list[Row] = []
    edges: list[GradientEdge] = []
    gradients: dict[int, float] = {}
    weights: list[Module | None] = []

    def see(seen: Seen) -> None:
        place, output = len(rows), seen.output
        rows.append(_row(seen))
        weights.append(seen.module)
        if output.requires_grad:

            def keep(gradient: Tensor) -> None:
                gradients[place] = _moments(gradient)[1]

            output.register_hook(keep)
            edges.append(get_gradient_edge(output))

    value = None
    with undisturbed(inner, key & 0x7FFFFFFFFFFFFFFF), torch.enable_grad():
        with watched(inner, see, floats(batch)) as sources:
            output = call(inner, batch)
        returned = {sources[one] for one in floats(output) if one in sources}
        roots, cotangents = [one for one in floats(output) if one.requires_grad], None
        if loss is not None:
            number = loss(output, batch)
            if not isinstance(number, Tensor) or number.numel() != 1:
                raise ValueError(f"loss must return one number, got {_shown(number)}")
            value = float(number.detach())
            roots = [number]
        else:
            cotangents = [cotangent(one, key, place) for place, one in enumerate(roots)]
        if roots and roots[0].requires_grad and edges:
            torch.autograd.grad(roots, edges, cotangents, allow_unused=True)
    singular = {}
    for place, one in enumerate(weights):
        weight = None if one is None or rows[place].kind != LAYER else weight_of(one)
        if weight is not None:
            if id(one) not in singular:
                singular[id(one)] = _singular_values(whole(weight.detach()), steps)
            largest, smallest = singular[id(one)]
            rows[place] = replace(rows[place], largest=largest, smallest=smallest)
    return Propagation(
        tuple(
            replace(row, gradient=gradients.get(place), is_output=row.name in returned)
            for place, row in enumerate(rows)
        ),
        value,
    )


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def cotangent(output: Tensor, key: int, place: int) -> Tensor:
    """Draw the gradient at an output, from a stream of its own."""
    numbers = Stream(key, f"cotangent {place}").normal(shape=tuple(output.shape))
    return torch.from_numpy(numbers).to(output)


def _moments(output: Tensor) -> tuple[float, float]:
    """Return mean and deviation of a tensor's elements."""
    output = output.detach()
    if output.itemsize < 4:
        output = output.float()
    if not output.numel():
        return 0.0, 0.0
    # Three times as fast as var_mean.
    mean, count = float(output.mean()), output.numel()
    square = float(torch.linalg.vector_norm(output)) ** 2 / count
    if mean * mean > square / 2:  # their difference would lose the digits of the deviation
        centred = float(torch.linalg.vector_norm(output - mean)) / math.sqrt(count)
        return mean, centred
    return mean, math.sqrt(square - mean * mean)


def _root_mean_square(tensor: Tensor) -> float:
    values = whole(tensor.detach()).flatten()
    values = values.float() if values.itemsize < 4 else values
    return float(torch.linalg.vector_norm(values)) / math.sqrt(max(1, values.numel()))


def _singular_values(weight: Tensor, steps: int) -> tuple[float, float]:
    """Bound the singular values by torch's products, which use its threads and its device."""
    matrix = weight.flatten(1).float()
    if min(matrix.shape) <= EXACT:
        return extreme_singular_values(matrix.cpu().numpy(), steps)
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T

    def product(one: Tensor) -> Any:
        return lambda v: torch.mv(one, torch.from_numpy(v).to(one)).cpu().numpy()

    return bidiagonalised(product(matrix), product(matrix.T), matrix.shape[1], steps)


def _row(seen: Seen) -> Row:
    """Measure one output."""
    output = seen.output.detach()
    mean, deviation = _moments(output)
    if not (math.isfinite(mean) and math.isfinite(deviation)):
        raise ValueError(f"layer {seen.name!r} ({seen.type}) yields numbers that are not finite")
    dead = saturated = None
    samples = 0
    if seen.kind == ACTIVATION and output.numel():
        largest = _largest_of_units(output, seen.channels)
        dead, samples = float((largest == 0).float().mean()), output.numel() // largest.numel()
        if seen.bounds:
            near = [(output - bound).abs() < 0.01 * _reach(seen.bounds) for bound in seen.bounds]
            saturated = float(torch.stack([one.float().mean() for one in near]).sum())
    row = Row(seen.name, seen.kind, seen.type, mean, deviation, dead, saturated,
              before=seen.before, samples=samples, activation=seen.activation, param=seen.param,
              histogram=_histogram(output, mean, deviation))  # fmt: skip
    weight = None if seen.module is None or seen.kind != LAYER else weight_of(seen.module)
    if weight is None or seen.module is None:
        return row
    fan_in, fan_out = fans_of(seen.module, weight)
    bias = getattr(seen.module, "bias", None)
    return replace(
        row,
        weight=_root_mean_square(weight),
        bias=_root_mean_square(bias) if isinstance(bias, Tensor) else 0.0,
        fan_in=fan_in,
        fan_out=fan_out,
    )


def _reach(bounds: tuple[float, ...]) -> float:
    return max(bounds) - min(bounds) if len(bounds) > 1 else abs(bounds[0])


def _largest_of_units(output: Tensor, channels: bool) -> Tensor:
    """Return the largest magnitude of every unit over the batch and all positions."""
    axis = 1 if channels and output.ndim > 2 else output.ndim - 1
    others = [one for one in range(output.ndim) if one != axis]
    return output.abs().amax(others) if others else output.abs()


def _histogram(output: Tensor, mean: float, deviation: float) -> tuple[int, ...]:
    if not deviation > 0:
        return ()
    sample = output.flatten()[:: max(1, output.numel() // _SAMPLE)].float().cpu()
    counts = torch.histc(sample, _BINS, mean - 3 * deviation, mean + 3 * deviation)
    return tuple(int(count) for count in counts.tolist())
