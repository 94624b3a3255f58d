"""Draw the ratios of `make bench` as a bar chart, and print them as a Markdown table.

python bench/plot.py build/bench.json docs/speed.svg
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PEERS = "NumPy random", "NumPy standard_normal", "NumPy qr", "torch"


def races(path: Path) -> list[tuple[str, str, float]]:
    """Read (case, peer, ratio) of the races against other packages, in the file's order."""
    found = [b["extra_info"] for b in json.loads(path.read_text())["benchmarks"]]
    found = [info for info in found if info.get("peer", "").startswith(PEERS)]
    return [(info["case"], info["peer"], info["ratio"]) for info in found]


def draw(rows: list[tuple[str, str, float]], path: Path) -> None:
    """Draw a horizontal bar for each race, on a logarithmic axis."""
    figure, axes = pyplot.subplots(figsize=(8, 0.36 * len(rows) + 1.1), layout="constrained")
    labels = [f"{case}  vs  {peer}" for case, peer, _ in rows]
    ratios = [ratio for _, _, ratio in rows]
    bars = axes.barh(range(len(rows)), ratios, color="#3b6ea5", height=0.7)
    axes.bar_label(bars, [f"{ratio:.3g}x" for ratio in ratios], padding=3, fontsize=9)
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, min(ratios) / 1.5), max(ratios) * 2.2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    rows = races(source)
    draw(rows, target)
    print("| case | against | times as fast |\n|---|---|---|")
    for case, peer, ratio in rows:
        print(f"| {case} | {peer} | {ratio:.3g} |")


if __name__ == "__main__":
    main()
