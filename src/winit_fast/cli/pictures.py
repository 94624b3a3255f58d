"""Plots of a checkpoint: histograms of every kind of tensor, and deviations by depth."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from winit_fast.checkpoint import Statistics

_PANELS = 23
"""Number of kinds of tensors with a histogram; the largest kinds are chosen."""

_BARS = 60
"""Number of bars of a histogram."""

_WITHIN = 0.9995
"""Fraction of the elements that a histogram shows."""


Groups = Sequence[tuple[str, list["Statistics"]]]
"""Tensors of one kind in all layers, with their common name."""


def draw(groups: Groups, path: str, title: str) -> None:
    """Plot the result of `winit_fast.checkpoint.inspect`, which must include histograms.

    Parameters
    ----------
    groups : sequence of (str, list of Statistics)
        By layer.
    path : str
        Ends in .png, .svg or .html.
    title : str
    """
    figure = _figure(groups, title)
    kind = Path(path).suffix.lower()
    if kind == ".png":
        FigureCanvasAgg(figure)
        figure.savefig(path, format="png", dpi=110)
        return
    FigureCanvasSVG(figure)
    text = io.StringIO()
    with rc_context(
        {"svg.hashsalt": "winit_fast", "svg.fonttype": "none"}
    ):  # the same picture gives the same file
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    if kind == ".html":
        svg = "<!doctype html>\n<meta charset=utf-8>\n" + svg[svg.index("<svg") :]
    Path(path).write_text(svg, encoding="utf-8")


def _figure(groups: Groups, title: str) -> Figure:
    groups = [item for item in groups if any(tensor.deviation for tensor in item[1])]
    largest = sorted(groups, key=lambda item: -sum(tensor.size for tensor in item[1]))
    shown = [item for item in groups if item in largest[:_PANELS]]
    columns = 3
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(13, 4.2 + 2.3 * rows), layout="constrained")
    left_out = len(groups) - len(shown)
    figure.suptitle(title + (f" (without {left_out} small kinds of tensors)" if left_out else ""))
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.6] + [1] * rows)
    _deviations(figure.add_subplot(grid[0, :]), shown)
    for number, (name, group) in enumerate(shown):
        _histograms(figure.add_subplot(grid[1 + number // columns, number % columns]), name, group)
    return figure


def _deviations(axes: Any, groups: Groups) -> None:
    """Plot the deviation of every kind of tensor by layer; expected deviations are dashed."""
    for number, (name, group) in enumerate(groups):
        points = [(_depth(each.name), each.deviation, each.expected) for each in group]
        points = [point for point in points if point[1] is not None]
        depth, deviation, expected = zip(*points, strict=True)
        color, marker = f"C{number % 10}", "osD^v<>Xp*"[number % 10]
        style = {"markersize": 4 + number % 4 * 2, "fillstyle": "none", "linewidth": 1}
        axes.plot(depth, deviation, color=color, marker=marker, label=name, **style)
        if any(each is not None for each in expected):
            axes.plot(
                depth,
                [np.nan if each is None else each for each in expected],
                color=color,
                linestyle="--",
                linewidth=0.8,
            )
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set_ylim(0, 2 * max(axes.get_ylim()[1], 1e-4))
    axes.set_xlabel("layer")
    axes.set_title("standard deviation by depth (dashed: expected)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _depth(name: str) -> int:
    """Return the layer of a tensor, which is the first number in its name, or 0."""
    found = re.search(r"(?<![^\W_])\d+(?![^\W_])", name)
    return int(found[0]) if found else 0


def _histograms(axes: Any, name: str, group: list[Statistics]) -> None:
    """Plot the densities of all layers in one diagram, from dark (first) to light (last)."""
    edges = _edges()
    magnitude = np.maximum(abs(edges[:-1]), abs(edges[1:]))
    order = np.argsort(magnitude, kind="stable")
    counted, reach = [], 0.0
    for number, tensor in enumerate(group):
        counts = np.zeros(edges.size - 1)
        places = np.array([_position(code) for code in tensor.histogram], int)
        np.add.at(counts, places, list(tensor.histogram.values()))
        if tensor.deviation:
            inside = np.cumsum(counts[order]) <= _WITHIN * counts.sum()
            reach = max(reach, magnitude[order][inside].max(initial=0.0))
            counted.append((number, counts / counts.sum()))
    reach = 1.15 * reach or 1.0
    bars = np.linspace(-reach, reach, _BARS + 1)
    for number, parts in counted:  # the count of a bin is spread evenly over it
        below = np.interp(bars, edges, np.concatenate([[0.0], np.cumsum(parts)]))
        color = colormaps["viridis"](0.9 * number / max(1, len(group) - 1))
        axes.stairs(np.diff(below), bars, color=color, linewidth=0.8, alpha=0.8)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{name} ({len(group)})" if len(group) > 1 else name, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_yticks([])


def _edges() -> Any:
    """Return the ends of a histogram's bins for finite numbers, in ascending order.

    The bins of the smallest numbers, including zeros and subnormal numbers, are one bin.
    """
    positive = (np.arange(_FIRST, 255 * 8, dtype=np.uint32) << 20).view(np.float32)
    last = np.nextafter(np.float32(np.inf), np.float32(0))
    ends = np.append(positive.astype(np.float64), float(last))
    return np.concatenate([-ends[::-1], ends])


_FIRST = 8 * 97
"""The first positive bin that is drawn separately: 2^-30."""


def _position(code: int) -> int:
    """Return the drawn bin that contains a histogram's bin."""
    positive = 255 * 8 - _FIRST
    size, negative = code % 2048, code >= 2048
    if size < _FIRST:
        return positive
    return positive - 1 - (size - _FIRST) if negative else positive + 1 + (size - _FIRST)
