"""Reduces the recorded value of a tensor to one scheme."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor

from winit_fast.base.boxes import whole
from winit_fast.initializers import constants
from winit_fast.initializers.computed import MAX_SIZE, Computed
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.expression import relative
from winit_fast.initializers.orthogonal import Orthogonal
from winit_fast.initializers.parts import Parts, covers
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.sparse import Sparse
from winit_fast.torch.assembled import assembled
from winit_fast.torch.evaluate import evaluate
from winit_fast.torch.expressions import Given, TorchExpression, numpy_of
from winit_fast.torch.function_mode import truncated
from winit_fast.torch.recorder import CannotRecord
from winit_fast.torch.values import (
    Call,
    Cast,
    Constant,
    Draw,
    Held,
    Patch,
    Region,
    Stored,
    Value,
    View,
    c_strides,
    parts,
)
from winit_fast.torch.written import written


class Reduced(NamedTuple):
    """How one tensor is filled.

    Attributes
    ----------
    scheme : Initializer
    stream : str
        The stream of the tensor's numbers.
    drawn_in : torch.dtype
        The dtype in which the author draws, before rounding to that of the tensor.
    """

    scheme: Initializer
    stream: str
    drawn_in: torch.dtype


class _Leaf(NamedTuple):
    """One scheme for all elements, and the draw that it comes from."""

    scheme: Initializer
    draw: Draw | None
    drawn_in: torch.dtype


class Reduction:
    """Reduces the values of several tensors to schemes, in order.

    Parameters
    ----------
    values : mapping of str to Value
    streams : mapping of str to str
        The streams of the tensors, by tensor name.
    """

    def __init__(self, values: Mapping[str, Value], streams: Mapping[str, str]) -> None:
        values = {name: _written_over(value) for name, value in values.items()}
        self._values = values
        self._names = streams
        self._uses: dict[Draw, list[str]] = {}
        for name, value in values.items():
            for one in parts(value):
                if isinstance(one, Draw):
                    self._uses.setdefault(one, []).append(name)
        self._streams: dict[Draw, str] = {}
        for draw, names in self._uses.items():
            home = draw.home
            if home is not None and len(set(names)) > 1 and (home in names or home not in values):
                self._streams[draw] = streams[home]

    def scheme(self, name: str) -> Reduced:
        """Reduce one tensor's value.

        Raises
        ------
        CannotRecord
            If there is no scheme for the value.
        """
        value = self._values[name]
        stream = self._names[name]
        simple = self._simple(value, stream)
        if simple is not None:
            return simple
        draws = self._check(name, value)
        if not draws:
            return Reduced(_known(value), stream, value.dtype)
        fresh = [draw for draw in draws if draw not in self._streams and draw.own is None]
        alone = len(draws) == 1
        for k, draw in enumerate(draws, 1):
            if draw in fresh:
                self._streams[draw] = stream if alone else f"{stream}\0{k}"
        names = {draw: self._streams[draw] for draw in draws if draw.own is None}
        streams = {draw: relative(own, stream) for draw, own in names.items()}
        scheme: Initializer | None = written(value, streams) or assembled(value, names)
        return Reduced(scheme or TorchExpression(value, streams), stream, value.dtype)

    def _check(self, name: str, value: Value) -> list[Draw]:
        """List an expression's draws in the order of use; refuse unknown values."""
        draws: dict[Draw, None] = {}
        for one in parts(value):
            if isinstance(one, Held):
                if one.name == name:
                    raise CannotRecord(f"{name!r} is filled in part, or from what it held before")
                if not one.name:
                    raise CannotRecord(f"{name!r} is filled from memory that nobody has written")
                raise CannotRecord(f"{name!r} is filled from what {one.name!r} held before")
            if isinstance(one, Draw):
                if one.scheme is None:
                    raise CannotRecord(f"{name!r} is drawn by {one.operation}, which has no scheme")
                draws[one] = None
        return list(draws)

    def _simple(self, value: Value, stream: str) -> Reduced | None:
        """Return the value's only initializer and its stream, if there is just one."""
        leaf = self._leaf(value)
        if leaf is None:
            return self._of_parts(value, stream)
        draw = leaf.draw
        if draw is None:
            return Reduced(leaf.scheme, stream, leaf.drawn_in)
        if draw.own is not None:
            return Reduced(Given(leaf.scheme, *draw.own), stream, leaf.drawn_in)
        uses = self._uses[draw]
        if len(uses) > 1 and math.prod(draw.shape) != math.prod(value.shape):
            return None
        own = self._streams.setdefault(draw, stream)
        if own != stream and draw.shape != value.shape:
            return None
        return Reduced(leaf.scheme, own, leaf.drawn_in)

    def _of_parts(self, value: Value, stream: str) -> Reduced | None:
        """Reduce a value that was written in parts to boxes."""
        pieces: list[tuple[Region, Value]] = []
        base, drawn_in = value, value.dtype
        while isinstance(base, (Patch, Cast)):
            if isinstance(base, Cast):
                if base.shape != base.value.shape:
                    return None
                base = base.value
                continue
            pieces.append((base.region, base.value))
            base = base.base
        if not pieces or base.shape != value.shape:
            return None
        if not isinstance(base, Held):
            pieces.append((Region(value.shape, c_strides(value.shape), 0), base))
        found: list[tuple[Any, _Leaf]] = []
        for region, piece in reversed(pieces):
            box, leaf = region.box(value.shape), self._leaf(piece)
            if box is None or leaf is None:
                return None
            if leaf.draw is not None and not self._fits(leaf, piece, region, value, stream):
                return None
            found.append((box, leaf))
        if not covers([box for box, _ in found], whole(value.shape)):
            return None
        kinds = {leaf.drawn_in for _, leaf in found if leaf.draw is not None}
        if len(kinds) > 1:
            return None
        drawn_in = kinds.pop() if kinds else value.dtype
        for _, leaf in found:
            if leaf.draw is not None:
                self._streams[leaf.draw] = stream
        first = found[0][1]
        if all(leaf.scheme == first.scheme for _, leaf in found) and (
            first.draw is None or first.draw.is_elementwise
        ):
            return Reduced(first.scheme, stream, drawn_in)
        scheme = Parts(tuple((*box, leaf.scheme) for box, leaf in found))
        return Reduced(scheme, stream, drawn_in)

    def _fits(self, leaf: _Leaf, piece: Value, region: Region, tensor: Value, stream: str) -> bool:
        """Return whether a draw may use the tensor's stream at the indices of its elements."""
        draw = leaf.draw
        assert draw is not None
        if draw.own is not None or self._streams.get(draw, stream) != stream:
            return False
        if not draw.is_elementwise:
            # Its indices count from 0 in the box, in the order of its axes.
            return len(self._uses[draw]) == 1 and region.in_order() and draw.shape == region.sizes
        if len(self._uses[draw]) == 1:
            return True
        at_home = isinstance(piece, View) and piece.base is draw and piece.region == region
        return draw.shape == tensor.shape and (at_home or piece is draw)

    def _leaf(self, value: Value) -> _Leaf | None:
        """Return the only scheme of all elements, if there is just one."""
        if isinstance(value, Constant):
            if isinstance(value.number, complex):
                return None
            number = float(value.number)
            if number == 0 and math.copysign(1, number) < 0:  # no scheme gives -0.0
                return None
            return _Leaf(_of_number(number), None, value.dtype)
        if isinstance(value, Draw):
            return None if value.scheme is None else _Leaf(value.scheme, value, value.dtype)
        if isinstance(value, Cast):
            inner = self._leaf(value.value)
            return inner if math.prod(value.shape) == math.prod(value.value.shape) else None
        if isinstance(value, View):
            inner = self._leaf(value.base)
            if inner is None or inner.draw is None or not inner.draw.is_elementwise:
                return None
            distinct = value.region.is_whole(value.base.shape) or (
                value.region.box(value.base.shape) is not None
            )
            return inner if distinct else None
        if isinstance(value, Call):
            return self._call(value)
        return None

    def _call(self, call: Call) -> _Leaf | None:
        name = call.function._schema.name.removeprefix("aten::").removesuffix("_")
        first, *rest = call.args or (None,)
        if not isinstance(first, Value) or first.shape != call.shape:
            if name in ("mul", "add") and rest and isinstance(rest[0], Value):
                first, rest = rest[0], [first, *rest[1:]]  # number * tensor or number + tensor
            else:
                return None
        if first.shape != call.shape or (inner := self._leaf(first)) is None or inner.draw is None:
            return None
        if name in ("clone", "contiguous", "_to_copy", "alias", "detach"):
            return inner
        numbers = [_number(one) for one in rest]
        if None in numbers or any(_number(one) is None for one in call.kwargs.values()):
            return None
        scheme = _changed(name, inner.scheme, numbers, {**call.kwargs})
        return None if scheme is None else inner._replace(scheme=scheme)


