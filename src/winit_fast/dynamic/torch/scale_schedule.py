"""Scales that grow to 1 in the first steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.base.arguments import integer, positive
from winit_fast.base.names import nearest, one_of
from winit_fast.diagnosis.torch.undisturbed import reshard
from winit_fast.dynamic.schedule import SHAPES, scale_at
from winit_fast.dynamic.torch.lsuv import above_0
from winit_fast.torch.names import Named, modules, tensors, unwrapped
from winit_fast.torch.refusals import refuse
from winit_fast.torch.rules import matcher

OF = ("weights", "outputs")


class ScaleSchedule:
    """Multiplies weights or outputs of layers by a scale that goes from a first value to 1.

    Weights are multiplied by the first scale at once, and by s(t) / s(t - 1) at every step. So what
    training adds to them is scaled as well. Outputs are multiplied by s(t) whenever a layer runs.

    Parameters
    ----------
    module : torch.nn.Module
    scales : mapping of str to float
        The first scale of the tensors (for outputs: of the modules) whose names match a pattern, in
        which ``*`` stands for any characters. More than 0.
    steps : int
        Number of calls of `step` after which the scale is 1.
    shape : {"linear", "cosine"}
    of : {"weights", "outputs"}

    Raises
    ------
    ValueError
        If a pattern matches nothing, two match the same name, or a scale is not more than 0.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    >>> _ = torch.nn.init.ones_(net[1].weight)
    >>> schedule = ScaleSchedule(net, {"1.weight": 0.25}, steps=3)
    >>> seen = [float(net[1].weight[0, 0].detach())]
    >>> for _ in range(4):
    ...     schedule.step()
    ...     seen.append(round(float(net[1].weight[0, 0].detach()), 6))
    >>> seen
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        module: Module,
        scales: Mapping[str, float],
        steps: int,
        *,
        shape: str = "linear",
        of: str = "weights",
    ) -> None:
        self._steps = positive("steps", steps)
        self._shape, self._of = one_of("shape", shape, SHAPES), one_of("of", of, OF)
        inner = self._module = unwrapped(module)
        if of == "weights":
            inside = list(modules(inner))
            found = tensors(inner, inside=inside)
            refuse(inside, found)
            known: dict[str, Any] = {named.name: named for named in found if named.is_parameter}
        else:
            known = {name: one for name, one in modules(inner) if name}
        self._first: dict[str, float] = {}
        for pattern, value in scales.items():
            first, is_match = above_0(f"scales[{pattern!r}]", value), matcher(pattern)
            matched = [name for name in known if is_match(name)]
            if not matched:
                raise ValueError(
                    f"scales must match a name, got {pattern!r}{nearest(pattern, known)}"
                )
            for name in matched:
                if name in self._first:
                    raise ValueError(f"scales must match a name once, {pattern!r} repeats {name!r}")
                self._first[name] = first
        if not self._first:
            raise ValueError(f"scales must not be empty, got {scales!r}")
        self._done, self._is_closed = 0, False
        self._handles = []
        if of == "weights":
            self._held: dict[str, Named] = {name: known[name] for name in self._first}
            for name, first in self._first.items():
                self._multiply(name, first)
        else:
            for name in self._first:
                self._handles.append(known[name].register_forward_hook(self._hook(name)))

    def _multiply(self, name: str, factor: float) -> None:
        held = self._held[name]
        parameter = held.module._parameters[held.attribute]  # wrappers may have replaced it
        assert parameter is not None
        with torch.no_grad():
            parameter.mul_(factor)

    def _hook(self, name: str) -> Any:
        def hook(module: Module, inputs: Any, output: Any) -> Any:
            scale = self._at(name, self._done)
            if scale == 1.0:
                return None
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"module {name!r} must return a tensor to be scaled, it returns "
                    f"{type(output).__name__}"
                )
            return output * scale

        return hook

    def _at(self, name: str, step: int) -> float:
        return scale_at(step, self._steps, self._first[name], self._shape)

    @property
    def scales(self) -> dict[str, float]:
        """The scales now, by name."""
        return {name: self._at(name, self._done) for name in self._first}

    def step(self) -> None:
        """Go one step further; call it after ``optimizer.step()``."""
        if self._is_closed:
            raise RuntimeError("step() must come before close()")
        self._done += 1
        if self._of == "weights" and self._done <= self._steps:
            reshard(self._module)
            for name in self._first:
                self._multiply(name, self._at(name, self._done) / self._at(name, self._done - 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps taken, and what the schedule is.

        Returns
        -------
        dict
        """
        return {"done": self._done, **self._course()}

    def _course(self) -> dict[str, Any]:
        return {
            "first": dict(self._first),
            "steps": self._steps,
            "shape": self._shape,
            "of": self._of,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; weights are those that were saved with it, so they do not change.

        Parameters
        ----------
        state : mapping

        Raises
        ------
        ValueError
            If it is that of another schedule.
        """
        own = self._course()
        given = {name: state.get(name) for name in own}
        if given != own:
            raise ValueError(f"state must be that of {own}, got {given}")
        self._done = integer("done", state["done"])

    def close(self) -> None:
        """Remove the hooks of outputs. The schedule has ended then."""
        self._is_closed = True
        for handle in self._handles:
            handle.remove()
