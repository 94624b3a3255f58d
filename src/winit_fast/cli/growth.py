"""The options of ``winit-fast init`` that take existing weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from winit_fast.cli.terminal import Refused

if TYPE_CHECKING:
    from winit_fast.sources.growth import Growth
    from winit_fast.sources.report import Report


@dataclass(frozen=True)
class Weights:
    """Existing weights, how they are used, and where that is reported."""

    checkpoint: str
    growth: Growth
    report: str | None

    def check(self, out: str | None) -> None:
        """Refuse a file for the report that cannot be written once the checkpoint is in ``out``."""
        if self.report is None:
            return
        file = Path(self.report)
        folder = file.parent
        is_new = out is not None and folder.absolute() == Path(out).absolute()
        if file.is_dir() or not (is_new or folder.is_dir()):
            raise Refused(f"--report must be a file in an existing folder, got {self.report!r}")
        place = file if file.exists() else folder
        if place.exists() and not os.access(place, os.W_OK):
            raise Refused(f"--report {self.report!r} cannot be written: no permission")

    def write(self, report: Report, done: str) -> None:
        """Write the report, if one is wanted; an error begins with what is ``done``."""
        if self.report is None:
            return
        try:
            Path(self.report).write_text(report.to_json(), encoding="utf-8")
        except OSError as error:
            raise Refused(f"{done}the report is not written: {error}") from error


def growth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `existing`."""
    for option in (
        click.option(
            "--report",
            metavar="FILE",
            type=click.Path(),
            help="With --from: write what was copied, extended, made anew and not used, as JSON.",
        ),
        click.option(
            "--noise",
            metavar="STDDEV",
            type=float,
            help="With --from: add normal noise to tensors that are copied more than once.",
        ),
        click.option(
            "--layers",
            metavar="N=RANGES",
            help="With --from: repeat layers, such as 24=0..15,8..15; both ends count.",
        ),
        click.option(
            "--new-rows",
            metavar="scheme|mean",
            help="With --from: make new rows of a vocabulary by the scheme, or from the mean and "
            "covariance of the old ones.",
        ),
        click.option(
            "--map",
            "mappings",
            metavar="NEW=OLD",
            multiple=True,
            help="With --from: other names in the checkpoint, such as '*=transformer.*'; * and {i} "
            "stand for the same text in both.",
        ),
        click.option(
            "--from",
            "from_",
            metavar="CHECKPOINT",
            type=click.Path(),
            help="Copy the tensors that a checkpoint has, and keep them in tensors that grew.",
        ),
    ):
        command = option(command)
    return command


def existing(
    checkpoint: str | None,
    mappings: tuple[str, ...],
    new_rows: str | None,
    layers: str | None,
    noise: float | None,
    report: str | None,
) -> Weights | None:
    """Parse the options; return None if there is no checkpoint."""
    if checkpoint is None:
        for option, given in (
            ("map", mappings),
            ("new-rows", new_rows),
            ("layers", layers),
            ("noise", noise),
            ("report", report),
        ):
            if given not in (None, ()):
                raise click.UsageError(f"--{option} needs --from")
        return None
    pairs = []
    for mapping in mappings:
        new, equals, old = mapping.partition("=")
        if not (new and equals and old):
            raise click.BadParameter(f"{mapping!r} is not NEW=OLD", param_hint="--map")
        pairs.append((new, old))
    from winit_fast.sources.growth import Growth, parse_layers

    try:
        growth = Growth(
            pairs,
            "scheme" if new_rows is None else new_rows,
            None if layers is None else parse_layers(layers),
            0.0 if noise is None else noise,
        )
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error
    return Weights(checkpoint, growth, report)
