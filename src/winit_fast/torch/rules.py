"""Rules for the tensors of a module: which rule applies to a tensor, and the axes it implies."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.nn import Module

from winit_fast.base.names import nearest, tied
from winit_fast.initializers.fans import TORCH, Convention
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import get
from winit_fast.initializers.variance_scaling import VarianceScaling
from winit_fast.torch.names import Named, modules, tensors

Function = Callable[[Tensor], object]
Rule = Initializer | str | Function
Rules = (
    Mapping[str | type[Module], Rule | Mapping[str, Rule]] | Callable[[str, Tensor], Rule | None]
)

KEEP = "keep"
"""The rule that leaves a tensor unchanged."""

_TRANSPOSED = Convention(in_axis=0, out_axis=1, column_axis=0)
"""(in, out, *kernel): the convention of transposed convolutions."""


class Choice:
    """The rule of a tensor, or of several.

    Attributes
    ----------
    rule : Initializer, callable or "keep"
    is_exact : bool
        Whether the pattern is the exact name of the tensor.
    """

    __slots__ = ("is_exact", "rule")

    def __init__(self, rule: Any, is_exact: bool) -> None:
        self.rule = rule
        self.is_exact = is_exact


def choose(module: Module, found: list[Named], rules: Rules | None) -> dict[str, Choice]:
    """Find the rule of every tensor that has one.

    Parameters
    ----------
    module : torch.nn.Module
    found : list of Named
        The tensors of the module.
    rules : mapping or callable, optional

    Returns
    -------
    dict of str to Choice
        Choices by tensor name.

    Raises
    ------
    ValueError
        If a pattern matches nothing.
    TypeError
        If the rules, a pattern or a rule have the wrong type.
    """
    by_name = {named.name: named for named in found}
    parameters = {
        name: named
        for name, named in by_name.items()
        # parametrised tensors match only patterns that are their exact names
        if named.is_parameter and "parametrizations." not in name
    }
    chosen: dict[str, Choice] = {}
    if rules is None:
        return chosen
    if isinstance(rules, Mapping):
        for pattern, rule in rules.items():
            for names, one, is_exact in _matches(module, by_name, parameters, pattern, rule):
                choice = Choice(one, is_exact)
                for name in names:
                    if name not in chosen or (is_exact and not chosen[name].is_exact):
                        chosen[name] = choice
    elif callable(rules):
        for name, named in parameters.items():
            given = rules(name, named.tensor)
            if given is not None:
                chosen[name] = Choice(given, False)
    else:
        raise TypeError(f"rules must be a mapping or a function, got {rules!r}")
    # Of tensors with the same rule and layout, one Choice is made: a model has few of them.
    kept: dict[tuple[object, ...], Choice] = {}
    read: dict[str, Choice] = {}
    for name, choice in chosen.items():
        named = by_name[name]
        place = id(choice.rule), choice.is_exact, *_layout(named)
        one = kept.get(place)
        if one is None:
            one = kept[place] = Choice(_read(choice.rule, named), choice.is_exact)
        read[name] = one
    return read


def _matches(
    module: Module,
    by_name: Mapping[str, Named],
    parameters: Mapping[str, Named],
    pattern: object,
    rule: Any,
) -> Iterator[tuple[list[str], Any, bool]]:
    """Yield the tensors that a pattern matches with their rule, and whether it is exact."""
    if isinstance(pattern, str) and pattern in by_name:
        yield [pattern], rule, True
        return
    if isinstance(pattern, type) and issubclass(pattern, Module):
        yield from _of_type(module, by_name, pattern.__name__, rule,
                            lambda one: isinstance(one, pattern))  # fmt: skip
        return
    if not isinstance(pattern, str):
        raise TypeError(f"patterns in rules must be str or types of modules, got {pattern!r}")
    matched = list(filter(matcher(pattern), parameters)) if "*" in pattern else []
    if matched:
        yield matched, rule, False
        return
    if any(_is_called(one, pattern) for _, one in modules(module)):
        yield from _of_type(module, by_name, pattern, rule, lambda one: _is_called(one, pattern))
        return
    raise ValueError(_no_match(module, by_name, pattern))


def _is_called(module: Module, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(module).__mro__[:-1])


def _of_type(
    module: Module,
    by_name: Mapping[str, Named],
    kind: str,
    rule: Any,
    is_meant: Callable[[Module], bool],
) -> Iterator[tuple[list[str], Any, bool]]:
    """Yield the tensors of the modules of a type: their weights, or those that the rule names."""
    inner = rule if isinstance(rule, Mapping) else {"weight": rule}
    meant = {id(one) for _, one in modules(module) if is_meant(one)}
    own = [named for named in by_name.values() if id(named.module) in meant]
    if not meant:
        raise ValueError(f"rules must be for types of modules that there are, got {kind}")
    for pattern, one in inner.items():
        is_match = matcher(pattern)
        matched = [named.name for named in own if is_match(named.attribute)]
        yield matched, one, False
        if not matched:
            known = ", ".join(sorted({named.attribute for named in own})) or "none"
            raise ValueError(
                f"no {kind} has a tensor {pattern!r} (they have {known}): "
                "give a mapping of their tensors' names to rules"
            )


def matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern, in which ``*`` stands for any characters.

    No other character is special. The time is at most proportional to the product of the two
    lengths, because each piece of the pattern is searched once, from left to right.

    Examples
    --------
    >>> matches("h.0.mlp.weight", "h.*.weight"), matches("h[0].weight", "h[0].*")
    (True, True)
    >>> matches("aba", "ab*ba"), matches("a" * 200, "*a" * 40 + "b")
    (False, False)
    """
    return matcher(pattern)(name)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that matches names against a pattern, which is split only once."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern.__eq__
    last = rest.pop()
    least, start = len(first) + len(last), len(first)

    def is_match(name: str) -> bool:
        if len(name) < least or not (name.endswith(last) and name.startswith(first)):
            return False
        at, end = start, len(name) - len(last)
        for piece in rest:
            at = name.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return is_match


