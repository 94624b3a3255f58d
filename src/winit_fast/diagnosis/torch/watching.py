"""Shows the outputs of a module's layers, activations and normalisations while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import Module
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from winit_fast.diagnosis.rows import ACTIVATION, LAYER, NORM
from winit_fast.diagnosis.torch.undisturbed import floats
from winit_fast.torch.names import modules


@dataclass
class Seen:
    """An output that was seen.

    Attributes
    ----------
    name, kind, type
        As in `winit_fast.diagnosis.Row`.
    output : Tensor
    module : torch.nn.Module or None
        None for a function.
    activation, param
        As in `winit_fast.diagnosis.Row`.
    bounds : tuple of float
        The values at which the activation saturates.
    channels : bool
        Whether the units are along axis 1, as after a convolution; else they are along the last.
    before
        As in `winit_fast.diagnosis.Row`.
    """

    name: str
    kind: str
    type: str
    output: Tensor
    module: Module | None
    activation: str | None = None
    param: float | None = None
    bounds: tuple[float, ...] = ()
    channels: bool = False
    before: str | None = None


_PASSING = frozenset((
    "flatten", "reshape", "view", "permute", "transpose", "contiguous", "squeeze", "unsqueeze",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout", "clone",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "swapaxes", "movedim",
))  # fmt: skip
"""Functions that pass a signal on, without a change of its scale that would matter."""

_FUNCTIONS = {
    "relu": "relu", "relu6": "relu6", "leaky_relu": "leaky_relu", "leakyrelu": "leaky_relu",
    "prelu": "prelu", "elu": "elu",
    "celu": "celu", "selu": "selu", "gelu": "gelu", "silu": "silu", "mish": "mish", "tanh": "tanh",
    "sigmoid": "sigmoid", "softplus": "softplus", "softsign": "softsign", "hardtanh": "hard_tanh",
    "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid", "logsigmoid": "log_sigmoid",
    "tanhshrink": "tanh_shrink",
}  # fmt: skip
"""Functions and lower-case classes of torch, with their names in `winit_fast.gain`."""

_CLASSES = {
    "NewGELUActivation": "gelu_new", "GELUActivation": "gelu", "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh", "QuickGELUActivation": "quick_gelu", "SiLUActivation": "silu",
    "ReLUSquaredActivation": "relu_squared", "MishActivation": "mish",
}  # fmt: skip
"""Classes of transformers."""

_BOUNDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "hard_tanh": (-1.0, 1.0),
           "hard_sigmoid": (0.0, 1.0), "softsign": (-1.0, 1.0), "relu6": (6.0,)}  # fmt: skip


def activation_of(module: Module) -> tuple[str, float | None] | None:
    """Return an activation module's name in `winit_fast.gain` and its parameter, or None.

    Examples
    --------
    >>> activation_of(nn.LeakyReLU(0.2)), activation_of(nn.GELU(approximate="tanh"))
    (('leaky_relu', 0.2), ('gelu_tanh', None))
    """
    kind = type(module).__name__
    name = _CLASSES.get(kind)
    if name is None and type(module).__module__.startswith("torch.nn"):
        name = _FUNCTIONS.get(kind.lower())
    if name is None:
        return None
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        name = "gelu_tanh"
    return name, _param(module)


def _param(module: Module) -> float | None:
    if isinstance(module, nn.LeakyReLU):
        return float(module.negative_slope)
    if isinstance(module, (nn.ELU, nn.CELU)):
        return float(module.alpha)
    if isinstance(module, nn.Softplus):
        return float(module.beta)
    if isinstance(module, nn.PReLU) and module.weight.numel() == 1:
        return float(module.weight.detach())
    return None


def weight_of(module: Module) -> Tensor | None:
    """Return the weight by which a layer's output is multiplied: that of at least two axes."""
    if isinstance(module, nn.MultiheadAttention):
        return module.out_proj.weight
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.ndim > 1 else None


def fans_of(module: Module, weight: Tensor) -> tuple[int, int]:
    """Return the fans of a layer's weight.

    Examples
    --------
    >>> layer = nn.Conv2d(8, 16, 3, groups=2)
    >>> fans_of(layer, layer.weight)
    (36, 72)
    """
    taps = math.prod(weight.shape[2:])
    if isinstance(module, nn.modules.conv._ConvNd):
        groups = module.groups
        return module.in_channels // groups * taps, module.out_channels // groups * taps
    if is_transposed(module):
        return int(weight.shape[0]), int(weight.shape[1])
    return int(weight.shape[1]) * taps, int(weight.shape[0]) * taps


def layers(module: Module) -> list[tuple[str, Module]]:
    """List the modules that hold parameters and run as one: layers and normalisations."""
    return [
        (name, one)
        for name, one in modules(module)
        if is_parametrised(one)
        or (
            any(held is not None for held in one._parameters.values())
            and (isinstance(one, nn.MultiheadAttention) or not one._modules or is_norm(one))
            and activation_of(one) is None
        )
    ]