def _written_over(value: Value) -> Value:
    """Drop the previous value of a tensor if all of it has been overwritten in parts."""
    if isinstance(value, Cast):
        inner = _written_over(value.value)
        return value if inner is value.value else replace(value, value=inner)
    chain: list[Patch] = []
    base = value
    while isinstance(base, Patch):
        chain.append(base)
        base = base.base
    if not isinstance(base, Held) or not chain or math.prod(value.shape) > _MAX_WRITTEN:
        return value
    written = torch.zeros(value.shape, dtype=torch.bool, device="cpu")
    for one in chain:
        written.as_strided(*one.region).fill_(True)
    if not bool(written.all()):
        return value
    result: Value = Constant(base.shape, base.dtype, 0)
    for one in reversed(chain):
        result = replace(one, base=result)
    return result


_MAX_WRITTEN = 1 << 26
"""Up to this number of elements, each element of a tensor is checked for a write."""


def _number(value: Any) -> float | None:
    if isinstance(value, Constant) and not isinstance(value.number, complex):
        value = value.number
    return float(value) if isinstance(value, (int, float)) else None


def _of_number(number: float) -> Initializer:
    return {0.0: constants.Zeros(), 1.0: constants.Ones()}.get(number, constants.Constant(number))


def _known(value: Value) -> Initializer:
    """Return a constant or the stored values of a value without draws."""
    known = evaluate(value, {})
    scheme = _constant(known)
    if scheme is not None:
        return scheme
    known = known.to(value.dtype)
    if known.numel() <= MAX_SIZE:
        return Computed(numpy_of(known))
    return TorchExpression(Stored(value.shape, value.dtype, known), {})


