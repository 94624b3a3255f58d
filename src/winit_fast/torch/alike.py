"""Reuses the record of one reset for other modules of torch that are reset in the same way.

Recording is expensive, because torch's modes run Python at every operation, and a large model has
few kinds of layers. Two modules of the same class of torch get the same schemes if their plain
attributes are equal and their tensors have the same properties, because torch's own
``reset_parameters`` depend on nothing else. A module is recorded separately if anything else could
make a difference: a class that is not torch's own, an attribute that is not a plain value, a
replaced function of torch, another mode, or a tensor that is not a plain parameter or buffer.
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from types import CodeType, FunctionType, GetSetDescriptorType, MethodType, NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import maybe_current_level
from torch.nn import Module, Parameter

from winit_fast.torch.entries import are_untouched
from winit_fast.torch.recorder import Recorder
from winit_fast.torch.values import Constant, Draw, Value

_PLAIN = {bool, int, str, NoneType, torch.dtype, torch.device}
"""Types whose values are equal only if they are the same."""

_EMPTY = {dict, OrderedDict, set}
"""Types of the containers in which modules keep their hooks."""

_HOOKS = {"_load_state_dict_post_hooks"}
"""Hooks that `fully_shard` registers; no reset uses them."""

_IMPORTS = {"init": torch.nn.init, "math": math, "torch": torch, "Tensor": Tensor}
"""Global names in the files of torch.nn.modules, and the objects they must refer to."""


class _Likeness(NamedTuple):
    """Everything that determines the outcome of a reset, and the names of the tensors."""

    signature: tuple[object, ...]
    names: tuple[str, ...]


class Alike:
    """Resets modules inside `recording`; of modules that are alike, only the first is run.

    Parameters
    ----------
    recorder : Recorder
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._outcomes: dict[tuple[object, ...], tuple[Value | None, ...] | None] = {}
        self._trusted: dict[tuple[type, str], bool] = {}

    def reset(self, method: Callable[[], object]) -> None:
        """Run a module's reset method, or copy the outcome of an equal one."""
        likeness = self._likeness(method)
        if likeness is None:
            method()
            self._trusted.clear()  # arbitrary code, which may have replaced functions of torch
            return
        outcome = self._outcomes.get(likeness.signature)
        if outcome is not None:
            for name, value in zip(likeness.names, outcome, strict=True):
                if value is not None:
                    self._recorder.set(name, _another(value, name))
            return
        method()
        if likeness.signature not in self._outcomes:
            is_same = self._signature(method) == likeness
            outcome = self._outcome(likeness.names) if is_same else None
            self._outcomes[likeness.signature] = outcome

    def _likeness(self, method: Callable[[], object]) -> _Likeness | None:
        """Return what determines a reset, if all of it is known and no tensor is written yet."""
        if type(method) is not MethodType:
            return None
        kind = type(method.__self__)
        name = method.__func__.__name__
        trusted = self._trusted.get((kind, name))
        if trusted is None:
            trusted = _is_torchs(kind, name) and _is_undisturbed()
            self._trusted[kind, name] = trusted
        if not trusted or getattr(kind, name, None) is not method.__func__:
            return None
        likeness = self._signature(method)
        if likeness is None or any(map(self._recorder.is_written, likeness.names)):
            return None
        return likeness

    def _signature(self, method: Any) -> _Likeness | None:
        module = method.__self__
        signature: list[object] = [type(module), method.__func__]
        names: list[str] = []
        with torch._C.DisableTorchFunction():  # these queries must not be recorded
            for attribute, value in vars(module).items():
                kind = type(value)
                if kind in _EMPTY and (not value or attribute in _HOOKS):
                    continue
                if kind in _PLAIN:
                    signature += attribute, kind, value
                elif attribute in ("_parameters", "_buffers"):
                    signature.append(attribute)
                    for key, tensor in value.items():
                        signature.append(key)
                        if tensor is None:
                            continue
                        name = self._recorder.name_of(tensor)
                        if name is None or not _is_plain(tensor):
                            return None
                        signature += _kind(tensor)
                        names.append(name)
                elif (plain := _plain(value)) is not None:
                    signature += attribute, plain
                else:
                    return None
        return _Likeness(tuple(signature), tuple(names))

    def _outcome(self, names: tuple[str, ...]) -> tuple[Value | None, ...] | None:
        """Return the values that a reset has given tensors, if other tensors can get them too."""
        outcome: list[Value | None] = []
        for name in names:
            value = self._recorder.value(name)
            if not self._recorder.is_written(name):
                outcome.append(None)
            elif isinstance(value, Constant) or (
                isinstance(value, Draw) and value.home == name and value.own is None
            ):
                outcome.append(value)
            else:
                return None
        return tuple(outcome)


