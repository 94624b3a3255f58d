"""The command ``winit-fast``: parses the command line and prints; other packages do the work.

Each subcommand is a file. Except for click, a subcommand imports what it needs when it runs, so
that ``winit-fast --help`` is fast and works on any system.
"""

from importlib.util import find_spec

for _needed in ("click", "rich"):
    if find_spec(_needed) is None:
        raise SystemExit(
            f"winit-fast needs {_needed}, which its extra brings: pip install 'winit_fast[cli]'"
        )

from winit_fast.cli.command import main  # noqa: E402
from winit_fast.gpu.choice import wanted  # noqa: E402

wanted()  # an invalid WINIT_FAST_GPU is an error at once, as of the other variables

__all__ = ["main"]