def _constant(known: Tensor) -> Initializer | None:
    """Return a constant if all elements are one number."""
    if not known.numel() or known.is_complex():
        return None
    first = known.reshape(-1)[0]
    number = float(first)
    if not bool((known == first).all()) or number != first.item():
        return None
    if number == 0 and known.is_floating_point() and bool(known.double().signbit().any()):
        return None
    return _of_number(number)


_Scheme = Initializer | None


def _changed(
    name: str, scheme: Initializer, numbers: list[float | None], kwargs: dict[str, Any]
) -> _Scheme:
    """Apply an operation with numbers to a scheme."""
    if name == "erfinv" and isinstance(scheme, RandomUniform):
        low, high = (_quantile(bound) for bound in (scheme.minval, scheme.maxval))
        return TruncatedNormal(0.0, math.sqrt(0.5), low, high)
    if name in ("clamp", "clip", "clamp_min", "clamp_max"):
        return _clamped(name, scheme, numbers, kwargs)
    by = numbers[0] if numbers else kwargs.get("other")
    if name == "neg":
        return _affine(scheme, -1.0, 0.0)
    if by is None:
        return None
    alpha = float(kwargs["alpha"]) if "alpha" in kwargs else 1.0
    if name == "mul":
        return _affine(scheme, by, 0.0)
    if name in ("div", "true_divide") and by and kwargs.get("rounding_mode") is None:
        return _affine(scheme, 1.0 / by, 0.0, by)
    if name in ("add", "sub"):
        return _affine(scheme, 1.0, alpha * by if name == "add" else -alpha * by)
    return None


def _quantile(bound: float) -> float:
    """sqrt(2) erfinv of a bound: a normal's quantile."""
    if abs(bound) >= 1:
        return math.copysign(math.inf, bound)
    return NormalDist().inv_cdf((1 + bound) / 2)


def _affine(scheme: Initializer, scale: float, shift: float, divisor: float = 0.0) -> _Scheme:
    """Return the scheme of scale x + shift."""

    def times(number: float) -> float:
        return number / divisor if divisor else number * scale

    if scale < 0 or not (math.isfinite(scale) and math.isfinite(shift)):
        return None
    if isinstance(scheme, RandomNormal):
        return RandomNormal(times(scheme.mean) + shift, times(scheme.stddev))
    if isinstance(scheme, RandomUniform):
        low, high = times(scheme.minval) + shift, times(scheme.maxval) + shift
        return RandomUniform(low, high) if low < high else None
    if isinstance(scheme, TruncatedNormal):
        stddev = times(scheme.stddev)
        if scheme.stddev == math.sqrt(0.5):  # from erfinv_, whose factor contains a rounded sqrt(2)
            stddev = float(f"{scale / math.sqrt(2):.15g}")
        return replace(scheme, mean=times(scheme.mean) + shift, stddev=stddev)
    if shift or not isinstance(scheme, (Orthogonal, Sparse, Dirac, constants.Identity)):
        return None
    return scheme.scaled(scale) if scale else constants.Zeros()


def _clamped(
    name: str, scheme: Initializer, numbers: list[float | None], kwargs: dict[str, Any]
) -> _Scheme:
    """Clamp a scheme whose bounds are already these, except for rounding."""
    given = [*numbers, None, None][:2]
    low = kwargs.get("min", given[0] if name != "clamp_max" else None)
    high = kwargs.get("max", given[1] if name != "clamp_max" else given[0])
    if isinstance(scheme, RandomUniform):
        inside = (low is None or low <= scheme.minval) and (high is None or scheme.maxval <= high)
        return scheme if inside else None
    if not isinstance(scheme, TruncatedNormal) or not scheme.stddev:
        return None
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    mean, std, mass = scheme.mean, scheme.stddev, NormalDist().cdf
    cut = max(0.0, mass((low - mean) / std) - mass(scheme.low))
    cut += max(0.0, mass(scheme.high) - mass((high - mean) / std))
    if cut > 1e-9 * (mass(scheme.high) - mass(scheme.low)):
        return None
    own_low, own_high = mean + scheme.low * std, mean + scheme.high * std
    near = 1e-6 * std
    return truncated(
        mean,
        std,
        low if low > own_low - near else own_low,
        high if high < own_high + near else own_high,
    )
