"""The facts about a module's weights, and what is set badly in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from winit_fast.advice.advice import Advice
from winit_fast.advice.examination import (
    EMBEDDING,
    LINEAR,
    OTHER,
    Finding,
    WeightFacts,
    examine,
)
from winit_fast.advice.recommendation import DEEP
from winit_fast.advice.weight_facts import head_factor
from winit_fast.diagnosis.report import Propagation
from winit_fast.diagnosis.rows import ACTIVATION, LAYER, NORM, Row
from winit_fast.diagnosis.torch.propagation import Loss, propagate
from winit_fast.diagnosis.torch.watching import (
    activation_of,
    fans_of,
    is_norm,
    is_sequence,
    layers,
    weight_of,
)
from winit_fast.torch.names import modules, tensors, unwrapped

_HEADS = re.compile(r"(^|\.)(lm_head|embed_out|classifier|score|head|output_layer)$")

_DEAD, _SATURATED = 0.5, 0.3
"""Shares of dead units and of saturated elements that are reported."""

_SAMPLES = 16
"""Elements of every unit from which on it is no chance that all are 0."""


@dataclass
class _Place:
    """A layer with what stands before and after it."""

    name: str
    module: Module
    before: str | None
    normalised: bool
    path: int = 0
    is_branch: bool = False


def advise(module: Module, batch: Any = None, loss: Loss | None = None) -> Advice:
    """Say what is set badly in a module's present weights, and which rules mend it.

    Parameters
    ----------
    module : torch.nn.Module
        Nothing in it changes.
    batch : Tensor, tuple or dict, optional
        The arguments of the module's call. Only with a batch are activations seen that are called
        as functions, the order of layers outside ``nn.Sequential``, and dead and saturated units.
    loss : callable, optional
        As in `winit_fast.diagnosis.propagate`.

    Returns
    -------
    Advice

    Raises
    ------
    TypeError, ValueError
        As in `winit_fast.diagnosis.propagate`; or if the module has no weights.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> layers = [part for _ in range(30) for part in (torch.nn.Linear(64, 64), torch.nn.ReLU())]
    >>> net = torch.nn.Sequential(*layers)
    >>> net = winit_fast.torch.init_(net, {"*.weight": "glorot_normal", "*.bias": "zeros"}, seed=0)
    >>> advice = advise(net)
    >>> advice.findings[0].problem
    'deviation 0.1237 after relu, where 0.1768 keeps the mean square'
    >>> net = winit_fast.torch.init_(net, advice.rules, seed=1)
    >>> advise(net).findings
    ()
    """
    inner = unwrapped(module)
    names = {id(named.tensor): named.name for named in tensors(inner)}
    if not any(weight_of(one) is not None for _, one in modules(inner)):
        raise ValueError("module must have a weight of at least two axes, got none")
    notes, measured = [], None
    broken = _not_finite(inner)
    if batch is not None and not broken:
        measured = propagate(inner, batch, loss)
        places = _executed(inner, measured)
    else:
        places = _listed(inner)
        if any(one.before is None for one in places):
            notes.append(
                "activations that are called as functions, and the order of layers outside "
                "nn.Sequential, are seen only with a batch"
            )
    facts = _facts(inner, places, names, measured)
    findings = examine(facts)
    then = ""
    if sum("signals become" in one.consequence for one in findings) >= DEEP:
        then = "winit_fast.dynamic.lsuv_(module, batch, orthonormal=False)"
    if measured is not None:
        findings += _activations(measured)
    return Advice(tuple(findings), tuple(notes), measured, then)


def _not_finite(module: Module) -> bool:
    return any(
        not bool(torch.isfinite(one).all())
        for one in module.parameters()
        if one.is_floating_point() and not one.is_meta
    )


def _listed(module: Module) -> list[_Place]:
    """List the layers by their names; neighbours are known within nn.Sequential."""
    own = dict(layers(module))
    found: list[_Place] = []
    done: set[str] = set()
    paths = count()
    for name, one in modules(module):
        if is_sequence(one) and name not in done:
            parts = _flat(name, one, done)
            found += _in_order(parts, own, _first_before(name), paths)
        elif name in own and name not in done:
            done.add(name)
            found.append(_Place(name, one, None, False, next(paths)))
    return found


def _first_before(name: str) -> str | None:
    """Return what is before the first layer of a sequence: nothing, if it is the whole module."""
    return "linear" if not name else None


def _flat(name: str, sequence: nn.Sequential, done: set[str]) -> list[tuple[str, Module]]:
    done.add(name)
    parts: list[tuple[str, Module]] = []
    for child, one in sequence._modules.items():
        full = f"{name}.{child}" if name else child
        if is_sequence(one):
            parts += _flat(full, one, done)
        elif one is not None:
            done.add(full)
            parts.append((full, one))
            done.update(f"{full}.{inner}" for inner, _ in one.named_modules() if inner)
    return parts


def _in_order(
    parts: Sequence[tuple[str, Module]],
    own: dict[str, Module],
    first: str | None,
    paths: Iterator[int],
) -> list[_Place]:
    found: list[_Place] = []
    before, normalised, path = first, False, next(paths)
    for name, one in parts:
        known = activation_of(one)
        if known is not None:
            before = known[0]
        elif name in own and is_norm(one):
            if found and before == "linear":
                found[-1].normalised = True
            normalised, path = True, next(paths)
        elif name in own and weight_of(one) is not None:
            found.append(_Place(name, one, before, normalised, path))
            before, normalised = "linear", False
        elif list(one.parameters()):  # a block of which it is not known what it does
            for inner, part in layers(one):
                if weight_of(part) is not None:
                    full = f"{name}.{inner}" if inner else name
                    found.append(_Place(full, part, None, False, next(paths)))
            before, normalised, path = None, False, next(paths)
    return found


def _executed(module: Module, measured: Propagation) -> list[_Place]:
    """List the layers in the order in which they have run, with what their inputs come from."""
    named = dict(modules(module))
    rows = {row.name: row for row in measured.rows}
    found: dict[str, _Place] = {}
    used: set[str] = set()
    paths = count()
    for row in measured.rows:
        before, normalised, producer = _source(row, rows)
        if producer is not None and row.kind == NORM and row.before == producer in found:
            found[producer].normalised = True
        if row.kind != LAYER or row.name not in named:
            continue
        is_linked = producer in found and not normalised and not found[producer].normalised
        path = found[producer].path if producer and is_linked else next(paths)
        if producer is not None:
            used.add(producer)
        found[row.name] = _Place(row.name, named[row.name], before, normalised, path)
    for row in measured.rows:  # what the module returns is used as well
        if row.is_output:
            used.update((row.name, _source(row, rows)[2] or ""))
    branches = {place.path for name, place in found.items() if name not in used}
    for place in found.values():
        place.is_branch = place.path in branches
    ran = {id(weight_of(place.module)) for place in found.values()}
    rest = [_Place(name, one, None, False, next(paths)) for name, one in layers(module)
            if weight_of(one) is not None and id(weight_of(one)) not in ran]  # fmt: skip
    return [*rest, *found.values()]


def _source(row: Row, rows: Mapping[str, Row]) -> tuple[str | None, bool, str | None]:
    """Return the activation before a row, whether its input is normalised, and the layer before."""
    activation: str | None = None
    at = row.before
    while at:
        source = rows[at]
        if source.kind == ACTIVATION:
            activation = activation or source.activation
        elif source.kind == NORM:
            return activation or "linear", True, source.before
        else:
            return activation or "linear", False, source.name
        at = source.before
    return activation or (None if at is None else "linear"), False, None


def _facts(
    module: Module, places: list[_Place], names: dict[int, str], measured: Propagation | None
) -> list[WeightFacts]:
    embeddings = (nn.Embedding, nn.EmbeddingBag)
    tables = {id(one.weight) for _, one in modules(module) if isinstance(one, embeddings)}
    kept = [one for one in places if weight_of(one.module) is not None]
    tied = {
        id(weight_of(one.module)) for one in kept if not isinstance(one.module, embeddings)
    } & tables
    zero = {one.name for one in kept if not bool(weight_of(one.module).any())}  # type: ignore[union-attr]
    meant = _meant_to_be_zero(kept, zero)
    found: list[WeightFacts] = []
    done: set[int] = set()
    last = kept[-1].name if kept else ""
    configuration: Any = getattr(module, "config", None)
    factor = head_factor(configuration.to_dict()) if hasattr(configuration, "to_dict") else 1.0
    outputs = _deviations(kept, measured)
    for one in kept:
        weight = weight_of(one.module)
        if weight is None or weight.is_meta or id(weight) in done or not weight.numel():
            continue
        done.add(id(weight))
        is_table = id(weight) in tables
        fan_in, fan_out = fans_of(one.module, weight)
        mean, deviation, not_finite = _moments(weight)
        width = weight.shape[-1] if is_table else fan_in
        expected = deviation * math.sqrt(width)
        own = outputs.get(id(weight))
        found.append(
            WeightFacts(
                names.get(id(weight), f"{one.name}.weight"),
                tuple(weight.shape),
                EMBEDDING if is_table else LINEAR if weight.is_floating_point() else OTHER,
                fan_in,
                fan_out,
                mean,
                deviation,
                before=one.before,
                normalised=one.normalised,
                is_head=id(weight) in tied or bool(_HEADS.search(one.name)),
                path=one.path,
                is_branch=one.is_branch,
                head_factor=factor if own is None or not expected else own / expected,
                may_be_zero=one.name in meant or (one.name == last and not is_table),
                not_finite=not_finite,
            )
        )
    return found


def _deviations(kept: list[_Place], measured: Propagation | None) -> dict[int, float]:
    """Return the measured deviations of outputs by the ids of weights; a table has no logits."""
    rows = {row.name: row for row in measured.rows} if measured is not None else {}
    return {
        id(weight_of(one.module)): rows[one.name].deviation
        for one in kept
        if one.name in rows and not isinstance(one.module, (nn.Embedding, nn.EmbeddingBag))
    }


def _meant_to_be_zero(kept: list[_Place], zero: set[str]) -> set[str]:
    """Find the layers that are zero in every block, as the last ones of residual branches are."""
    groups: dict[str, list[str]] = {}
    for one in kept:
        template = re.sub(r"(?<![^\W_])\d+(?![^\W_])", "*", one.name)
        groups.setdefault(template, []).append(one.name)
    if len(groups) < 2:
        return set()
    return {
        name
        for group in groups.values()
        if len(group) > 1 and all(each in zero for each in group)
        for name in group
    }


def _moments(weight: Tensor) -> tuple[float, float, int]:
    """Return mean and deviation of the finite elements, and the number of others."""
    values = weight.detach().float()
    finite = torch.isfinite(values)
    wrong = int(values.numel() - finite.sum())
    if wrong:
        values = values[finite]
    if not values.numel():
        return 0.0, 0.0, wrong
    variance, mean = torch.var_mean(values.double(), unbiased=False)
    return float(mean), float(variance) ** 0.5, wrong


def _activations(measured: Propagation) -> list[Finding]:
    """Find activations of which too many units are dead, or too many elements saturated."""
    found = []
    for row in measured.rows:
        if row.dead is not None and row.dead > _DEAD and row.samples >= _SAMPLES:
            found.append(
                Finding(
                    row.name,
                    f"{100 * row.dead:.3g} % of its units are 0 for the whole batch",
                    "they learn nothing",
                    None,
                    "Lu et al., Dying ReLU and initialization, 2019",
                )
            )
        if row.saturated is not None and row.saturated > _SATURATED:
            found.append(
                Finding(
                    row.name,
                    f"{100 * row.saturated:.3g} % of its outputs are within 1 % of a bound",
                    "gradients vanish there",
                    None,
                    "Glorot and Bengio, AISTATS 2010, section 3",
                )
            )
    return found
