"""Run the examples of a Markdown page: its Python blocks, in order and in one namespace.

A block that begins with ``>>>`` is a doctest; any other block is executed.
"""

import doctest
import re
from pathlib import Path

import pytest

from winit_fast.base.frameworks import FRAMEWORKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

NEEDS_FRAMEWORK = re.compile(
    rf"\b(import|from|wf\.|winit_fast\.) ?({'|'.join([*FRAMEWORKS, 'flax'])})\b"
)

# Pages whose examples all need a framework: tests/frameworks runs them.
GUIDES = [
    page
    for page in sorted((DOCS / "guides").glob("*.md"))
    if page.stem not in ("index", "numpy", "own")
] + [DOCS / "gpu.md", DOCS / "look.md", DOCS / "reinitialise.md"]


def examples(page: Path) -> list[tuple[int, str]]:
    """Find the Python blocks of a page, each with the number of its first line."""
    text = page.read_text()
    return [
        (text.count("\n", 0, block.start(1)) + 1, block[1])
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def run(page: Path, frameworks: bool = True) -> dict:
    """Run the examples of a page, or only those without frameworks; return their variables."""
    names: dict = {"__name__": page.stem}
    for line, source in examples(page):
        if not frameworks and NEEDS_FRAMEWORK.search(source):
            continue
        if source.startswith(">>>"):
            _doctest(page, line, source, names)
        else:
            exec(compile("\n" * (line - 1) + source, str(page), "exec"), names)
    return names


def _doctest(page: Path, line: int, source: str, names: dict) -> None:
    test = doctest.DocTestParser().get_doctest(source, names, page.name, str(page), line - 1)
    test.globs = names  # later examples can use what this one defines
    try:
        doctest.DebugRunner(optionflags=OPTIONS).run(test, clear_globs=False)
    except doctest.DocTestFailure as failure:
        example = failure.example
        pytest.fail(
            f"{page}:{line + example.lineno}: {example.source}"
            f"expected:\n{example.want}got:\n{failure.got}",
            pytrace=False,
        )
    except doctest.UnexpectedException as unexpected:
        raise unexpected.exc_info[1] from None
