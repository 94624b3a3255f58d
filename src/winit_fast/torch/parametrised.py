"""Modules whose tensors are parametrised: weight_norm and the like compute them from originals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import parametrize

from winit_fast.torch.names import Named
from winit_fast.torch.recorder import CannotRecord, Recorder
from winit_fast.torch.recording import recording
from winit_fast.torch.values import Draw, parts


class Parametrised(NamedTuple):
    """A tensor that a chain of parametrisations computes.

    Attributes
    ----------
    named : Named
        With a stand-in of the tensor's shape and dtype.
    chain : torch.nn.utils.parametrize.ParametrizationList
    """

    named: Named
    chain: Any

    @property
    def start(self) -> str:
        """The part that the names of all originals begin with."""
        named = self.named
        return f"{named.name.removesuffix(named.attribute)}parametrizations.{named.attribute}."

    @property
    def originals(self) -> set[str]:
        """The names of the parameters from which the tensor is computed."""
        return {f"{self.start}{key}" for key, _ in self.chain.named_parameters()}


def parametrised(inside: list[tuple[str, Module]]) -> list[Parametrised]:
    """List the tensors that parametrisations compute."""
    found = []
    for name, one in inside:
        if "parametrizations" not in one._modules or not parametrize.is_parametrized(one):
            continue
        chains: Any = one.parametrizations
        for attribute, chain in chains.items():
            own = dict(chain.named_parameters()) | dict(chain.named_buffers())
            with recording(Recorder(own)):  # only the shape is needed: nothing is computed
                tensor = getattr(one, attribute)
            stand_in = torch.empty_like(tensor)
            full = f"{name}.{attribute}" if name else attribute
            found.append(Parametrised(Named(full, stand_in, one, attribute, True, True), chain))
    return found


@contextmanager
def stand_ins(computed: list[Parametrised]) -> Iterator[None]:
    """Replace the tensors that parametrisations compute by the stand-ins."""
    if not computed:
        yield
        return
    cache = parametrize._cache
    own = {(id(named.module), named.attribute): named.tensor for named, _ in computed}
    before = {key: cache[key] for key in own if key in cache}
    cache.update(own)
    parametrize._cache_enabled += 1
    try:
        yield
    finally:
        parametrize._cache_enabled -= 1
        for key in own:
            cache.pop(key, None)
        cache.update(before)


def invert(
    recorder: Recorder, computed: list[Parametrised], wanted: set[str], left: set[str]
) -> None:
    """Set the originals of parametrisations so that the computed tensors get the right values.

    Parameters
    ----------
    recorder : Recorder
    computed : list of Parametrised
    wanted, left : set of str
        Originals that need a value, and originals that must not get one.
    """
    for one in computed:
        named, chain = one
        originals = one.originals
        if not originals & wanted or originals & left or not recorder.is_written(named.name):
            continue
        kinds = ", ".join(type(step).__name__.lstrip("_") for step in chain)
        what = f"{named.what}, parametrised by {kinds}"
        if any(True for _ in chain.buffers()):
            raise CannotRecord(f"{what}, has buffers that were computed from its values")
        value: Any = named.tensor
        for step in reversed(list(chain)):
            if not hasattr(step, "right_inverse"):
                raise CannotRecord(f"{what}, has no right_inverse: give rules for its originals")
            value = step.right_inverse(value)
        values = [value] if isinstance(value, Tensor) else list(value)
        keys = ["original"] if chain.is_tensor else [f"original{k}" for k in range(len(values))]
        for key, tensor in zip(keys, values, strict=True):
            recorder.set(one.start + key, recorder.read(tensor))


def draw_for_the_whole(recorder: Recorder, computed: list[Parametrised]) -> None:
    """Assign the draws behind the originals to the tensors that are computed from them."""
    for one in computed:
        originals = one.originals
        for original in originals:
            for value in parts(recorder.value(original)):
                if isinstance(value, Draw) and (value.home is None or value.home in originals):
                    object.__setattr__(value, "home", one.named.name)
