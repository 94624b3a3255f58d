"""Whole modules: records the author's initialisation of every tensor, and fills from the record."""

import gc
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Module
from torch.nn.utils import parametrize

from winit_fast._core import Distribution
from winit_fast.base.dtypes import find_any
from winit_fast.base.names import located
from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant as ConstantScheme
from winit_fast.initializers.constants import Ones, Zeros
from winit_fast.initializers.protocol import Elementwise, Initializer, distribution_of, draw
from winit_fast.initializers.protocol import check as check_scheme
from winit_fast.streams.stream import Seed, Stream, seed_number
from winit_fast.torch.alike import Alike
from winit_fast.torch.expressions import drawn
from winit_fast.torch.memory import FLOATS, fill_by, fill_elementwise
from winit_fast.torch.names import Named, Names, modules, streams, tensors
from winit_fast.torch.placements import is_sharded
from winit_fast.torch.record import CannotRecord, Recorder, recording
from winit_fast.torch.reduce import Entry, Reduction, evaluate
from winit_fast.torch.refusals import refuse
from winit_fast.torch.rules import KEEP, Choice, Rules, choose
from winit_fast.torch.saved_names import SavedStreams
from winit_fast.torch.sharded import (
    all_fillable,
    as_wholes,
    copy_,
    fill_rounded,
    key_for,
    local,
    wholes,
)
from winit_fast.torch.values import Constant, Draw, Held, Region, Stored, Value, c_strides, parts
from winit_fast.torch.values import patch as patched

M = TypeVar("M", bound=Module)

WHOLE_MODEL = "initialize_weights", "init_states", "init_weights"
"""Methods that initialise a whole model: of transformers, torchtitan, and timm and torchvision."""

RESET = "reset_parameters", "_reset_parameters"
"""Methods that initialise a module's own tensors; the second is that of torch's attention."""


