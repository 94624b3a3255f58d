"""``winit-fast advise``: what is set badly in a model's plan or in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from winit_fast.cli.parameters import json_option, threads_option
from winit_fast.cli.terminal import Refused, console, print_json, table

if TYPE_CHECKING:
    from winit_fast.advice import Finding

_HELP = """\
Say what is set badly in a model's initial weights, what follows from it, and which scheme mends it.

SOURCE is a config.json or a folder with one, a plan (.json), or the name of a built-in model, of
which the schemes are examined; or a safetensors checkpoint (its directory, its index or a file), of
which the weights are.

Exit status: 0 if nothing was found, 1 if something was, 2 for a wrong argument."""


@click.command(help=_HELP)
@click.argument("source", type=click.Path())
@threads_option
@json_option
def advise(source: str, threads: int | None, as_json: bool) -> None:
    from winit_fast.cli.terminal import answering

    with answering():
        try:
            findings, examined, what = _examined(source, threads)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            raise Refused(str(error)) from error
        if as_json:
            print_json(_as_json(source, findings, examined, what))
        else:
            _print(source, findings, examined, what)
    if findings:
        raise click.exceptions.Exit(1)


def _examined(source: str, threads: int | None) -> tuple[list[Finding], int, str]:
    """Examine a checkpoint if there is one, else a plan."""
    from pathlib import Path

    from winit_fast.advice import examine, weight_facts

    path = Path(source)
    is_checkpoint = source.endswith((".safetensors", ".safetensors.index.json")) or (
        path.is_dir() and any(path.glob("*.safetensors"))
    )
    if is_checkpoint:
        import winit_fast.checkpoint as checkpoint

        found = checkpoint.inspect(source, num_threads=threads)
        facts = weight_facts.of_checkpoint(found.tensors, weight_facts.configuration_of(source))
        return examine(facts), len(facts), "weights of the checkpoint"
    import json

    from winit_fast.sources import find

    model = find(source)
    text = model.texts.get("config.json")
    facts = weight_facts.of_plan(model.plan, json.loads(text) if text else {})
    return examine(facts), len(facts), "schemes of the plan"


def _as_json(source: str, findings: list[Finding], examined: int, what: str) -> dict[str, object]:
    return {
        "source": source,
        "examined": what,
        "weights": examined,
        "findings": [
            {
                "name": one.name,
                "problem": one.problem,
                "consequence": one.consequence,
                "remedy": None
                if one.remedy is None
                else {
                    "class_name": type(one.remedy).__name__,
                    "config": one.remedy.get_config(),
                },
                "source": one.source,
            }
            for one in findings
        ],
    }


def _print(source: str, findings: list[Finding], examined: int, what: str) -> None:
    terminal = console()
    if findings:
        shown = table("weight", "problem", "consequence", "use")
        for one in findings:
            remedy = "-" if one.remedy is None else str(one.remedy)
            shown.add_row(one.name, one.problem, one.consequence, remedy)
        terminal.print(shown)
        terminal.print()
    terminal.print(
        f"{click.format_filename(source)}: {examined:,} {what} examined, "
        f"{len(findings):,} findings",
        highlight=False,
        soft_wrap=True,
    )
