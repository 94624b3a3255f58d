"""The functions of ``torch.nn.init``, with its names, arguments, results, errors and warnings.

Each has the additional arguments ``seed`` and ``name``. Tensors and arguments that this package
does not support are passed to torch's own function, so that the errors are torch's too. A `DTensor`
is never passed on: torch's numbers would depend on its layout.
"""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache, wraps
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.init import calculate_gain, constant, eye
from torch.overrides import handle_torch_function, has_torch_function_unary

from winit_fast._core import Distribution
from winit_fast.base.dtypes import largest
from winit_fast.initializers.constants import Identity
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.fans import fans
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.sparse import Sparse
from winit_fast.initializers.variance_scaling import GlorotNormal
from winit_fast.streams import distributions
from winit_fast.streams.identity import Seed
from winit_fast.streams.truncation import relative_bounds
from winit_fast.torch.draw import fill_by, fill_elementwise
from winit_fast.torch.entries import originals
from winit_fast.torch.memory import FLOATS, fillable, watched
from winit_fast.torch.placements import is_sharded, parts
from winit_fast.torch.seeding import Name, key_and_name

__all__ = [
    "calculate_gain",
    "constant",
    "constant_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "sparse",
    "sparse_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]

_TORCH = SimpleNamespace(**originals())
"""Torch's own functions, for tensors that this package does not fill."""

constant_ = _TORCH.constant_
ones_ = _TORCH.ones_
zeros_ = _TORCH.zeros_

P = ParamSpec("P")
R = TypeVar("R")


def _overridable(function: Callable[P, R]) -> Callable[P, R]:
    """Let torch's modes and tensor subclasses override a function, as they can torch's own."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        tensor = args[0] if args else kwargs.get("tensor")
        if has_torch_function_unary(tensor):
            result: R = handle_torch_function(call, (tensor,), *args, **kwargs)
            return result
        return function(*args, **kwargs)

    return call


def _deprecated(function: Callable[P, R]) -> Callable[P, R]:
    """Make the deprecated function whose name has no underscore, from before torch 0.4."""
    new = function.__name__
    old = new.removesuffix("_")

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        warnings.warn(
            f"`nn.init.{old}` is now deprecated in favor of `nn.init.{new}`.",
            FutureWarning,
            stacklevel=2,
        )
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = old
    call.__doc__ = f"Deprecated: `{new}` by its name of before torch 0.4."
    return call


def _real(value: Any) -> float:
    """Convert a value to a float if torch would: a tensor with one element too, but not a str."""
    if isinstance(value, (float, int, np.number, Tensor)):
        return float(value)
    raise TypeError(f"expected a number, got {value!r}")


_REFUSALS = TypeError, ValueError, OverflowError, ZeroDivisionError, RuntimeError


def _ours(tensor: Tensor, generator: Any, seed: Seed) -> bool:
    """Return whether this package fills a tensor; if not, torch does, or it is an error."""
    if seed is not None and generator is not None:
        raise ValueError("give generator= or seed=, not both")
    if fillable(tensor):
        return generator is None or (
            isinstance(generator, Generator) and generator.device.type == tensor.device.type
        )
    if is_sharded(tensor):
        return not tensor.is_meta and _has_fillable_parts(tensor)
    if seed is not None and not tensor.is_meta:
        watcher = watched()
        if watcher is not None:
            raise RuntimeError(
                f"seed={seed!r} asks for numbers that {watcher} would not see drawn: "
                "leave it out, or fill the tensor outside"
            )
        raise TypeError(
            f"seed= is for strided tensors of the types {_types()}, "
            f"got a {type(tensor).__name__} of {tensor.dtype} with layout {tensor.layout}"
        )
    return False


def _has_fillable_parts(tensor: Tensor) -> bool:
    """Say yes, or refuse a DTensor: torch's own numbers would be those of the layout."""
    watcher = watched()
    if watcher is not None:
        raise RuntimeError(
            f"a DTensor of shape {tuple(tensor.shape)} is filled without an operation that "
            f"{watcher} would see: fill it outside"
        )
    for part, _ in parts(tensor):
        if not fillable(part):
            raise TypeError(
                f"a DTensor must have strided memory of the types {_types()} to be filled, "
                f"got one of {part.dtype} with layout {part.layout}"
            )
    return True


def _types() -> str:
    return ", ".join(kind.name for kind in FLOATS.values())


def _draw(
    tensor: Tensor,
    make: Callable[..., Distribution],
    parameters: tuple[float, ...],
    generator: Generator | None,
    seed: Seed,
    name: Name,
    peer: Callable[..., Tensor],
    warning: str | None = None,
) -> Tensor:
    """Fill a tensor with independent draws.

    Parameters
    ----------
    make : callable
        Makes a distribution from a dtype and the parameters, or raises an error.
    peer : callable
        Torch's function with the same parameters, for tensors that this package does not fill.
    warning : str, optional
        A warning to issue if this package fills the tensor; torch's function has its own.
    """
    target = _parts(tensor) if make is _normal and tensor.is_complex() else tensor
    if not _ours(target, generator, seed):
        return tensor if is_sharded(tensor) else peer(tensor, *parameters, generator=generator)
    try:
        numbers = [p if type(p) is float else _real(p) for p in parameters]
        if target is not tensor:
            numbers[1] /= math.sqrt(2.0)  # the variances of both parts add up to std^2
        distribution = make(FLOATS[target.dtype].dtype, *numbers)
    except _REFUSALS:
        if tensor.itemsize > 1:  # torch cannot draw in 8 bits
            if seed is None and not is_sharded(tensor):
                return peer(tensor, *parameters, generator=generator)
            # Raises torch's error, if it has one.
            peer(torch.empty(0, dtype=tensor.dtype, device=tensor.device), *parameters)
        raise
    if warning:
        warnings.warn(warning, stacklevel=4)
    if tensor.numel():
        fill_elementwise(target, distribution, *key_and_name(tensor, generator, seed, name))
    return tensor


def _parts(tensor: Tensor) -> Tensor:
    """View a complex tensor as a real one of shape (*shape, 2), if its memory allows that."""
    if tensor.is_conj() or tensor.layout is not torch.strided or watched() or is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return torch.view_as_real(tensor)


def _apply(
    tensor: Tensor,
    make: Callable[[], Initializer],
    axis: int | None,
    generator: Generator | None,
    seed: Seed,
    name: Name,
    peer: Callable[[Tensor], Tensor],
) -> Tensor:
    """Fill a tensor with a scheme that is not elementwise; ``axis`` as in `fill_by`."""
    if not _ours(tensor, generator, seed):
        return tensor if is_sharded(tensor) else peer(tensor)
    try:
        initializer = make()
        key, name = key_and_name(tensor, generator, seed, name)
        fill_by(tensor, initializer, key, name, axis)
    except _REFUSALS:
        if is_sharded(tensor):
            raise
        if seed is None:
            return peer(tensor)
        peer(torch.empty_like(tensor))  # raises torch's error, if it has one
        raise
    return tensor


# Cached for small calls, in which computing the kernel's constants would dominate.
_normal = lru_cache(distributions.normal)


@lru_cache
def _uniform(dtype: np.dtype[Any], low: float, high: float) -> Distribution:
    """Uniform numbers in [low, high); as in torch, ``low`` if both are equal."""
    if max(-low, high) > largest(dtype):
        raise ValueError(f"a and b must be numbers of the tensor's type, got {low} and {high}")
    if low == high:
        return distributions.normal(dtype, low, 0.0)
    return distributions.uniform(dtype, low, high)


@lru_cache
def _truncated_normal(
    dtype: np.dtype[Any], mean: float, std: float, a: float, b: float
) -> Distribution:
    """Normal numbers in [a, b], with bounds converted to standard deviations from the mean."""
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")
    return distributions.truncated_normal(dtype, mean, std, *relative_bounds(mean, std, a, b))


@lru_cache(maxsize=1024)
def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Compute the fans of a shape (out, in, *kernel)."""
    if len(shape) < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, "
            f"got shape {tuple(shape)}"
        )
    return fans(shape, in_axis=1, out_axis=0)


@lru_cache(maxsize=1024)
def _xavier_std(shape: tuple[int, ...]) -> float:
    """Compute the standard deviation for a gain of 1, with the bits of torch's result."""
    _fans(shape)
    return GlorotNormal(in_axis=1, out_axis=0).stddev(shape)


def _is_torchs(tensor: Tensor, seed: Seed) -> bool:
    """Return whether torch's function must run: while tracing, or for a tensor without elements."""
    own = tensor.numel() == 0 or (seed is None and watched() is not None)
    return own and not is_sharded(tensor)


_known_gain = lru_cache(calculate_gain, typed=True)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = _fans(tensor.shape)[mode == "fan_out"]
    known = type(nonlinearity) is str and type(a) in (int, float)
    gain = _known_gain(nonlinearity, a) if known else calculate_gain(nonlinearity, a)
    return float(gain / math.sqrt(fan))


def _is_empty(tensor: Tensor) -> bool:
    """Warn of a tensor without elements, with the stack level that torch uses."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=4)
        return True
    return False


@_overridable
def uniform_(
    tensor: Tensor,
    a: float = 0.0,
    b: float = 1.0,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor from the uniform distribution on [a, b). No dtype ever gives ``b``.

    Parameters
    ----------
    tensor : Tensor
        With any strides, and a floating-point type of docs/contract.md. Torch itself fills a tensor
        of another type or kind. Of a DTensor each rank fills the part that it holds, in any
        layout; a seed must be given.
    a, b : float
        Finite, a <= b; if they are equal, all elements are ``a``.
    generator : torch.Generator, optional
        By default torch's own, which `torch.manual_seed` seeds. It draws 64 bits, the key of the
        stream, whatever the tensor's size.
    seed : int, numpy.random.SeedSequence or numpy.random.Generator, optional
        Used instead of a generator: the numbers of the frozen stream, equal on every machine.
    name : str or int, optional
        The tensor's name, or its stream id.

    Returns
    -------
    Tensor
        ``tensor``.

    Raises
    ------
    RuntimeError, TypeError
        Like torch's function, but before an element is written.

    See Also
    --------
    winit_fast.RandomUniform

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> w = torch.empty(3, 5)
    >>> winit_fast.torch.uniform_(w, -1, 1, seed=0, name="fc.weight") is w
    True
    """
    return _draw(tensor, _uniform, (a, b), generator, seed, name, _TORCH.uniform_)


@_overridable
def normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor from the normal distribution.

    Parameters
    ----------
    tensor, generator, seed, name
        As in `uniform_`.
    mean : float
    std : float
        At least 0.

    Returns
    -------
    Tensor
        The same.

    See Also
    --------
    winit_fast.RandomNormal

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> _ = torch.manual_seed(0)
    >>> first = winit_fast.torch.normal_(torch.empty(3, 5, dtype=torch.bfloat16), std=0.02)
    >>> _ = torch.manual_seed(0)
    >>> bool((first == winit_fast.torch.normal_(torch.empty_like(first), std=0.02)).all())
    True
    """
    return _draw(tensor, _normal, (mean, std), generator, seed, name, _TORCH.normal_)


@_overridable
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor from the normal distribution truncated to two absolute bounds.

    Parameters
    ----------
    tensor, generator, seed, name
        As in `uniform_`.
    mean, std : float
        Of the normal distribution before truncation.
    a, b : float
        Absolute bounds, not in standard deviations. They hold in every dtype and may be infinite.

    Returns
    -------
    Tensor
        The same.

    Warns
    -----
    UserWarning
        If the mean is more than 2 std from [a, b], as in torch, although here the distribution is
        correct in this case too.

    Notes
    -----
    Computed by inversion of the distribution function, with one random word for each element; there
    is no rejection.

    See Also
    --------
    winit_fast.TruncatedNormal : bounds in standard deviations

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> w = winit_fast.torch.trunc_normal_(torch.empty(64, 64), std=0.02, a=-0.04, b=0.04, seed=0)
    >>> bool(w.abs().max() <= 0.04)
    True
    """
    warning = None
    if (mean < a - 2 * std) or (mean > b + 2 * std):
        warning = f"mean {mean} is more than 2 std from [a, b] = [{a}, {b}]"
    return _draw(
        tensor, _truncated_normal, (mean, std, a, b), generator, seed, name,
        _TORCH.trunc_normal_, warning,
    )  # fmt: skip


@_overridable
def xavier_uniform_(
    tensor: Tensor,
    gain: float = 1.0,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor (out, in, ...) from U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)).

    Parameters
    ----------
    tensor, generator, seed, name
        As in `uniform_`.
    gain : float
        At least 0: see ``calculate_gain``.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    ValueError
        If the tensor has fewer than 2 axes.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, eq. 16.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> w = winit_fast.torch.xavier_uniform_(torch.empty(30, 20), seed=0)
    >>> bool(w.abs().max() <= (6 / 50) ** 0.5)
    True
    """
    if _is_torchs(tensor, seed):
        return _TORCH.xavier_uniform_(tensor, gain, generator)
    bound = math.sqrt(3.0) * (gain * _xavier_std(tensor.shape))
    return _draw(tensor, _uniform, (-bound, bound), generator, seed, name, _TORCH.uniform_)


@_overridable
def xavier_normal_(
    tensor: Tensor,
    gain: float = 1.0,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor (out, in, ...) from N(0, std^2), std = gain sqrt(2 / (fan_in + fan_out)).

    Parameters
    ----------
    tensor, gain, generator, seed, name
        As in `xavier_uniform_`.

    Returns
    -------
    Tensor
        The same.

    References
    ----------
    Glorot and Bengio, AISTATS 2010, eq. 12.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> winit_fast.torch.xavier_normal_(torch.empty(30, 20, 3, 3), seed=0).shape
    torch.Size([30, 20, 3, 3])
    """
    if _is_torchs(tensor, seed):
        return _TORCH.xavier_normal_(tensor, gain, generator)
    std = gain * _xavier_std(tensor.shape)
    return _draw(tensor, _normal, (0.0, std), generator, seed, name, _TORCH.normal_)


