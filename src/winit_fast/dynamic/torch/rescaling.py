"""Scales layers to a deviation of their outputs, of their gradients, or of both."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Module

from winit_fast.base.arguments import optional, positive
from winit_fast.base.names import one_of
from winit_fast.diagnosis.torch.propagation import Loss, cotangent
from winit_fast.diagnosis.torch.undisturbed import call, floats, undisturbed
from winit_fast.dynamic.adjustment import Adjusted, Adjustment, log_factors
from winit_fast.dynamic.torch.forward import all_or_nothing, to_deviation
from winit_fast.dynamic.torch.layers import Scalable, Sums, scalable
from winit_fast.dynamic.torch.lsuv import above_0
from winit_fast.dynamic.torch.ranks import group_of
from winit_fast.torch.names import unwrapped

TARGETS = ("activation", "gradient", "both")

_LARGEST_STEP = math.log(100.0)
"""A factor beyond it in one pass would only be a guess."""


def rescale_(
    module: Module,
    batch: Any,
    target: str = "activation",
    *,
    loss: Loss | None = None,
    deviation: float = 1.0,
    gradient: float | None = None,
    tolerance: float = 0.05,
    center: bool = False,
    max_iterations: int = 20,
    seed: int = 0,
    group: Any = None,
) -> Adjustment:
    """Scale the weights of layers so that signals, gradients or both keep their deviation.

    Parameters
    ----------
    module : torch.nn.Module
        As in `winit_fast.dynamic.lsuv_`.
    batch : Tensor, tuple or dict
        The arguments of the module's call.
    target : {"activation", "gradient", "both"}
        "activation": every layer's output gets the deviation. "gradient": the gradient with respect
        to every layer's output does. "both": the sum of the squares of the logarithms of both
        ratios becomes as small as it can be.
    loss : callable, optional
        A function of the output and the batch that returns a number, from which gradients begin.
        Without one they begin with numbers from N(0, 1) at every floating-point output.
    deviation : float
        Of outputs.
    gradient : float, optional
        The deviation of gradients; by default that at the last layer's output, which no weight
        changes.
    tolerance : float
        The relative difference from a target that is accepted. For "both" it is how much the
        factors of the last pass may differ from 1.
    center : bool
        Whether the bias of every layer is set so that each of its units has mean 0. Only for
        "activation".
    max_iterations : int
        Number of passes before it is an error.
    seed : int
        Of these numbers and of dropout.
    group : torch.distributed.ProcessGroup, optional
        As in `winit_fast.dynamic.lsuv_`.

    Returns
    -------
    Adjustment
        What was done, by layer.

    Raises
    ------
    ValueError
        As in `winit_fast.dynamic.lsuv_`; or if a layer gets no gradient. All parameters are as
        before then.
    TypeError
        As in `winit_fast.dynamic.lsuv_`.

    Notes
    -----
    Factors for gradients are those of a chain of layers; see
    `winit_fast.dynamic.log_factors`. They are computed and measured again until the
    target is reached, since activations and residual connections pass a factor on only in part.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> layers = [part for _ in range(9) for part in (torch.nn.Linear(64, 64), torch.nn.ReLU())]
    >>> net = torch.nn.Sequential(*layers, torch.nn.Linear(64, 64))
    >>> batch = winit_fast.torch.normal_(torch.empty(128, 64), seed=0)
    >>> found = rescale_(net, batch, "gradient")
    >>> last = found.layers[-1].gradient
    >>> all(0.95 <= layer.gradient / last <= 1.05 for layer in found.layers)
    True
    """
    one_of("target", target, TARGETS)
    wanted, accepted = above_0("deviation", deviation), above_0("tolerance", tolerance)
    of_gradients = optional(above_0)("gradient", gradient)
    most = positive("max_iterations", max_iterations)
    if center and target != "activation":
        raise ValueError(f"center must be False for the target {target!r}, got {center!r}")
    inner = unwrapped(module)
    found = scalable(inner)
    ranks = group_of(module, group, [layer.weight for layer in found])
    held = {
        id(one): one for layer in found for one in (layer.weight, layer.bias) if one is not None
    }
    with all_or_nothing(list(held.values())):
        if target == "activation":
            return to_deviation(
                inner, batch, found, target=wanted, tolerance=accepted, iterations=most,
                center=center, seed=seed, group=ranks,
            )  # fmt: skip
        return _by_gradients(inner, batch, found, target, loss, wanted, of_gradients, accepted,
                             most, seed, ranks)  # fmt: skip


def _by_gradients(
    module: Module,
    batch: Any,
    found: list[Scalable],
    target: str,
    loss: Loss | None,
    deviation: float,
    gradient: float | None,
    tolerance: float,
    iterations: int,
    seed: int,
    group: Any,
) -> Adjustment:
    factors = {id(one.weight): 1.0 for one in found}
    before: dict[int, float] = {}
    for number in range(iterations + 1):
        order, forward, backward = _measured(module, batch, found, loss, seed, group)
        for one, value in zip(order, forward, strict=True):
            before.setdefault(id(one.weight), value)
        goal = backward[-1] if gradient is None else gradient
        logs = log_factors(forward if target == "both" else None, backward, deviation, gradient)
        off = [abs(math.log(value / goal)) for value in backward[:-1]]
        if target == "both":
            off = [abs(float(log)) for log in logs]
        if max(off, default=0.0) <= math.log1p(tolerance):
            return Adjustment(
                tuple(
                    Adjusted(one.name, factors[id(one.weight)], before[id(one.weight)], after, back)
                    for one, after, back in zip(order, forward, backward, strict=True)
                )
            )
        if number == iterations:
            break
        with torch.no_grad():
            for one, log in zip(order, logs, strict=True):
                factor = math.exp(min(max(float(log), -_LARGEST_STEP), _LARGEST_STEP))
                one.weight.mul_(factor)
                factors[id(one.weight)] *= factor
    worst = off.index(max(off))
    raise ValueError(
        f"layer {order[worst].name!r} does not get to its target: the deviation of its gradient is "
        f"{backward[worst]:.4g} after {iterations} passes, wanted {goal:.4g}"
    )


def _measured(
    module: Module, batch: Any, found: list[Scalable], loss: Loss | None, seed: int, group: Any
) -> tuple[list[Scalable], list[float], list[float]]:
    """Measure the deviations of outputs and of their gradients, in the order of execution."""
    by_module = {id(one.module): one for one in found}
    order: list[Scalable] = []
    sums: dict[int, tuple[Sums, Sums]] = {}
    edges: list[GradientEdge] = []

    def hook(one: Module, args: Any, output: Any) -> None:
        layer, result = by_module[id(one)], floats(output)[0]
        if id(layer.weight) not in sums:
            order.append(layer)
        forward, backward = sums.setdefault(id(layer.weight), (Sums(), Sums()))
        forward.add(result)
        if result.requires_grad:
            result.register_hook(lambda given: backward.add(given))
            edges.append(get_gradient_edge(result))

    handles = [one.register_forward_hook(hook)
               for one in {id(one.module): one.module for one in found}.values()]  # fmt: skip
    try:
        with undisturbed(module, seed), torch.enable_grad():
            output = call(module, batch)
            roots = [one for one in floats(output) if one.requires_grad]
            starts: list[Tensor] | None = [
                cotangent(one, seed, place) for place, one in enumerate(roots)
            ]
            if loss is not None:
                roots, starts = [loss(output, batch)], None
            if roots and edges:
                torch.autograd.grad(roots, edges, starts, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    if not order:
        raise ValueError("batch must make a layer of the module run, but none runs")
    forward: list[float] = []
    backward: list[float] = []
    for one in order:
        for own, values, what in zip(sums[id(one.weight)], (forward, backward),
                                     ("output", "gradient"), strict=True):  # fmt: skip
            value = own.deviation(group)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"layer {one.name!r} cannot be scaled: the deviation of its {what} is {value}"
                )
            values.append(value)
    return order, forward, backward
