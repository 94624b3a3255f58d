"""Turn the JSON of `make bench` into Markdown tables and figures.

    python bench/report.py build/bench.json

The tables replace what is between the markers ``<!-- bench: NAME -->`` and ``<!-- end -->`` in
docs/benchmarks.md and README.md. The figures are speed.svg, sizes.svg and growth.svg in
docs/figures/.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fits
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PAGES = "docs/benchmarks.md", "README.md"
PEERS = "NumPy", "PyTorch", "JAX", "Keras", "mkl_random"
OURS, LIMIT = "winit_fast", "memory"

Entry = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The measurements, each with its question and labels, and the machine."""

    machine: str
    date: str
    entries: list[Entry]
    skipped: list[dict[str, str]]

    @classmethod
    def load(cls, path: Path) -> "Results":
        data = json.loads(path.read_text())
        cpu = data["machine_info"].get("cpu", {})
        name = f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} processors"
        entries = [b["extra_info"] for b in data["benchmarks"]]
        return cls(name, data["datetime"][:10], entries, data["skipped"])

    def of(self, question: str, **labels: Any) -> list[Entry]:
        return [
            entry
            for entry in self.entries
            if entry.get("question") == question
            and all(entry.get(key) == value for key, value in labels.items())
        ]

    def centre(self) -> Entry:
        """The central values of the axes: the combination that most measured fills have."""
        keys = ("log2", "threads", "isa", "layout", "memory")
        many: dict[tuple[Any, ...], int] = {}
        for entry in self.of("speed"):
            point = tuple(entry[key] for key in keys)
            many[point] = many.get(point, 0) + 1
        return dict(zip(keys, max(many, key=many.__getitem__), strict=True)) if many else {}


# --------------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a Markdown table; the first column is text, the others are numbers.

    >>> print(table(["case", "GB/s"], [["normal", "9.1"]]))
    | case | GB/s |
    |---|--:|
    | normal | 9.1 |
    """
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def three(x: float | None) -> str:
    """Format with three digits; None is a dash.

    >>> three(0.12345), three(1234.5), three(None)
    ('0.123', '1230', '-')
    """
    if x is None:
        return "-"
    return f"{float(f'{x:.3g}'):.10g}"


def duration(seconds: float) -> str:
    """Format a duration in the unit that suits it.

    >>> duration(3.2e-7), duration(0.0123), duration(5025), duration(0)
    ('320 ns', '12.3 ms', '84 min', '0')
    """
    if seconds == 0:
        return "0"
    for limit, unit, factor in ((1e-6, "ns", 1e9), (1e-3, "us", 1e6), (1, "ms", 1e3)):
        if seconds < limit:
            return f"{three(seconds * factor)} {unit}"
    return f"{three(seconds)} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def rate(entry: Entry) -> float:
    """Our rate in GB/s."""
    return entry["nbytes"] / entry["seconds"][OURS] / 1e9


def times_as_fast(entry: Entry, peer: str) -> float | None:
    theirs = entry["seconds"].get(peer)
    return None if theirs is None else theirs / entry["seconds"][OURS]


def present(entries: list[Entry]) -> list[str]:
    """List the peers that were measured in at least one entry."""
    return [peer for peer in PEERS if any(peer in entry["seconds"] for entry in entries)]


def compared(entries: list[Entry], label: Callable[[Entry], str], first: str) -> str:
    """One row for each entry: our rate, its share of memory's rate, and the ratios to the peers."""
    peers = present(entries)
    rows = []
    for entry in entries:
        limit = times_as_fast(entry, LIMIT)
        rows.append(
            [
                label(entry),
                three(rate(entry)),
                "-" if limit is None else f"{limit:.0%}",
                *(three(times_as_fast(entry, peer)) for peer in peers),
            ]
        )
    return table([first, "GB/s", "of memory", *(f"x {peer}" for peer in peers)], rows)


def plain(distribution: str) -> str:
    return distribution.replace("_", " ")


def distributions(results: Results) -> str:
    entries = results.of("speed", **results.centre())
    return compared(entries, lambda e: f"{plain(e['distribution'])} {e['dtype']}", "distribution")


def sizes(results: Results) -> str:
    point = {**results.centre(), "dtype": "float32"}
    del point["log2"]
    entries = sorted(results.of("speed", **point), key=lambda e: (e["distribution"], e["log2"]))
    return compared(entries, lambda e: f"{plain(e['distribution'])}, 2^{e['log2']}", "elements")


def small(results: Results) -> list[Entry]:
    """The entries of the sweep of instruction sets, which has a size of its own."""
    best = results.centre().get("isa")
    logs = {entry["log2"] for entry in results.of("speed") if entry["isa"] != best}
    return [e for e in results.of("speed", memory="warm") if e["log2"] in logs]


