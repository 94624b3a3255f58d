"""The mutants of tests/mutants/ still apply to the code; `make mutants` runs the tests on them."""

from pathlib import Path

import pytest
from mutants.run import ROOT, missing_tests, mutants, place, sources

MUTANTS = mutants()


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    return sources(ROOT)


@pytest.mark.parametrize("mutant", MUTANTS, ids=map(str, range(1, len(MUTANTS) + 1)))
def test_a_mutant_applies(mutant, texts):
    """Its line occurs exactly once, the changed file is valid Python, and its tests exist."""
    assert mutant["old"] != mutant["new"]
    assert place(mutant, texts).is_file()
    assert "tests/" in mutant["tests"]
    assert not missing_tests(mutant, ROOT)


def test_no_mutant_is_there_twice():
    assert len({(mutant["old"], mutant["new"]) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    "old, new", [("no such line", ""), ("import", ""), ("def is_wrapper(", "def (")]
)
def test_what_does_not_apply_is_told(texts, old, new):
    with pytest.raises((SyntaxError, ValueError)):
        place({"old": old, "new": new}, texts)


def test_tests_that_are_not_there_are_told():
    tests = "tests/test_hashes.py::test_hashes tests/test_hashes.py::test_no tests/no.py -k no"
    assert missing_tests({"tests": tests}, ROOT) == ["tests/test_hashes.py::test_no", "tests/no.py"]