def _another(value: Value, name: str) -> Value:
    """Return the corresponding value for another tensor: a draw becomes a new draw."""
    if isinstance(value, Draw):
        return Draw(value.shape, value.dtype, value.scheme, value.operation, name)
    return value


def _is_torchs(kind: type, reset: str) -> bool:
    """Return whether a class is torch's own, and none of the methods that matter is replaced.

    A method that somebody has added to a class of torch (transformers adds one to `Module`) does
    not matter if no method of torch's mentions its name.
    """
    own, strange = list[CodeType](), set[str]()
    for base in kind.__mro__[:-1]:
        home = sys.modules.get(base.__module__)
        scope = {} if home is None else vars(home)
        if not base.__module__.startswith("torch.nn.modules.") or scope.get(base.__name__) != base:
            return False
        if any(scope.get(name, known) is not known for name, known in _IMPORTS.items()):
            return False
        for name, member in vars(base).items():
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            if (
                isinstance(member, FunctionType)
                and member.__globals__ is scope
                and member.__code__.co_name in (name, _STANDS_FOR.get(name))
            ):
                own.append(member.__code__)
            elif (callable(member) or _is_descriptor(member)) and not _is_dynamos(member):
                strange.add(name)
    if strange:
        mentioned = {reset}.union(*map(_names_in, own))
        if any(name in mentioned or name.startswith("__") for name in strange):
            return False
    return issubclass(kind, Module)


def _is_dynamos(member: object) -> bool:
    """Return whether torch.compile has put a member into `Module`, which only notes new modules."""
    home = sys.modules.get("torch._dynamo.mutation_guard")
    return home is not None and getattr(member, "__globals__", None) is vars(home)


def _is_descriptor(member: object) -> bool:
    """Return whether a member computes its value, as no attribute of torch's modules does."""
    return hasattr(type(member), "__get__") and type(member) is not GetSetDescriptorType


@cache
def _names_in(code: CodeType) -> frozenset[str]:
    """Return the names of attributes and globals in a function, and in those inside of it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(code.co_names).union(*map(_names_in, inner))


_STANDS_FOR = {"__call__": "_wrapped_call_impl", "forward": "_forward_unimplemented"}
"""Methods of `Module` whose functions have another name; no reset uses them."""


def _is_undisturbed() -> bool:
    """Return whether torch is in its original state, except for the two modes of a recording."""
    return (
        _len_torch_function_stack() == 1
        and _len_torch_dispatch_stack() == 1
        and _get_tracing_state() is None
        and maybe_current_level() is None
        and are_untouched()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has no state besides its elements."""
    return type(tensor) in (Parameter, Tensor) and not vars(tensor) and tensor.numel() > 0


def _kind(tensor: Tensor) -> tuple[object, ...]:
    """Return the properties of a tensor, besides its elements, that an operation may depend on."""
    return (
        type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device,
        tensor.requires_grad, tensor.is_conj(), tensor.is_neg(), tensor.is_inference(),
    )  # fmt: skip


def _plain(value: object) -> object:
    """Convert an attribute to a key that is equal only for equal values; None if it is not plain.

    Examples
    --------
    >>> _plain(0.0) == _plain(-0.0), _plain((1, 2)) == _plain([1, 2]), _plain((1, object()))
    (False, False, None)
    """
    if type(value) in _PLAIN:
        return type(value), value
    if type(value) is float:
        return float, repr(value)
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        inner = tuple(map(_plain, value))
        return None if None in inner else (type(value), inner)
    return None
