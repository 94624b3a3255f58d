"""Re-initialises dormant units while a network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import Module
from torch.optim import Optimizer

from winit_fast.base.arguments import integer, not_negative, positive
from winit_fast.base.names import nearest
from winit_fast.base.tables import table
from winit_fast.diagnosis.torch.undisturbed import reshard
from winit_fast.dynamic.dormancy import runs
from winit_fast.dynamic.torch.activity import Activity, Watched
from winit_fast.dynamic.torch.ranks import group_of
from winit_fast.dynamic.torch.schemes import draw, schemes
from winit_fast.dynamic.torch.units import (
    Units,
    columns,
    find_units,
    full_name,
    out_axis,
    parameter,
)
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.names import Names, unwrapped
from winit_fast.torch.optimizer_state import check_per_element, reset_along
from winit_fast.torch.rules import Rules
from winit_fast.torch.seeding import draw_word
from winit_fast.torch.shards import fill_along


@dataclass(frozen=True)
class Reset:
    """Units that were re-initialised.

    Attributes
    ----------
    layer : str
    step : int
        After how many calls of `DynamicInit.step`.
    units : tuple of int
    share : float
        Of the layer's units.
    generation : int
        Of the streams that the new weights are drawn from.
    """

    layer: str
    step: int
    units: tuple[int, ...]
    share: float
    generation: int


class DynamicInit:
    """Watches a network while it is trained, and re-initialises its dormant units.

    After every step of the optimizer, call `step`. Each ``every`` steps it looks at what the units
    of each layer did in all forward passes since the step before. A unit is dormant if its mean
    magnitude is at most ``tau`` times that of its layer's units. Its incoming weights and its bias
    are then drawn anew from the scheme and the stream of their tensors, its outgoing weights become
    0, so that the network's output hardly changes, and the optimizer's moments of just those
    elements begin again. If no unit is dormant, nothing changes.

    Parameters
    ----------
    module : torch.nn.Module
    optimizer : torch.optim.Optimizer, optional
        SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad or Adadelta.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        By default 64 bits from torch's generator. For the same seed, everything repeats.
    tau : float
        The threshold of dormancy.
    every : int
        How often units are watched, in steps.
    rules : mapping or callable, optional
        The schemes of weights and biases, as in `winit_fast.torch.init_`; by default those of the
        author's code.
    units : mapping of str to str, optional
        For layers where it cannot be told: the name of the layer that uses their units. It is known
        for layers of an ``nn.Sequential``, and for the MLP of a transformer by the usual names.
    layers : list of str, optional
        The layers whose units are watched; by default all where it is known, without frozen ones.
    reset : bool
        Whether dormant units are re-initialised, or only watched.
    names, prefix
        As in `winit_fast.torch.init_`.
    group : torch.distributed.ProcessGroup, optional
        Units are dormant by the batches of all its ranks, so that all ranks reset the same ones.
        By default that of a ``DistributedDataParallel``; required if ``fully_shard`` has cut
        weights. A seed is then required too.

    Attributes
    ----------
    history : list of Reset
    seen : dict of str to Watched
        What was seen of every layer's units when they were last watched, before any reset.

    Raises
    ------
    ValueError
        If there is no layer to watch, or it cannot be told which weights are outgoing for one of
        ``layers``, or the optimizer lacks a parameter; or as in `winit_fast.torch.init_`.
    TypeError
        If the optimizer's state is not known; or as in `winit_fast.torch.init_`.

    Notes
    -----
    Make it after the module has been wrapped, sharded and moved, and the optimizer before it. Of a
    DTensor, every rank changes its part; for elementwise schemes the entries are those of the
    module on one rank. A module that is compiled must be compiled, or run for the first time,
    afterwards.

    References
    ----------
    Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML 2023.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> optimizer = torch.optim.Adam(net.parameters())
    >>> with torch.no_grad():
    ...     net[0].bias[3] = -100.0  # a dead unit
    >>> watch = DynamicInit(net, optimizer, seed=3, every=1)
    >>> print(watch.describe())
    layer  units  incoming  outgoing
    0          8  0         2
    >>> net(torch.randn(16, 4)).sum().backward()
    >>> optimizer.step()
    >>> [reset] = watch.step()
    >>> 3 in reset.units, bool((net[2].weight[:, 3] == 0).all())
    (True, True)
    """

    def __init__(
        self,
        module: Module,
        optimizer: Optimizer | None = None,
        *,
        seed: Seed = None,
        tau: float = 0.025,
        every: int = 100,
        rules: Rules | None = None,
        units: Mapping[str, str] | None = None,
        layers: list[str] | None = None,
        reset: bool = True,
        names: Names | None = None,
        prefix: str = "",
        group: Any = None,
    ) -> None:
        check_per_element(optimizer, {})
        self.optimizer, self.reset = optimizer, reset
        self.tau, self.every = not_negative("tau", tau), positive("every", every)
        inner = self._module = unwrapped(module)
        found, self._unknown = find_units(inner, units)
        if reset:
            found = _without_frozen(found, self._unknown)
        if layers is not None:
            found = _chosen(found, layers, self._unknown)
        if not found:
            listed = "; ".join(f"{name!r}: {why}" for name, why in self._unknown.items())
            raise ValueError(f"module has no layer whose units can be watched ({listed or 'none'})")
        self._units = {one.name: one for one in found}
        wanted = {
            full_name(name, attribute)
            for one in found
            for name, holder in one.before
            for attribute, held in holder._parameters.items()
            if held is not None
        }
        self._specs = schemes(inner, wanted, rules, names, prefix)
        changed = {name: held for one in found for name, held in one.parameters().items()}
        if reset:
            check_per_element(optimizer, changed)
        self.group = group_of(module, group, changed.values())
        if self.group is not None and seed is None:
            raise ValueError(
                "seed must be given, got None: every rank would draw numbers of its own"
            )
        self._key = draw_word() if seed is None else seed_number(seed)
        self._is_closed = False
        self.steps = 0
        self.history: list[Reset] = []
        self.seen: dict[str, Watched] = {}
        self._generations = dict.fromkeys(self._units, 0)
        self._activity = Activity(self._units, is_on=self.every == 1)

    def step(self) -> list[Reset]:
        """Count a step; at every ``every``-th one, re-initialise dormant units.

        Call it after ``optimizer.step()``.

        Returns
        -------
        list of Reset
            What was re-initialised now.

        Raises
        ------
        ValueError
            If a layer has yielded numbers that are not finite. Nothing has changed then.
        RuntimeError
            If units should have been watched, but no layer has run; or after `close`.
        """
        if self._is_closed:
            raise RuntimeError("step() must come before close()")
        self.steps += 1
        done: list[Reset] = []
        if self.steps % self.every == 0:
            self.seen = self._activity.seen(self.tau, self.group)
            if not self.seen:
                raise RuntimeError(
                    "step() must come after a forward pass, but no watched layer has run since the "
                    "step before (a module that was compiled earlier must be compiled again)"
                )
            found = self._dormant() if self.reset else {}
            if found:
                reshard(self._module)
            with torch.no_grad():
                done = [self._redraw(name, numbers) for name, numbers in found.items()]
                for name, numbers in found.items():  # after all draws, so that zeros remain
                    self._zero_outgoing(self._units[name], numbers)
            self._activity.restart()
        self._activity.is_on = (self.steps + 1) % self.every == 0
        self.history += done
        return done

    def _dormant(self) -> dict[str, np.ndarray[Any, Any]]:
        found = {name: self._activity.dormant(name, self.tau, self.group) for name in self.seen}
        return {name: numbers for name, numbers in found.items() if numbers.size}

    def _redraw(self, name: str, numbers: np.ndarray[Any, Any]) -> Reset:
        """Draw the incoming weights and biases of units anew."""
        units, index = self._units[name], torch.from_numpy(numbers)
        self._generations[name] += 1
        generation = self._generations[name]
        for holder_name, holder in units.before:
            for attribute, tensor in holder._parameters.items():
                if tensor is None:
                    continue
                axis = out_axis(holder) if tensor.ndim > 1 else 0
                spec = self._specs[full_name(holder_name, attribute)].of_generation(generation)
                draw(spec, tensor, self._key, axis, runs(numbers))
                reset_along(self.optimizer, tensor, axis, index)
        if units.norm is not None:
            for attribute, value in (("running_mean", 0.0), ("running_var", 1.0)):
                held = getattr(units.norm[1], attribute)
                if held is not None:
                    held.index_fill_(0, index.to(held.device), value)
        share = numbers.size / units.count
        return Reset(name, self.steps, tuple(numbers.tolist()), share, generation)

    def _zero_outgoing(self, units: Units, numbers: np.ndarray[Any, Any]) -> None:
        outgoing = units.outgoing[1]
        weight, axis = parameter(outgoing, "weight"), 1 - out_axis(outgoing)
        inputs = columns(torch.from_numpy(numbers), units.each)
        fill_along(weight, axis, inputs, 0.0)
        reset_along(self.optimizer, weight, axis, inputs)

    def describe(self) -> str:
        """Return a table of the layers that are watched, and of those that are not, with reasons.

        Returns
        -------
        str
        """
        rows = [("layer", "units", "incoming", "outgoing")]
        for one in self._units.values():
            incoming = [name for name, _ in one.incoming] + ([one.norm[0]] if one.norm else [])
            each = "" if one.each == 1 else f" ({one.each} inputs each)"
            rows.append((one.name, str(one.count), ", ".join(incoming), one.outgoing[0] + each))
        lines = [table(rows, right={1})]
        used = {one.outgoing[0] for one in self._units.values()}
        lines += [f"not watched: {name}: {why}" for name, why in self._unknown.items()
                  if name not in used]  # fmt: skip
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, from which training goes on as if it had not stopped.

        Returns
        -------
        dict
        """
        return {
            "steps": self.steps,
            "seed": self._key,
            "generations": dict(self._generations),
            "watches": self._activity.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` has returned.

        Parameters
        ----------
        state : mapping

        Raises
        ------
        ValueError
            If it is that of other layers.
        """
        if set(state["generations"]) != set(self._units):
            raise ValueError(
                f"state must be for the layers {sorted(self._units)}, "
                f"got {sorted(state['generations'])}"
            )
        self._activity.check(state["watches"])
        self.steps = integer("steps", state["steps"])
        self._key = seed_number(state["seed"])
        self._generations = dict(state["generations"])
        self._activity.load(state["watches"])
        self._activity.is_on = (self.steps + 1) % self.every == 0

    def close(self) -> None:
        """Remove the hooks; nothing is watched or re-initialised any more."""
        self._is_closed = True
        self._activity.close()


def _without_frozen(found: list[Units], unknown: dict[str, str]) -> list[Units]:
    """Leave out layers with frozen parameters, and say so."""
    kept = []
    for units in found:
        frozen = [name for name, held in units.parameters().items() if not held.requires_grad]
        if frozen:
            unknown[units.name] = f"{frozen[0]!r} is frozen"
        else:
            kept.append(units)
    return kept


def _chosen(found: list[Units], layers: list[str], unknown: Mapping[str, str]) -> list[Units]:
    by_name = {one.name: one for one in found}
    for name in layers:
        if name not in by_name:
            why = unknown.get(name)
            raise ValueError(
                f"the units of layer {name!r} cannot be watched: {why}"
                if why
                else f"layers must be of the module, got {name!r}{nearest(name, by_name)}"
            )
    return [by_name[name] for name in layers]
