"""Skips doctests that need the frameworks; `make test-frameworks` runs them."""

from pathlib import Path

from winit_fast.base.frameworks import FRAMEWORKS

collect_ignore = [f"winit_fast/{floor}" for floor in (*FRAMEWORKS, "sources", "gpu")]
collect_ignore += [f"winit_fast/{floor}/torch" for floor in ("diagnosis", "dynamic", "advice")]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Do not import files without examples: one imports matplotlib, which takes a second."""
    if collection_path.suffix == ".py" and ">>>" not in collection_path.read_text(encoding="utf-8"):
        return True
    return None
