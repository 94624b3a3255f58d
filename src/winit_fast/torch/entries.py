"""The entries of ``torch.nn.init``: which there are, and how a call of one is recognised.

A caller may reach an entry in many ways: plainly, by a reference that it saved, by a ``from``
import, through the dictionary in which transformers keeps torch's originals, or through any
wrapper. transformers 5 also replaces the names in ``torch.nn.init`` while a model initialises its
weights, by functions of its own or by empty ones. So the functions that a mode is handed say
nothing: ``handle_torch_function`` hands on whatever the *name* stands for at that moment. All these
ways have one thing in common: in the end a function runs whose globals are those of
``torch.nn.init``, and it asks something of the tensor, which a `TorchFunctionMode` sees. Of the
frames above that question, the nearest one with these globals is the entry, and its locals are the
arguments. That is what `arrival` looks for.

Every entry has one question, its landing, whose answer ends it with nothing more done:

- ``uniform_``, ``normal_``, ``constant_`` and ``kaiming_uniform_`` ask the modes wholly;
- the others of plain draws and of constants end in one method that fills the tensor;
- ``trunc_normal_``, ``orthogonal_``, ``sparse_`` and ``dirac_`` ask first whether the tensor is on
  the meta device, and if so return it as it is. No mode sees the rest of these as a whole (it draws
  until nothing falls outside, factors, permutes), and on the meta device there is no rest.

Tried, and left: comparing functions fails where names are replaced, at import or at the call.
Exchanging ``__code__`` of the originals sees all calls, but in every thread, and
``torch.jit.script`` refuses them meanwhile. A `TorchDispatchMode` sees the draws but not the
schemes, costs every operation 7 us more, and is in the way of other modes.
"""

import importlib.util
from collections.abc import Callable, Mapping
from types import (
    BuiltinFunctionType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodWrapperType,
)
from typing import Any, NamedTuple

import torch
import torch.nn.init as home
from torch import Tensor

Function = Callable[..., Any]

WHOLE = "torch.nn.init"
"""The question of an entry that calls the modes before it does anything."""

LANDINGS: Mapping[str, tuple[str, ...]] = {
    "uniform_": (WHOLE, "uniform_"),
    "normal_": (WHOLE, "normal_"),
    "trunc_normal_": ("is_meta",),
    "constant_": (WHOLE, "fill_"),
    "ones_": ("fill_",),
    "zeros_": ("zero_",),
    "eye_": ("eye",),
    "dirac_": ("is_meta",),
    "xavier_uniform_": ("uniform_",),
    "xavier_normal_": ("normal_",),
    "kaiming_uniform_": (WHOLE, "uniform_"),
    "kaiming_normal_": ("normal_",),
    "orthogonal_": ("is_meta",),
    "sparse_": ("is_meta",),
}
"""For every entry, the questions at which it is recognised."""

METHODS: Mapping[str, Function] = {
    name: getattr(torch._C.TensorBase, name) for name in ("uniform_", "normal_", "fill_", "zero_")
}
"""The tensor methods that entries call last: torch's originals, even if `Tensor` was patched."""

_QUESTIONS: Mapping[Any, str] = {
    **{method: name for name, method in METHODS.items()},
    torch._C.TensorBase.is_meta.__get__: "is_meta",
    torch._C._VariableFunctions.eye: "eye",
}

_BUILT_IN = {BuiltinFunctionType, MethodDescriptorType, MethodWrapperType}

_GLOBALS = vars(home)

_REACH = 12
"""Most frames to search between an entry and its question; other modes add such frames."""


class Arrival(NamedTuple):
    """A call of an entry, seen by a mode at the entry's landing.

    Attributes
    ----------
    name : str
        The entry's.
    arguments : dict
        All arguments by name; ``tensor`` is the tensor to fill.
    answer : Any
        The value that the mode must return so that the entry does nothing more.
    """

    name: str
    arguments: dict[str, Any]
    answer: Any


