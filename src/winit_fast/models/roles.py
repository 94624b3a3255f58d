"""Roles: what each tensor does in its model, whatever the model calls it.

They follow from the tensors' names by the naming scheme that knows the most of them, so one rule
fits the models of many families.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from winit_fast.base.formulas import Number, evaluate
from winit_fast.base.names import excerpt
from winit_fast.initializers.fans import TORCH, fans, without_batch
from winit_fast.models.naming import Layout, Naming, guesses, namings
from winit_fast.models.tensor_spec import TensorSpec

_STACKS = ("encoder", "decoder")

_DIGITS = re.compile(r"\d+")

_BIAS = re.compile(r"([._])bias$")

OF_THE_MODEL = ("layers", "encoder_layers", "decoder_layers", "width")
"""The numbers of a whole model that follow from the names and shapes of its tensors."""

NUMBERS = (*OF_THE_MODEL, "layer", "fan_in", "fan_out")
"""All numbers that follow from names and shapes."""


class Section(NamedTuple):
    """What a tensor has of one role: all of it, or the q of a fused q, k and v.

    Attributes
    ----------
    role : str
    boxes : tuple of (starts, stops)
        The boxes of the tensor that it consists of.
    numbers : dict of str to int
        Its fans, if it has any.
    """

    role: str
    boxes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    numbers: dict[str, Number]


@dataclass(frozen=True)
class Assigned:
    """The roles of one tensor.

    Attributes
    ----------
    template : str
        Its name, with the numbers of the naming scheme in braces.
    stack : str or None
        "encoder" or "decoder" in a model that has both.
    numbers : dict of str to int or float
        Those that follow from the model's tensors, and those that its name has.
    layout : Layout
    sections : tuple of Section
        One, if the tensor is not fused.
    """

    template: str
    stack: str | None
    numbers: dict[str, Number]
    layout: Layout
    sections: tuple[Section, ...]


def assign(
    tensors: Sequence[TensorSpec], given: Mapping[str, Number]
) -> dict[str, Assigned | None]:
    """Find the roles of a model's tensors.

    Parameters
    ----------
    tensors : sequence of TensorSpec
    given : mapping of str to int or float
        Numbers of the model, such as those of its configuration. ``layers`` and ``width`` replace
        the numbers that follow from names and shapes.

    Returns
    -------
    dict of str to (Assigned or None)
        By the tensors' names; None for a tensor whose role is not known.

    Raises
    ------
    ValueError
        If a fused tensor cannot be divided.

    Examples
    --------
    >>> import winit_fast as wf
    >>> tensor = TensorSpec("model.layers.7.mlp.down_proj.weight", (64, 256), wf.Zeros())
    >>> found = assign([tensor], {"layers": 32})[tensor.name]
    >>> found.sections[0].role, found.numbers["layer"], found.sections[0].numbers["fan_in"]
    ('mlp.out', 7, 256)
    """
    fitting = _namings([tensor.name for tensor in tensors])
    found = {tensor.name: _Found.of(tensor, fitting) for tensor in tensors}
    if {one.stack for one in found.values() if one is not None and one.place} != {*_STACKS}:
        found = {name: one and replace(one, stack=None) for name, one in found.items()}
    places: dict[str | None, set[tuple[int, ...]]] = {}
    for one in found.values():
        if one is not None and one.place:
            places.setdefault(one.stack, set()).add(one.place)
    said = {name: number for name, number in given.items() if name in OF_THE_MODEL}
    numbers: dict[str, Number] = {**fitting[0].numbers, **_width(tensors, found), **said}
    if fitting[0].layers is not None and fitting[0].layers in given:
        numbers.setdefault("layers", given[fitting[0].layers])
    counted = {stack: _count(own) for stack, own in places.items()}
    for stack in _STACKS:
        if stack in counted:
            numbers.setdefault(f"{stack}_layers", counted[stack])
    shapes = {name: tensor.shape for tensor in tensors for name in (tensor.name, *tensor.tied)}
    return {
        tensor.name: _assigned(tensor, found[tensor.name], numbers, counted, places, given, shapes)
        for tensor in tensors
    }


@dataclass(frozen=True)
class _Found:
    """What the name of a tensor says.

    Attributes
    ----------
    name : str
        Of several names of a tied tensor, the one that decides.
    weight : str or None
        The name of the weight whose bias the tensor is.
    """

    name: str
    template: str
    numbers: dict[str, int]
    layout: Layout
    stack: str | None
    weight: str | None = None

    @property
    def place(self) -> tuple[int, ...]:
        """The numbers of the layer."""
        return tuple(self.numbers[key] for key in ("stage", "layer") if key in self.numbers)

    @classmethod
    def of(cls, tensor: TensorSpec, fitting: Sequence[Naming]) -> _Found | None:
        found = [cls.by_names(name, fitting) for name in (tensor.name, *tensor.tied)]
        known = [one for one in found if one is not None]
        for one in known:  # a head that is tied to the embedding is the embedding
            if one.layout.roles == ("embedding",):
                return one
        return known[0] if known else cls._by_shape(tensor)

    @classmethod
    def by_names(cls, name: str, fitting: Sequence[Naming]) -> _Found | None:
        """Look a name up in the best naming scheme that knows it: a model may have several."""
        for naming in fitting:
            found = cls._by_name(name, naming)
            if found is not None:
                return found
        return None

    @classmethod
    def _by_name(cls, name: str, naming: Naming) -> _Found | None:
        found = naming.layouts.find(name)
        weight = None
        if found is None and _BIAS.search(name):
            weight = _BIAS.sub(r"\1weight", name)
            found = naming.layouts.find(weight)
        if found is None:
            return None
        layout, template = found.value, found.pattern.template(weight or name)
        if weight is not None:
            layout = layout._replace(roles=tuple(f"{role}.bias" for role in layout.roles))
            template = template.removesuffix("weight") + "bias"
        stack = naming.stacks.find(name)
        return cls(name, template, found.numbers, layout, stack.value if stack else None, weight)

    @classmethod
    def _by_shape(cls, tensor: TensorSpec) -> _Found | None:
        """Find the role of a weight or bias with a name that no scheme has."""
        last = re.split(r"[._]", tensor.name)[-1]
        weight = _BIAS.sub(r"\1weight", tensor.name) if last == "bias" else None
        axes = len(tensor.shape)
        if last == "bias" and axes == 1:
            role = "bias"
        elif last == "weight" and axes >= 2:
            role = "linear" if axes == 2 else "conv"
        else:
            return None
        layout = Layout((role,), (1,), 1, TORCH, 0)
        return cls(tensor.name, tensor.name, {}, layout, None, weight)


def layouts(names: Sequence[str]) -> dict[str, Layout | None]:
    """Find the layouts of a model's tensors, and so their roles, by nothing but their names.

    Parameters
    ----------
    names : sequence of str

    Returns
    -------
    dict of str to (Layout or None)
        Of a name that no naming scheme has, what it most likely means; None if it means nothing.

    Examples
    --------
    >>> found = layouts(["encoder.tok_emb.weight", "encoder.norm.bias", "beta"])
    >>> [one and one.roles for one in found.values()]
    [('embedding',), ('norm.bias',), None]
    """
    fitting = [*_namings(names), guesses()]
    found = {name: _Found.by_names(name, fitting) for name in names}
    return {name: None if one is None else one.layout for name, one in found.items()}


def width(tensors: Sequence[TensorSpec]) -> int | None:
    """Return the width of a model's residual stream, if its tensors show it.

    Examples
    --------
    >>> import winit_fast as wf
    >>> width([TensorSpec("h.0.ln_1.weight", (768,), wf.Ones())])
    768
    """
    fitting = _namings([tensor.name for tensor in tensors])
    found = {tensor.name: _Found.of(tensor, fitting) for tensor in tensors}
    known = _width(tensors, found).get("width")
    return None if known is None else int(known)


def _namings(names: Sequence[str]) -> list[Naming]:
    """List the naming schemes that know some names, first the one that knows the most."""
    like = list({_DIGITS.sub("0", name): name for name in names}.values())
    known = {
        naming.name: sum(naming.layouts.find(name) is not None for name in like)
        for naming in namings().values()
        if all(any(need.match(name) is not None for name in like) for need in naming.needs)
    }
    return [namings()[name] for name in sorted(known, key=lambda name: -known[name])]


def _width(tensors: Iterable[TensorSpec], found: Mapping[str, _Found | None]) -> dict[str, Number]:
    """Find the width of the residual stream: that of most norms, or else of the embedding.

    A model of several stages has several widths, and so none.
    """
    if any(one is not None and "stage" in one.numbers for one in found.values()):
        return {}
    norms: Counter[int] = Counter()
    columns = None
    for tensor in tensors:
        one = found[tensor.name]
        if one is None:
            continue
        if one.layout.roles == ("norm",) and len(tensor.shape) == 1:
            norms[tensor.shape[0]] += 1
        elif one.layout.roles == ("embedding",) and columns is None:
            columns = tensor.shape[-1]
    if norms and norms.most_common(1)[0][1] * 2 > norms.total():
        return {"width": norms.most_common(1)[0][0]}
    return {} if columns is None else {"width": columns}


def _count(places: set[tuple[int, ...]]) -> int:
    """Count layers: also those that are not in this part of a model, if they have one number."""
    if all(len(place) == 1 for place in places):
        return max(places)[0] + 1
    return len(places)


def _assigned(
    tensor: TensorSpec,
    found: _Found | None,
    numbers: Mapping[str, Number],
    counted: Mapping[str | None, int],
    places: Mapping[str | None, set[tuple[int, ...]]],
    given: Mapping[str, Number],
    shapes: Mapping[str, tuple[int, ...]],
) -> Assigned | None:
    if found is None:
        return None
    known: dict[str, Number] = {**numbers, **found.numbers}
    if found.stack in counted or None in counted:
        own = found.stack if found.stack in counted else None
        known["layers"] = given.get("layers", counted[own])
    elif counted and "layers" not in known:  # outside of an encoder and a decoder
        known["layers"] = max(counted.values())
    if len(found.place) > 1:
        known["layer"] = sorted(places[found.stack]).index(found.place)
    sections = _sections(tensor, found, {**given, **known}, shapes)
    return Assigned(found.template, found.stack, known, found.layout, sections)


def _sections(
    tensor: TensorSpec,
    found: _Found,
    numbers: Mapping[str, Number],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[Section, ...]:
    """Divide a tensor into the sections of its layout."""
    layout, shape = found.layout, tensor.shape
    if found.weight is not None:  # the fans of a bias are those of its weight
        of_weight = shapes.get(found.weight)
        own_fans = {} if of_weight is None else fans_of(of_weight, layout)
    else:
        own_fans = fans_of(shape, layout)
        if layout.widens and own_fans and own_fans["fan_out"] <= own_fans["fan_in"]:
            raise ValueError(
                f"tensor {excerpt(tensor.name)} of shape {shape} has the name of a layer whose "
                "weight is (in, out), but another layout: rules of names can say its schemes"
            )
    if len(layout.roles) == 1 or not shape:
        return (Section(layout.roles[0], (((0,) * len(shape), shape),), own_fans),)
    axis = layout.batch
    if found.weight is None and len(shape) > layout.batch + 1:
        axis = without_batch(layout.axes.out_axis, tuple(range(layout.batch)), len(shape))
    axis %= len(shape)
    return _along(tensor, layout, numbers, axis, own_fans)


def _along(
    tensor: TensorSpec,
    layout: Layout,
    numbers: Mapping[str, Number],
    axis: int,
    own_fans: dict[str, Number],
) -> tuple[Section, ...]:
    """Divide a tensor along an axis. Without the numbers that this needs, all is one section."""
    shape = tensor.shape
    try:
        groups = int(evaluate(layout.groups, numbers))
        shares = [int(evaluate(share, numbers)) for share in layout.shares]
    except ValueError:
        of_each = {name: fan for name, fan in own_fans.items() if name != "fan_out"}
        return (Section(" | ".join(layout.roles), (((0,) * len(shape), shape),), of_each),)
    unit, rest = divmod(shape[axis], groups * sum(shares))
    if rest or min(shares) < 1 or groups < 1:
        raise ValueError(
            f"tensor {excerpt(tensor.name)} of shape {shape} cannot be divided into "
            f"{groups} x {sum(shares)} sections along axis {axis}"
        )
    boxes: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = [[] for _ in layout.roles]
    start = 0
    for _ in range(groups):
        for place, share in enumerate(shares):
            stop = start + share * unit
            starts = tuple(start if at == axis else 0 for at in range(len(shape)))
            stops = tuple(stop if at == axis else size for at, size in enumerate(shape))
            boxes[place].append((starts, stops))
            start = stop
    total = sum(shares)
    return tuple(
        Section(
            role,
            tuple(own),
            {**own_fans, "fan_out": own_fans["fan_out"] * share // total} if own_fans else {},
        )
        for role, own, share in zip(layout.roles, boxes, shares, strict=True)
    )


def fans_of(shape: tuple[int, ...], layout: Layout) -> dict[str, Number]:
    """Compute the fans of a weight, ``fan_in`` and ``fan_out``; none of a vector."""
    if len(shape) < layout.batch + 2:
        return {}
    batch = tuple(range(layout.batch))
    if layout.inputs:
        outputs = tuple(axis for axis in range(len(shape)) if axis not in layout.inputs)
        fan_in, fan_out = fans(shape, layout.inputs, outputs, batch)
        return {"fan_in": fan_in, "fan_out": fan_out}
    fan_in, fan_out = fans(
        shape,
        without_batch(layout.axes.in_axis, batch, len(shape)),
        without_batch(layout.axes.out_axis, batch, len(shape)),
        batch,
    )
    return {"fan_in": fan_in, "fan_out": fan_out}
