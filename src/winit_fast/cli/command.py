"""The top-level command: its subcommands, and the handling of a standard output that fails."""

from __future__ import annotations

from typing import Any

import click

from winit_fast.base.version import __version__
from winit_fast.cli.advise import advise
from winit_fast.cli.bench import bench
from winit_fast.cli.info import info
from winit_fast.cli.init import init
from winit_fast.cli.inspect import inspect
from winit_fast.cli.rules import rules
from winit_fast.cli.terminal import escape_what_cannot_be_shown, printing
from winit_fast.cli.verify import verify


class _Command(click.Group):
    """A group of subcommands that reports an error of standard output without a traceback."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        escape_what_cannot_be_shown()
        with printing():  # help and version are printed here
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with printing():
            return super().invoke(ctx)


# Help texts are arguments here and in all subcommands, because python -OO removes docstrings.
main = _Command(
    "winit-fast",
    help="Initial weights of neural networks, with the same bits on any machine.",
    commands=[advise, bench, info, init, inspect, rules, verify],
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(__version__, prog_name="winit-fast")(main)