def sets(results: Results) -> str:
    entries = [e for e in small(results) if e["layout"] == "contiguous" and e["dtype"] == "float32"]
    return compared(
        entries,
        lambda e: (
            f"{plain(e['distribution'])}, {e['isa']}, {e['threads']} thread"
            + "s" * (e["threads"] > 1)
        ),
        "instruction set",
    )


def layouts(results: Results) -> str:
    centre = results.centre()
    entries = [
        e
        for e in small(results)
        if e["distribution"] == "normal"
        and e["isa"] == centre["isa"]
        and e["threads"] == centre["threads"]
        and e["dtype"] == "float32"
    ]
    return compared(entries, lambda e: f"normal, {e['layout']}", "layout")


def touch(results: Results) -> str:
    point = {**results.centre(), "dtype": "float32", "memory": "first touch"}
    entries = results.of("speed", **point)
    return compared(entries, lambda e: f"{plain(e['distribution'])}, first touch", "memory")


def orthogonal(results: Results) -> str:
    entries = results.of("orthogonal")
    peers = present(entries)
    rows = [
        [
            " x ".join(map(str, e["shape"])),
            duration(e["seconds"][OURS]),
            *(three(times_as_fast(e, peer)) for peer in peers),
        ]
        for e in entries
    ]
    return table(["matrix, float32", "time", *(f"x {peer}" for peer in peers)], rows)


def disk(results: Results) -> str:
    rows = []
    for e in results.of("disk"):
        zeros = min(s for who, s in e["seconds"].items() if who.startswith("zeros"))
        rows.append(
            [
                f"{e['model']}, {e['dtype']}, {e['nbytes'] / 1e9:.2f} GB",
                duration(e["seconds"][OURS]),
                three(rate(e)),
                f"{zeros / e['seconds'][OURS]:.0%}",
                three(times_as_fast(e, "NumPy")),
            ]
        )
    return table(["checkpoint", "time", "GB/s", "of zeros' rate", "x NumPy and save_file"], rows)


def growth_name(entry: Entry) -> str:
    match entry["axis"]:
        case "elements":
            threads = entry["threads"]
            return f"elements, {threads} thread" + "s" * (threads > 1)
        case "shards":
            return f"shards, {entry['cut']}"
        case axis:
            return axis


def growth_model(entry: Entry) -> tuple[list[float], str]:
    """What the line is fitted over: the axis itself, or a power of it (1/threads, size/shards)."""
    x = [point[0] for point in entry["points"]]
    if entry["axis"] == "shards":
        rows, columns = entry["shape"]
        return [rows * columns / shards for shards in x], "element"
    if entry["axis"] == "threads":
        return [1 / threads for threads in x], "1/threads"
    return list(x), entry["axis"].removesuffix("s")


