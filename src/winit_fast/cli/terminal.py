"""Printing to terminals with any encoding, and to outputs that fail."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Refused(click.ClickException):
    """An error that is printed in one line, with escapes for what the terminal cannot show."""

    def show(self, file: Any = None) -> None:
        print(f"Error: {self.format_message()}", file=file or sys.stderr, flush=True)


class Damaged(Refused):
    """An error of a command whose exit status 1 is an answer."""

    exit_code = 2


def escape_what_cannot_be_shown() -> None:
    """Make output streams print escapes for characters outside their encoding, and not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _is_utf8(stream):
            stream.reconfigure(errors="backslashreplace")


def _is_utf8(stream: TextIO) -> bool:
    return codecs.lookup(stream.encoding or "ascii").name == "utf-8"


def console(*, stderr: bool = False) -> Console:
    """Make a console that does not interpret ``[...]`` or ``:...:`` in a user's names as markup."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with status 1; `printing` handles it
            raise BrokenPipeError

    return Terminal(stderr=stderr, markup=False, emoji=False)


def spinner() -> str:
    """Return the name of a spinner that the terminal's encoding can show."""
    return "dots" if _is_utf8(sys.stdout) else "line"


def table(*columns: str, right: tuple[str, ...] = (), header: bool = True) -> Table:
    """Make a table that wraps long cells; it never truncates, as ASCII has no ellipsis."""
    from rich.table import Table

    made = Table(box=None, show_header=header)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_json(content: Mapping[str, Any]) -> None:
    """Print an object as JSON in ASCII; values that JSON lacks, such as infinity, become a str."""
    click.echo(json.dumps(_in_json(content), indent=2, default=str, allow_nan=False))


def _in_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _in_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def printing(done: str = "") -> Iterator[None]:
    """Convert an error of standard output (a full disk, say) to a line that begins with ``done``.

    A pipe whose reader has closed it is not an error.
    """
    try:
        yield
    except BrokenPipeError:
        silence(sys.stdout)
        raise click.exceptions.Exit(0) from None
    except OSError as error:
        silence(sys.stdout)
        raise Refused(f"{done}{error}") from error


@contextmanager
def answering() -> Iterator[None]:
    """Have whatever stops a command end in another exit status than 1, which is an answer."""
    try:
        with printing():
            yield
    except Refused as error:
        raise Damaged(error.message) from error
    except KeyboardInterrupt:
        tell("interrupted")
        sys.exit(130)
    except ModuleNotFoundError as error:
        raise Damaged(f"this needs {error.name}, which this system does not have") from error
    except MemoryError as error:
        raise Damaged(f"out of memory: {error}; fewer --threads take less") from error


def tell(message: str) -> None:
    """Print a line to standard error, and ignore errors of doing so."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Redirect a failed stream to the null device, so that flushing it at exit does not fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
