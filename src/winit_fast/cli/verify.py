"""``winit-fast verify``: compares a checkpoint with its plan."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from winit_fast.cli.parameters import json_option, threads_option
from winit_fast.cli.terminal import Damaged, answering, console, print_json, silence, table

if TYPE_CHECKING:
    from winit_fast.checkpoint import Finding, Verification

_HELP = """\
Make every tensor of the checkpoint in DIRECTORY again, and compare bit for bit.

What it should hold is read from the winit_fast.plan.json beside it, the seed from its headers. A
tensor is fresh; or changed, as by training; zero; constant; unrelated to the plan's numbers, as of
another seed; missing; other, of another shape or type; unknown to the plan; or not checked because
the plan could not store its scheme.

Exit status: 0 if all tensors are fresh, 1 if any is not, 2 if that could not be told: a damaged
file, no plan, a wrong argument."""

_SHOWN = 40
"""Most tensors that are listed; --json has all."""


@click.command(help=_HELP)
@click.argument("directory", type=click.Path())
@click.option(
    "--plan",
    type=click.Path(),
    metavar="FILE",
    help="Another plan, such as the winit_fast.plan.json of a checkpoint of the same model.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), help="Another seed than that of the headers."
)
@threads_option
@json_option
def verify(
    directory: str, plan: str | None, seed: int | None, threads: int | None, as_json: bool
) -> None:
    with answering():
        import winit_fast.checkpoint as checkpoint
        from winit_fast.cli.progress import progress

        try:
            with progress("comparing") as report:
                found = checkpoint.verify(
                    directory, plan=plan, seed=seed, num_threads=threads, progress=report
                )
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            raise Damaged(str(error)) from error
        try:
            (_print_json if as_json else _print)(found, directory)
        except BrokenPipeError:  # the reader closed the pipe; the exit status still counts
            silence(sys.stdout)
    sys.exit(0 if found.fresh else 1)


def _print_json(found: Verification, directory: str) -> None:
    print_json(
        {
            "directory": directory,
            "fresh": found.fresh,
            "seed": found.seed,
            "nbytes": found.nbytes,
            "seconds": found.seconds,
            "counts": Counter(finding.status for finding in found.tensors),
            "tensors": [_as_json(finding) for finding in found.tensors],
        }
    )


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        name: getattr(finding, name)
        for name in (
            "name", "status", "detail", "differing", "not_finite", "index", "found", "expected",
        )
    }  # fmt: skip


def _print(found: Verification, directory: str) -> None:
    terminal = console()
    stale = [finding for finding in found.tensors if finding.status != "fresh"]
    if stale:
        shown = table("tensor", "is", "")
        for finding in stale[:_SHOWN]:
            shown.add_row(finding.name, finding.status, finding.detail)
        terminal.print(shown)
        if len(stale) > _SHOWN:
            terminal.print(f"and {len(stale) - _SHOWN:,} more: --json has all")
        terminal.print()
    counts = Counter(finding.status for finding in found.tensors)
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    terminal.print(
        f"{click.format_filename(directory)}: {told} (seed {found.seed}; "
        f"{found.nbytes / 1e9:.2f} GB in {found.seconds:.2f} s)",
        highlight=False,
        soft_wrap=True,
    )
