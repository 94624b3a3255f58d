"""Plans of modules: recorded from the author's code, and used to fill modules."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch.nn import Module

from winit_fast.initializers.protocol import Elementwise
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.filling import Fills, uncollected
from winit_fast.torch.names import Named, Names, modules, streams, tensors
from winit_fast.torch.recorded import (
    dtype_name,
    entries_of_factory,
    entries_of_module,
    spec_of,
)
from winit_fast.torch.refusals import refuse
from winit_fast.torch.shards import key_for

M = TypeVar("M", bound=Module)


def record(
    source: Module | Callable[[], Module],
    *,
    by: Callable[[Any], object] | None = None,
    names: Names | None = None,
    prefix: str = "",
) -> Plan:
    """Record the scheme that the author's code gives to every tensor of a module, as a plan.

    No numbers are drawn, no generator changes its state and no tensor's memory is touched, so a
    model may be larger than the machine's memory.

    Parameters
    ----------
    source : callable or torch.nn.Module
        A function without arguments that makes the module, such as ``lambda: Model(config)``. Its
        constructors are recorded, then the author's method for the whole model, which is found as
        in `init_`. Or a module on any device, including meta, of which only the methods are
        recorded.
    by : callable, optional
        A function that initialises the module it is given, in place of the author's method.
    names, prefix
        As in `init_`.

    Returns
    -------
    winit_fast.Plan
        All parameters and buffers. A tied tensor has one entry, under its first name.

    Raises
    ------
    ValueError
        If the author's code does something that cannot be recorded, or if a tensor is not filled.
        If only the constructor of a given module fills it, pass a function that makes the module.
    TypeError
        If the source is neither, or a tensor is more than its memory (quantised, for example).

    Warns
    -----
    UserWarning
        If random numbers are drawn that reach no tensor of the module.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> print(winit_fast.torch.record(lambda: torch.nn.LayerNorm(64)))
    times  tensor  shape  type     initializer
        1  weight  64     float32  Ones()
        1  bias    64     float32  Zeros()
    """
    if isinstance(source, Module):
        module = source
        found = entries_of_module(module, None, by, names, prefix, True, everything=True)
    elif callable(source):
        found, module = entries_of_factory(source, by, names, prefix)
    else:
        raise TypeError(f"source must be a module or a function that makes one, got {source!r}")
    tied: dict[int, list[str]] = {}
    for named in tensors(module, shared=True):
        tied.setdefault(id(named.tensor), []).append(named.name)
    others: dict[str, list[str]] = {}
    for second, first in found.ties.items():
        others.setdefault(first, []).append(second)
    plan = []
    for named, reduced in found.filled:
        spec = spec_of(named, reduced)
        own = [one for one in tied[id(named.tensor)] if one != spec.name]
        own += others.get(spec.name, [])
        plan.append(replace(spec, tied=tuple(own)) if own else spec)
    return Plan(plan)


def fill_(
    module: M,
    plan: Plan,
    *,
    seed: Seed = None,
    names: Names | None = None,
    prefix: str = "",
    generation: int = 0,
) -> M:
    """Fill every tensor of a module according to a plan.

    Parameters
    ----------
    module : torch.nn.Module
        On any device except meta. Its tensors must have the names, shapes and dtypes of the plan.
    plan : winit_fast.Plan
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        By default 64 bits from torch's generator, as in `init_`.
    names : mapping of str to str, or callable, optional
        Maps the name of a tensor in the module to its name in the plan, for renamed modules and
        stages of a pipeline. The plan may then have more tensors than the module.
    prefix : str
        The name of the module in the model of the plan, which may then have more tensors.
    generation : int
        From 1 on, other numbers for the same seed, as in `init_`.

    Returns
    -------
    torch.nn.Module
        The same module.

    Raises
    ------
    ValueError, TypeError
        If the module and the plan have different tensors, shapes or dtypes, or a tensor is more
        than its memory. Nothing has been written then.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> plan = winit_fast.torch.record(lambda: torch.nn.Linear(64, 32))
    >>> layer = winit_fast.torch.fill_(torch.nn.Linear(64, 32), plan, seed=0)
    >>> bool((layer.bias == torch.from_numpy(plan["bias"].array(seed=0))).all())
    True
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, got {plan!r}")
    if generation != 0:
        plan = plan.of_generation(generation)
    key = None if seed is None else seed_number(seed)
    with uncollected():
        inside = list(modules(module))
        found = tensors(module, inside=inside)
        fills = Fills()
        for named, tensor in planned(inside, found, plan, names, prefix):
            fills.add_spec(named, tensor)
        fills.run(key_for(found) if key is None else key)
    return module


def planned(
    inside: list[tuple[str, Module]],
    found: list[Named],
    plan: Plan,
    names: Names | None,
    prefix: str,
) -> list[tuple[Named, TensorSpec]]:
    """Pair the tensors of a module, the first of ``inside``, with those of a plan.

    Raises
    ------
    ValueError, TypeError
        If the module and the plan have different tensors, shapes or dtypes, or a tensor is more
        than its memory.
    """
    refuse(inside, found)
    is_part = names is not None or bool(prefix)
    wanted = streams(inside[0][1], found, names, prefix) if is_part else {}
    pairs = []
    used = set()
    for named in found:
        name: Any = wanted.get(named.name, named.name)  # a plan is asked for tensors, too
        if name not in plan:
            hint = "" if name == named.name else f" as {named.name!r}"
            raise ValueError(f"the plan has no {name!r}, which the module has{hint}")
        tensor = plan[name]
        used.add(tensor.name)
        if named.tensor.is_meta:
            raise ValueError(f"{named.what} is on the meta device: use to_empty() first")
        if tuple(named.tensor.shape) != tensor.shape:
            raise ValueError(
                f"{named.what} has shape {tuple(named.tensor.shape)}, in the plan {tensor.shape}"
            )
        dtype = dtype_name(named.tensor.dtype)
        if dtype != tensor.dtype:
            raise TypeError(f"{named.what} is {dtype}, in the plan {tensor.dtype}")
        if not isinstance(tensor.initializer, Elementwise):  # these are checked below
            tensor.check()
        pairs.append((named, tensor))
    for tensor in plan:
        if not (is_part or tensor.name in used):
            raise ValueError(f"the module has no {tensor.name!r}, which the plan has")
    return pairs
