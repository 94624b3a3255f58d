"""The facts about a network's weights, from a plan or a checkpoint and its configuration.

What is an embedding or a head follows from the naming schemes (``models/data/naming``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from winit_fast.advice.examination import EMBEDDING, LINEAR, OTHER, WeightFacts
from winit_fast.checkpoint.expectation import moments
from winit_fast.checkpoint.statistics import Statistics
from winit_fast.models.naming import Layout
from winit_fast.models.plan import Plan
from winit_fast.models.roles import fans_of, layouts

_SCALED_IF_TIED = {"t5", "umt5", "longt5", "switch_transformers", "pop2piano", "udop"}


def of_plan(plan: Plan, configuration: Mapping[str, Any] | None = None) -> list[WeightFacts]:
    """List the weights of a plan, with the deviations that their schemes will give.

    Parameters
    ----------
    plan : winit_fast.Plan
    configuration : mapping, optional
        The content of config.json.

    Returns
    -------
    list of WeightFacts
        Without tensors that have fewer than two axes or whose deviation is not known, and without
        norms.

    Examples
    --------
    >>> import winit_fast as wf
    >>> from winit_fast.models import TensorSpec
    >>> plan = wf.Plan([TensorSpec("wte.weight", (1000, 64), wf.RandomNormal(0, 1.0))])
    >>> [(one.name, one.is_head) for one in of_plan(plan, {"tie_word_embeddings": True})]
    [('wte.weight', True)]
    """
    rows = []
    for tensor in plan:
        known = moments(tensor.initializer, tensor.shape)
        if known is not None and tensor.kind != "non-persistent buffer":
            rows.append((tensor.name, tensor.shape, *known, 0, tuple(tensor.tied)))
    return _facts(rows, configuration or {})


def of_checkpoint(
    tensors: Iterable[Statistics], configuration: Mapping[str, Any] | None = None
) -> list[WeightFacts]:
    """List the weights of a checkpoint, with the deviations that were measured.

    Parameters
    ----------
    tensors : iterable of winit_fast.checkpoint.Statistics
        What `winit_fast.checkpoint.inspect` found.
    configuration : mapping, optional
        The content of config.json.

    Returns
    -------
    list of WeightFacts
        Without tensors that have fewer than two axes, or whose elements are integers or not whole
        bytes, and without norms. One without finite elements counts with mean and deviation 0.
    """
    rows = []
    for one in tensors:
        if one.dtype[0] in "IU" or one.dtype == "BOOL":
            continue
        if one.mean is None or one.deviation is None:
            if not one.not_finite:
                continue
            rows.append((one.name, one.shape, 0.0, 0.0, one.not_finite, ()))
        else:
            rows.append((one.name, one.shape, one.mean, one.deviation, one.not_finite or 0, ()))
    return _facts(rows, configuration or {})


def configuration_of(path: str) -> dict[str, Any]:
    """Read the config.json that is in a folder, or beside a file; without one it is empty."""
    place = Path(path)
    file = (place if place.is_dir() else place.parent) / "config.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _facts(rows: list[tuple[Any, ...]], configuration: Mapping[str, Any]) -> list[WeightFacts]:
    known = layouts([name for row in rows for name in (row[0], *row[-1])])
    roles = {name: "" if one is None else one.roles[0] for name, one in known.items()}
    has_norms = any(role.startswith("norm") for role in roles.values())
    has_head = "head" in roles.values()
    is_tied = bool(configuration.get("tie_word_embeddings", False))
    words = next((name for name, role in roles.items() if role == "embedding"), None)
    is_transposed = any(
        layout.widens and _narrows(row[1], layout)
        for row in rows
        if (layout := known[row[0]]) is not None
    )
    found = []
    for name, shape, mean, deviation, not_finite, tied in rows:
        role, layout = roles[name], known[name]
        if len(shape) < 2 or not math.prod(shape) or role.startswith("norm"):
            continue
        is_table = len(shape) == 2 and name.endswith("weight")
        is_embedding = is_table and (role == "embedding" or role.startswith("position"))
        is_head = any(roles[one] == "head" for one in (name, *tied))
        if name == words and is_tied and not has_head:
            is_head = True
        fan_in, fan_out = _fans(shape, None if is_transposed else layout)
        found.append(
            WeightFacts(
                name,
                tuple(shape),
                _kind(name, shape, is_embedding),
                fan_in,
                fan_out,
                mean,
                deviation,
                normalised=has_norms,
                is_head=is_head,
                may_be_zero=is_head and not is_embedding,
                not_finite=not_finite,
                head_factor=head_factor(configuration),
            )
        )
    return found


def _kind(name: str, shape: tuple[int, ...], is_embedding: bool) -> str:
    if is_embedding:
        return EMBEDDING
    is_scale = shape[:2] == (1, 1)  # of channels that are the last axis
    return LINEAR if name.endswith("weight") and not is_scale else OTHER


def _narrows(shape: tuple[int, ...], layout: Layout) -> bool:
    """Return whether a layer that has more outputs than inputs is stored the other way round."""
    fans = fans_of(shape, layout)
    return bool(fans) and fans["fan_out"] <= fans["fan_in"]


def _fans(shape: tuple[int, ...], layout: Layout | None) -> tuple[int, int]:
    """Return the fans of a weight: (out, in, *kernel), unless the naming scheme says otherwise."""
    known = {} if layout is None else fans_of(shape, layout)
    if known:
        return int(known["fan_in"]), int(known["fan_out"])
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def head_factor(configuration: Mapping[str, Any]) -> float:
    """Return the factor by which models of transformers multiply logits besides the head.

    Examples
    --------
    >>> head_factor({"model_type": "t5", "tie_word_embeddings": True, "d_model": 64})
    0.125
    >>> head_factor({"model_type": "granite", "logits_scaling": 8.0})
    0.125
    """
    kind, width = str(configuration.get("model_type")), configuration.get("d_model")
    is_tied = bool(configuration.get("tie_word_embeddings", True))
    is_scaled = configuration.get("scale_decoder_outputs", kind in _SCALED_IF_TIED and is_tied)
    if is_scaled and isinstance(width, int):
        return float(width**-0.5)
    factor = configuration.get("logit_scale") if kind.startswith("cohere") else None
    divisor = configuration.get("logits_scaling") if kind.startswith("granite") else None
    return abs(float(factor or 1.0) / float(divisor or 1.0))
