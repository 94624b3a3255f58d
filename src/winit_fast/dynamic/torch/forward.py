"""Brings the output of every layer to a deviation: one forward pass, and one that checks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from winit_fast.diagnosis.torch.undisturbed import call, floats, reshard, undisturbed
from winit_fast.dynamic.adjustment import Adjusted, Adjustment
from winit_fast.dynamic.torch.layers import Scalable, Sums, summed
from winit_fast.torch.memory import written
from winit_fast.torch.placements import held_parts, is_sharded


@contextmanager
def all_or_nothing(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore tensors if an error is raised."""
    copies = [one.detach().clone() for one in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for one, copy in zip(tensors, copies, strict=True):
                one.copy_(copy)
        raise


def to_deviation(
    module: Module,
    batch: Any,
    found: list[Scalable],
    *,
    target: float,
    tolerance: float,
    iterations: int,
    center: bool,
    seed: int,
    group: Any,
) -> Adjustment:
    """Scale the weights of layers until their outputs have a deviation.

    A layer is scaled when it runs, and runs again, so the layers after it already see its new
    output. A layer that runs several times is scaled by the deviation of all its outputs together,
    which needs a pass for each try.

    Raises
    ------
    ValueError
        If a layer yields numbers that are not finite or all alike, or does not get to the target.
    """
    by_module = {id(one.module): one for one in found}
    factors = {id(one.weight): 1.0 for one in found}
    before: dict[int, float] = {}
    repeated: set[int] = set()

    def scale(one: Scalable, factor: float) -> None:
        with torch.no_grad():
            one.weight.mul_(factor)
        factors[id(one.weight)] *= factor

    def adjusted(one: Scalable, run: Callable[[], Any], output: Any) -> Any:
        key = id(one.weight)
        for _ in range(iterations + 1):
            result = floats(output)[0]
            if center and one.bias is not None:
                _center(one, result, group)
                output = run()
                result = floats(output)[0]
            deviation = _deviation(one.name, [result], group)
            before.setdefault(key, deviation)
            if abs(deviation / target - 1) <= tolerance:
                return output
            scale(one, target / deviation)
            output = run()
        raise ValueError(_unreachable(one.name, target, deviation, iterations))

    with undisturbed(module, seed), torch.no_grad():
        seen: set[int] = set()

        def hook(one: Module, args: Any, kwargs: Any, output: Any) -> Any:
            layer = by_module[id(one)]
            if id(layer.weight) in seen or id(layer.weight) in repeated:
                return None
            seen.add(id(layer.weight))
            if any(map(is_sharded, (*args, *kwargs.values()))):
                raise TypeError(
                    f"layer {layer.name!r} must get a plain tensor, got a DTensor: tensor "
                    "parallelism is not supported here"
                )
            return adjusted(layer, lambda: layer.run(args, kwargs), output)

        for _ in range(iterations + 1):
            seen.clear()
            reshard(module)
            with _hooks(found, hook):
                call(module, batch)
            reshard(module)
            sums, order = _measured(module, batch, found)
            off = {}
            for one in order:
                own = sums[id(one.weight)]
                deviation = own.deviation(group)
                _check(one.name, deviation)
                if abs(deviation / target - 1) > tolerance:
                    off[id(one.weight)] = one, deviation
            if not off:
                break
            for key, (one, deviation) in off.items():
                repeated.add(key)
                scale(one, target / deviation)
        else:
            one, deviation = next(iter(off.values()))
            raise ValueError(_unreachable(one.name, target, deviation, iterations))
    return Adjustment(
        tuple(
            Adjusted(
                one.name,
                factors[id(one.weight)],
                before[id(one.weight)],
                sums[id(one.weight)].deviation(group),
                calls=sums[id(one.weight)].calls,
            )
            for one in order
        )
    )


@contextmanager
def _hooks(found: list[Scalable], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [
        one.register_forward_hook(hook, with_kwargs=True)
        for one in {id(one.module): one.module for one in found}.values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _measured(
    module: Module, batch: Any, found: list[Scalable]
) -> tuple[dict[int, Sums], list[Scalable]]:
    """Measure all outputs of every weight, and list the layers in the order of execution."""
    by_module = {id(one.module): one for one in found}
    sums: dict[int, Sums] = {}
    order: list[Scalable] = []

    def hook(one: Module, args: Any, kwargs: Any, output: Any) -> None:
        layer = by_module[id(one)]
        if id(layer.weight) not in sums:
            order.append(layer)
        sums.setdefault(id(layer.weight), Sums()).add(floats(output)[0])

    with _hooks(found, hook):
        call(module, batch)
    if not order:
        raise ValueError("batch must make a layer of the module run, but none runs")
    return sums, order


def _deviation(name: str, outputs: list[Tensor], group: Any) -> float:
    sums = Sums()
    for output in outputs:
        sums.add(output)
    deviation = sums.deviation(group)
    _check(name, deviation)
    return deviation


def _check(name: str, deviation: float) -> None:
    if not math.isfinite(deviation):
        raise ValueError(f"layer {name!r} yields numbers that are not finite")
    if deviation == 0:
        raise ValueError(f"layer {name!r} yields the same number everywhere, so no factor helps")


def _unreachable(name: str, target: float, deviation: float, iterations: int) -> str:
    return (
        f"layer {name!r} does not get to a deviation of {target:g}: it is {deviation:.4g} after "
        f"{iterations} factors"
    )


def _center(one: Scalable, output: Tensor, group: Any) -> None:
    """Subtract from the bias the mean of every unit's output."""
    assert one.bias is not None
    axis = one.axis % output.ndim
    others = [place for place in range(output.ndim) if place != axis]
    count = output.numel() / output.shape[axis]
    total = output.double().sum(others).cpu()
    whole = summed(torch.cat([total, torch.tensor([count], dtype=torch.float64)]), group)
    mean = whole[:-1] / whole[-1]
    for part, box in held_parts(one.bias.detach()):
        part -= mean[box.slices].to(part)
    written(one.bias)
