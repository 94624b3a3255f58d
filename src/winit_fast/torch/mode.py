"""`fast_init`, which accelerates existing code through torch's own override mechanism."""

import inspect
import itertools
import sys
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, Self, TypeVar

import torch
from torch import Generator, Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch import init
from winit_fast.torch.draw import has_kernels
from winit_fast.torch.entries import LANDINGS, METHODS, WHOLE, arrival, originals, question
from winit_fast.torch.memory import is_plain, on_host
from winit_fast.torch.placements import is_sharded
from winit_fast.torch.seeding import Seeding, local

Function = Callable[..., Any]
P = ParamSpec("P")
R = TypeVar("R")

_TORCH = originals()

_ENTRIES: dict[str, Function] = {
    name: getattr(init, name)
    for name in (
        "uniform_",
        "normal_",
        "kaiming_uniform_",
        "trunc_normal_",
        "orthogonal_",
        "sparse_",
    )
}
"""Entries of torch.nn.init that are replaced as a whole, at their landing (see `entries`).

The other random entries call `Tensor.uniform_` or `Tensor.normal_`, which are replaced instead.
"""


_KNOWN = {
    _TORCH[name]: _ENTRIES[name]
    for name, landings in LANDINGS.items()
    if WHOLE in landings and name in _ENTRIES
}
"""Those of them that call the modes first. Unless a name was replaced, they need no search."""

_PASSES = {Tensor.backward, torch.autograd.backward, torch.autograd.grad}
"""Functions that run a backward pass."""

_GENERATED = "<eval_with_key>"
"""File name of the code that torch.fx generates from a trace, for torch.compile's "eager", say."""


class fast_init(TorchFunctionMode):  # named like torch.no_grad
    """Make ``model = Model()`` fast: a context in which this package fills torch's weights.

    Inside the context, in the same thread only, this package runs the functions of
    ``torch.nn.init``, in whatever way they are called, and `Tensor.normal_` and `Tensor.uniform_`.
    It does so for tensors of the CPU, and of GPUs that its kernels serve (docs/gpu.md), of the
    floating-point types of docs/contract.md, and for normals of complex64 and complex128.
    Everything else remains torch's: other devices (meta too), other types, subclasses of Tensor
    that override functions, functions that make tensors (`torch.randn`), and everything traced or
    transformed (``torch.compile``, ``torch.jit.trace``, ``make_fx``, ``torch.func``, any
    ``TorchDispatchMode``).

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        By default each tensor draws 64 bits from torch's generator, which `torch.manual_seed`
        seeds. With a seed, torch's generator is not used, and the tensors have the streams 0, 1, 2,
        ... of this seed in the order in which they are filled. The ``generator=`` of a call takes
        precedence over both.

    Raises
    ------
    RuntimeError
        If one object is entered twice, as its streams would continue where the first time ended. (A
        decorated function has a new context for every call.) Also if a seed was given and a tensor
        is filled in a backward pass, where ``torch.utils.checkpoint`` runs a function again: it
        would not get the stream that it got the first time.
    ValueError
        If a DTensor would be filled without a seed.

    Notes
    -----
    The distributions are torch's, the numbers are not: they are those of the same function of
    `winit_fast.torch`. If contexts are nested, the innermost applies. The context is a
    `torch.overrides.TorchFunctionMode`; nothing is patched.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> with winit_fast.torch.fast_init(seed=0):
    ...     first = torch.nn.Linear(1000, 1000)
    >>> @winit_fast.torch.fast_init(seed=0)
    ... def make():
    ...     return torch.nn.Linear(1000, 1000)
    >>> bool((first.weight == make().weight).all())
    True
    """

    def __init__(self, seed: Seed = None) -> None:
        super().__init__()
        self._seed = None if seed is None else seed_number(seed)
        self._seeding = None if self._seed is None else _in_order(self._seed)
        self._entered = False

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function so that every call runs in a new context."""
        _check_function(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with fast_init(self._seed):
                return function(*args, **kwargs)

        return call

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this fast_init was entered before: make a new one for every with")
        self._entered = True
        super().__enter__()
        local.seedings.append(self._seeding)
        return self

    def __exit__(self, *error: Any) -> None:
        local.seedings.pop()
        super().__exit__(*error)

    def __torch_function__(
        self, func: Function, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if is_dynamo_compiling():
            return func(*args, **(kwargs or {}))
        asked = question(func)
        if asked is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        known = _KNOWN.get(func)
        if known is not None and "tensor" in kwargs:
            return (known if _takes(kwargs["tensor"]) else func)(**kwargs)
        if asked in _METHODS:
            own, tensor = METHODS[asked], args[0]
            if (
                _takes(tensor)
                and not (tensor.requires_grad and torch.is_grad_enabled())
                and not sys._getframe(1).f_code.co_filename.startswith(_GENERATED)
            ):
                return _METHODS[asked](own, args, kwargs)
            return own(*args, **kwargs)
        if func in _PASSES:
            super().__enter__()
            try:
                return _unasking(func)(*args, **kwargs)
            finally:
                super().__exit__(None, None, None)
        if asked is WHOLE or asked == "is_meta":
            found = arrival(asked, args, kwargs, sys._getframe(1))
            if found is not None:
                if found.name in _ENTRIES and _takes(found.arguments["tensor"]):
                    _ENTRIES[found.name](**found.arguments)
                    return found.answer
                if asked is WHOLE:  # the name may be bound to another function
                    func = _TORCH[found.name]
        return func(*args, **kwargs)


def _unasking(func: Function) -> Function:
    """Copy a torch function without its initial call of the modes.

    A mode is disabled while it handles a call. Functions that torch.utils.checkpoint runs again in
    a backward pass would then draw torch's numbers, not those of the first run.
    """
    assert isinstance(func, FunctionType)
    asks_no_one = dict.fromkeys(("has_torch_function", "has_torch_function_unary"), _no)
    copy = FunctionType(
        func.__code__,
        func.__globals__ | asks_no_one,
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _no(tensors: object) -> bool:
    return False


def _takes(tensor: Any) -> bool:
    """Return whether to call this package's functions, which pass other tensors on to torch."""
    if is_plain(tensor):
        return on_host(tensor) or has_kernels(tensor)
    return is_sharded(tensor)  # on any device: torch's own numbers would depend on the layout