@_overridable
def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor (out, in, ...) from U(-bound, bound), bound = gain sqrt(3 / fan).

    Parameters
    ----------
    tensor, generator, seed, name
        As in `uniform_`.
    a : float
        Negative slope of the leaky ReLU after the layer.
    mode : str
        The fan to use: "fan_in" or "fan_out".
    nonlinearity : str
        See ``calculate_gain``.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    ValueError
        If the tensor has fewer than 2 axes, or the mode or the nonlinearity is not known.

    Warns
    -----
    UserWarning
        If the tensor has no elements.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015, eq. 10 and 14.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> w = winit_fast.torch.kaiming_uniform_(torch.empty(30, 24), nonlinearity="relu", seed=0)
    >>> bool(w.abs().max() <= 0.5)
    True
    """
    if _is_empty(tensor):
        return tensor
    if _is_torchs(tensor, seed):
        return _TORCH.kaiming_uniform_(tensor, a, mode, nonlinearity, generator)
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return _draw(tensor, _uniform, (-bound, bound), generator, seed, name, _TORCH.uniform_)


@_overridable
def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor (out, in, ...) from N(0, std^2), std = gain / sqrt(fan).

    Parameters
    ----------
    tensor, a, mode, nonlinearity, generator, seed, name
        As in `kaiming_uniform_`.

    Returns
    -------
    Tensor
        The same.

    References
    ----------
    He et al., ICCV 2015, eq. 10 and 14.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> w = torch.nn.Parameter(torch.empty(64, 3, 7, 7))
    >>> w = winit_fast.torch.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", seed=0)
    >>> w.requires_grad, w.grad_fn
    (True, None)
    """
    if _is_empty(tensor):
        return tensor
    if _is_torchs(tensor, seed):
        return _TORCH.kaiming_normal_(tensor, a, mode, nonlinearity, generator)
    std = _kaiming_std(tensor, a, mode, nonlinearity)
    return _draw(tensor, _normal, (0.0, std), generator, seed, name, _TORCH.normal_)


