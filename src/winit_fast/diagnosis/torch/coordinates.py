"""The coordinate check of muP: how the outputs of layers change with width while training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from winit_fast.base.arguments import positive
from winit_fast.diagnosis.comparison import CoordinateCheck
from winit_fast.diagnosis.rows import LAYER
from winit_fast.diagnosis.torch.propagation import Loss
from winit_fast.diagnosis.torch.undisturbed import call
from winit_fast.diagnosis.torch.watching import Seen, watched
from winit_fast.torch.names import unwrapped


def coordinate_check(
    make_model: Callable[[int], Module],
    widths: Sequence[int],
    steps: int,
    *,
    batch: Any,
    loss: Loss,
    optimizer: Callable[[Module], Optimizer],
) -> CoordinateCheck:
    """Train a model at several widths for a few steps, and measure the outputs of its layers.

    If a model follows the rules of muP, the sizes of its layers' outputs, and of their changes, do
    not depend on its width.

    Parameters
    ----------
    make_model : callable
        A function that makes the model of a width, with its initial weights.
    widths : sequence of int
        At least two, increasing.
    steps : int
        Number of steps of training, all with the same batch.
    batch : Tensor, tuple or dict
        As in `winit_fast.diagnosis.propagate`.
    loss : callable
        A function of the output and the batch that returns a number.
    optimizer : callable
        A function that makes the optimizer of a model; learning rates may depend on the width.

    Returns
    -------
    CoordinateCheck

    Raises
    ------
    ValueError
        If widths are fewer than two or do not increase, the models have different layers, the batch
        does not fit, or a layer yields a number that is not finite.
    TypeError
        If ``make_model`` does not make a module, or ``optimizer`` no optimizer.

    References
    ----------
    Yang et al., "Tensor programs V: tuning large neural networks via zero-shot hyperparameter
    transfer", 2022, appendix D.1.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> def make(width):
    ...     net = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.Linear(width, 2))
    ...     return winit_fast.torch.init_(net, {"*.weight": "lecun_normal"}, seed=0)
    >>> batch = winit_fast.torch.normal_(torch.empty(32, 8), seed=0)
    >>> found = coordinate_check(
    ...     make, [32, 64, 128], 3, batch=batch, loss=lambda output, batch: output.mean(),
    ...     optimizer=lambda model: torch.optim.Adam(model.parameters(), 1e-3),
    ... )
    >>> found.slopes()["1"] > 0.5  # Adam's learning rate should fall with the width
    True
    """
    sizes = [positive("widths", width) for width in widths]
    if len(sizes) < 2 or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"widths must be at least two increasing numbers, got {list(widths)!r}")
    count = positive("steps", steps)
    measured: dict[str, list[list[float]]] = {}
    changed: dict[str, list[list[float]]] = {}
    for number, width in enumerate(sizes):
        model = make_model(width)
        if not isinstance(model, Module):
            raise TypeError(f"make_model must make a module, it makes {model!r:.200}")
        made = optimizer(model)
        if not isinstance(made, Optimizer):
            raise TypeError(f"optimizer must make an optimizer, it makes {made!r:.200}")
        first: dict[str, Tensor] = {}
        for step in range(count + 1):
            outputs, value = _run(model, batch, loss)
            if number and not step and list(outputs) != list(measured):
                raise ValueError(
                    f"make_model must make the same layers for every width, got {list(outputs)} "
                    f"for {width} and {list(measured)} for {sizes[0]}"
                )
            first = first or outputs
            for name, output in outputs.items():
                size = float(output.abs().mean())
                if not math.isfinite(size):
                    raise ValueError(
                        f"layer {name!r} yields numbers that are not finite at width {width} "
                        f"after {step} steps"
                    )
                change = float((output - first[name]).abs().mean())
                for table, entry in ((measured, size), (changed, change)):
                    lines = table.setdefault(name, [])
                    lines.extend([] for _ in range(number + 1 - len(lines)))
                    lines[number].append(entry)
            if step < count:
                made.zero_grad()
                value.backward()
                made.step()
    return CoordinateCheck(
        tuple(sizes),
        {name: np.array(lines) for name, lines in measured.items()},
        {name: np.array(lines) for name, lines in changed.items()},
    )


def _run(model: Module, batch: Any, loss: Loss) -> tuple[dict[str, Tensor], Tensor]:
    """Return the outputs of the layers, and the loss."""
    outputs: dict[str, Tensor] = {}

    def see(seen: Seen) -> None:
        if seen.kind == LAYER:
            outputs[seen.name] = seen.output.detach().float().clone()

    with torch.enable_grad(), watched(unwrapped(model), see):
        output = call(model, batch)
    return outputs, loss(output, batch)