def growth(results: Results) -> str:
    rows = []
    for entry in results.of("growth"):
        n, unit = growth_model(entry)
        t = [point[1] for point in entry["points"]]
        order = sorted(range(len(n)), key=n.__getitem__)
        n, t = [n[k] for k in order], [t[k] for k in order]
        if entry["axis"] == "threads":  # the fit leaves out more threads than processors
            count = entry["processors"]
            n, t = zip(*((a, b) for a, b in zip(n, t, strict=True) if 1 / a <= count), strict=True)
        if len(n) < 2:
            continue
        line = fits.line(n, t)
        fixed = ("-" if line.fixed < 0 else "") + duration(abs(line.fixed))
        half = max(0, min(len(n) // 2, len(n) - 3))
        exponent = fits.exponent(n[half:], t[half:])
        rows.append(
            [
                growth_name(entry),
                f"{fixed} + {duration(line.each)} x {unit}",
                "-" if line.off is None else f"{line.off:.0%}",
                "-" if exponent is None else f"{exponent:.2f}",
            ]
        )
    return table(["axis", "time", "off by at most", "exponent"], rows)


def plan(results: Results) -> str:
    rows = []
    for e in results.of("plan"):
        seconds = e["seconds"]
        numpy = seconds["NumPy sample"] / e["sample"] * e["parameters"]
        per_second = e["elements"] / seconds[OURS]
        rows += [
            [f"{e['model']}: parameters", f"{e['parameters']:,}"],
            ["tensors", f"{e['tensors']:,}"],
            ["making the list of tensors and rules", duration(seconds["list of tensors"])],
            [f"elements of rank {e['rank']} of {e['ranks']}", f"{e['elements']:,}"],
            [f"**that rank's rows, bfloat16, {e['threads']} threads**",
             f"**{duration(seconds[OURS])}**"],
            ["the same into memory never touched", duration(seconds["first touch"])],
            ["rate", f"{per_second / 1e9:.2f} * 10^9 elements/s, {rate(e):.2f} GB/s"],
            ["*extrapolated:* the whole model on this machine",
             duration(e["parameters"] / per_second)],
            ["*extrapolated:* NumPy's normals for the whole, as where each rank makes all and cuts",
             duration(numpy)],
        ]  # fmt: skip
    return table(["", "measured"], rows)


def bars(results: Results) -> str:
    """The comparisons for which the project promises a factor."""
    rows = [
        [
            e["case"],
            e["peer"],
            three(e["ratio"]),
            three(e["bar"]),
            three(e.get("aim")),
            "" if e["ratio"] >= e["bar"] else "**short**",
        ]
        for e in results.entries
        if "ratio" in e
    ]
    return table(["case", "against", "times as fast", "at least", "aim", ""], rows)


def skipped(results: Results) -> str:
    if not results.skipped:
        return "Nothing was left out."
    return table(["case", "why"], [[f"`{e['case']}`", e["reason"]] for e in results.skipped])


def readme(results: Results) -> str:
    entries = [
        e
        for e in results.of("speed", **results.centre())
        if (e["distribution"], e["dtype"]) in
        {("uniform", "float32"), ("normal", "float32"), ("normal", "bfloat16"),
         ("normal", "float64"), ("truncated_normal", "float32")}
    ]  # fmt: skip
    return compared(entries, lambda e: f"{plain(e['distribution'])} {e['dtype']}", "distribution")


def machine(results: Results) -> str:
    centre = results.centre()
    return (
        f"Measured {results.date} on {results.machine}"
        + (f", {centre['isa']}, {centre['threads']} threads" if centre else "")
        + "."
    )


TABLES: dict[str, Callable[[Results], str]] = {
    "machine": machine,
    "readme": readme,
    "distributions": distributions,
    "sizes": sizes,
    "sets": sets,
    "layouts": layouts,
    "touch": touch,
    "orthogonal": orthogonal,
    "disk": disk,
    "growth": growth,
    "plan": plan,
    "bars": bars,
    "skipped": skipped,
}


CAPTIONS = {
    "sizes": "![GB/s over the number of elements](figures/sizes.svg)",
    "growth": "![time over elements, tensors, threads and shards](figures/growth.svg)",
}
"""Figures that stand above a table: a page shows them once they have been drawn."""


def insert(text: str, results: Results) -> str:
    """Replace what is between the markers by the tables.

    Raises
    ------
    KeyError
        If a marker names no table.
    """

    def filled(found: re.Match[str]) -> str:
        name = found[2]
        parts = [CAPTIONS[name]] if name in CAPTIONS else []
        return "\n\n".join([found[1], *parts, TABLES[name](results), found[3]])

    pattern = r"(<!-- bench: (\w+) -->)\n.*?(<!-- end -->)"
    return re.sub(pattern, filled, text, flags=re.DOTALL)


# --------------------------------------------------------------------------------------------------
# Figures
# --------------------------------------------------------------------------------------------------

COLOURS = {
    OURS: "#1b4f8a",
    LIMIT: "#8a8a8a",
    "NumPy": "#d1701c",
    "PyTorch": "#c03a2b",
    "JAX": "#3c8d5a",
    "Keras": "#8b5fbf",
    "mkl_random": "#a68a00",
}
MARKS = {"NumPy": "o", "PyTorch": "s", "JAX": "D", "Keras": "^", "mkl_random": "v"}


def drawing() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    # Equal figures give an equal file, byte for byte.
    matplotlib.rcParams.update({"svg.hashsalt": "winit_fast", "font.size": 10})
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_ratios(results: Results, path: Path) -> None:
    """One row for each case, one mark for each peer: how many times as fast we are."""
    pyplot = drawing()
    rows = [
        (f"{plain(e['distribution'])} {e['dtype']}", e)
        for e in results.of("speed", **results.centre())
        if any(peer in e["seconds"] for peer in PEERS)
    ]
    rows += [(f"orthogonal {e['shape'][0]} x {e['shape'][1]}", e) for e in results.of("orthogonal")]
    figure, axes = pyplot.subplots(figsize=(8, 0.29 * len(rows) + 1.3), layout="constrained")
    for peer in present([e for _, e in rows]):
        points = [
            (times_as_fast(e, peer), y) for y, (_, e) in enumerate(rows) if peer in e["seconds"]
        ]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, MARKS[peer], color=COLOURS[peer], markersize=6.5, label=peer, alpha=0.9)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.axvline(1, color="black", linewidth=0.9)
    axes.set_xlabel("winit_fast is so many times as fast as")
    tidy(axes)
    figure.legend(loc="outside upper center", ncols=len(PEERS), frameon=False)
    save(figure, path)


def draw_sizes(results: Results, path: Path) -> None:
    """GB/s over the number of elements, one panel for each distribution."""
    pyplot = drawing()
    point = {**results.centre(), "dtype": "float32"}
    del point["log2"]
    entries = results.of("speed", **point)
    names = list(dict.fromkeys(e["distribution"] for e in entries))
    logs = sorted({e["log2"] for e in entries})
    step = 2 * (logs[1] - logs[0]) if len(logs) > 1 else 1  # every second point of a regular sweep
    figure, panels = pyplot.subplots(
        1, len(names), figsize=(10, 3.7), layout="constrained", sharey=True, squeeze=False
    )
    for axes, name in zip(panels[0], names, strict=True):
        some = sorted((e for e in entries if e["distribution"] == name), key=lambda e: e["log2"])
        for who in (LIMIT, OURS, *present(some)):
            points = [
                (e["log2"], e["nbytes"] / e["seconds"][who] / 1e9)
                for e in some
                if who in e["seconds"]
            ]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=COLOURS[who], marker=MARKS.get(who, "o"), markersize=3.5,
                      linewidth=2.4 if who == OURS else 1.3,
                      linestyle="--" if who == LIMIT else "-", label=who)  # fmt: skip
        axes.set_title(f"{plain(name)}, float32", fontsize=10.5)
        axes.set_yscale("log")
        axes.set_xlabel("elements")
        axes.xaxis.set_major_formatter(lambda value, _: f"$2^{{{value:.0f}}}$")
        axes.set_xticks(range(logs[0], logs[-1] + 1, step))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        tidy(axes)
    panels[0][0].set_ylabel("GB/s")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    save(figure, path)


