"""Modules of torch that are reset alike: one of them is recorded, the others follow it.

Recording is dear, since torch's modes run Python at every operation, and a large model has few
kinds of layers. Two modules of one of torch's own classes get the same schemes where their plain
attributes are equal and their tensors alike, since nothing else goes into torch's own
``reset_parameters``. Whatever could tell two apart is recorded by itself: a class that is not
torch's own, an attribute that is no plain value, a function of torch that has been replaced,
another mode, a tensor that is more than one plain parameter or buffer.
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType, GetSetDescriptorType, MethodType, NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import maybe_current_level
from torch.nn import Module, Parameter

from winit_fast.torch.entries import are_untouched
from winit_fast.torch.record import Recorder
from winit_fast.torch.values import Constant, Draw, Value

_PLAIN = {bool, int, str, NoneType, torch.dtype, torch.device}
"""Types of attributes that are their values, and equal only if they are the same."""

_EMPTY = {dict, OrderedDict, set}
"""Types of what modules keep their hooks in."""

_IMPORTS = {"init": torch.nn.init, "math": math, "torch": torch, "Tensor": Tensor}
"""What the files of torch.nn.modules call so."""


class _Likeness(NamedTuple):
    """What the outcome of a reset follows from, and the names of the tensors that it is for."""

    signature: tuple[object, ...]
    names: tuple[str, ...]


class Alike:
    """Resets modules, inside `recording`; of those that are alike only the first one runs.

    Parameters
    ----------
    recorder : Recorder
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._outcomes: dict[tuple[object, ...], tuple[Value | None, ...] | None] = {}
        self._trusted: dict[type, bool] = {}

    def reset(self, method: Callable[[], object]) -> None:
        """Have a module's tensors get what its method gives them."""
        likeness = self._likeness(method)
        if likeness is None:
            method()
            self._trusted.clear()  # it may be anybody's code, and have replaced anything
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
        """Tell what decides on a reset, where all of that is known and nothing is written yet."""
        if type(method) is not MethodType:
            return None
        kind = type(method.__self__)
        trusted = self._trusted.get(kind)
        if trusted is None:
            trusted = self._trusted[kind] = _is_torchs(kind) and _is_undisturbed()
        if not trusted or getattr(kind, method.__func__.__name__, None) is not method.__func__:
            return None
        likeness = self._signature(method)
        if likeness is None or any(map(self._recorder.is_written, likeness.names)):
            return None
        return likeness

    def _signature(self, method: Any) -> _Likeness | None:
        module = method.__self__
        signature: list[object] = [type(module), method.__func__]
        names: list[str] = []
        with torch._C.DisableTorchFunction():  # what is asked here is not the code's doing
            for attribute, value in vars(module).items():
                kind = type(value)
                if kind in _EMPTY and not value:
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
        """Read what a reset has given tensors, if the like can be given to others."""
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
    """Give the like of a value, for another tensor: draws of its own."""
    if isinstance(value, Draw):
        return Draw(value.shape, value.dtype, value.scheme, value.operation, name)
    return value


def _is_torchs(kind: type) -> bool:
    """Tell whether a class is torch's own, with all of its methods as torch has them."""
    for base in kind.__mro__[:-1]:
        home = sys.modules.get(base.__module__)
        scope = {} if home is None else vars(home)
        if not base.__module__.startswith("torch.nn.modules.") or scope.get(base.__name__) != base:
            return False
        if any(scope.get(name, own) is not own for name, own in _IMPORTS.items()):
            return False
        for name, member in vars(base).items():
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            if isinstance(member, FunctionType):
                is_own = member.__code__.co_name in (name, _STANDS_FOR.get(name))
                if member.__globals__ is not scope or not is_own:
                    return False
            elif hasattr(type(member), "__get__") and type(member) is not GetSetDescriptorType:
                return False  # a property, a partial method ...: torch's modules have none
            elif callable(member):
                return False
    return issubclass(kind, Module)


_STANDS_FOR = {"__call__": "_wrapped_call_impl", "forward": "_forward_unimplemented"}
"""Methods of `Module` that are functions of another name; no reset uses them."""


def _is_undisturbed() -> bool:
    """Tell whether torch is as it comes, but for the two modes of a recording."""
    return (
        _len_torch_function_stack() == 1
        and _len_torch_dispatch_stack() == 1
        and _get_tracing_state() is None
        and maybe_current_level() is None
        and are_untouched()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is no more than its elements."""
    return type(tensor) in (Parameter, Tensor) and not vars(tensor) and tensor.numel() > 0


def _kind(tensor: Tensor) -> tuple[object, ...]:
    """What an operation may ask of a tensor besides its elements."""
    return (
        type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device,
        tensor.requires_grad, tensor.is_conj(), tensor.is_neg(), tensor.is_inference(),
    )  # fmt: skip


def _plain(value: object) -> object:
    """Write an attribute so that only equal ones are written alike, or None if it has other parts.

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
