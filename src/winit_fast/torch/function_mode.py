"""Records the calls of torch's functions that say more than the operations below them."""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import TruncatedNormal
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.sparse import Sparse
from winit_fast.streams.identity import seed_number
from winit_fast.streams.truncation import relative_bounds
from winit_fast.torch.entries import WHOLE, arrival, originals, question
from winit_fast.torch.recorder import CannotRecord, Recorder, known
from winit_fast.torch.values import Constant, Stored, elements

_SCHEMES: dict[str, Callable[[Mapping[str, Any]], Initializer]] = {
    "trunc_normal_": lambda given: truncated(given["mean"], given["std"], given["a"], given["b"]),
    "orthogonal_": lambda given: Orthogonal(float(given["gain"]), column_axis=0),
    "sparse_": lambda given: Sparse(float(given["sparsity"]), float(given["std"])),
    "dirac_": lambda given: Dirac(int(given["groups"]), in_axis=1, out_axis=0),
}
"""Entries of torch.nn.init that consist of several operations."""

_READERS = {"numpy", "__array__", "tolist", "__dlpack__", "share_memory_"}
"""Methods that access memory without an operation."""


def truncated(mean: float, std: float, a: float, b: float) -> Initializer:
    """Return the scheme of a normal truncated to absolute bounds.

    Examples
    --------
    >>> truncated(0.0, 0.5, -1.0, 1.0)
    TruncatedNormal(stddev=0.5)
    """
    mean, std, a, b = float(mean), float(std), float(a), float(b)
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")
    return TruncatedNormal(mean, std, *relative_bounds(mean, std, a, b))


class FunctionMode(TorchFunctionMode):
    """Intercepts the calls of torch's functions, and of this package's."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = question(func)
        if asked in _LOOKED_AT:
            come = arrival(asked, args, kwargs, sys._getframe(1))
            if come is not None:
                if come.name in _SCHEMES:
                    return self._fill(come.name, come.arguments)
                # Call torch's original: transformers may have bound the name to another function.
                func, args, kwargs = _torch()[come.name], (), come.arguments
        if getattr(func, "__module__", None) == "winit_fast.torch.init":
            args = args or (kwargs.pop("tensor"),)
            return self._ours(func.__name__, *args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _READERS and args and self._recorder.find(args[0]) is not None:
            return self._read(name, func, args, kwargs)
        if name in ("tensor", "as_tensor") and getattr(torch, name) == func:
            return self._known(func, args, kwargs)
        if name == "__set__" and func == _SET_DATA:
            return self._set_data(*args)
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs)

    def _read(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Let code read elements that are known, but not write them."""
        memory, value = self._recorder.find(args[0]), self._recorder.read(args[0])
        assert memory is not None
        if memory.name is not None or not isinstance(value, (Constant, Stored)):
            raise CannotRecord(f"{name}() reaches the memory of {memory.what}")
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            result = func(elements(value).clone(), *args[1:], **kwargs)
        if isinstance(result, np.ndarray):
            result.flags.writeable = False
        return result

    def _known(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record the known elements of a meta tensor that is made from numbers."""
        with torch._C.DisableTorchFunction():
            result = func(*args, **kwargs)
            if not result.is_meta or any(isinstance(one, Tensor) for one in args[:1]):
                return result
            with _disable_current_modes():
                made = func(*args, **{**kwargs, "device": "cpu"})
                return self._recorder.fresh(result, known(made), result.device)

    def _fill(self, name: str, arguments: Mapping[str, Any]) -> Any:
        tensor = arguments["tensor"]
        with torch._C.DisableTorchFunction():
            if tensor.numel():
                self._recorder.draw(tensor, _SCHEMES[name](arguments), name)
        return True  # torch asked for is_meta; True makes its function return the tensor unchanged

    def _ours(self, entry: str, tensor: Tensor, /, *args: Any, **kwargs: Any) -> Tensor:
        """Record a call of this package's own function of the same name."""
        seed, stream = kwargs.pop("seed", None), kwargs.pop("name", None)
        if seed is None:
            with self:
                _torch()[entry](tensor, *args, **kwargs)
        else:
            with self._recorder.given(seed_number(seed), stream), self:
                _torch()[entry](tensor, *args, **kwargs)
        return tensor

    def _set_data(self, tensor: Tensor, other: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            recorder = self._recorder
            memory = recorder.find(tensor)
            new = recorder.find(other)
            if (memory is None or memory.name is None) and (new is None or new.name is None):
                if other.is_meta != tensor.is_meta:  # known numbers, which were computed
                    other = recorder.fresh(other, recorder.read(other), tensor.device)
                tensor.data = other
                return
            if memory is None:
                memory = recorder.promote(tensor)
            if other.shape != tensor.shape or other.dtype != tensor.dtype:
                raise CannotRecord(
                    f".data of {memory.what} is set to shape {tuple(other.shape)} of {other.dtype}"
                )
            recorder.write(tensor, recorder.read(other))


_SET_DATA = Tensor.data.__set__
_LOOKED_AT = {"is_meta", WHOLE}
"""The functions that carry more information than the operations below them."""


@cache
def _torch() -> dict[str, Callable[..., Any]]:
    return originals()
