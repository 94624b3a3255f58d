"""Whole modules: every parameter by its own name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from winit_fast.base.names import unknown
from winit_fast.initializers.protocol import Initializer, get
from winit_fast.streams.stream import Seed, seed_number, stream_id
from winit_fast.torch.memory import FLOATS, fill_by, fillable, is_plain
from winit_fast.torch.mode import fast_init

Function = Callable[[Tensor], object]
Rule = Initializer | str | Function
Rules = Mapping[str, Rule] | Callable[[str, Tensor], Rule | None]
M = TypeVar("M", bound=Module)


def init_(module: M, rules: Rules | None = None, seed: Seed = 0) -> M:
    """Fill every parameter of a module, each from the stream of its fully qualified name.

    So a parameter's numbers do not depend on the other parameters: a layer more or less, another
    order or another device changes no bit of the rest, and `winit_fast.HeNormal` and all others
    give the same numbers for the same name without torch.

    Parameters
    ----------
    module : torch.nn.Module
        On any devices. Parameters on the meta device are left alone. A parameter that is tied, so
        that it has several names, is filled once, by its first name in ``named_parameters()``.
    rules : mapping of str to rule, or callable, optional
        By name, which initializer. In a mapping, ``*`` in a pattern stands for any characters, and
        the first pattern that matches counts; a callable takes the name and the parameter and
        returns the rule or None. A rule is an initializer of this package, its name as in
        `winit_fast.get`, or a function that fills the tensor it is given (one of ``torch.nn.init``
        or of this module, say). Initializers whose axes are the default ones count them as torch
        does: ``(out, in, *kernel)``.

        Parameters without a rule are filled as their module does it itself: by its method
        ``reset_parameters`` or, as torch's attention and transformers call it,
        ``_reset_parameters``, inner modules first. That is what torch's own modules do when they
        are made; it resets the statistics of normalisation layers, too.
    seed : int, numpy.random.SeedSequence or numpy.random.Generator

    Returns
    -------
    torch.nn.Module
        The same.

    Raises
    ------
    ValueError
        If a pattern matches no parameter, or a parameter has no rule and no module that fills it;
        or if a lazy module has not been run, or a rule is not for the parameter's shape.
    TypeError
        If a rule is none, or is not for the parameter's type.

    Notes
    -----
    A module that fills parts of a parameter, or draws by another function of torch, gets numbers
    that depend on the seed and on the module's name. Torch's generator is left as it was.

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
    parameters = dict(module.named_parameters())
    for name, parameter in parameters.items():
        if is_lazy(parameter):
            raise ValueError(f"parameter {name!r} has no shape yet: run the lazy module once")
    chosen = _chosen(parameters, rules)
    for name, rule in chosen.items():
        if isinstance(rule, Initializer):
            _check(name, parameters[name], rule)
    rest = {name: parameters[name] for name in parameters if name not in chosen}
    resets = _resets(module, rest)

    key = seed_number(seed)
    with torch.random.fork_rng(devices=[]), _ByName(key, parameters) as mode:
        for prefix, reset in resets:
            mode.enter_module(prefix)
            reset()
    forgotten = [name for name in rest if name not in mode.filled]
    if forgotten:
        raise ValueError(f"no module fills parameter {forgotten[0]!r}: give a rule")
    for name, rule in chosen.items():
        parameter = parameters[name]
        if not isinstance(rule, Initializer):
            with torch.random.fork_rng(devices=[]), _ByName(key, {name: parameter}) as mode:
                mode.enter_module(name)
                rule(parameter)
        elif fillable(parameter):
            fill_by(parameter, rule, key, name)
    return module


def _check(name: str, parameter: Tensor, rule: Initializer) -> None:
    """Have a rule refuse a parameter now, before another one has been filled."""
    if parameter.is_meta:
        return
    if not fillable(parameter):
        raise TypeError(f"parameter {name!r} cannot be filled by {rule}: {parameter.dtype}")
    nothing = (slice(0, 0),) * parameter.ndim
    try:
        rule(tuple(parameter.shape), seed=0, dtype=FLOATS[parameter.dtype].dtype, index=nothing)
    except (TypeError, ValueError) as error:
        raise type(error)(f"parameter {name!r} cannot be filled by {rule}: {error}") from None


