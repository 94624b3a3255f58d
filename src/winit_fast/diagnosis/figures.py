"""Figures of what was measured, with the theory beside it, and files of them."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winit_fast.diagnosis.prediction import predicted
from winit_fast.diagnosis.rows import Row, of_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HISTOGRAMS = 24
"""The most layers whose histograms are drawn."""

_KINDS = (".png", ".svg", ".html")

_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{padding:.1em .8em;text-align:right}td:nth-child(-n+2),th:nth-child(-n+2)"
    "{text-align:left}tr:nth-child(odd){background:#f4f4f4}"
)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "figures need matplotlib, which is not installed: pip install 'winit_fast[plot]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def propagation_figure(rows: Sequence[Row]) -> Figure:
    """Draw deviations forward and backward by depth, and the histograms of layers."""
    layers = of_layers(rows)
    shown = [layers[i] for i in _spread(len(layers), _HISTOGRAMS)]
    lines = -(-len(shown) // 6)
    figure = _figure(11, 3.4 + 1.2 * lines)
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.4, 1.2 * lines])
    top, bottom = parts
    _by_depth(top.subplots(1, 2), {"measured": rows})
    panels = np.ravel(bottom.subplots(lines, 6, squeeze=False))
    for axes, row in zip(panels, shown, strict=False):
        edges = row.mean + row.deviation * np.linspace(-3, 3, len(row.histogram) + 1)
        if row.histogram and row.deviation > 0:
            axes.stairs(row.histogram, edges, fill=True, color="#3b6ea5")
        axes.set_title(row.name, fontsize=7)
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    return figure


def comparison_figure(found: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw the deviations of several schemes in one figure."""
    figure = _figure(11, 4)
    _by_depth(figure.subplots(1, 2), found)
    return figure


def _by_depth(axes: Any, found: Mapping[str, Sequence[Row]]) -> None:
    """Plot deviations of outputs and of their gradients; the theory's are dashed."""
    forward, backward = axes
    for number, (name, rows) in enumerate(found.items()):
        layers = of_layers(rows)
        color, depth = f"C{number % 10}", range(1, len(layers) + 1)
        theory = predicted(rows)
        gradients = [np.nan if row.gradient is None else row.gradient for row in layers]
        for panel, measured, line in (
            (forward, [row.mean_square**0.5 for row in layers], theory[0]),
            (backward, gradients, theory[1]),
        ):
            panel.plot(depth, _positive(measured), color=color, marker="o", markersize=3,
                       linewidth=1, label=name)  # fmt: skip
            panel.plot(depth, _positive(line), color=color, linestyle="--", linewidth=1,
                       label="theory" if number == len(found) - 1 else None)  # fmt: skip
    for panel, title in ((forward, "outputs"), (backward, "gradients")):
        panel.set_yscale("log")
        low, high = panel.get_ylim()
        if high < 30 * low:  # less would only be noise, with labels that are hard to read
            centre = (low * high) ** 0.5
            panel.set_ylim(centre / 5.5, centre * 5.5)
        panel.set_xlabel("layer")
        panel.set_title(f"root mean square of {title}", fontsize=10)
        panel.grid(alpha=0.3)
    forward.legend(fontsize=8)


def _positive(values: Sequence[float]) -> list[float]:
    """Leave out what a logarithmic axis cannot show."""
    return [value if value > 0 else np.nan for value in values]


def _spread(count: int, most: int) -> list[int]:
    """Choose places from the first to the last, evenly.

    Examples
    --------
    >>> _spread(3, 24), _spread(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def coordinate_figure(
    widths: Sequence[int], sizes: Mapping[str, Any], title: str = "mean size of the coordinates"
) -> Figure:
    """Draw the mean size of every layer's output by width, one line for each step."""
    columns = min(4, len(sizes))
    rows = -(-len(sizes) // columns)
    figure = _figure(2.9 * columns, 2.6 * rows)
    figure.suptitle(title, fontsize=10)
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (name, values) in zip(panels, sizes.items(), strict=False):
        lines = np.asarray(values).T
        for step, line in enumerate(lines):
            axes.plot(widths, line, marker="o", markersize=3, linewidth=1, label=f"step {step}",
                      color=f"{0.75 - 0.7 * step / max(1, len(lines) - 1):.2f}")  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in panels[len(sizes) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize=7)
    return figure


def save(draw: Callable[[], Figure], path: str, title: str, table: str = "") -> None:
    """Write a figure (.png, .svg), or a page with a table and the figure in one file (.html).

    Raises
    ------
    ValueError
        If the path has another ending.
    """
    kind = Path(path).suffix.lower()
    if kind not in _KINDS:
        raise ValueError(f"path must end in one of {', '.join(_KINDS)}, got {path!r}")
    figure = draw()
    if kind == ".png":
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(figure)
        figure.savefig(path, format="png", dpi=110)
        return
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "winit_fast"}):  # the same figure gives the same file
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    if kind == ".html":
        svg = (
            f"<!doctype html>\n<html><head><meta charset=utf-8><title>{html.escape(title)}</title>"
            f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n"
            f"{svg[svg.index('<svg') :]}\n{table}</body></html>\n"
        )
    Path(path).write_text(svg, encoding="utf-8")
