"""The examples of README.md and docs/ run as they are written; links have a target."""

import re

import pages
import pytest

import winit_fast as wf

PAGES = [
    pages.ROOT / "README.md",
    pages.ROOT / "CONTRIBUTING.md",
    *sorted(pages.DOCS.rglob("*.md")),
]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page not in pages.GUIDES and pages.examples(page)],
    ids=lambda page: str(page.relative_to(pages.ROOT)),
)
def test_examples(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # An initializer that an example defines must not stay registered.
    monkeypatch.setattr(wf.Initializer, "_registry", dict(wf.Initializer._registry))
    pages.run(page, frameworks=False)


def anchor(heading):
    """GitHub's anchor of a heading: lower case, with hyphens between words."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    """Links within the repository; Sphinx checks those between the pages of docs/."""
    text = (pages.ROOT / name).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, place = link.partition("#")
        target = pages.ROOT / (path or name)
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if place else []
        assert not place or place in map(anchor, headings), link


def test_blocks_are_found():
    found = pages.examples(pages.DOCS / "contract.md")
    assert len(found) >= 1
    lines = (pages.DOCS / "contract.md").read_text().splitlines()
    for line, source in found:
        assert lines[line - 2] == "```python" and lines[line - 1] == source.splitlines()[0]


@pytest.mark.parametrize("example", ["assert 1 == 2", ">>> 1\n2"])
def test_a_failing_example_fails(example, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\n```python\n{example}\n```\n")
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        pages.run(page)