def _chosen(
    parameters: Mapping[str, Tensor], rules: Rules | None
) -> dict[str, Initializer | Function]:
    """Find the rule of every parameter that has one."""
    found: dict[str, Rule | None] = {}
    if callable(rules):
        found = {name: rules(name, parameter) for name, parameter in parameters.items()}
    elif rules is not None:
        if not isinstance(rules, Mapping):
            raise TypeError(f"rules must be a mapping or a function, got {rules!r}")
        for pattern, rule in rules.items():
            if not isinstance(pattern, str):
                raise TypeError(f"patterns in rules must be str, got {pattern!r}")
            names = [name for name in parameters if fnmatchcase(name, pattern)]
            if not names:
                raise ValueError(unknown("pattern in rules", pattern, parameters))
            for name in names:
                found.setdefault(name, rule)
    return {name: _as_torch(rule) for name, rule in found.items() if rule is not None}


def _as_torch(rule: Rule) -> Initializer | Function:
    """Read a rule's axes, where they are the default ones, as ``(out, in, *kernel)``."""
    if isinstance(rule, str):
        rule = get(rule)
    if not isinstance(rule, Initializer):
        if not callable(rule):
            raise TypeError(f"a rule must be an initializer, a name or a function, got {rule!r}")
        return rule
    changes: dict[str, Any] = {}
    for field in fields(rule):  # type: ignore[arg-type]
        value = getattr(rule, field.name)
        if isinstance(value, Initializer):
            changes[field.name] = _as_torch(value)
    own = rule.get_config()
    if (own.get("in_axis"), own.get("out_axis")) == (-2, -1):
        changes |= {"in_axis": 1, "out_axis": 0}
    if own.get("column_axis") == -1:
        changes["column_axis"] = 0
    return replace(rule, **changes)  # type: ignore[type-var]


def _resets(
    module: Module, parameters: Mapping[str, Tensor]
) -> list[tuple[str, Callable[[], object]]]:
    """List the methods that fill some parameters, with their modules' names, in order.

    Inner modules come before outer ones, as when they are made; and the first of several that
    share a parameter comes last, so that it has the last word.
    """
    wanted = {prefix for name in parameters for prefix in _prefixes(name)}
    resets = []
    for prefix, part in reversed(list(module.named_modules())):
        reset = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))
        if prefix in wanted and callable(reset):
            resets.append((prefix, reset))
    able = {prefix for prefix, _ in resets}
    for name in parameters:
        if able.isdisjoint(_prefixes(name)):
            raise ValueError(f"no module fills parameter {name!r}: give a rule")
    return resets


def _prefixes(name: str) -> Iterator[str]:
    """Name the modules that a parameter is in, from its own to the outermost, which is ''."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Tell tensors apart by their memory: `Tensor.data` is another object, but the same place."""
    if not fillable(tensor):
        return (id(tensor),)
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


class _ByName(fast_init):
    """Inside, what fills a parameter takes its numbers from the stream of the parameter's name.

    Attributes
    ----------
    filled : set of str
        Names of the parameters that something has written.
    """

    def __init__(self, key: int, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._key = key
        self._parameters = parameters
        self._names: dict[tuple[object, ...], str] = {}
        for name, parameter in parameters.items():
            self._names.setdefault(_place(parameter), name)
        self._versions = {name: parameters[name]._version for name in parameters}
        self._touched: set[str] = set()
        self._seeding = self._find

    @property
    def filled(self) -> set[str]:
        return self._touched | {
            name
            for name, parameter in self._parameters.items()
            if parameter._version != self._versions[name]
            or parameter.is_meta
            or parameter.numel() == 0
        }

    def enter_module(self, name: str) -> None:
        """Begin the draws of a module that are not those of a whole parameter."""
        self._module, self._draws = name, 0
        torch.default_generator.manual_seed(self._key ^ stream_id(f"{name}\0torch"))

    def _find(self, tensor: Tensor) -> tuple[int, str]:
        name = self._names.get(_place(tensor))
        if name is None:
            self._draws += 1
            name = f"{self._module}\0{self._draws}"
        return self._key, name

    def _takes(self, tensor: Any) -> bool:
        return is_plain(tensor) and fillable(tensor)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        written = args[0] if args else (kwargs or {}).get("tensor")
        if isinstance(written, Tensor) and getattr(func, "__name__", "").endswith("_"):
            name = self._names.get(_place(written))
            if name is not None:
                self._touched.add(name)
        return super().__torch_function__(func, types, args, kwargs)