def draw_growth(results: Results, path: Path) -> None:
    """The measured points and the fitted lines, one panel for each axis."""
    pyplot = drawing()
    from matplotlib.ticker import LogLocator, NullFormatter

    titles = {
        "elements": "one call, more elements",
        "tensors": "more and smaller tensors",
        "threads": "more threads",
        "shards": "one shard of more",
    }
    entries = results.of("growth")
    figure, panels = pyplot.subplots(1, 4, figsize=(11, 3.3), layout="constrained")
    shades = ["#1b4f8a", "#d1701c"]
    for axes, (axis, title) in zip(panels, titles.items(), strict=True):
        for colour, entry in zip(shades, (e for e in entries if e["axis"] == axis), strict=False):
            x, t = zip(*entry["points"], strict=True)
            n, _ = growth_model(entry)
            label = growth_name(entry).removeprefix(f"{axis}, ").removeprefix(axis) or "measured"
            axes.plot(x, t, "o", color=colour, markersize=4.5, label=label)
            within = [k for k in range(len(x)) if axis != "threads" or x[k] <= entry["processors"]]
            if len(within) >= 2:
                line = fits.line([n[k] for k in within], [t[k] for k in within])
                # n is a power law of x (1/threads, size/shards), so geometric points of both
                # correspond.
                fine = np.geomspace(x[within[0]], x[within[-1]])
                over = np.geomspace(n[within[0]], n[within[-1]])
                drawn = [(a, line(b)) for a, b in zip(fine, over, strict=True) if line(b) > 0]
                axes.plot(*zip(*drawn, strict=True), "-", color=colour, linewidth=1.2, alpha=0.7)
        axes.set_title(title, fontsize=10.5)
        axes.set_xlabel(axis)
        axes.set_xscale("log", base=2)
        # the times differ by a small factor: a linear scale that begins at zero
        if axis == "threads":
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        else:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _: duration(value))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", labelsize=8.5)
        if axis in ("threads", "shards", "tensors"):
            counts = sorted(
                {point[0] for e in entries if e["axis"] == axis for point in e["points"]}
            )
            few = len(counts) <= 4
            counts = counts[:: 1 if len(counts) <= 8 else 2]
            labels = [f"{c:g}" if few else f"$2^{{{math.log2(c):g}}}$" for c in counts]
            axes.set_xticks(counts, labels)
            axes.minorticks_off()
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8.5)
        tidy(axes)
    save(figure, path)


FIGURES = {"speed": draw_ratios, "sizes": draw_sizes, "growth": draw_growth}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/ and README.md are")
    options = parser.parse_args()
    results = Results.load(options.results)
    for page in PAGES:
        path = options.root / page
        path.write_text(insert(path.read_text(), results))
        print(path)
    for name, draw in FIGURES.items():
        path = options.root / "docs" / "figures" / f"{name}.svg"
        draw(results, path)
        print(path)


if __name__ == "__main__":
    main()
