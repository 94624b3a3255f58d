"""Restores everything that recorded code changes in a module and in the generators."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.nn import Module

from winit_fast.torch.names import Named
from winit_fast.torch.recorder import CannotRecord

_FLAG = "_is_hf_initialized"
"""The attribute by which transformers marks initialised objects, which it then skips."""

_EMPTY: Mapping[Any, Any] = MappingProxyType({})
"""The content of most dictionaries of a module: those for hooks."""


@contextmanager
def as_before(inside: list[tuple[str, Module]], found: list[Named]) -> Iterator[None]:
    """Restore everything that the recorded code changes; elements of tensors never change."""
    kept: list[tuple[Module, dict[str, Any], list[tuple[Any, Any]], frozenset[str]]] = [
        (
            one,
            dict(vars(one)),
            [(held, dict(held) if held else _EMPTY)
             for held in vars(one).values() if isinstance(held, dict)],
            frozenset(getattr(one, "_non_persistent_buffers_set", ())),
        )
        for _, one in inside
    ]  # fmt: skip
    attributes = [(named.tensor, dict(vars(named.tensor)), named.tensor.requires_grad)
                  for named in found]  # fmt: skip
    for _, one in inside:
        vars(one).pop(_FLAG, None)
    for named in found:
        vars(named.tensor).pop(_FLAG, None)
    fault = "the module's code draws from Python's or NumPy's generator: give rules, or by="
    try:
        with only_torchs_generator(fault):
            yield
    finally:
        for one, own, held, persistence in kept:
            vars(one).clear()
            vars(one).update(own)
            for now, before in held:
                if (now or before) and _changed(now, before):
                    now.clear()
                    now.update(before)
            if persistence != getattr(one, "_non_persistent_buffers_set", persistence):
                one._non_persistent_buffers_set.clear()
                one._non_persistent_buffers_set.update(persistence)
        for tensor, own, requires_grad in attributes:
            vars(tensor).clear()
            vars(tensor).update(own)
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)


@contextmanager
def untied(inside: list[tuple[str, Module]], found: list[Named]) -> Iterator[None]:
    """Replace a shared tensor, in all modules but the first, by separate tensors of its kind.

    This is the state before tying: the draws of the other modules are then dropped, even if they
    are made last.
    """
    first = {id(named.tensor): named.module for named in found}
    replaced = []
    for _, one in inside:
        for held in (one._parameters, one._buffers):
            for attribute, tensor in held.items():
                if tensor is not None and first[id(tensor)] is not one:
                    replaced.append((held, attribute, tensor))
    for held, attribute, tensor in replaced:
        other = torch.empty_like(tensor)
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        held[attribute] = torch.nn.Parameter(other, tensor.requires_grad) if is_parameter else other
    try:
        yield
    finally:
        for held, attribute, tensor in replaced:
            held[attribute] = tensor


@contextmanager
def only_torchs_generator(fault: str) -> Iterator[None]:
    """Refuse code that draws from other generators than torch's; restore the state of all."""
    states = random.getstate(), _numpy_state(), torch.get_rng_state()
    try:
        yield
        if random.getstate() != states[0] or not _same(_numpy_state(), states[1]):
            raise CannotRecord(fault)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _numpy_state() -> Any:
    return np.random.get_state()  # noqa: NPY002  # the global one, which code may draw from


def _changed(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return now.keys() != before.keys() or any(now[key] is not before[key] for key in before)


def _same(first: Any, second: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
