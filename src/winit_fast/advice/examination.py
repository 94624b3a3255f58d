"""What is set badly in a network's weights, what follows from it, and the schemes that mend it.

Nothing here needs the network: only facts about its weights, in the order in which they are used.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from winit_fast.initializers.activations import ALSO_EXACT, activation_function
from winit_fast.initializers.elementwise import RandomNormal
from winit_fast.initializers.mean_square import mean_square
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.variance_scaling import HeNormal, VarianceScaling

LINEAR, EMBEDDING, OTHER = KINDS = ("linear", "embedding", "other")
"""What a weight is: it multiplies a signal (convolutions too), has rows to be looked up, else."""

_SHRINKS, _GROWS = 0.1, 10.0
"""Factors of a signal's deviation, over the whole depth, that are reported."""

_OFF = 1.2
"""Factor by which a layer's mean square must change for the layer to be part of the reason."""

_LOGITS = 3.0
"""Deviation of the logits that is reported: their loss is then far above ln V."""

_NEAR = 0.06
"""Relative distance of a deviation from that of a shard's fans."""


@dataclass(frozen=True)
class WeightFacts:
    """One weight of a network.

    Attributes
    ----------
    name : str
    shape : tuple of int
    kind : {"linear", "embedding", "other"}
    fan_in, fan_out : int
    mean, deviation : float
        Of its elements, as measured or expected by its scheme.
    before : str or None
        The activation whose output is this layer's input, by a name that `winit_fast.gain` knows;
        "linear" if there is none, as in the first layer; None if it is not known.
    normalised : bool
        Whether the layer's output is normalised, or its input is.
    is_head : bool
        Whether its output is the logits of a classification among its rows.
    may_be_zero : bool
        Whether it may start at zero: the last layer of a residual branch, or of a network.
    not_finite : int
        Number of elements that are NaN or infinite.
    path : int
        The same number for layers that pass one signal on, each to the next.
    is_branch : bool
        Whether the path ends in a sum, so that a small signal does no harm.
    head_factor : float
        Of a head: the factor by which the logits are multiplied besides.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    fan_in: int
    fan_out: int
    mean: float
    deviation: float
    before: str | None = None
    normalised: bool = False
    is_head: bool = False
    may_be_zero: bool = False
    not_finite: int = 0
    path: int = 0
    is_branch: bool = False
    head_factor: float = 1.0


@dataclass(frozen=True)
class Finding:
    """Something that is set badly.

    Attributes
    ----------
    name : str
        The weight.
    problem : str
    consequence : str
    remedy : Initializer or None
        The scheme that mends it, with its axes left to the framework's convention.
    source : str
    """

    name: str
    problem: str
    consequence: str
    remedy: Initializer | None
    source: str

    def __str__(self) -> str:
        mend = f"; use {self.remedy}" if self.remedy is not None else ""
        return f"{self.name}: {self.problem}: {self.consequence}{mend} [{self.source}]"


def examine(weights: Sequence[WeightFacts]) -> list[Finding]:
    """Find what is set badly.

    Parameters
    ----------
    weights : sequence of WeightFacts
        In the order in which the network uses them.

    Returns
    -------
    list of Finding
        At most one for each weight, in the same order.

    Notes
    -----
    It looks for weights that are not finite; weights that are all zero or all equal, except where
    a zero start is meant; embeddings and heads whose logits are far too large; layers whose
    deviation is that of a part of their fans, as if each shard had used its own; and, where no
    normalisation hides it, for layers of one path that together make a signal's deviation ten times
    larger or smaller.

    Examples
    --------
    >>> layers = [
    ...     WeightFacts(f"{i}.weight", (64, 64), "linear", 64, 64, 0.0, 0.125, "relu")
    ...     for i in range(60)
    ... ]
    >>> first = examine(layers)[0]
    >>> first.name, first.remedy
    ('0.weight', HeNormal())
    >>> first.consequence
    'signals become 9.31e-10 times as large in 60 layers'
    """
    found: dict[str, Finding] = {}

    def add(finding: Finding) -> None:
        found.setdefault(finding.name, finding)

    for weight in weights:
        for finding in _broken(weight):
            add(finding)
        for finding in _logits(weight):
            add(finding)
    sound = [weight for weight in weights if weight.name not in found]
    for finding in (*_shards(sound), *_scale(sound)):
        add(finding)
    return [found[weight.name] for weight in weights if weight.name in found]


def remedy(weight: WeightFacts) -> Initializer | None:
    """Return the scheme that keeps the mean square of signals in a layer, or None if unknown.

    Examples
    --------
    >>> remedy(WeightFacts("fc.weight", (8, 8), "linear", 8, 8, 0.0, 1.0, "gelu"))
    HeNormal(nonlinearity='gelu')
    """
    if weight.kind == EMBEDDING:
        return RandomNormal(0.0, 0.02)
    if weight.kind != LINEAR:
        return None
    if weight.before is None or weight.before == "linear":
        return VarianceScaling(1.0, "fan_in", "normal")
    exact = _EXACT.get(weight.before, weight.before)
    return HeNormal(nonlinearity=exact)


_EXACT = {name: f"{name}_exact" for name in ALSO_EXACT}
"""The names of gains that are computed, where the plain name means PyTorch's."""


