"""``winit-fast rules``: the built-in rules, or the formulas and sources of some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from winit_fast.cli.parameters import json_option
from winit_fast.cli.terminal import Refused, console, print_json, table

if TYPE_CHECKING:
    from winit_fast.models import Rule, Rules

_HELP = """\
List the rules that --rules accepts, or show the formulas and sources of those called NAME.

NAME may also be a .toml file of your own. The first rule whose roles or names match a tensor
applies. The formulas use numbers of the model (layers, width, layer, fan_in, fan_out and those of
its configuration) and settings, which --set changes."""


@click.command(help=_HELP)
@click.argument("name", required=False)
@json_option
def rules(name: str | None, as_json: bool) -> None:
    from winit_fast.models import Rules, rule_names
    from winit_fast.sources.source import Wanted

    if name is None:
        found = [Rules.load(one) for one in rule_names()]
        if as_json:
            print_json({"rules": [_content(one) for one in found]})
            return
        shown = table("rules", "for", "title")
        for one in found:
            shown.add_row(one.name, one.applies_to, one.title)
        console().print(shown)
        return
    try:
        chosen = Wanted(name).load()
    except (ValueError, TypeError, OSError) as error:
        raise Refused(str(error)) from error
    assert chosen is not None
    if as_json:
        print_json(_content(chosen))
    else:
        _print(chosen)


def _print(chosen: Rules) -> None:
    terminal = console()
    terminal.print(f"{chosen.name}: {chosen.title}", highlight=False)
    if chosen.applies_to:
        terminal.print(f"for {chosen.applies_to}", highlight=False)
    terminal.print()
    shown = table("roles or names", "initializer")
    for rule in chosen.rules:
        shown.add_row(_of(rule), _formula(rule))
    terminal.print(shown)
    listed = [f"{name} = {value}" for name, value in chosen.settings.items()]
    listed += [f"{name}, which must be given" for name in chosen.needs]
    if listed:
        terminal.print(f"\nsettings: {'; '.join(listed)}", highlight=False)
    for reference in chosen.references:
        terminal.print(f"\n{reference}", highlight=False)


def _of(rule: Rule) -> str:
    listed = rule.pattern if rule.pattern is not None else ", ".join(rule.roles)
    return listed if rule.stack is None else f"{listed} ({rule.stack})"


def _formula(rule: Rule) -> str:
    from winit_fast.models.rule import OWN

    if rule.initializer == OWN:
        return "as the model's own code has it"
    listed = ", ".join(f"{name}={value}" for name, value in rule.parameters.items())
    return f"{rule.initializer}({listed})" + (", or its own constant" if rule.keep else "")


def _content(chosen: Rules) -> dict[str, Any]:
    return {
        "name": chosen.name,
        "title": chosen.title,
        "applies_to": chosen.applies_to,
        "references": chosen.references,
        "settings": dict(chosen.settings),
        "needs": chosen.needs,
        "requires": chosen.requires,
        "rules": [
            {
                "tensors": rule.pattern,
                "roles": rule.roles,
                "stack": rule.stack,
                "keep": rule.keep,
                "optional": rule.optional,
                "initializer": rule.initializer,
                "parameters": dict(rule.parameters),
            }
            for rule in chosen.rules
        ],
    }
