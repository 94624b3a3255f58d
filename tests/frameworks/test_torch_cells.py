"""docs/fast_init.md, which says who fills what inside fast_init, is up to date."""

import cells
import pytest
from cells import FLOATS, LANDINGS, LAYOUTS, PAGE, TYPES, WATCHERS

DRAWS = [name for name in LANDINGS if name in cells.CASES and name not in ("constant_", "dirac_")]


@pytest.fixture(scope="module")
def rows():
    return {(name, dtype): cells.row(name, dtype) for name in LANDINGS for dtype in TYPES}


def test_the_page_is_what_is_so(rows):
    assert PAGE.read_text(encoding="utf-8") == cells.page(rows)


def test_every_cell_is_ours_or_torchs(rows):
    assert {verdict for row in rows.values() for verdict in row.values()} == {"ours", "torch"}


def test_strided_floats_are_ours_whatever_the_path(rows):
    for name in DRAWS:
        for dtype in FLOATS:
            for layout in ("contiguous", "transposed", "with gaps"):
                assert rows[name, dtype][layout] == "ours", (name, dtype, layout)


def test_what_is_watched_is_torchs(rows):
    assert set(LAYOUTS).isdisjoint(WATCHERS)
    assert {row[watched] for row in rows.values() for watched in WATCHERS} == {"torch"}