def _no_match(module: Module, by_name: Mapping[str, Named], pattern: str) -> str:
    """Compose the error for a pattern that matches nothing, with the most similar names."""
    first = {id(named.tensor): named.name for named in by_name.values()}
    is_match = matcher(pattern)
    for named in tensors(module, shared=True):
        if is_match(named.name) and first.get(id(named.tensor), named.name) != named.name:
            return tied("rules", pattern, named.name, first[id(named.tensor)])
    return f"pattern in rules must match a parameter, got {pattern!r}{nearest(pattern, by_name)}"


def _read(rule: Any, named: Named) -> Any:
    """Convert a rule to an initializer with the tensor's axes, a function, or "keep"."""
    if isinstance(rule, str):
        if rule == KEEP:
            return KEEP
        rule = _by_name(rule)
    if isinstance(rule, Initializer):
        return with_fans(rule, named)
    if not callable(rule) or isinstance(rule, type):
        raise TypeError(
            f"a rule must be an initializer, a name, 'keep' or a function, got {rule!r} "
            f"for {named.what}"
        )
    return rule


_by_name = lru_cache(get)
"""Cached, so that the same name gives the same object."""


def _layout(named: Named) -> tuple[object, ...]:
    """Return everything that determines the axes and fans of a tensor."""
    module, ndim = named.module, named.tensor.ndim
    if isinstance(module, nn.modules.conv._ConvNd) and named.attribute == "weight":
        return ndim, module.transposed, module.groups, tuple(named.tensor.shape)
    return (ndim,)


def with_fans(rule: Initializer, named: Named) -> Initializer:
    """Set the axes and fans that a rule does not give to those of the tensor's module.

    Examples
    --------
    >>> import winit_fast as wf
    >>> conv = nn.Conv1d(8, 8, 3, groups=4)
    >>> with_fans(wf.HeNormal(mode="fan_out"), tensors(conv)[0])
    HeNormal(mode='fan_out', in_axis=1, out_axis=0, fan_out=6)
    """
    module, shape = named.module, tuple(named.tensor.shape)
    is_kernel = isinstance(module, nn.modules.conv._ConvNd) and named.attribute == "weight"
    convention = TORCH
    fans: dict[str, int] = {}
    if is_kernel:
        assert isinstance(module, nn.modules.conv._ConvNd)
        taps = math.prod(shape[2:])
        if module.transposed:
            convention = _TRANSPOSED
            fans = {"fan_in": shape[0] // module.groups * taps}
        else:
            fans = {"fan_out": shape[0] // module.groups * taps}
        if module.groups == 1:
            fans = {}
    return _say(rule, convention, fans, len(shape))


def _say(rule: Initializer, convention: Convention, fans: dict[str, int], ndim: int) -> Initializer:
    if isinstance(rule, VarianceScaling) and rule.in_axis is None and rule.out_axis is None:
        unsaid: dict[str, Any] = {
            name: fan for name, fan in fans.items() if getattr(rule, name) is None
        }
        if unsaid and not rule.batch_axis:
            rule = replace(rule, **unsaid)
    changes = {}
    for name, value in vars(rule).items():
        if isinstance(value, Initializer):
            changes[name] = _say(value, convention, fans, ndim)
    if changes:
        rule = replace(rule, **changes)  # type: ignore[type-var]
    return rule.with_axes(convention, ndim)
