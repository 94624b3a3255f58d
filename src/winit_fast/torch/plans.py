"""Plans of modules: recorded from the author's code, and used to fill modules."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn import Module

from winit_fast.initializers.computed import MAX_SIZE, Computed
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import BUFFER, NON_PERSISTENT, PARAMETER, TensorSpec
from winit_fast.streams.stream import Seed, seed_number
from winit_fast.torch import modules
from winit_fast.torch.expressions import Expression, numpy_of
from winit_fast.torch.names import Named, Names, streams, tensors
from winit_fast.torch.names import modules as inside_of
from winit_fast.torch.record import CannotRecord, Recorder, recording
from winit_fast.torch.reduce import Entry, Reduction
from winit_fast.torch.refusals import refuse
from winit_fast.torch.saved_names import SavedStreams
from winit_fast.torch.sharded import key_for
from winit_fast.torch.values import Draw, Stored, parts

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
        entries, by_name, ties = modules._plan(
            source, None, by, names, prefix, fill_frozen=True, everything=True
        )
        module = source
    elif callable(source):
        entries, by_name, ties, module = _of_factory(source, by, names, prefix)
    else:
        raise TypeError(f"source must be a module or a function that makes one, got {source!r}")
    tied: dict[int, list[str]] = {}
    for named in tensors(module, shared=True):
        tied.setdefault(id(named.tensor), []).append(named.name)
    others: dict[str, list[str]] = {}
    for second, first in ties.items():
        others.setdefault(first, []).append(second)
    plan = []
    for entry in entries:
        named = by_name[entry.name]
        own = [name for name in tied[id(named.tensor)] if name != entry.name]
        plan.append(_spec(entry, named, own + others.get(entry.name, [])))
    return Plan(plan)


def fill_(
    module: M,
    plan: Plan,
    *,
    seed: Seed = None,
    names: Names | None = None,
    prefix: str = "",
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
    key = None if seed is None else seed_number(seed)
    with modules._uncollected():
        found = tensors(module)
        fills = [
            modules._checked(entry_of(tensor), named)
            for named, tensor in planned(module, found, plan, names, prefix)
        ]
        if key is None:
            key = key_for(found)
        with torch.no_grad():
            for fill in fills:
                fill(key)
    return module


def planned(
    module: Module, found: list[Named], plan: Plan, names: Names | None, prefix: str
) -> list[tuple[Named, TensorSpec]]:
    """Pair the tensors of a module with those of a plan.

    Raises
    ------
    ValueError, TypeError
        If the module and the plan have different tensors, shapes or dtypes, or a tensor is more
        than its memory.
    """
    refuse(list(inside_of(module)), found)
    is_part = names is not None or bool(prefix)
    wanted = streams(module, found, names, prefix) if is_part else {}
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
        dtype = str(named.tensor.dtype).removeprefix("torch.")
        if dtype != tensor.dtype:
            raise TypeError(f"{named.what} is {dtype}, in the plan {tensor.dtype}")
        if not isinstance(tensor.initializer, Elementwise):  # these are checked below
            tensor.check()
        pairs.append((named, tensor))
    for tensor in plan:
        if not (is_part or tensor.name in used):
            raise ValueError(f"the module has no {tensor.name!r}, which the plan has")
    return pairs


def _spec(entry: Entry, named: Named, tied: list[str]) -> TensorSpec:
    """Convert the result of a reduction to a TensorSpec, without torch's objects if possible."""
    scheme = entry.scheme
    if isinstance(scheme, Stored) and scheme.tensor.numel() <= MAX_SIZE:
        scheme = Computed(numpy_of(scheme.tensor))
    elif not isinstance(scheme, Initializer):
        scheme = Expression(scheme, entry.streams)
    elif entry.key is not None or not isinstance(entry.stream, str):
        raise CannotRecord(
            f"{named.what} is drawn from a seed and a stream that the code itself gives, "
            "which a plan cannot hold"
        )
    kind = PARAMETER if named.is_parameter else BUFFER if named.is_persistent else NON_PERSISTENT
    drawn_in = str(entry.drawn_in).removeprefix("torch.")
    dtype = str(entry.dtype).removeprefix("torch.")
    return TensorSpec(
        entry.name,
        entry.shape,
        scheme,
        dtype=dtype,
        stream=entry.name if not isinstance(entry.stream, str) else entry.stream,
        drawn_in=None if drawn_in == dtype else drawn_in,
        tied=tuple(tied),
        kind=kind,
    )


def entry_of(tensor: TensorSpec) -> Entry:
    """Convert a TensorSpec to the entry that fills a tensor."""
    dtype = getattr(torch, tensor.dtype)
    drawn_in = dtype if tensor.drawn_in is None else getattr(torch, tensor.drawn_in)
    scheme: Any = tensor.initializer
    own = {}
    if isinstance(scheme, Expression):
        scheme, own = scheme.value, dict(scheme.streams)
    return Entry(tensor.name, tensor.stream, None, tensor.shape, dtype, scheme, drawn_in, own)


# ------------------------------------------------------------------------------------- factories


def _of_factory(
    factory: Callable[[], Module],
    by: Callable[[Any], object] | None,
    names: Names | None,
    prefix: str,
) -> tuple[list[Entry], dict[str, Named], dict[str, str], Module]:
    """Record the constructors, and then the author's method for the whole model."""
    recorder = Recorder({})
    with modules._only_torchs_generator("the constructors draw from Python's or NumPy's generator"):
        with recording(recorder):
            module = factory()
        if not isinstance(module, Module):
            raise TypeError(f"source must make a module, it makes {module!r:.200}")
        inside, found = list(inside_of(module)), tensors(module)
        refuse(inside, found)
        recorder.name({named.name: named.tensor for named in found})
        with modules._as_before(inside, found), modules._untied(inside, found), recording(recorder):
            units: list[Callable[[], object]] = modules._units(module)
            if by is not None:
                units = [lambda: by(module)]
            for unit in units:
                unit()
            modules._take_over(recorder, found)
    for draw in recorder.unused:
        warnings.warn(
            f"random numbers land in no tensor: {draw.operation} of shape {draw.shape}",
            stacklevel=3,
        )
    values = {}
    for named in found:
        if named.name in recorder.ties:
            continue
        if not recorder.is_written(named.name) and named.tensor.numel():
            raise ValueError(f"nobody fills {named.what}: give by=, or fill it in the constructor")
        values[named.name] = recorder.value(named.name)
    effective = modules._effective(inside)
    for one, chain in effective:  # from which the originals were computed
        _draw_for(recorder, one.name, modules._originals(one, chain))
    all_streams = streams(module, found + [one for one, _ in effective], names, prefix)
    saved = SavedStreams(module, [] if names is not None else found, all_streams)
    reduction = Reduction(values, all_streams)
    entries = [saved(reduction.entry(name)) for name in values]
    return entries, {named.name: named for named in found}, recorder.ties, module


def _draw_for(recorder: Recorder, name: str, originals: set[str]) -> None:
    """Assign the draws behind a parametrisation's originals to the whole parametrised tensor."""
    for original in originals:
        for one in parts(recorder.value(original)):
            if isinstance(one, Draw) and (one.home is None or one.home in originals):
                object.__setattr__(one, "home", name)