def _check_function(function: object) -> None:
    """Refuse to decorate a function whose body does not run during the call."""
    if not inspect.isroutine(function):
        raise TypeError(f"fast_init decorates functions, got {function!r}")
    if (
        inspect.isgeneratorfunction(function)
        or inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(
            f"fast_init cannot decorate {function.__name__}, whose body runs after the call: "
            "use with inside it"
        )


def _in_order(key: int) -> Seeding:
    """Return a seeding that gives the streams 0, 1, 2, ... of a seed in turn."""
    streams = itertools.count()

    def seeding(tensor: Tensor) -> tuple[int, int]:
        if torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "fast_init(seed=...) was to draw in a backward pass, where "
                "torch.utils.checkpoint runs a function again: its numbers would not be those of "
                "the first time. Use fast_init() and torch.manual_seed"
            )
        return key, next(streams)

    return seeding


def _uniform(own: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Replace `Tensor.uniform_`."""

    def read(
        tensor: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None
    ) -> tuple[Any, ...]:
        return tensor, a, b, generator

    bounds = {"from": "a", "to": "b"}  # `from` is a Python keyword, so it cannot be a parameter
    try:
        arguments = read(*args, **{bounds.get(key, key): kwargs[key] for key in kwargs})
    except TypeError:
        return own(*args, **kwargs)
    return init.uniform_(*arguments)


def _normal(own: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Replace `Tensor.normal_`."""

    def read(
        tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
    ) -> tuple[Any, ...]:
        return tensor, mean, std, generator

    try:
        arguments = read(*args, **kwargs)
    except TypeError:
        return own(*args, **kwargs)
    return init.normal_(*arguments)


_METHODS = {"uniform_": _uniform, "normal_": _normal}