def originals() -> dict[str, Function]:
    """Find torch's own functions, even if their names in ``torch.nn.init`` are bound to others.

    Where a name stands for something else, the function is made again from the module's code, with
    the same globals.

    Examples
    --------
    >>> originals()["zeros_"] is torch.nn.init.zeros_
    True
    """
    found = {name: getattr(home, name, None) for name in LANDINGS}
    if not all(_is_own(function, name) for name, function in found.items()):
        spec = importlib.util.find_spec(home.__name__)
        # the module has been imported from this spec
        assert spec is not None and spec.loader is not None
        again = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(again)
        for name, function in found.items():
            if not _is_own(function, name):
                own = getattr(again, name, None)
                # not a function if Sphinx replaces torch by a mock
                if isinstance(own, FunctionType):
                    found[name] = FunctionType(own.__code__, vars(home), name, own.__defaults__)
    return {name: function for name, function in found.items() if function is not None}


def _is_own(function: Any, name: str) -> bool:
    return (
        type(function) is FunctionType
        and function.__globals__ is vars(home)
        and function.__code__.co_name == name
    )


_HELPERS = (
    "_calculate_correct_fan", "_calculate_fan_in_and_fan_out", "_no_grad_fill_",
    "_no_grad_normal_", "_no_grad_trunc_normal_", "_no_grad_uniform_", "_no_grad_zero_",
    "calculate_gain",
)  # fmt: skip
"""Other functions of torch.nn.init, which the entries call."""

_ASKED = (*METHODS, "dim", "ndimension", "numel", "size", "__getitem__")
"""Methods of tensors that torch's modules call when they are reset."""


def are_untouched() -> bool:
    """Return whether all entries, what they call, and the methods are torch's own just now.

    Examples
    --------
    >>> are_untouched()
    True
    """
    return all(_is_own(getattr(home, name, None), name) for name in (*LANDINGS, *_HELPERS)) and all(
        name not in vars(Tensor) for name in _ASKED
    )


def question(func: Any) -> str | None:
    """Name what a mode is asked, if an entry may land there: a key of `METHODS`, or another.

    `Tensor`'s methods may have been replaced, too: torch hands on what the class has by the name.

    Examples
    --------
    >>> question(torch.Tensor.normal_), question(torch.Tensor.add_)
    ('normal_', None)
    """
    if type(func) in _BUILT_IN:
        return _QUESTIONS.get(func)
    if getattr(func, "__globals__", None) is not _GLOBALS:
        for name in METHODS:
            if func is getattr(Tensor, name):
                return name
    return WHOLE


def arrival(
    asked: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: FrameType | None
) -> Arrival | None:
    """Recognise a call of an entry at its landing.

    Parameters
    ----------
    asked : str
        See `question`.
    args, kwargs
        What the mode was handed.
    caller : frame
        Who called the mode's ``__torch_function__``: ``sys._getframe(1)`` there.

    Returns
    -------
    Arrival or None
        None if no entry asks this, or not of its own tensor.
    """
    if asked == WHOLE:
        tensor = kwargs.get("tensor")
    elif asked == "eye":
        tensor = kwargs.get("out")
    else:
        tensor = args[0] if args else None
    if tensor is None:
        return None
    for _ in range(_REACH):
        if caller is None:
            return None
        if caller.f_globals is _GLOBALS:
            code = caller.f_code
            name = code.co_name
            landings = LANDINGS.get(name)
            if landings is not None:
                if asked not in landings:
                    return None
                if asked == WHOLE:  # torch passes all arguments by name here
                    return Arrival(name, dict(kwargs), tensor)
                local = caller.f_locals
                arguments = {name: local[name] for name in code.co_varnames[: code.co_argcount]}
                if arguments["tensor"] is not tensor:
                    return None
                return Arrival(name, arguments, True if asked == "is_meta" else tensor)
        caller = caller.f_back
    return None
