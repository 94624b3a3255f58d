"""Records the author's initialisation of modules, and reduces it to the entries of a plan."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Module

from winit_fast.base.names import located
from winit_fast.initializers.protocol import Initializer
from winit_fast.models.tensor_spec import BUFFER, NON_PERSISTENT, PARAMETER, TensorSpec
from winit_fast.torch.alike import Alike
from winit_fast.torch.authors import resets, whole_model_methods
from winit_fast.torch.filling import check_kept
from winit_fast.torch.names import Named, Names, modules, streams, tensors
from winit_fast.torch.parametrised import (
    Parametrised,
    draw_for_the_whole,
    invert,
    parametrised,
    stand_ins,
)
from winit_fast.torch.recorder import CannotRecord, Recorder
from winit_fast.torch.recording import recording
from winit_fast.torch.reduce import Reduced, Reduction
from winit_fast.torch.refusals import refuse
from winit_fast.torch.rules import KEEP, Choice, Rules, choose
from winit_fast.torch.saved_names import SavedStreams
from winit_fast.torch.stand_ins import as_wholes, wholes
from winit_fast.torch.untouched import as_before, only_torchs_generator, untied
from winit_fast.torch.values import Constant, Draw, Held, Region, Value, c_strides, parts
from winit_fast.torch.values import patch as patched


class Entries(NamedTuple):
    """The entries of a module's tensors.

    Attributes
    ----------
    filled : list of (Named, Reduced)
        In the order of the tensors, without those that are kept.
    found : list of Named
        All tensors.
    ties : dict of str to str
        Maps the name of a tensor to that of an earlier one with the same memory.
    """

    filled: list[tuple[Named, Reduced]]
    found: list[Named]
    ties: dict[str, str]


def entries_of_module(
    module: Module,
    rules: Rules | None,
    by: Callable[[Any], object] | None,
    names: Names | None,
    prefix: str,
    fill_frozen: bool,
    everything: bool = False,
) -> Entries:
    """Find the scheme of every tensor to be filled; the other tensors are checked and kept.

    With ``everything``, no tensor is kept, and tensors on the meta device are treated like others.
    """
    inside = list(modules(module))
    found = tensors(module, inside=inside)
    refuse(inside, found)
    stand_ins = wholes(found)
    with as_wholes(inside, found, stand_ins):
        computed = parametrised(inside)
    by_name = {named.name: named for named in found}
    chosen = choose(module, found + [one for one, _ in computed], rules)
    if not fill_frozen:
        for named in found:
            choice = None if named.tensor.requires_grad else chosen.get(named.name)
            if choice is not None and not choice.is_exact:
                del chosen[named.name]  # a frozen tensor needs a pattern that is its exact name
    stream_names = streams(module, found + [one for one, _ in computed], names, prefix)
    saved = SavedStreams(module, [] if names is not None else found, stream_names)

    simple = {
        name: choice.rule
        for name, choice in chosen.items()
        if isinstance(choice.rule, Initializer) and name in by_name and not _pads(by_name[name])
    }
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
                module, inside, whole, computed, chosen, by, fill_frozen, everything
            )

    _warn_of_unused(recorder)
    values: dict[str, Value] = {}
    for named in found:
        name = named.name
        if name in simple or name in recorder.ties:
            continue
        own = chosen.get(name)
        if own is not None and own.rule is KEEP:
            check_kept(named)
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
            check_kept(named)
    reduction = Reduction(values, stream_names)
    filled = []
    for named in found:
        name, tensor = named.name, named.tensor
        if tensor.is_meta and not everything:
            continue
        if name in simple:
            reduced = Reduced(simple[name], stream_names[name], tensor.dtype)
        elif name in values:
            reduced = reduction.scheme(name)
        else:
            continue
        filled.append((named, saved(name, reduced)))
    return Entries(filled, found, recorder.ties)


def entries_of_factory(
    factory: Callable[[], Module],
    by: Callable[[Any], object] | None,
    names: Names | None,
    prefix: str,
) -> tuple[Entries, Module]:
    """Record the constructors, and then the author's method for the whole model."""
    recorder = Recorder({})
    with only_torchs_generator("the constructors draw from Python's or NumPy's generator"):
        with recording(recorder):
            module = factory()
        if not isinstance(module, Module):
            raise TypeError(f"source must make a module, it makes {module!r:.200}")
        inside, found = list(modules(module)), tensors(module)
        refuse(inside, found)
        recorder.name({named.name: named.tensor for named in found})
        with as_before(inside, found), untied(inside, found), recording(recorder):
            units: list[Callable[[], object]] = whole_model_methods(module)
            if by is not None:
                units = [lambda: by(module)]
            for unit in units:
                unit()
            _take_over(recorder, found)
    _warn_of_unused(recorder)
    values = {}
    for named in found:
        if named.name in recorder.ties:
            continue
        if not recorder.is_written(named.name) and named.tensor.numel():
            raise ValueError(f"no code fills {named.what}: give by=, or fill it in the constructor")
        values[named.name] = recorder.value(named.name)
    computed = parametrised(inside)
    draw_for_the_whole(recorder, computed)
    all_streams = streams(module, found + [one for one, _ in computed], names, prefix)
    saved = SavedStreams(module, [] if names is not None else found, all_streams)
    reduction = Reduction(values, all_streams)
    filled = [
        (named, saved(named.name, reduction.scheme(named.name)))
        for named in found if named.name in values
    ]  # fmt: skip
    return Entries(filled, found, recorder.ties), module