def init_(
    module: M,
    rules: Rules | None = None,
    *,
    seed: Seed = None,
    by: Callable[[M], object] | None = None,
    names: Names | None = None,
    prefix: str = "",
    frozen: str = "keep",
) -> M:
    """Fill a module's tensors as its author's code does, or by rules, each from its own stream.

    Each stream has the name of its tensor, so a tensor's numbers do not depend on other tensors:
    a new layer, another order, device or memory layout changes no bit of the other tensors. The
    same schemes give the same numbers for the same name without torch.

    First the author's own code is recorded, without reading or writing a byte of the tensors. The
    record of each tensor is then reduced to one scheme, everything is checked, and the tensors are
    filled. A model with weights from a checkpoint is initialised again.

    Parameters
    ----------
    module : torch.nn.Module
        On any devices. Tensors on the meta device are not changed. A tied tensor, which has several
        names, is filled once, under its first name. Of a DTensor, every rank fills its part of
        the logical tensor, without communication; a seed is then required.
    rules : mapping of (str or type) to rule, or callable, optional
        A str key is a parameter's name, a pattern in which ``*`` stands for any characters, or the
        name of a class of modules, such as "Embedding". A type key is a class of modules, such as
        ``torch.nn.Linear``. The first key that matches counts, but the exact name of a tensor takes
        precedence; buffers and frozen parameters match only their exact names. The rule for a class
        of modules is that of their ``weight``, or a mapping of their tensors' names to rules. A
        callable takes a parameter's name and the parameter and returns its rule, or None.

        A rule is an initializer of this package, its name as in `winit_fast.get`, "keep", or a
        function that fills the tensor it is given, which is recorded. If an initializer does not
        set its axes and fans, those of the tensor's module are used: ``(out, in, *kernel)`` with
        the groups of a convolution, ``(in, out, *kernel)`` for a transposed convolution. Padding
        rows of embeddings are zero after every rule.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        By default 64 bits from torch's generator, which `torch.manual_seed` seeds. With a seed,
        the generator does not change.
    by : callable, optional
        A function that initialises the module it is given, in place of the author's method.
    names : mapping of str to str, or callable, optional
        Maps the name of a tensor to the name of its stream.
    prefix : str
        The name of the module in a larger module; the tensors get the numbers that they have there.
    frozen : str
        "keep": parameters that require no gradient do not change, unless a rule names them or the
        model's whole-model method, or ``by``, sets them. "fill": they are filled like all others.

    Returns
    -------
    torch.nn.Module
        The same module.

    Raises
    ------
    ValueError
        If only its constructor fills a parameter; if the author's code does something that cannot
        be recorded (it reads drawn numbers, or the previous elements of a tensor); if a pattern
        matches nothing, or a rule writes nothing; if memory that is kept is not finite.
    TypeError
        If a rule is invalid or does not fit the parameter's type, a tensor is more than its memory
        (quantised, for example), or it is not a part of a logical tensor (a Partial DTensor,
        another library's shard).

        Nothing has been written when an error is raised.

    Notes
    -----
    The recorded code is ``by`` if given, otherwise the whole-model methods of the outermost modules
    that have one: ``initialize_weights`` of transformers, whose flags are reset and restored;
    ``init_states`` or ``init_weights`` of torchtitan; ``init_weights`` of timm and torchvision.
    Parameters that these do not fill are filled by the ``reset_parameters`` of their modules, inner
    modules first, or by ``_reset_parameters``, its name in torch's attention and transformer.
    Buffers that no code fills do not change. docs/contract.md defines the streams' names.

    Examples
    --------
    >>> import torch
    >>> import winit_fast as wf
    >>> import winit_fast.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 8))
    >>> rules = {"*.bias": "zeros", "0.weight": wf.HeNormal()}  # 1.weight: as Linear does it
    >>> model = winit_fast.torch.init_(model, rules, seed=0)
    >>> alone = wf.HeNormal(in_axis=1, out_axis=0)((32, 64), seed=0, name="0.weight")
    >>> bool((model[0].weight == torch.from_numpy(alone)).all())
    True
    """
    if frozen not in ("keep", "fill"):
        raise ValueError(f"frozen must be 'keep' or 'fill', got {frozen!r}")
    key = None if seed is None else seed_number(seed)
    with _uncollected():
        entries, found, _ = _plan(module, rules, by, names, prefix, frozen == "fill")
        fills = [_checked(entry, found[entry.name]) for entry in entries]
        if key is None:
            key = key_for(found.values())
        with torch.no_grad():
            for fill in fills:
                fill(key)
    return module


