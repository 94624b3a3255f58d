"""What PyInstaller cannot see for itself: the files that are no modules."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

# Each file of architectures and rules, and the folder that it goes to.
datas = [
    (str(file), str(file.parent.relative_to(_PACKAGE.parent)))
    for file in sorted(_PACKAGE.rglob("*.toml"))
]
