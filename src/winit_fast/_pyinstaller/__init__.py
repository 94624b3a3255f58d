"""Where PyInstaller finds its hook for this package; it asks by the entry point pyinstaller40."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Name the folder of the hook."""
    return [str(Path(__file__).parent)]
