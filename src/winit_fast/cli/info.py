"""``winit-fast info``: this machine, the known models, or the tensors and rules of one model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from winit_fast.cli.parameters import json_option, model_and_rules, rules_options, wanted_rules
from winit_fast.cli.terminal import Refused, console, print_json, table

if TYPE_CHECKING:
    from winit_fast.sources.source import Wanted

_HELP = """\
Show the instruction set, the threads, the GPUs and the known models, or the tensors of one MODEL.

With MODEL, a line stands for the tensors of all layers. * is a number in their names; {i} is a
number that the formula uses as i."""


@click.command(help=_HELP)
@click.argument("model", required=False)
@rules_options
@json_option
def info(
    model: str | None,
    rules: str | None,
    settings: tuple[str, ...],
    base: str | None,
    as_json: bool,
) -> None:
    if model is None:
        for option, given in (("rules", rules), ("set", settings), ("base", base)):
            if given:
                raise click.UsageError(f"--{option} needs a MODEL")
        _print_models(as_json)
    else:
        _print_tensors(model, wanted_rules(rules, settings, base), as_json)


def _print_models(as_json: bool) -> None:
    from winit_fast.cli.machine import gpus, gpus_in_a_line, in_a_line, machine
    from winit_fast.models import Architecture, model_names

    facts = machine()
    devices = gpus()
    models = [
        {
            "model": name,
            "rules": architecture.rules,
            "tensors": len(architecture.shapes),
            "parameters": sum(
                math.prod(shape)
                for tensor, shape in architecture.shapes.items()
                if tensor not in architecture.buffers
            ),
        }
        for name in model_names()
        for architecture in [Architecture.load(name)]
    ]
    if as_json:
        print_json({**facts, "gpus": devices, "models": models})
        return
    terminal = console()
    terminal.print(in_a_line(facts), highlight=False, soft_wrap=True)
    terminal.print(gpus_in_a_line(devices), highlight=False, soft_wrap=True)
    terminal.print()
    shown = table("model", "rules", "tensors", "parameters", right=("tensors", "parameters"))
    for row in models:
        shown.add_row(
            *(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values())
        )
    terminal.print(shown)


def _print_tensors(model: str, wanted: Wanted, as_json: bool) -> None:
    from winit_fast.cli.layers import by_layer, numbers_used

    try:
        architecture, chosen = model_and_rules(model, wanted)
        applied = chosen.applied_to_architecture(architecture)
    except (ValueError, TypeError, OSError) as error:
        raise Refused(str(error)) from error
    if as_json:
        print_json(
            {
                "model": architecture.name,
                "rules": chosen.name,
                "title": chosen.title,
                "references": chosen.references,
                "numbers": architecture.numbers,
                "tensors": [
                    {
                        "name": tensor.name,
                        "shape": tensor.shape,
                        "class_name": type(tensor.initializer).__name__,
                        "config": tensor.initializer.get_config(),
                    }
                    for tensor in (one.tensor for one in applied)
                ],
            }
        )
        return
    terminal = console()
    terminal.print(f"{architecture.name}, rules {chosen.name}: {chosen.title}\n", highlight=False)
    shown = table("times", "tensor", "shape", "initializer", right=("times",))
    for group in by_layer(applied):
        shape = " x ".join(map(str, group.shape))
        shown.add_row(str(group.times), group.name, shape, group.initializer)
    terminal.print(shown)
    used = numbers_used(chosen, applied, architecture.numbers)
    if used:
        listed = ", ".join(f"{name} = {number}" for name, number in used.items())
        terminal.print(f"\nwhere {listed}", highlight=False)