def _broken(weight: WeightFacts) -> list[Finding]:
    """Find elements that are not finite, and weights without differences."""
    name, size = weight.name, math.prod(weight.shape)
    if weight.not_finite:
        return [Finding(name, f"{weight.not_finite:,} of {size:,} elements are not finite",
                        "every output is NaN or infinite", remedy(weight),
                        "memory that was never filled, or an overflow")]  # fmt: skip
    if size < 2 or weight.deviation != 0 or weight.kind == OTHER:
        return []
    if weight.mean == 0:
        if weight.may_be_zero:
            return []
        return [Finding(name, "all elements are 0",
                        "no signal passes, and neither this layer nor those before it learn",
                        remedy(weight), "Goodfellow et al., 2016, section 8.4")]  # fmt: skip
    return [Finding(name, f"all elements are {weight.mean:.4g}",
                    "all its units stay equal", remedy(weight),
                    "Goodfellow et al., 2016, section 8.4")]  # fmt: skip


def _logits(weight: WeightFacts) -> list[Finding]:
    """Find heads, often tied to embeddings, whose logits are too large at the start."""
    if not weight.is_head:
        return []
    width = weight.shape[-1] if weight.kind == EMBEDDING else weight.fan_in
    deviation = weight.deviation * math.sqrt(width) * weight.head_factor
    if deviation <= _LOGITS:
        return []
    rows = math.prod(weight.shape) // width
    loss = _loss(deviation, rows)
    return [Finding(
        weight.name,
        f"deviation {weight.deviation:.4g} with {width} inputs of mean square 1",
        f"logits have a deviation of {deviation:.3g}, so the first loss is about {loss:.3g} "
        f"instead of ln {rows} = {math.log(rows):.3g}",
        RandomNormal(0.0, float(f"{1 / math.sqrt(width) / weight.head_factor:.3g}")),
        "Press and Wolf, EACL 2017; Vaswani et al., 2017, section 3.4",
    )]  # fmt: skip


def _loss(deviation: float, classes: int) -> float:
    """Return the cross-entropy of normal logits: E[ln sum exp], bounded by the largest of them."""
    return min(math.log(classes) + deviation**2 / 2, deviation * math.sqrt(2 * math.log(classes)))


def _template(name: str) -> str:
    return re.sub(r"(?<![^\W_])\d+(?![^\W_])", "*", name)