@contextmanager
def _uncollected() -> Iterator[None]:
    """Disable the cyclic garbage collector, which would scan the many objects of a plan in vain.

    It would take most of the time, and grow faster than the model. The setting applies to the whole
    process: cycles that other threads leave meanwhile are collected afterwards.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _plan(
    module: Module,
    rules: Rules | None,
    by: Callable[[Any], object] | None,
    names: Names | None,
    prefix: str,
    fill_frozen: bool,
    everything: bool = False,
) -> tuple[list[Entry], dict[str, Named], dict[str, str]]:
    """Find the scheme of every tensor to be filled; the other tensors are checked and kept.

    With ``everything``, no tensor is kept, and tensors on the meta device are treated like others.
    """
    inside = list(modules(module))
    found = tensors(module, inside=inside)
    refuse(inside, found)
    stand_ins = wholes(found)
    with as_wholes(inside, found, stand_ins):
        effective = _effective(inside)
    by_name = {named.name: named for named in found}
    chosen = choose(module, found + [one for one, _ in effective], rules)
    for name, choice in list(chosen.items()):
        named = by_name.get(name)
        if named is None or choice.is_exact or fill_frozen or named.tensor.requires_grad:
            continue
        del chosen[name]  # frozen: only by its own name
    stream_names = streams(module, found + [one for one, _ in effective], names, prefix)
    saved = SavedStreams(module, [] if names is not None else found, stream_names)

    simple: dict[str, Initializer] = {}
    for name, choice in chosen.items():
        if isinstance(choice.rule, Initializer) and name in by_name and not _pads(by_name[name]):
            simple[name] = choice.rule
    rest = [
        named
        for named in found
        if named.name not in chosen
        and (named.is_parameter or everything or not named.tensor.is_meta)
    ]
    recorder = Recorder({})
    if rest or len(simple) < len(chosen):
        with as_wholes(inside, found, stand_ins) as whole:
            recorder = _recorded(
                module, inside, whole, effective, chosen, by, fill_frozen, everything
            )

    values: dict[str, Value] = {}
    for named in found:
        name = named.name
        own = chosen.get(name)
        if name in simple or name in recorder.ties:
            continue
        if own is not None and own.rule is KEEP:
            _check_kept(named)
        elif recorder.is_written(name):
            values[name] = recorder.value(name)
        elif everything and not named.tensor.numel():
            values[name] = Constant(tuple(named.tensor.shape), named.tensor.dtype, 0)
        elif everything:
            raise ValueError(_forgotten(named))
        elif named.tensor.is_meta or not named.tensor.numel():
            continue
        elif named.is_parameter and (fill_frozen or named.tensor.requires_grad):
            raise ValueError(_forgotten(named))
        else:
            _check_kept(named)
    reduction = Reduction(values, stream_names)
    entries = []
    for named in found:
        name = named.name
        if named.tensor.is_meta and not everything:
            continue
        if name in simple:
            shape, dtype = tuple(named.tensor.shape), named.tensor.dtype
            stream = stream_names[name]
            entries.append(saved(Entry(name, stream, None, shape, dtype, simple[name], dtype)))
        elif name in values:
            entries.append(saved(reduction.entry(name)))
    return entries, by_name, recorder.ties


def _forgotten(named: Named) -> str:
    if "parametrizations." in named.name:
        return f"{named.what} is parametrised in a way that cannot be recorded: give a rule"
    return (
        f"only its constructor fills {named.what}: give a rule, or record() what makes the "
        "module, and fill_ it"
    )


def _pads(named: Named) -> bool:
    module = named.module
    return (
        isinstance(module, (Embedding, EmbeddingBag))
        and named.attribute == "weight"
        and module.padding_idx is not None
    )


# ------------------------------------------------------------------------------------- recording


def _recorded(
    module: Module,
    inside: list[tuple[str, Module]],
    found: list[Named],
    effective: list[tuple[Named, Any]],
    chosen: Mapping[str, Choice],
    by: Callable[[Any], object] | None,
    fill_frozen: bool,
    everything: bool,
) -> Recorder:
    """Record the author's code, then the rules that are functions."""
    units: list[Callable[[], object]] = [lambda: by(module)] if by is not None else _units(module)
    wanted = {
        named.name
        for named in found
        if named.name not in chosen and (fill_frozen or named.tensor.requires_grad)
        and (named.is_parameter or everything)
    }  # fmt: skip
    last: CannotRecord | None = None
    missing = {named.name for named in found if named.name not in chosen} if not units else wanted
    for with_resets in (False, True):
        if not units and not with_resets:
            continue
        recorder = Recorder({named.name: named.tensor for named in found})
        for named, _ in effective:
            recorder.add(named.name, named.tensor)
        owners = {named.module for named in found if named.name in missing}
        owners |= {one.module for one, plist in effective if _originals(one, plist) & missing}
        try:
            with _as_before(inside, found), _untied(inside, found), recording(recorder):
                if with_resets:
                    with _stand_ins(effective):
                        alike = Alike(recorder)
                        for reset in _resets(inside, owners if last is None else None):
                            alike.reset(reset)
                    _invert(recorder, effective, wanted, set(chosen))
                    recorder.forget(
                        named.name
                        for named in found
                        if named.is_parameter and not (fill_frozen or named.tensor.requires_grad)
                    )
                for unit in units:
                    unit()
                _take_over(recorder, found)
                _apply_rules(recorder, found, effective, chosen)
                ruled = {name for one, chain in effective if one.name in chosen
                         for name in _originals(one, chain)}  # fmt: skip
                _invert(recorder, effective, ruled, {one for one in chosen if one in ruled})
        except CannotRecord as error:
            if with_resets or not units:
                raise
            last, missing = error, wanted
            continue
        missing = {name for name in wanted if _is_missing(recorder, name)}
        if not missing:
            break
    return recorder


