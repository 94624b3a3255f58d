"""The command ``winit-fast``: reads the command line and prints; the work is done elsewhere.

A command is a file. What a command needs beside click it imports when it runs, so that
``winit-fast --help`` is there at once, on any system.
"""

from importlib.util import find_spec

for _needed in ("click", "rich"):
    if find_spec(_needed) is None:
        raise SystemExit(
            f"winit-fast needs {_needed}, which its extra brings: pip install 'winit_fast[cli]'"
        )

from winit_fast.cli.command import main  # noqa: E402

__all__ = ["main"]