def _warn_of_unused(recorder: Recorder) -> None:
    for draw in recorder.unused:
        warnings.warn(
            f"no tensor receives these random numbers: {draw.operation} of shape {draw.shape}",
            stacklevel=4,  # where init_ or record is called
        )


def spec_of(named: Named, reduced: Reduced) -> TensorSpec:
    """Make the entry of a plan."""
    kind = PARAMETER if named.is_parameter else BUFFER if named.is_persistent else NON_PERSISTENT
    dtype = named.tensor.dtype
    try:
        return TensorSpec(
            named.name,
            tuple(named.tensor.shape),
            reduced.scheme,
            dtype=dtype_name(dtype),
            stream=None if reduced.stream == named.name else reduced.stream,  # type: ignore[arg-type]
            drawn_in=None if reduced.drawn_in == dtype else dtype_name(reduced.drawn_in),
            kind=kind,
        )
    except (TypeError, ValueError) as error:
        raise located(error, named.what) from None


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype in a plan."""
    return str(dtype).removeprefix("torch.")


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
        named.attribute == "weight"
        and isinstance(module, (Embedding, EmbeddingBag))
        and module.padding_idx is not None
    )


# ------------------------------------------------------------------------------------- recording


def _recorded(
    module: Module,
    inside: list[tuple[str, Module]],
    found: list[Named],
    computed: list[Parametrised],
    chosen: Mapping[str, Choice],
    by: Callable[[Any], object] | None,
    fill_frozen: bool,
    everything: bool,
) -> Recorder:
    """Record the author's code, then the rules that are functions."""
    units: list[Callable[[], object]] = (
        [lambda: by(module)] if by is not None else whole_model_methods(module)
    )
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
        for named, _ in computed:
            recorder.add(named.name, named.tensor)
        owners = {named.module for named in found if named.name in missing}
        owners |= {one.named.module for one in computed if one.originals & missing}
        try:
            with as_before(inside, found), untied(inside, found), recording(recorder):
                if with_resets:
                    with stand_ins(computed):
                        alike = Alike(recorder)
                        for reset in resets(inside, owners if last is None else None):
                            alike.reset(reset)
                    invert(recorder, computed, wanted, set(chosen))
                    recorder.forget(
                        named.name
                        for named in found
                        if named.is_parameter and not (fill_frozen or named.tensor.requires_grad)
                    )
                for unit in units:
                    unit()
                _take_over(recorder, found)
                _apply_rules(recorder, found, computed, chosen)
                ruled = {name for one in computed if one.named.name in chosen
                         for name in one.originals}  # fmt: skip
                invert(recorder, computed, ruled, {one for one in chosen if one in ruled})
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
    computed: list[Parametrised],
    chosen: Mapping[str, Choice],
) -> None:
    """Record the values of the tensors that have a rule."""
    stand_ins = [one for one, _ in computed]
    for named in [*found, *(one for one, _ in computed)]:
        choice = chosen.get(named.name)
        if choice is None or choice.rule is KEEP:
            continue
        if isinstance(choice.rule, Initializer) and not _pads(named) and named not in stand_ins:
            continue  # an initializer is applied without recording
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
