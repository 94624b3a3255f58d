"""The entries of an optimizer's state that belong to elements of a parameter."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from winit_fast.torch.shards import fill_along

KNOWN = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
"""Optimizers whose state is per element, with 0 as its beginning."""


def check_optimizer(optimizer: Optimizer | None, parameters: Mapping[str, Tensor]) -> None:
    """Refuse an optimizer whose state is not known, or that has other parameters.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or None
    parameters : mapping of str to Tensor
        Those of which elements will be reset.

    Raises
    ------
    TypeError, ValueError
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
    own = {id(one) for group in optimizer.param_groups for one in group["params"]}
    for name, parameter in parameters.items():
        if id(parameter) not in own:
            raise ValueError(
                f"optimizer must have the parameters that are re-initialised, but not {name!r}: "
                "make it after the module has been sharded or widened, or choose layers="
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
                fill_along(held, axis, numbers, initial)