def _is_missing(recorder: Recorder, name: str) -> bool:
    if name in recorder.ties:
        return False
    return not recorder.is_written(name) or any(
        isinstance(one, Held) for one in parts(recorder.value(name))
    )


def _units(module: Module) -> list[Callable[[], object]]:
    """List the whole-model methods of the outermost modules that have one."""
    found: list[Callable[[], object]] = []
    stack, seen = [module], set()
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        method = _whole_model_method(one)
        if method is not None:
            found.append(method)
        else:
            stack += reversed([child for child in one._modules.values() if child is not None])
    return found


def _whole_model_method(module: Module) -> Callable[[], object] | None:
    for name in WHOLE_MODEL:
        if callable(getattr(type(module), name, None)):
            method: Callable[[], object] = getattr(module, name)
            try:
                inspect.signature(method).bind()
            except TypeError:  # needs arguments: it is a part of the whole one
                continue
            return method
    return None


def _resets(
    inside: list[tuple[str, Module]], owners: set[Module] | None
) -> Iterator[Callable[[], object]]:
    """List the methods that reset modules, inner modules first, as in construction.

    With owners given, only the methods of these and of the modules that contain them.
    """
    wanted = None if owners is None else {id(owner) for owner in owners}
    for _, one in reversed(inside):
        if wanted is not None and not _has_any(one, wanted):
            continue
        for name in RESET:
            method = getattr(one, name, None)
            if callable(method):
                yield method
                break


def _has_any(module: Module, wanted: set[int]) -> bool:
    """Return whether a module is wanted or contains a wanted one, and mark it as wanted then."""
    if id(module) in wanted:
        return True
    if any(child is not None and id(child) in wanted for child in module._modules.values()):
        wanted.add(id(module))
        return True
    return False


def _take_over(recorder: Recorder, found: list[Named]) -> None:
    """Read the tensors that the code has assigned in place of the original ones."""
    for named in found:
        held = named.module._parameters if named.is_parameter else named.module._buffers
        now = held.get(named.attribute)
        if now is None or now is named.tensor or named.name in recorder.ties:
            continue
        if now.shape != named.tensor.shape:
            raise CannotRecord(
                f"{named.what} is replaced by a tensor of shape {tuple(now.shape)}, "
                f"its own is {tuple(named.tensor.shape)}"
            )
        recorder.set(named.name, recorder.read(now))


def _apply_rules(
    recorder: Recorder,
    found: list[Named],
    effective: list[tuple[Named, Any]],
    chosen: Mapping[str, Choice],
) -> None:
    """Record the values of the tensors that have a rule."""
    stand_ins = [one for one, _ in effective]
    for named in [*found, *(one for one, _ in effective)]:
        choice = chosen.get(named.name)
        if choice is None or choice.rule is KEEP:
            continue
        if isinstance(choice.rule, Initializer) and not _pads(named) and named not in stand_ins:
            continue  # needs no record
        name, tensor, rule = named.name, named.tensor, choice.rule
        shape, dtype = tuple(tensor.shape), tensor.dtype
        if isinstance(rule, Initializer):
            recorder.set(name, Draw(shape, dtype, rule, type(rule).__name__, name))
        else:
            recorder.forget([name])
            returned = rule(tensor)
            if not recorder.is_written(name) and tensor.numel():
                hint = "; it returns a new one" if _is_other(returned, tensor) else ""
                raise ValueError(f"rule {rule!r} writes nothing to {named.what}{hint}")
            if any(isinstance(one, Held) for one in parts(recorder.value(name))):
                raise ValueError(
                    f"rule {rule!r} fills {named.what} in part, or from what it held before"
                )
        if _pads(named):
            row = named.module.padding_idx % shape[0]
            region = Region((1, shape[1]), c_strides(shape), row * shape[1])
            zeros = Constant(region.sizes, dtype, 0.0)
            recorder.set(name, patched(recorder.value(name), region, zeros))


