"""Existing code made fast: torch's own override mechanism brings its calls here."""

import itertools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Self

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.streams.stream import Seed, seed_number
from winit_fast.torch import init
from winit_fast.torch.memory import fill_by, fillable, is_plain, on_host
from winit_fast.torch.source import Source, key_and_name, local

Function = Callable[..., Any]

_REPLACED: dict[Function, Function] = {
    getattr(torch.nn.init, name): getattr(init, name)
    for name in ("uniform_", "normal_", "kaiming_uniform_")
}
"""Functions of torch.nn.init that ask the modes before they begin: they are replaced wholly.

The others call `Tensor.normal_` or `Tensor.uniform_`, or one of these, for their numbers.
"""

_TRUNC_NORMAL: CodeType = torch.nn.init._no_grad_trunc_normal_.__code__
_ORTHOGONAL: CodeType = torch.nn.init.orthogonal_.__code__


class fast_init(TorchFunctionMode):  # named like torch.no_grad
    """Make ``model = Model()`` fast: a context in which torch fills weights on this core.

    Inside, and in this thread only, the functions of ``torch.nn.init`` and `Tensor.normal_` and
    `Tensor.uniform_` fill CPU tensors of float64, float32, float16, bfloat16, float8_e4m3fn and
    float8_e5m2 by this package. All else is torch's as before: other devices (meta as well), other
    types, subclasses of Tensor that override functions, and functions that make tensors
    (`torch.randn`).

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        By default `torch.manual_seed` governs: every tensor takes 64 bits of torch's generator.
        With a seed, torch's generator is left alone, and the tensors have the streams 0, 1, 2, ...
        of this seed in the order in which they are filled. A call's own ``generator=`` goes before
        either.

    Notes
    -----
    The distributions are torch's, the numbers are not. Contexts may be nested: the innermost
    counts. It is a `torch.overrides.TorchFunctionMode`; nothing is patched. Two functions of
    ``torch.nn.init`` have a slow part that no mode sees as a whole: ``trunc_normal_`` draws again
    what falls outside, and ``orthogonal_`` factors its draws. They are recognised by who calls:
    the former is handed a truncated normal, of which nothing falls outside, and the latter an
    orthogonal matrix, which is its own Q.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> with winit_fast.torch.fast_init(seed=0):
    ...     first = torch.nn.Linear(1000, 1000)
    >>> with winit_fast.torch.fast_init(seed=0):
    ...     again = torch.nn.Linear(1000, 1000)
    >>> bool((first.weight == again.weight).all())
    True
    """

    def __init__(self, seed: Seed = None) -> None:
        super().__init__()
        self._source = None if seed is None else _in_order(seed_number(seed))

    def __enter__(self) -> Self:
        super().__enter__()
        local.sources.append(self._source)
        return self

    def __exit__(self, *error: Any) -> None:
        local.sources.pop()
        super().__exit__(*error)

    def __torch_function__(
        self, func: Function, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _REPLACED:
            if self._takes(kwargs["tensor"]):
                return _REPLACED[func](**kwargs)
        elif func in _METHODS:
            if self._takes(args[0]) and not (args[0].requires_grad and torch.is_grad_enabled()):
                return _METHODS[func](_caller(sys._getframe(1)), func, args, kwargs)
        elif func is torch.linalg.qr and _caller(sys._getframe(1)).f_code is _ORTHOGONAL:
            (matrix,) = args
            if self._takes(matrix):  # so what it was filled with is orthogonal already
                return matrix, torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        return func(*args, **kwargs)

    def _takes(self, tensor: Any) -> bool:
        """Tell whether this core is to fill a tensor."""
        return is_plain(tensor) and fillable(tensor) and on_host(tensor)


def _in_order(key: int) -> Source:
    """Number the streams of a seed as they are asked for."""
    streams = itertools.count()
    return lambda tensor: (key, next(streams))


def _caller(frame: FrameType) -> FrameType:
    """Find who called a function of torch: other modes may stand between."""
    while frame.f_code.co_name == "__torch_function__" and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _uniform(caller: FrameType, own: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Do what `Tensor.uniform_` does."""

    def read(
        tensor: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None
    ) -> tuple[Any, ...]:
        return tensor, a, b, generator

    bounds = {"from": "a", "to": "b"}  # a keyword of Python's cannot be a parameter's name
    try:
        arguments = read(*args, **{bounds.get(key, key): kwargs[key] for key in kwargs})
    except TypeError:
        return own(*args, **kwargs)
    return init.uniform_(*arguments)


def _normal(caller: FrameType, own: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Do what `Tensor.normal_` does, or what its caller is about to do with the numbers."""

    def read(
        tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
    ) -> tuple[Any, ...]:
        return tensor, mean, std, generator

    try:
        tensor, mean, std, generator = read(*args, **kwargs)
    except TypeError:
        return own(*args, **kwargs)
    if caller.f_code is _TRUNC_NORMAL:
        bounds = caller.f_locals["a"], caller.f_locals["b"]
        return init.trunc_normal_(tensor, mean, std, *bounds, generator)
    if caller.f_code is _ORTHOGONAL:
        key, name = key_and_name(caller.f_locals["tensor"], generator, None, None)
        fill_by(tensor, Orthogonal(column_axis=0), key, name)
        return tensor
    return init.normal_(tensor, mean, std, generator)


_METHODS = {Tensor.uniform_: _uniform, Tensor.normal_: _normal}