@_overridable
def orthogonal_(
    tensor: Tensor,
    gain: float = 1,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a tensor, viewed as a matrix (size(0), -1), with a random semi-orthogonal matrix.

    Parameters
    ----------
    tensor, generator, seed, name
        As in `uniform_`. For float16, bfloat16 and float8, which torch refuses, the float32 matrix
        is rounded.
    gain : float

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    ValueError
        If the tensor has fewer than 2 axes.

    Notes
    -----
    The matrix is Haar-distributed, and computed from reflectors, without QR: see
    `winit_fast.Orthogonal`.

    References
    ----------
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> q = winit_fast.torch.orthogonal_(torch.empty(16, 8, 3, 3), seed=0).flatten(1)
    >>> bool((q @ q.T - torch.eye(16)).abs().max() < 1e-5)
    True
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_ needs at least 2 axes, got shape {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        return tensor
    return _apply(
        tensor,
        lambda: Orthogonal(_real(gain), column_axis=0),
        # The pieces are whole columns of the tall matrix, which cost no more than all at once.
        0 if tensor.numel() >= tensor.shape[0] ** 2 else 1,
        generator, seed, name,
        lambda own: _TORCH.orthogonal_(own, gain, generator),
    )  # fmt: skip


@wraps(_TORCH.eye_)
def eye_(tensor: Tensor) -> Tensor:
    if not is_sharded(tensor):
        result: Tensor = _TORCH.eye_(tensor)
        return result
    if tensor.ndim != 2:
        raise ValueError(f"eye_ needs 2 axes, got shape {tuple(tensor.shape)}")
    return _fill_parts(tensor, Identity())


def _fill_parts(tensor: Tensor, initializer: Initializer) -> Tensor:
    """Fill a DTensor by a scheme that draws nothing: torch's own moves it, or refuses."""
    if _ours(tensor, None, None):
        fill_by(tensor, initializer, 0, None)
    return tensor


@_overridable
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight (out, in, ...) so that it copies its input channels.

    Parameters
    ----------
    tensor : Tensor
        With 3, 4 or 5 axes.
    groups : int
        Number of groups of the layer.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    ValueError
        If the tensor has another number of axes, or the groups do not divide its outputs.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> winit_fast.torch.dirac_(torch.empty(2, 2, 3))
    tensor([[[0., 1., 0.],
             [0., 0., 0.]],
            [[0., 0., 0.],
             [0., 1., 0.]]])
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"dirac_ needs 3, 4 or 5 axes, got shape {tuple(tensor.shape)}")
    out, inputs, *kernel = tensor.shape
    if out % groups != 0:
        raise ValueError(f"dim 0 must be divisible by groups, got {out} and groups={groups}")
    if is_sharded(tensor):
        return _fill_parts(tensor, Dirac(groups, in_axis=1, out_axis=0))
    per_group = out // groups
    with torch.no_grad():
        tensor.zero_()
        if min(per_group, inputs) > 0:
            centre = tensor[(slice(None), slice(None), *(extent // 2 for extent in kernel))]
            for group in range(groups):
                own = centre[group * per_group : (group + 1) * per_group]
                own.diagonal().fill_(1)
    return tensor


@_overridable
def sparse_(
    tensor: Tensor,
    sparsity: float,
    std: float = 0.01,
    generator: Generator | None = None,
    *,
    seed: Seed = None,
    name: Name = None,
) -> Tensor:
    """Fill a matrix from N(0, std^2), with ceil(sparsity * rows) zeros in every column.

    Parameters
    ----------
    tensor, generator, seed, name
        As in `uniform_`. The positions of the zeros are drawn from the same key.
    sparsity : float
        Fraction of zeros in a column.
    std : float
        Standard deviation of the other elements.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    ValueError
        If the tensor does not have 2 axes.

    See Also
    --------
    winit_fast.Sparse

    References
    ----------
    Martens, "Deep learning via Hessian-free optimization", ICML 2010.

    Examples
    --------
    >>> import torch, winit_fast.torch
    >>> w = winit_fast.torch.sparse_(torch.empty(50, 20), sparsity=0.9, seed=0)
    >>> (w == 0).sum(0).unique().item()
    45
    """
    if tensor.ndim != 2:
        raise ValueError(f"sparse_ needs 2 axes, got shape {tuple(tensor.shape)}")
    return _apply(
        tensor,
        lambda: Sparse(_real(sparsity), _real(std)),
        1,  # a piece must have whole columns, since the zeros of a column are chosen together
        generator, seed, name,
        lambda own: _TORCH.sparse_(own, sparsity, std, generator),
    )  # fmt: skip


uniform = _deprecated(uniform_)
normal = _deprecated(normal_)
dirac = _deprecated(dirac_)
xavier_uniform = _deprecated(xavier_uniform_)
xavier_normal = _deprecated(xavier_normal_)
kaiming_uniform = _deprecated(kaiming_uniform_)
kaiming_normal = _deprecated(kaiming_normal_)
orthogonal = _deprecated(orthogonal_)
sparse = _deprecated(sparse_)