def is_parametrised(module: Module) -> bool:
    """Return whether a layer's weight is computed by `torch.nn.utils.parametrize`.

    Examples
    --------
    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    >>> is_parametrised(layer), [name for name, _ in layers(nn.Sequential(layer))]
    (True, ['0'])
    """
    return list(module._modules) == ["parametrizations"] and weight_of(module) is not None


def is_sequence(module: Module) -> bool:
    """Return whether a module runs its children one after another, as an ``nn.Sequential`` does.

    Its class may be another one: ``fully_shard`` makes one of its own.
    """
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_transposed(module: Module) -> bool:
    """Return whether a layer is the linear layer of transformers with a weight of (in, out)."""
    is_named = any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)
    return is_named and not isinstance(module, nn.Conv1d)


def is_norm(module: Module) -> bool:
    """Return whether a module normalises: it is called a norm, and has a scale of its own."""
    scale = module._parameters.get("weight")
    is_called = "norm" in type(module).__name__.lower()
    return is_called and (scale is None or scale.ndim < 2)


@contextmanager
def watched(
    module: Module, see: Callable[[Seen], None], inputs: Iterable[Tensor] = ()
) -> Iterator[MutableMapping[Tensor, str]]:
    """Call a function with every output, in the order of execution.

    Parameters
    ----------
    module : torch.nn.Module
    see : callable
        Takes a `Seen`, whose output has just been computed.
    inputs : iterable of Tensor
        The tensors of the batch.

    Yields
    ------
    mapping
        From tensors to the names of the outputs that they are.
    """
    sources: MutableMapping[Tensor, str] = WeakIdKeyDictionary()
    for one in inputs:
        sources[one] = ""
    times: dict[str, int] = {}
    state: dict[str, Any] = {"last": "", "channels": False, "inside": 0}
    handles = []

    def numbered(name: str) -> str:
        times[name] = times.get(name, 0) + 1
        return name if times[name] == 1 else f"{name} #{times[name]}"

    def shown(seen: Seen, given: Any) -> None:
        seen.before = next((sources[one] for one in floats(given) if one in sources), None)
        sources[seen.output] = seen.name
        see(seen)

    def layer_hook(name: str) -> Callable[..., None]:
        def hook(one: Module, args: Any, kwargs: Any, output: Any) -> None:
            found = floats(output)
            if not found:
                return
            is_convolution = isinstance(one, nn.modules.conv._ConvNd)
            kind = NORM if is_norm(one) else LAYER
            if kind == LAYER:
                state["channels"] = is_convolution
            state["last"] = called = numbered(name)
            shown(Seen(called, kind, type(one).__name__, found[0], one,
                       channels=state["channels"]), (args, kwargs))  # fmt: skip

        return hook

    def enter(one: Module, inputs: Any) -> None:
        state["inside"] += 1

    def activation_hook(name: str, known: tuple[str, float | None]) -> Callable[..., None]:
        def hook(one: Module, inputs: Any, output: Any) -> None:
            state["inside"] -= 1
            if isinstance(output, Tensor):
                shown(_activation(numbered(name), type(one).__name__, output, one, *known), inputs)

        return hook

    def _activation(name: str, kind: str, output: Tensor, one: Module | None, known: str,
                    param: float | None) -> Seen:  # fmt: skip
        return Seen(name, ACTIVATION, kind, output, one, known, param, _BOUNDS.get(known, ()),
                    state["channels"])  # fmt: skip

    class Functions(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            output = function(*args, **(kwargs or {}))
            if state["inside"] or not isinstance(output, Tensor):
                return output
            kind = getattr(function, "__name__", "").removesuffix("_")
            known = _FUNCTIONS.get(kind)
            if kind in _PASSING and args and isinstance(args[0], Tensor) and args[0] in sources:
                sources[output] = sources[args[0]]
            if known is not None:
                if known == "gelu" and (kwargs or {}).get("approximate") == "tanh":
                    known = "gelu_tanh"
                param = _slope(known, args, kwargs or {})
                name = numbered(f"{state['last']} > {kind}" if state["last"] else kind)
                shown(_activation(name, kind, output, None, known, param), args)
            return output

    for name, one in modules(module):
        known = activation_of(one)
        if known is not None:
            handles.append(one.register_forward_pre_hook(enter))
            handles.append(one.register_forward_hook(activation_hook(name, known)))
    for name, one in layers(module):
        handles.append(one.register_forward_hook(layer_hook(name), with_kwargs=True))
    try:
        with Functions():
            yield sources
    finally:
        for handle in handles:
            handle.remove()


def _slope(known: str, args: Any, kwargs: Any) -> float | None:
    """Return the parameter of a function's call, where it is given."""
    name = {"leaky_relu": "negative_slope", "elu": "alpha", "celu": "alpha", "softplus": "beta"}
    if known not in name:
        return None
    value = kwargs.get(name[known], args[1] if len(args) > 1 else None)
    return float(value) if isinstance(value, (int, float)) else None