def _is_other(returned: object, tensor: Tensor) -> bool:
    return isinstance(returned, Tensor) and returned is not tensor


@contextmanager
def _untied(inside: list[tuple[str, Module]], found: list[Named]) -> Iterator[None]:
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
def _as_before(inside: list[tuple[str, Module]], found: list[Named]) -> Iterator[None]:
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
        with _only_torchs_generator(fault):
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
def _only_torchs_generator(fault: str) -> Iterator[None]:
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


_EMPTY: Mapping[Any, Any] = MappingProxyType({})
"""The content of most dictionaries of a module: those for hooks."""


def _numpy_state() -> Any:
    return np.random.get_state()  # noqa: NPY002  # the global one, which code may draw from


_FLAG = "_is_hf_initialized"
"""The attribute by which transformers marks initialised objects, which it then skips."""


def _changed(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return now.keys() != before.keys() or any(now[key] is not before[key] for key in before)


def _same(first: Any, second: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


# ------------------------------------------------------------------------------ parametrisations


def _effective(inside: list[tuple[str, Module]]) -> list[tuple[Named, Any]]:
    """List the tensors that parametrisations compute, as stand-ins of their shape and dtype."""
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
            found.append((Named(full, stand_in, one, attribute, True, True), chain))
    return found


def _originals(named: Named, chain: Any) -> set[str]:
    start = f"{named.name.removesuffix(named.attribute)}parametrizations.{named.attribute}."
    return {f"{start}{key}" for key, _ in chain.named_parameters()}


@contextmanager
def _stand_ins(effective: list[tuple[Named, Any]]) -> Iterator[None]:
    """Replace the tensors that parametrisations compute by the stand-ins."""
    if not effective:
        yield
        return
    cache = parametrize._cache
    keys = [(id(named.module), named.attribute) for named, _ in effective]
    before = {key: cache[key] for key in keys if key in cache}
    cache.update({key: named.tensor for key, (named, _) in zip(keys, effective, strict=True)})
    parametrize._cache_enabled += 1
    try:
        yield
    finally:
        parametrize._cache_enabled -= 1
        for key in keys:
            cache.pop(key, None)
        cache.update(before)


def _invert(
    recorder: Recorder,
    effective: list[tuple[Named, Any]],
    wanted: set[str],
    left: set[str],
) -> None:
    """Set the originals of parametrisations so that the computed tensors get the right values."""
    for named, chain in effective:
        originals = _originals(named, chain)
        if not originals & wanted or originals & left or not recorder.is_written(named.name):
            continue
        kinds = ", ".join(type(one).__name__.lstrip("_") for one in chain)
        what = f"{named.what}, parametrised by {kinds}"
        if any(True for _ in chain.buffers()):
            raise CannotRecord(f"{what}, has buffers that were computed from its values")
        value: Any = named.tensor
        for one in reversed(list(chain)):
            if not hasattr(one, "right_inverse"):
                raise CannotRecord(f"{what}, has no right_inverse: give rules for its originals")
            value = one.right_inverse(value)
        values = [value] if isinstance(value, Tensor) else list(value)
        start = f"{named.name.removesuffix(named.attribute)}parametrizations.{named.attribute}."
        keys = ["original"] if chain.is_tensor else [f"original{k}" for k in range(len(values))]
        for key, one in zip(keys, values, strict=True):
            recorder.set(start + key, recorder.read(one))


# --------------------------------------------------------------------------------------- filling


def _check_kept(named: Named) -> None:
    """Refuse a tensor that is not filled and is not finite, as may be the case after to_empty()."""
    tensor = local(named.tensor)
    if tensor.is_meta or not tensor.dtype.is_floating_point or not tensor.numel():
        return
    tensor = tensor.detach()
    if tensor.itemsize == 1:
        tensor = tensor.float()
    # A buffer may be a mask of infinities.
    is_right = torch.isfinite(tensor).all() if named.is_parameter else ~torch.isnan(tensor).any()
    if not bool(is_right):
        raise ValueError(f"{named.what} is kept as it is, but is not finite: give a rule for it")


def _checked(entry: Entry, named: Named) -> Callable[[int], object]:
    """Check that a scheme fits its tensor, before any is filled, and return the fill function."""
    scheme, tensor, dtype = entry.scheme, named.tensor, entry.dtype
    if isinstance(scheme, Computed) and dtype not in FLOATS:
        return partial(_fill_with_stored, tensor, torch.from_numpy(scheme.values.copy()))
    if isinstance(scheme, Stored):
        return partial(_fill_with_stored, tensor, scheme.tensor)
    if not isinstance(scheme, Initializer):
        return partial(_fill_with_expression, tensor, entry)
    number = _constant(scheme)
    if number is not None and (dtype not in FLOATS or number in (0.0, 1.0)):
        if not _is_exact(number, dtype):
            raise ValueError(f"{named.what} cannot be filled by {scheme}: {dtype}")
        return partial(_fill_with_number, tensor, number)
    if dtype.is_complex:
        check_scheme(scheme, entry.shape, find_any(dtype))
        return partial(_fill_complex, tensor, entry)
    if dtype not in FLOATS:
        raise TypeError(f"{named.what} cannot be filled by {scheme}: {dtype}")
    if not all_fillable(tensor):
        raise TypeError(f"{named.what} cannot be filled by {scheme}: its memory is not writable")
    kind, distribution = FLOATS[entry.drawn_in].dtype, None
    try:
        if isinstance(scheme, Elementwise):
            distribution = distribution_of(scheme, entry.shape, kind)
        else:
            check_scheme(scheme, entry.shape, kind)
    except (TypeError, ValueError) as error:
        raise located(error, f"{named.what} cannot be filled by {scheme}") from None
    return partial(_fill_with_scheme, tensor, entry, distribution)


@lru_cache
def _is_exact(number: float, dtype: torch.dtype) -> bool:
    """Return whether a number is exactly representable in a dtype."""
    return bool(torch.tensor(number).to(dtype).item() == number)


def _fill_with_stored(tensor: Tensor, known: Tensor, key: int) -> None:
    copy_(tensor, known)


def _fill_with_expression(tensor: Tensor, entry: Entry, key: int) -> None:
    assert isinstance(entry.scheme, Value)
    copy_(tensor, evaluate(entry.scheme, drawn(entry.scheme, entry.streams, key)))


def _fill_with_number(tensor: Tensor, number: float, key: int) -> None:
    local(tensor).fill_(number)


def _fill_with_scheme(
    tensor: Tensor, entry: Entry, distribution: Distribution | None, key: int
) -> None:
    """Draw a tensor in the dtype in which its author's code draws."""
    if not tensor.numel():
        return
    if entry.key is not None:
        key = entry.key
    rounded = entry.drawn_in != entry.dtype
    if rounded and is_sharded(tensor):
        assert isinstance(entry.scheme, Initializer)
        scheme, stream = entry.scheme, Stream(key, entry.stream)
        fill_rounded(tensor, entry.drawn_in, lambda out, held: draw(scheme, out, held, stream))
        return
    out = torch.empty(entry.shape, dtype=entry.drawn_in, device="cpu") if rounded else tensor
    if distribution is not None:
        fill_elementwise(out, distribution, key, entry.stream)
    else:
        assert isinstance(entry.scheme, Initializer)
        fill_by(out, entry.scheme, key, entry.stream)
    if rounded:
        tensor.copy_(out)


def _fill_complex(tensor: Tensor, entry: Entry, key: int) -> None:
    """Fill a complex tensor through an array."""
    assert isinstance(entry.scheme, Initializer)
    key = key if entry.key is None else entry.key
    dtype = str(entry.dtype).removeprefix("torch.")
    array = entry.scheme(entry.shape, seed=key, name=entry.stream, dtype=dtype)
    copy_(tensor, torch.from_numpy(array))


def _constant(scheme: Initializer) -> float | None:
    if isinstance(scheme, ConstantScheme):
        return float(scheme.value)
    return _NUMBERS.get(type(scheme))


_NUMBERS: Mapping[type[Initializer], float] = {Zeros: 0.0, Ones: 1.0}
