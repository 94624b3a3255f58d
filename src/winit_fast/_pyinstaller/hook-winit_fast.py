"""PyInstaller hook: lists the data files, which PyInstaller cannot find by following imports."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

# Each file of architectures and rules, with the folder that it is copied to.
datas = [
    (str(file), str(file.parent.relative_to(_PACKAGE.parent)))
    for file in sorted(_PACKAGE.rglob("*.toml"))
]
