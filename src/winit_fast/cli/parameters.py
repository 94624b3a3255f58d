"""Arguments that several subcommands share, and the parsing of sizes and times."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from winit_fast.models import Architecture, Rules
    from winit_fast.sources.source import Wanted

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

threads_option = click.option(
    "--threads", type=click.IntRange(1), help="By default all processors."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


def rules_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which rules give the schemes."""
    for option in (
        click.option(
            "--base",
            metavar="WIDTH|SOURCE",
            help="For rules such as mup: the width of the base model, or the model itself.",
        ),
        click.option(
            "--set",
            "settings",
            metavar="NAME=NUMBER",
            multiple=True,
            help="A setting of the rules, such as std=0.006; may be given several times.",
        ),
        click.option(
            "--rules",
            metavar="NAME|FILE",
            help="Use other rules than the authors': a name that `winit-fast rules` lists, or a "
            ".toml file.",
        ),
    ):
        command = option(command)
    return command


def wanted_rules(rules: str | None, settings: tuple[str, ...], base: str | None) -> Wanted:
    """Parse the options of `rules_options`."""
    from winit_fast.sources.source import Wanted

    numbers = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            numbers[name] = float(text)
        except ValueError:
            numbers[name] = math.nan
        if not (equals and name and math.isfinite(numbers[name])):
            raise click.BadParameter(f"{setting!r} is not NAME=NUMBER", param_hint="--set")
        if sum(other.partition("=")[0] == name for other in settings) > 1:
            raise click.BadParameter(f"{name} is given more than once", param_hint="--set")
    return Wanted(rules, numbers, base)


def size(text: str) -> int:
    """Parse a number of bytes such as ``5GB`` (powers of 1000) or ``500MiB`` (powers of 1024)."""
    from fractions import Fraction  # imports decimal

    found = re.fullmatch(r"(\d{1,20}(?:\.\d{1,20})?) *([KMGT]?)(i?)B?", text, re.I | re.A)
    base = 1024 if found and found[3] else 1000
    nbytes = int(Fraction(found[1]) * base ** _UNITS[found[2].upper()]) if found else 0
    if nbytes < 1:
        raise click.BadParameter(f"{text!r} is not a size such as 5GB or 500MiB")
    return nbytes


def seconds(text: str) -> float:
    """Parse a finite time; click's ranges would accept NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{text!r} is not a finite number of at least 0")
    return value


def model_and_rules(model: str, wanted: Wanted) -> tuple[Architecture, Rules]:
    """Load a model's architecture, with its authors' rules or those that are wanted.

    Raises
    ------
    ValueError, OSError
        If there is no such model, or the rules cannot be read.
    """
    from winit_fast.models import Architecture

    architecture = Architecture.load(model)
    rules = wanted.load(architecture.rules)
    assert rules is not None
    return architecture, rules
