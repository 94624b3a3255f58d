"""Arguments that several subcommands share, and the parsing of sizes and times."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from winit_fast.models import Architecture, Rules

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

threads_option = click.option(
    "--threads", type=click.IntRange(1), help="By default all processors."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
rules_option = click.option(
    "--rules",
    metavar="NAME|FILE",
    help="Use other rules than the authors': the name of built-in rules, or a .toml file.",
)


def size(text: str) -> int:
    """Parse a number of bytes such as ``5GB`` (powers of 1000) or ``500MiB`` (powers of 1024)."""
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


def model_and_rules(model: str, rules: str | None) -> tuple[Architecture, Rules]:
    """Load a model's architecture, with its authors' rules or those of ``rules``.

    Raises
    ------
    ValueError, OSError
        If there is no such model, or the rules cannot be read.
    """
    from winit_fast.models import Architecture
    from winit_fast.sources.source import find_rules

    architecture = Architecture.load(model)
    return architecture, find_rules(architecture, rules)
