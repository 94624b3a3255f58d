"""PyInstaller's hook for this package, which it finds through the entry point pyinstaller40."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return the folder of the hook."""
    return [str(Path(__file__).parent)]
