"""Tables, figures and fitted lines of `make bench-report`, from a few made-up measurements."""

import doctest
import json
import re

import check
import fits
import instructions
import pytest
import report


def fill(**changes):
    """One made-up fill: half as fast as memory, ten times as fast as NumPy."""
    centre = {"distribution": "normal", "dtype": "float32", "log2": 26, "threads": 2,
              "isa": "avx2", "layout": "contiguous", "memory": "warm"}  # fmt: skip
    entry = {"question": "speed", **centre, **changes}
    entry["nbytes"] = 4 << entry["log2"]
    ours = entry["nbytes"] / 8e9
    seconds = {"winit_fast": ours, "memory": ours / 2, "NumPy": 10 * ours}
    return entry | {"seconds": seconds}


ENTRIES = [
    fill(),
    fill(distribution="uniform"),
    fill(distribution="truncated_normal", dtype="bfloat16"),
    *(fill(log2=log2) for log2 in (10, 20, 31)),
    *(fill(log2=24, isa=isa, threads=t) for isa in ("avx2", "scalar") for t in (1, 2)),
    fill(log2=24, layout="columns in place"),
    fill(memory="first touch"),
    {"question": "orthogonal", "shape": [512, 256],
     "seconds": {"winit_fast": 0.002, "NumPy": 0.02}},
    {"question": "disk", "model": "gpt2", "dtype": "bfloat16", "nbytes": 250_000_000,
     "seconds": {"winit_fast": 0.5, "zeros": 0.4, "zeros, one thread": 0.45, "NumPy": 0.3}},
    *({"question": "growth", "axis": "elements", "threads": t,
       "points": [[n, 1e-6 + n * 1e-9 / t] for n in (16, 1024, 65536)]} for t in (1, 2)),
    {"question": "growth", "axis": "tensors", "elements": 65536,
     "points": [[k, 1e-3 + 2e-6 * k] for k in (1, 8, 64)]},
    {"question": "growth", "axis": "threads", "processors": 2,
     "points": [[1, 1.0], [2, 0.5], [4, 0.5]]},
    {"question": "growth", "axis": "shards", "cut": "rows", "shape": [64, 64],
     "points": [[s, 1e-6 + 4e-6 / s] for s in (1, 4, 16)]},
    {"question": "plan", "model": "llama", "rank": 5, "ranks": 512, "tensors": 1137,
     "elements": 800_000_000, "parameters": 405_000_000_000, "nbytes": 1_600_000_000,
     "sample": 1000, "threads": 2,
     "seconds": {"winit_fast": 0.5, "first touch": 1.0, "list of tensors": 0.1,
                 "NumPy sample": 8e-6}},
    {"case": "normal float32", "peer": "memory", "ratio": 0.5, "bar": 0.4, "aim": 0.55},
    {"case": "uniform float32", "peer": "memory", "ratio": 0.5, "bar": 0.8, "aim": None},
]  # fmt: skip


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "bench.json"
    data = {
        "machine_info": {"cpu": {"brand_raw": "A Processor", "count": 2}},
        "datetime": "2030-01-02T03:04:05",
        "benchmarks": [{"extra_info": entry} for entry in ENTRIES],
        "skipped": [{"case": "test_fill[31]", "reason": "needs 8.0 GiB of 4.0 GiB free"}],
    }
    path.write_text(json.dumps(data))
    return report.Results.load(path)


def test_the_centre_is_what_most_cases_have_in_common(results):
    centre = {"log2": 26, "threads": 2, "isa": "avx2", "layout": "contiguous", "memory": "warm"}
    assert results.centre() == centre
    assert report.machine(results) == (
        "Measured 2030-01-02 on A Processor, 2 processors, avx2, 2 threads."
    )


def test_rates_and_ratios(results):
    head, _, *rows = report.distributions(results).splitlines()
    assert head == "| distribution | GB/s | of memory | x NumPy |"
    assert rows == [
        "| normal float32 | 8 | 50% | 10 |",
        "| uniform float32 | 8 | 50% | 10 |",
        "| truncated normal bfloat16 | 8 | 50% | 10 |",
    ]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("sizes", [*(rf"normal, 2\^{k}" for k in (10, 20, 24, 26, 31)), r"uniform, 2\^26"]),
        ("sets", [f"normal, {isa}, {t}" for isa in ("avx2", "scalar")
                  for t in ("1 thread", "2 threads")]),
        ("layouts", ["normal, contiguous", "normal, columns in place"]),
        ("touch", ["normal, first touch"]),
        ("orthogonal", [r"512 x 256 \| 2 ms \| 10 "]),
        ("disk", [r"gpt2, bfloat16, 0.25 GB \| 500 ms \| 0.5 \| 80% \| 0.6 "]),
        ("skipped", [r"`test_fill\[31\]` \| needs 8.0 GiB of 4.0 GiB free "]),
    ],
)  # fmt: skip
def test_every_table_has_its_cases(results, name, rows):
    _, _, *found = report.TABLES[name](results).splitlines()
    assert len(found) == len(rows)
    for line, row in zip(found, rows, strict=True):
        assert re.match(rf"\| {row}", line)


