"""``winit-fast inspect``: statistics of any safetensors checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from winit_fast.base.tables import number
from winit_fast.cli.parameters import json_option, threads_option
from winit_fast.cli.terminal import Damaged, answering, console, print_json, table

if TYPE_CHECKING:
    from winit_fast.checkpoint import Inspection, Repeat, Statistics

_HELP = """\
Show what is in a safetensors checkpoint: PATH is its directory, its index or a file.

A line stands for the tensors of all layers; * is a number in their names. "expected" is the
deviation that winit_fast.plan.json says, where it is there. Below stand the tensors that are all
zero where those of other layers are not, have elements that are not finite, or have not the
expected deviation; and what repeats: equal tensors, equal rows, equal pieces of an even cut of an
axis by 2 to 64.

Exit status: 0 whatever is found; 2 for a damaged file or a wrong argument."""

_KINDS = (".png", ".svg", ".html")
_SHOWN = 40
"""Most findings that are listed; --json has all."""


def _picture(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and Path(value).suffix.lower() not in _KINDS:
        raise click.BadParameter(f"{value!r} does not end in one of {', '.join(_KINDS)}")
    return value


@click.command(help=_HELP)
@click.argument("path", type=click.Path())
@click.option(
    "--plot",
    type=click.Path(),
    callback=_picture,
    metavar="FILE",
    help="Draw histograms and deviations by layer (.png, .svg, .html); needs matplotlib.",
)
@threads_option
@json_option
def inspect(path: str, plot: str | None, threads: int | None, as_json: bool) -> None:
    with answering():
        import winit_fast.checkpoint as checkpoint
        from winit_fast.cli.progress import progress

        try:
            if plot is not None:
                import winit_fast.cli.pictures as pictures
            with progress("reading") as report:
                found = checkpoint.inspect(
                    path, histograms=plot is not None, num_threads=threads, progress=report
                )
            if plot is not None:
                pictures.draw(by_layer(found.tensors), plot, title=click.format_filename(path))
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            raise Damaged(str(error)) from error
        (_print_json if as_json else _print)(found, path)


def _print_json(found: Inspection, path: str) -> None:
    tensors = [asdict(tensor) for tensor in found.tensors]
    for tensor in tensors:
        del tensor["histogram"]
    print_json(
        {
            "path": path,
            "plan": found.plan,
            "nbytes": found.nbytes,
            "seconds": found.seconds,
            "tensors": tensors,
            "stands_out": [
                {"name": name, "detail": detail}
                for name, detail in stands_out(by_layer(found.tensors))
            ],
            "repeats": [asdict(repeat) for repeat in found.repeats],
        }
    )


def by_layer(tensors: Sequence[Statistics]) -> list[tuple[str, list[Statistics]]]:
    """Group tensors of the same dtype and shape whose names differ only in numbers.

    Examples
    --------
    >>> from winit_fast.checkpoint import Statistics
    >>> names = "h.0.w", "h.1.w", "wte"
    >>> found = by_layer([Statistics(name, "f", "F32", (2,)) for name in names])
    >>> [(name, len(group)) for name, group in found]
    [('h.*.w', 2), ('wte', 1)]
    """
    groups: dict[tuple[str, str, tuple[int, ...]], list[Statistics]] = {}
    for tensor in tensors:
        template = re.sub(r"(?<![^\W_])\d+(?![^\W_])", "*", tensor.name)
        groups.setdefault((template, tensor.dtype, tensor.shape), []).append(tensor)
    return [
        (template if len(group) > 1 else group[0].name, group)
        for (template, _, _), group in groups.items()
    ]


def stands_out(groups: list[tuple[str, list[Statistics]]]) -> list[tuple[str, str]]:
    """Find tensors that differ from those of other layers, or from the expected deviation."""
    found = []
    for _, group in groups:
        zero = [bool(tensor.size) and tensor.zeros == tensor.size for tensor in group]
        for tensor, is_zero in zip(group, zero, strict=True):
            if tensor.not_finite:
                found.append(
                    (tensor.name, f"not finite: {tensor.not_finite:,} of {tensor.size:,} elements")
                )
            if is_zero and (not all(zero) or tensor.expected):
                found.append((tensor.name, "all elements are 0"))
            elif tensor.is_unexpected:
                found.append(
                    (
                        tensor.name,
                        f"deviation {tensor.deviation:.4g}, expected {tensor.expected:.4g}",
                    )
                )
    return found


def _print(found: Inspection, path: str) -> None:
    terminal = console()
    groups = by_layer(found.tensors)
    columns = ("mean", "deviation", "expected", "min", "max", "zeros", "not finite")
    shown = table("times", "tensor", "type", "shape", *columns, right=("times", *columns))
    for name, group in groups:
        shown.add_row(*_cells(name, group))
    terminal.print(shown)
    parts = [
        ("stands out", stands_out(groups)),
        ("repeats", [(", ".join(each.names), _worded(each)) for each in found.repeats]),
    ]
    for title, rows in parts:
        if rows:
            terminal.print()
            listed = table(title, "")
            for row in rows[:_SHOWN]:
                listed.add_row(*row)
            terminal.print(listed)
            if len(rows) > _SHOWN:
                terminal.print(f"and {len(rows) - _SHOWN:,} more: --json has all")
    terminal.print(
        f"\n{click.format_filename(path)}: {len(found.tensors):,} tensors, "
        f"{found.nbytes / 1e9:.2f} GB in {found.seconds:.2f} s; expected by {found.plan}",
        highlight=False,
        soft_wrap=True,
    )


def _worded(repeat: Repeat) -> str:
    return "equal tensors" if repeat.kind == "tensors" else f"{repeat.kind}: {repeat.detail}"


def _cells(name: str, group: list[Statistics]) -> list[str]:
    first = group[0]
    sizes = sum(tensor.size for tensor in group)
    zeros = [tensor.zeros for tensor in group if tensor.zeros is not None]
    wrong = [tensor.not_finite for tensor in group if tensor.not_finite is not None]
    return [
        str(len(group)),
        name,
        first.dtype,
        " x ".join(map(str, first.shape)),
        _range([tensor.mean for tensor in group], max(tensor.deviation or 0.0 for tensor in group)),
        _range([tensor.deviation for tensor in group]),
        _range([tensor.expected for tensor in group]),
        number(min((t.minimum for t in group if t.minimum is not None), default=None)),
        number(max((t.maximum for t in group if t.maximum is not None), default=None)),
        _percent(sum(zeros), sizes) if zeros else "-",
        f"{sum(wrong):,}" if wrong else "-",
    ]


def _percent(part: int, size: int) -> str:
    return f"{100 * part / size:.3g}%" if part else "0"


def _range(values: list[float | None], scale: float = 0.0) -> str:
    """Format the values of all layers: one value if they agree on the given scale, else a range."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    if high - low <= 0.02 * max(-low, high, scale):
        return number(math.fsum(numbers) / len(numbers))
    return f"{low:.3g} .. {high:.3g}"
