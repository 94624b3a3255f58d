"""Resets what an optimizer keeps of parameters: of whole ones, or of some rows or columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from winit_fast.torch.names import Named
from winit_fast.torch.shards import fill_along

KNOWN = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
"""Optimizers whose state is per element, with 0 as its beginning."""


def check_per_element(optimizer: Optimizer | None, parameters: Mapping[str, Tensor]) -> None:
    """Refuse an optimizer that lacks a parameter, or whose state is not known to be per element.

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
    own = _own(optimizer)
    for name, parameter in parameters.items():
        if id(parameter) not in own:
            raise ValueError(
                f"optimizer must have the parameters that are re-initialised, but not {name!r}: "
                "make it after the module has been sharded or widened, or choose layers="
            )


def reset_along(optimizer: Optimizer | None, parameter: Tensor, axis: int, numbers: Tensor) -> None:
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
    >>> reset_along(adam, weight, 0, torch.tensor([1]))
    >>> [round(value, 6) for value in adam.state[weight]["exp_avg"].tolist()]
    [0.1, 0.0, 0.1]
    """
    if optimizer is None:
        return
    initial = _accumulated(optimizer) if isinstance(optimizer, torch.optim.Adagrad) else 0.0
    with torch.no_grad():
        for held in optimizer.state.get(parameter, {}).values():
            if isinstance(held, Tensor) and held.shape == parameter.shape:
                fill_along(held, axis, numbers, initial)


def resets(optimizer: Optimizer, chosen: Sequence[Named]) -> list[Callable[[], Any]]:
    """Return functions that reset all that an optimizer keeps of parameters.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    chosen : sequence of Named

    Raises
    ------
    TypeError, ValueError
        If it is no optimizer, keeps no state for each parameter, or lacks one of these.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("optimizer must keep a state for each parameter, got LBFGS")
    own = _own(optimizer)
    found: list[Callable[[], Any]] = []
    for named in chosen:
        if not named.is_parameter:
            continue
        if id(named.tensor) not in own:
            raise ValueError(f"optimizer must have the chosen parameters, but not {named.what}")
        if isinstance(optimizer, torch.optim.Adagrad):  # its state is made by its constructor
            state = optimizer.state[named.tensor]
            found.append(partial(_as_at_first, state, _accumulated(optimizer)))
        else:  # the others make it at the first step
            found.append(partial(optimizer.state.pop, named.tensor, None))
    return found


def _as_at_first(state: dict[str, Any], start: float) -> None:
    """Set the state of a parameter in Adagrad to that of a new optimizer."""
    state["step"].zero_()
    state["sum"].fill_(start)


def _own(optimizer: Optimizer) -> set[int]:
    return {id(one) for group in optimizer.param_groups for one in group["params"]}


def _accumulated(optimizer: torch.optim.Adagrad) -> float:
    """Return what Adagrad's sums begin with.

    It is the number given to its constructor, not that of a parameter group.
    """
    return float(optimizer.defaults["initial_accumulator_value"])
