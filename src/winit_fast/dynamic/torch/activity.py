"""What the units of layers do in forward and backward passes: sums over all that hooks see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.dynamic.dormancy import dormant
from winit_fast.dynamic.torch.layers import deviation_of, summed
from winit_fast.dynamic.torch.units import Units, parameter
from winit_fast.torch.shards import whole


@dataclass(frozen=True)
class Watched:
    """What was seen of a layer's units.

    Attributes
    ----------
    mean, deviation : float
        Of the activations.
    dormant : float
        The share of dormant units.
    dead : float
        The share of units that have been 0 all the time.
    gradient : float or None
        The deviation of the gradient with respect to the activations.
    """

    mean: float
    deviation: float
    dormant: float
    dead: float
    gradient: float | None


class _Sums:
    """Sums over the units of one layer: magnitudes, moments, gradients."""

    def __init__(self, count: int) -> None:
        self.magnitudes = torch.zeros(count, dtype=torch.float64)
        self.moments = torch.zeros(6, dtype=torch.float64)  # count, sum, squares; for gradients too

    def add(self, values: Tensor, axis: int, count: int) -> None:
        values = values.detach()
        if values.itemsize < 4:
            values = values.float()
        others = [other for other in range(values.ndim) if other != axis % values.ndim]
        by_unit = values.abs().sum(others) if others else values.abs()
        self.magnitudes += whole(by_unit).reshape(count, -1).sum(1).double().cpu()
        self._add(values, 0)

    def add_gradient(self, values: Tensor) -> None:
        self._add(values.detach(), 3)

    def _add(self, values: Tensor, start: int) -> None:
        sums = values.sum(dtype=torch.float64), values.double().square().sum()
        own = torch.stack([whole(one) for one in sums]).cpu()
        self.moments[start] += values.numel()
        self.moments[start + 1 : start + 3] += own


class Activity:
    """Watches the units of layers: the values that the layers get which use them.

    Parameters
    ----------
    units : mapping of str to Units
        By the names of their layers.

    Attributes
    ----------
    is_on : bool
        Whether passes are watched now.
    """

    def __init__(self, units: Mapping[str, Units], is_on: bool) -> None:
        self._units = units
        self.is_on = is_on
        self.restart()
        self._handles = [
            one.outgoing[1].register_forward_pre_hook(self._hook(name))
            for name, one in units.items()
        ]

    def restart(self) -> None:
        """Forget what has been seen."""
        self._sums = {name: _Sums(one.count) for name, one in self._units.items()}

    def _hook(self, name: str) -> Any:
        units = self._units[name]
        outgoing = units.outgoing[1]
        # A convolution's input has its channels before as many axes as its kernel has.
        is_convolution = isinstance(outgoing, torch.nn.modules.conv._ConvNd)
        axis = 1 - parameter(outgoing, "weight").ndim if is_convolution else -1
        count, inputs_each = units.count, units.each

        def hook(module: Module, inputs: tuple[Any, ...]) -> None:
            is_copy = module is not outgoing  # a deep copy of the module has the same hook
            if not self.is_on or is_copy or not inputs or not isinstance(inputs[0], Tensor):
                return
            values = inputs[0]
            if values.shape[axis] != count * inputs_each:
                raise ValueError(
                    f"layer {units.outgoing[0]!r} must get the units of {name!r}, "
                    f"{count * inputs_each} along axis {axis}, got shape {tuple(values.shape)}"
                )
            sums = self._sums[name]
            sums.add(values, axis, count)
            if values.requires_grad:
                values.register_hook(sums.add_gradient)

        return torch.compiler.disable(hook)

    def _totals(self, name: str, group: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        sums = self._sums[name]
        both = summed(torch.cat([sums.magnitudes, sums.moments]), group).numpy()
        count = self._units[name].count
        return both[:count], both[count:]

    def dormant(self, name: str, tau: float, group: Any) -> np.ndarray[Any, Any]:
        """Return the numbers of a layer's dormant units, by the batches of all ranks of a group."""
        return dormant(self._totals(name, group)[0], tau)

    def seen(self, tau: float, group: Any) -> dict[str, Watched]:
        """Compute what has been seen of every layer that has run."""
        found = {}
        for name, units in self._units.items():
            magnitudes, moments = self._totals(name, group)
            if not moments[0]:
                continue
            if not np.isfinite(magnitudes).all():
                raise ValueError(f"the units of layer {name!r} yield numbers that are not finite")
            gradient = deviation_of(*moments[3:].tolist()) if moments[3] else None
            found[name] = Watched(
                float(moments[1] / moments[0]),
                deviation_of(*moments[:3].tolist()),
                dormant(magnitudes, tau).size / units.count,
                float((magnitudes == 0).mean()),
                gradient,
            )
        return found

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return the sums of every layer."""
        return {
            name: {"magnitudes": sums.magnitudes.clone(), "moments": sums.moments.clone()}
            for name, sums in self._sums.items()
        }

    def check(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Refuse the sums of layers with other units."""
        for name, held in state.items():
            own, given = self._units[name].count, len(held["magnitudes"])
            if own != given:
                raise ValueError(
                    f"state must be for the {own} units of layer {name!r}, got one for {given}"
                )

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over sums that `state` has returned."""
        for name, held in state.items():
            self._sums[name].magnitudes.copy_(held["magnitudes"])
            self._sums[name].moments.copy_(held["moments"])

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
