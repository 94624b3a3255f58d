"""The entry point of ``winit-fast``, outside the package, whose import may raise an error."""

import sys


def main() -> None:
    """Run the command, or print in one line what is wrong with an environment variable."""
    try:
        from winit_fast.cli import main as command
    except (
        ValueError
    ) as error:  # an invalid WINIT_FAST_ISA, WINIT_FAST_GPU or WINIT_FAST_NUM_THREADS
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    command()