def test_growth_is_fitted(results):
    _, _, *rows = report.growth(results).splitlines()
    assert rows == [
        "| elements, 1 thread | 1 us + 1 ns x element | 0% | 0.50 |",
        "| elements, 2 threads | 1 us + 0.5 ns x element | 0% | 0.42 |",
        "| tensors | 1 ms + 2 us x tensor | 0% | 0.03 |",
        "| threads | 0 + 1 s x 1/threads | - | - |",
        "| shards, rows | 1 us + 0.977 ns x element | 0% | 0.50 |",
    ]


def test_the_plan_is_extrapolated_from_one_shard(results):
    text = report.plan(results)
    assert "| tensors | 1,137 |" in text
    assert "1.60 * 10^9 elements/s, 3.20 GB/s" in text
    assert "the whole model on this machine | 253 s |" in text  # 405 / 1.6
    assert re.search(r"NumPy's normals for the whole.* \| 54 min \|", text)


def test_what_falls_short_is_marked(results):
    _, _, *rows = report.bars(results).splitlines()
    assert rows == [
        "| normal float32 | memory | 0.5 | 0.4 | 0.55 |  |",
        "| uniform float32 | memory | 0.5 | 0.8 | - | **short** |",
    ]


def test_tables_go_between_their_markers_again_and_again(results):
    page = "a\n<!-- bench: disk -->\nold\n<!-- end -->\nb\n<!-- bench: touch -->\n<!-- end -->\nc"
    once = report.insert(page, results)
    assert "old" not in once and "| gpt2, bfloat16" in once and "first touch" in once
    assert re.sub(r"<!-- bench.*?end -->", "", once, flags=re.DOTALL) == "a\n\nb\n\nc"
    assert report.insert(once, results) == once
    with pytest.raises(KeyError, match="speling"):
        report.insert("<!-- bench: speling -->\n<!-- end -->", results)


@pytest.mark.parametrize("page", report.PAGES)
def test_every_marker_of_the_pages_is_known(page):
    text = (report.ROOT / page).read_text()
    names = re.findall(r"<!-- bench: (\w+) -->", text)
    assert names and set(names) <= report.TABLES.keys()
    assert text.count("<!-- end -->") == len(names)


def test_every_table_stands_on_a_page():
    text = "".join((report.ROOT / page).read_text() for page in report.PAGES)
    assert all(f"<!-- bench: {name} -->" in text for name in report.TABLES)


def test_a_line_is_found_and_what_is_off_it():
    n = [1, 10, 100, 1000]
    exact = fits.line(n, [5 + 2 * x for x in n])
    assert (exact.fixed, exact.each, exact.off) == (5, 2, 0)
    assert exact(7) == 19
    off = fits.line(n, [7, 25, 205, 4010])
    assert 0.2 < off.off < 1


def test_two_points_tell_nothing_of_how_well_a_line_fits():
    assert fits.line([1, 2], [3.0, 4.0]).off is None
    assert fits.exponent([1, 2], [3.0, 4.0]) is None


def test_small_times_weigh_as_much_as_large_ones():
    """Least squares of absolute errors would lose the fixed cost in the large times' noise."""
    n = [1, 10, 100, 10**6]
    t = [1e-6 + 1e-9 * x for x in n]
    t[-1] *= 1.05
    assert fits.line(n, t).fixed == pytest.approx(1e-6, rel=0.06)


@pytest.mark.parametrize(("power", "factor"), [(1, 3.0), (0.5, 1e-9), (3, 2.0)])
def test_exponents(power, factor):
    n = [2, 8, 128, 4096]
    assert fits.exponent(n, [factor * x**power for x in n]) == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize("module", [check, fits, instructions, report], ids=lambda m: m.__name__)
def test_examples_in_the_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried > 0 and failed == 0
