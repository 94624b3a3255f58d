"""Copies of residual blocks that compute the identity, because their branches end in zeros."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from winit_fast.base.names import nearest
from winit_fast.diagnosis.torch.undisturbed import call, floats, undisturbed
from winit_fast.streams.stream import Stream
from winit_fast.torch.names import modules
from winit_fast.torch.placements import is_sharded

_LAST = (
    "o_proj", "out_proj", "c_proj", "proj", "out_lin", "wo", "attention.dense", "output.dense",
    "down_proj", "fc2", "w2", "linear2", "lin2", "dense_4h_to_h",
)  # fmt: skip
"""The usual names of the last layers of a transformer's residual branches."""

_TOLERANCE = 1e-5
"""The difference that rounding may make, relative to the largest output."""


def deepen_block(
    module: Module,
    name: str,
    parent: nn.ModuleList | nn.Sequential,
    *,
    batch: Any,
    outputs: Sequence[str] | None,
    key: int,
    noise: float,
) -> None:
    """Insert a copy behind a block, with the last layers of its residual branches zero.

    Raises
    ------
    ValueError
        If it cannot be told which layers these are, or the module's output changes. Nothing has
        changed then.
    TypeError
        If a parameter is sharded or on the meta device.
    """
    if batch is None:
        raise ValueError(
            f"batch must be given for a block, got None: it shows that the copy of {name!r} does "
            "not change the output"
        )
    block = module.get_submodule(name)
    last = _last(name, block, outputs)
    for full, one in block.named_parameters(prefix=name):
        if is_sharded(one) or one.is_meta:
            raise TypeError(f"{full} must be a tensor in the memory of this process, got "
                            f"{type(one).__name__} on {one.device}")  # fmt: skip
    made = copy.deepcopy(block)
    with torch.no_grad():
        for one in last:
            for held in made.get_submodule(one)._parameters.values():
                if held is not None:
                    held.zero_()
    before = _outputs(module, batch)
    start, _, child = name.rpartition(".")
    place = list(parent._modules).index(child) + 1
    undo = _insert(module, parent, place, made)
    try:
        off = _difference(before, _outputs(module, batch))
        if not off <= _TOLERANCE:
            raise ValueError(
                f"block {name!r} cannot be followed by a copy: with {', '.join(last)} zero, the "
                f"output changes by {off:.2g} of its largest number; the last layers of all "
                "residual branches can be given as outputs="
            )
    except BaseException:
        undo()
        raise
    if noise:
        for one in last:
            weight = made.get_submodule(one).weight
            assert isinstance(weight, Tensor)
            stream = Stream(key, f"{start}.{place}.{one}.weight\0deepen".lstrip("."))
            numbers = stream.normal(0.0, noise, tuple(weight.shape))
            with torch.no_grad():
                weight.copy_(torch.from_numpy(numbers))


def _last(name: str, block: Module, outputs: Sequence[str] | None) -> list[str]:
    """Return the names, within the block, of the layers to be zero."""
    known = {
        inner: one
        for inner, one in modules(block)
        if inner and isinstance(one._parameters.get("weight"), Tensor)
    }
    if outputs is not None:
        for one in outputs:
            if one not in known:
                raise ValueError(f"outputs must be layers of block {name!r}, got {one!r}"
                                 f"{nearest(one, known)}")  # fmt: skip
        return list(outputs)
    found = [inner for inner in known if f".{inner}".endswith(tuple(f".{one}" for one in _LAST))]
    if not found:
        raise ValueError(
            f"block {name!r} cannot be followed by a copy: the last layers of its residual "
            "branches are not known: give them as outputs="
        )
    return found


def _outputs(module: Module, batch: Any) -> list[Tensor]:
    with undisturbed(module), torch.no_grad():
        module.eval()
        return floats(call(module, batch))


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    """Return the largest difference, relative to the largest number; NaN if they do not fit."""
    if not before or len(before) > len(after):
        return float("nan")
    off = [
        float((one - other).abs().max() / one.abs().max().clamp_min(1e-30))
        if one.shape == other.shape
        else float("nan")
        for one, other in zip(before[:1], after[:1], strict=True)
    ]
    return max(off)


def _insert(
    module: Module, parent: nn.ModuleList | nn.Sequential, place: int, made: Module
) -> Callable[[], None]:
    """Insert a block, count the blocks anew, and return a function that undoes both."""
    count = len(parent)
    is_numbered = all(
        number == place for place, one in enumerate(parent) for number, _ in _numbered(one)
    )
    own: dict[int, Any] = {
        id(config): config
        for one in module.modules()
        if getattr(config := getattr(one, "config", None), "num_hidden_layers", None) == count
    }
    types = {key: list(getattr(config, "layer_types", None) or []) for key, config in own.items()}

    def renumber() -> None:
        for number, one in enumerate(parent) if is_numbered else ():
            for _, part in _numbered(one):
                part.layer_idx = number

    def undo() -> None:
        del parent[place]
        renumber()
        for key, config in own.items():
            config.num_hidden_layers = count
            if len(types[key]) == count:
                config.layer_types = types[key]

    parent.insert(place, made)
    renumber()
    for key, config in own.items():
        config.num_hidden_layers = count + 1
        if len(types[key]) == count:
            config.layer_types = [*types[key][:place], types[key][place - 1], *types[key][place:]]
    return undo


def _numbered(block: Module) -> list[tuple[int, Module]]:
    """List the parts of a block that know the number of the block, with the number."""
    return [(one.layer_idx, one) for one in block.modules()
            if isinstance(getattr(one, "layer_idx", None), int)]  # fmt: skip
