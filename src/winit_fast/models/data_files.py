"""The TOML files in the package."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any


@cache
def load_all(folder: str) -> dict[str, dict[str, Any]]:
    """Read every TOML file of a folder in ``data``.

    Parameters
    ----------
    folder : {"architectures", "naming", "rules"}

    Returns
    -------
    dict of str to dict
        Content of each file by its name without ``.toml``, in alphabetical order.
    """
    # not importlib.resources, whose import takes as long as reading the files
    entries = (Path(__file__).parent / "data" / folder).iterdir()
    return {
        entry.name.removesuffix(".toml"): parse(f"{folder}/{entry.name}", entry.read_bytes())
        for entry in sorted(entries, key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def parse(name: str, content: bytes) -> dict[str, Any]:
    """Read a TOML file.

    Examples
    --------
    >>> parse("rules/gpt2.toml", b"title = ")
    Traceback (most recent call last):
    ValueError: rules/gpt2.toml is not a TOML file: Invalid value (at end of document)
    """
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not a TOML file: {error}") from None


@contextmanager
def naming_the_file(shown: str) -> Iterator[None]:
    """Convert any error from reading a malformed file into an error that names the file."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = error if isinstance(error, (TypeError, ValueError)) else repr(error)
        raise ValueError(f"{shown} cannot be read: {reason}") from error