def _shards(weights: Sequence[WeightFacts]) -> list[Finding]:
    """Find deviations that fit a half, quarter, ... of the fans, beside like layers that do not."""
    groups: dict[tuple[str, str | None], list[WeightFacts]] = {}
    for weight in weights:
        if weight.kind == LINEAR and weight.deviation > 0:
            groups.setdefault((_template(weight.name), weight.before), []).append(weight)
    result = []
    for group in groups.values():
        for weight, ratio in zip(group, _ratios(group), strict=True):
            cut = 2 ** round(math.log2(ratio)) if ratio > 0 else 0
            if abs(ratio - 1) < 4 * _NEAR or not cut:
                continue
            if abs(math.sqrt(ratio) - 1) < 5 / math.sqrt(2 * math.prod(weight.shape)):
                continue  # a measured deviation may be as far off by chance
            if cut >= 2 and abs(math.sqrt(ratio / cut) - 1) <= _NEAR:
                text = f"the deviation is that of fan_in / {cut}, {weight.fan_in} // {cut} = "
                text += f"{weight.fan_in // cut}: the fans of a shard?"
            else:
                text = f"the deviation is {math.sqrt(ratio):.3g} times that of the like layers"
            result.append(
                Finding(
                    weight.name,
                    text,
                    f"its output is {math.sqrt(ratio):.3g} times as large",
                    _as_the_others(weight, weight.deviation * math.sqrt(weight.fan_in / ratio)),
                    "Megatron-Bridge #5840: fans must be those of the logical tensor",
                )
            )
    return result


def _ratios(group: Sequence[WeightFacts]) -> list[float]:
    """Return the square of each deviation, relative to what most of the like layers have.

    Theirs may go with fan_in, with fan_out (as in ResNets; PyTorch's does not divide by the groups
    of a convolution), or be the same for all. If most agree with none of these, as with rules that
    depend on the layer's number, all ratios are 1.
    """
    found = [1.0] * len(group)
    most = len(group) // 2
    for squares in (
        [weight.deviation**2 * weight.fan_in for weight in group],
        [weight.deviation**2 * weight.fan_out for weight in group],
        [weight.deviation**2 * weight.shape[0] * math.prod(weight.shape[2:]) for weight in group],
        [weight.deviation**2 for weight in group],
    ):
        usual = statistics.median(squares)
        ratios = [square / usual for square in squares]
        alike = sum(abs(math.sqrt(ratio) - 1) <= _NEAR for ratio in ratios)
        if alike > most:
            found, most = ratios, alike
    return found


def _as_the_others(weight: WeightFacts, usual: float) -> Initializer:
    """Return the scheme of the like layers: the usual scheme if that is what they have."""
    by_gain = remedy(weight)
    if isinstance(by_gain, VarianceScaling) and abs(usual / math.sqrt(by_gain.scale) - 1) < _NEAR:
        return by_gain
    return VarianceScaling(float(f"{usual**2:.3g}"), "fan_in", "normal")


def _scale(weights: Sequence[WeightFacts]) -> list[Finding]:
    """Find the layers that together make signals vanish or explode, on every path."""
    paths: dict[int, list[tuple[WeightFacts, float]]] = {}
    for weight in weights:
        if (
            weight.kind == LINEAR and weight.before is not None and weight.deviation > 0
            and not weight.normalised and not weight.is_head
        ):  # fmt: skip
            paths.setdefault(weight.path, []).append((weight, _factor(weight)))
    return [finding for chain in paths.values() for finding in _along(chain)]


def _along(chain: list[tuple[WeightFacts, float]]) -> list[Finding]:
    total = math.fsum(math.log(factor) for _, factor in chain) / 2  # of the deviation
    if math.log(_SHRINKS) < total < math.log(_GROWS):
        return []
    if total < 0 and (chain[0][0].is_branch or all(weight.may_be_zero for weight, _ in chain)):
        return []
    layers = "a layer" if len(chain) == 1 else f"{len(chain)} layers"
    size = math.exp(total) if abs(total) < 700 else math.inf if total > 0 else 0.0
    return [
        Finding(
            weight.name,
            f"deviation {weight.deviation:.4g} after {weight.before}, where "
            f"{weight.deviation / math.sqrt(factor):.4g} keeps the mean square",
            f"signals become {size:.3g} times as large in {layers}",
            remedy(weight),
            "He et al., ICCV 2015, section 2.2",
        )
        for weight, factor in chain
        if abs(math.log(factor)) > math.log(_OFF) and (factor > 1) == (total > 0)
    ]


def _factor(weight: WeightFacts) -> float:
    """Return the factor by which a layer multiplies the mean square, for an input of 1."""
    assert weight.before is not None
    square = mean_square(activation_function(weight.before))
    return weight.deviation**2 * weight.fan_in * square
