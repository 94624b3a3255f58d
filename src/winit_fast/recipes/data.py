"""The TOML files that ship with the package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_all(folder: str) -> dict[str, dict[str, Any]]:
    """Every TOML file of a folder beside this module.

    Parameters
    ----------
    folder : {"architectures", "rules"}

    Returns
    -------
    dict of str to dict
        File name without ``.toml`` to the file's content, in alphabetical order.
    """
    entries = (files(__package__) / folder).iterdir()
    return {
        entry.name.removesuffix(".toml"): tomllib.loads(entry.read_text(encoding="utf-8"))
        for entry in sorted(entries, key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }
