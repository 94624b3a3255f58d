"""Draw the figures of docs/kernels.md: the errors of polynomials and kernels, and the vector lanes.

    python tools/draw_figures.py

Needs matplotlib and mpmath. The polynomials are read from csrc/coefficients.h; the kernels are
those of the installed package.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import mpmath
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import reference

import winit_fast._core as _core
from winit_fast.streams import distributions

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
BLUE, ORANGE, GREY = "#3b6ea5", "#c05a1c", "#8a8a8a"

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "winit_fast",  # equal figures give an equal file
}

# --------------------------------------------------------------------------------------------------
# Polynomials, exactly as their rounded coefficients define them
# --------------------------------------------------------------------------------------------------


def coefficients() -> dict[str, np.ndarray]:
    """Read the tables of csrc/coefficients.h, with the values that the compiler gives them."""
    source = (ROOT / "csrc" / "coefficients.h").read_text()
    tables = {}
    for kind, name, body in re.findall(r"const (\w+) (\w+)\[[^=]*= \{(.*?)\};", source, re.DOTALL):
        numbers = np.array(
            re.findall(r"-?\d[\d.e+-]*", body), np.dtype(kind.replace("float", "f4"))
        )
        tables[name] = numbers.reshape(-1, 8) if name.startswith("quantile_f") else numbers
    return tables


def value(constants, x):
    """Evaluate a polynomial, lowest power first, with a rounding error too small to see."""
    return mpmath.polyval([mpmath.mpf(float(c)) for c in constants][::-1], x)


def log_error(table, tag, f):
    return (f + f**2 * value(table[f"log_{tag}"], f)) / mpmath.log1p(f) - 1


def sin_error(table, tag, x):
    head = mpmath.mpf(float(table[f"sin_head_{tag}"][0]))
    return x * (head + value(table[f"sin_{tag}"], x**2)) / mpmath.sin(mpmath.pi * x / 2) - 1


def cos_error(table, tag, x):
    return (1 + x**2 * value(table[f"cos_{tag}"], x**2)) / mpmath.cos(mpmath.pi * x / 2) - 1


def chances(z):
    """t = 2 Phi(z) - 1 and 1 - t^2, both with full relative precision."""
    tail = mpmath.erfc(z / mpmath.sqrt(2))
    return mpmath.erf(z / mpmath.sqrt(2)), tail * (2 - tail)


def central_error(table, tag, z):
    t, rest = chances(z)
    head = mpmath.mpf(float(table[f"quantile_root_head_{tag}"][0]))
    x = mpmath.sqrt(rest) - mpmath.mpf(5) / 8
    return t * (head + value(table[f"quantile_root_{tag}"], x)) / z - 1


def octave_error(table, tag, z):
    t, rest = chances(z)
    w = -mpmath.log(rest) + 4
    k = int(mpmath.floor(mpmath.log(w, 2))) - 2
    head = mpmath.mpf(float(table[f"quantile_head_{tag}"][k]))
    x = w / mpmath.mpf(2) ** (k + 2) - 1
    return t * (head + value(table[f"quantile_{tag}"][:, k], x)) / z - 1


def draw_curve(axes, error: Callable, tag: str, table, points: np.ndarray, title: str) -> None:
    bits = {"f32": 24, "f64": 53}[tag]
    with mpmath.workprec(200):
        y = [float(error(table, tag, mpmath.mpf(float(x))) * 2**bits) for x in points]
    axes.plot(points, y, color=BLUE, linewidth=1.2)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set_title(title)
    axes.set_ylabel(f"relative error, $2^{{-{bits}}}$")
    limit = 1.15 * max(map(abs, y))
    axes.set_ylim(-limit, limit)


def draw_elementary(table) -> None:
    figure, rows = pyplot.subplots(2, 3, figsize=(9.5, 4.6), layout="constrained")
    for axes, tag, name in zip(rows, ("f32", "f64"), ("float32", "float64"), strict=True):
        # an even number of points leaves out 0, where the ratio is undefined
        f = np.linspace(-1 / 3, 1 / 3, 602)
        x = np.linspace(0, 0.5, 402)[1:]
        draw_curve(axes[0], log_error, tag, table, f, f"ln(1 + f), {name}")
        draw_curve(axes[1], sin_error, tag, table, x, f"sin(π x / 2), {name}")
        draw_curve(axes[2], cos_error, tag, table, x, f"cos(π x / 2), {name}")
        for column, label in zip(
            axes, ("f", "x, in quarter turns", "x, in quarter turns"), strict=True
        ):
            column.set_xlabel(label)
            if column is not axes[0]:
                column.set_ylabel("")
    save(figure, "elementary")


def draw_quantile(table) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 2.8), layout="constrained")
    central = np.linspace(0, 2, 502)[1:]
    draw_curve(left, central_error, "f32", table, central, "within 2 sigma: one polynomial")
    left.set_xlabel("z")
    # w = 745 (z = 38.6) belongs to the smallest probability that a double can hold.
    wide = np.geomspace(0.05, 38.4, 1601)
    draw_curve(right, octave_error, "f32", table, wide, "everywhere: eight octaves of $w + 4$")
    right.set(
        xscale="log", xlabel="z", ylabel="", xticks=[0.1, 1, 10], xticklabels=["0.1", "1", "10"]
    )
    save(figure, "quantile")


# --------------------------------------------------------------------------------------------------
# Kernels, as they are compiled
# --------------------------------------------------------------------------------------------------

WORDS = 1 << 22
BINS = 160


def envelope(x: np.ndarray, error: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Find the largest error in each bin."""
    worst = np.zeros(len(edges) - 1)
    inside = (x >= edges[0]) & (x < edges[-1])
    np.maximum.at(worst, np.searchsorted(edges, x[inside], side="right") - 1, error[inside])
    return worst


def draw_envelope(axes, x, error, edges, bound: float, title: str, label: str) -> None:
    axes.stairs(envelope(x, error, edges), edges, fill=True, color=BLUE)
    axes.axhline(bound, color=ORANGE, linewidth=1)
    axes.set(title=title, xlabel=label, xlim=(edges[0], edges[-1]), ylim=(0, 1.1 * bound))


def draw_kernels() -> None:
    """Draw the largest errors of random words; `make accuracy` measures all words."""
    rng = np.random.default_rng(0)
    words = rng.integers(1 << 32, size=(2, WORDS), dtype=np.uint32)
    figure, axes = pyplot.subplots(1, 4, figsize=(9.5, 2.7), layout="constrained")

    # The same number of words in every octave, because ln is equally hard in each.
    radius = (words[0] >> (words[1] % 32)).astype(np.uint32)
    u = reference.radius_uniform32(radius)
    error = reference.ulp_errors(_core.log_f32(u), np.log(u.astype(float)))
    draw_envelope(axes[0], np.log2(u), error, np.linspace(-32, 0, BINS), 2, "ln u", "log$_2$ u")

    angle, turns = words[0], words[0] * 2.0**-32
    sin, _ = _core.sincos_f32(angle)
    error = reference.ulp_errors(sin, reference.sincos32(angle)[0])
    draw_envelope(axes[1], turns, error, np.linspace(0, 1, BINS), 2, "sin(2π a)", "a, in turns")

    normal = distributions.normal(np.dtype("float32"), 0.0, 1.0)
    pairs = np.stack([radius, words[1] * np.uint32(0x9E3779B1)], axis=-1).reshape(-1)
    got = _core.transform(normal, pairs).view(np.float32)[0::2]
    even, _ = reference.box_muller32(pairs[0::2], pairs[1::2])
    # Exact values of less than 2^-20 may be arbitrarily near 0, where an error in ulps means
    # nothing. There the bound is absolute, and no error is drawn.
    error = np.where(abs(even) < 2.0**-20, 0, reference.ulp_errors(got, even))
    draw_envelope(axes[2], even, error, np.linspace(-6.7, 6.7, BINS), 4, "normal", "z")

    window = reference.Window(-2.0, 2.0)
    truncated = distributions.truncated_normal(np.dtype("float32"), 0.0, 1.0, -2.0, 2.0)
    got = _core.transform(truncated, words[0]).view(np.float32)
    exact = np.clip(window.quantile32(words[0]), -2, 2)
    error = np.where(abs(exact) < 2.0**-20, 0, reference.ulp_errors(got, exact))
    draw_envelope(axes[3], exact, error, np.linspace(-2, 2, BINS), 4, "truncated normal", "z")

    axes[0].set_ylabel("largest error, ulp")
    save(figure, "kernels")


# --------------------------------------------------------------------------------------------------
# Lanes
# --------------------------------------------------------------------------------------------------


def draw_register(axes, top: float, name: str, cells: list[str], colours: list[str]) -> None:
    """Draw a register as a row of cells of equal width."""
    width = 16 / len(cells)
    axes.text(-0.3, top - 0.4, name, ha="right", va="center")
    for k, (cell, colour) in enumerate(zip(cells, colours, strict=True)):
        axes.add_patch(
            Rectangle((k * width, top - 0.8), width, 0.8, facecolor=colour, edgecolor="white")
        )
        axes.text((k + 0.5) * width, top - 0.4, cell, ha="center", va="center", fontsize=8)


def draw_lanes() -> None:
    """Draw how Philox's last products become two registers of consecutive elements (AVX-512)."""
    figure, axes = pyplot.subplots(figsize=(9.5, 3.5), layout="constrained")
    axes.set(xlim=(-2.9, 16.1), ylim=(-6.9, 0.2))
    axes.axis("off")
    shades = [
        "#cfe0f1",
        "#e9d8c3",
        "#d5e8d0",
        "#ead1dc",
        "#d9d3ea",
        "#f3e6b3",
        "#cfe9e8",
        "#e0e0e0",
    ]
    lanes = [block for block in (0, 4, 1, 5, 2, 6, 3, 7) for _ in range(2)]
    tint = [shades[block] for block in lanes]
    for row, name in enumerate(("p0", "p1")):
        cells = [f"{block} {('low', 'high')[k % 2]}" for k, block in enumerate(lanes)]
        draw_register(axes, -0.9 * row, name, cells, tint)
    for row, name in enumerate(("a = pack_high(p1, p0) ^ …", "b = pack_low(p1, p0)")):
        cells = [f"{block}.{row + 2 * (k % 2)}" for k, block in enumerate(lanes)]
        draw_register(axes, -2.5 - 0.9 * row, name, cells, tint)
    for row, first in enumerate((0, 4)):
        elements = [(first + k // 4, k % 4) for k in range(16)]
        cells = [f"{block}.{word}" for block, word in elements]
        name = f"unpack_{('low', 'high')[row]}32(a, b)"
        draw_register(axes, -5.0 - 0.9 * row, name, cells, [shades[block] for block, _ in elements])
    save(figure, "lanes")


def save(figure, name: str) -> None:
    path = FIGURES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    table = coefficients()
    with pyplot.rc_context(STYLE):
        draw_lanes()
        draw_elementary(table)
        draw_quantile(table)
        draw_kernels()


if __name__ == "__main__":
    main()
