"""The entries of an optimizer's state that belong to elements of a parameter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

KNOWN = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
"""Optimizers whose state is per element, with 0 as its beginning."""


def check_optimizer(optimizer: Optimizer | None) -> None:
    """Refuse an optimizer whose state is not known.

    Raises
    ------
    TypeError
    """
    if optimizer is None:
        return
    kind = type(optimizer)
    is_known = kind.__name__ in KNOWN and kind.__module__.startswith("torch.optim")
    if not is_known:
        raise TypeError(
            f"optimizer must be one of {', '.join(KNOWN)} of torch.optim, whose state is known, "
            f"got {kind.__module__}.{kind.__qualname__}"
        )


def reset_state(optimizer: Optimizer | None, parameter: Tensor, axis: int, numbers: Tensor) -> None:
    """Set the state of some rows or columns of a parameter to its beginning.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
    parameter : Tensor
    axis : int
    numbers : Tensor
        Positions along the axis.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> adam = torch.optim.Adam([weight])
    >>> weight.sum().backward()
    >>> _ = adam.step()
    >>> reset_state(adam, weight, 0, torch.tensor([1]))
    >>> [round(value, 6) for value in adam.state[weight]["exp_avg"].tolist()]
    [0.1, 0.0, 0.1]
    """
    if optimizer is None:
        return
    initial = 0.0
    if type(optimizer).__name__ == "Adagrad":
        initial = float(optimizer.defaults["initial_accumulator_value"])
    with torch.no_grad():
        for held in optimizer.state.get(parameter, {}).values():
            if isinstance(held, Tensor) and held.shape == parameter.shape:
                held.index_fill_(axis, numbers.to(held.device), initial)
