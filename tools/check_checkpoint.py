"""Check a GPT-2 checkpoint that ``winit-fast init`` wrote, with only the safetensors library.

    python tools/check_checkpoint.py DIR

The expected tensors are written out here a second time, from the numbers in DIR/config.json, so
that the package does not check itself. Every tensor must exist with its name, shape and type, and
there must be no others. Constant tensors must hold their constant; random ones must have the mean
and the standard deviation of their rule.

Bounds: the mean of n values with standard deviation s has a standard error of s/sqrt(n), and their
standard deviation one of s/sqrt(2 n). Both may be off by z standard errors, where z is such that a
correct checkpoint fails any of its tests with probability 1e-9.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  makes NumPy know bfloat16
import numpy as np
from safetensors import safe_open

FALSE_ALARM = 1e-9
BLOCK = 1 << 17  # elements in memory at one time: few enough to stay in the cache
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Expected(NamedTuple):
    """The shape of a tensor, and the mean and standard deviation of its elements."""

    shape: tuple[int, ...]
    mean: float
    deviation: float


class Row(NamedTuple):
    """What was found in one tensor; the errors are in units of their bounds."""

    name: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    mean_error: float
    deviation_error: float


def expected_tensors(config: dict[str, Any]) -> dict[str, Expected]:
    """List every tensor of a GPT-2 model except the tied output layer."""
    width, layers = config["n_embd"], config["n_layer"]
    residual = 0.02 / math.sqrt(2 * layers)
    tensors = {
        "wte.weight": Expected((config["vocab_size"], width), 0, 0.02),
        "wpe.weight": Expected((config["n_positions"], width), 0, 0.02),
        "ln_f.weight": Expected((width,), 1, 0),
        "ln_f.bias": Expected((width,), 0, 0),
    }
    for layer in range(layers):
        for norm in ("ln_1", "ln_2"):
            tensors[f"h.{layer}.{norm}.weight"] = Expected((width,), 1, 0)
            tensors[f"h.{layer}.{norm}.bias"] = Expected((width,), 0, 0)
        for linear, rows, columns, deviation in (
            ("attn.c_attn", width, 3 * width, 0.02),
            ("attn.c_proj", width, width, residual),
            ("mlp.c_fc", width, 4 * width, 0.02),
            ("mlp.c_proj", 4 * width, width, residual),
        ):
            tensors[f"h.{layer}.{linear}.weight"] = Expected((rows, columns), 0, deviation)
            tensors[f"h.{layer}.{linear}.bias"] = Expected((columns,), 0, 0)
    return tensors


def files_of(directory: Path) -> dict[str, list[str]]:
    """List the checkpoint's files, and the tensors that each must hold according to the index."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return {"model.safetensors": []}
    files: dict[str, list[str]] = {}
    for name, file in json.loads(index.read_text())["weight_map"].items():
        files.setdefault(file, []).append(name)
    return files


def blocks(tensor: Any) -> Iterator[np.ndarray]:
    """Read a tensor's elements as float64, some rows at a time."""
    rows, *rest = tensor.get_shape()
    step = max(1, BLOCK // math.prod(rest))
    for start in range(0, rows, step):
        yield tensor[start : min(start + step, rows)].astype(np.float64)


def measure(name: str, tensor: Any, expected: Expected, z: float) -> Row:
    """Compare the mean and standard deviation of a tensor with the expected ones."""
    count, total, squares = 0, 0.0, 0.0
    for block in blocks(tensor):
        centred = block.ravel() - expected.mean
        count += centred.size
        total += float(centred.sum())
        squares += float(np.square(centred, out=centred).sum())
    mean, deviation = total / count, math.sqrt(squares / count)
    if expected.deviation == 0:  # a constant: no error is allowed
        errors = (0.0 if mean == 0 else math.inf), (0.0 if deviation == 0 else math.inf)
    else:
        bound = z * expected.deviation / math.sqrt(count)
        errors = abs(mean) / bound, abs(deviation - expected.deviation) * math.sqrt(2) / bound
    return Row(name, tuple(tensor.get_shape()), mean + expected.mean, deviation, *errors)


def check(directory: Path) -> tuple[list[Row], list[str]]:
    """Check all tensors of a checkpoint; return messages for everything that is wrong."""
    config = json.loads((directory / "config.json").read_text())
    expected = expected_tensors(config)
    tests = 2 * sum(tensor.deviation > 0 for tensor in expected.values())
    z = NormalDist().inv_cdf(1 - FALSE_ALARM / tests / 2)
    dtype = DTYPES[config["torch_dtype"]]

    rows: list[Row] = []
    faults: list[str] = []
    beginnings: dict[bytes, str] = {}
    for filename, listed in files_of(directory).items():
        with safe_open(directory / filename, framework="numpy") as file:
            names = list(file.keys())
            if listed and sorted(listed) != sorted(names):
                faults.append(f"{filename} does not hold the tensors that the index says")
            for name in names:
                tensor, should = file.get_slice(name), expected.get(name)
                shape, found = tuple(tensor.get_shape()), tensor.get_dtype()
                if should is None:
                    faults.append(f"{name} is no tensor of this model")
                elif (shape, found) != (should.shape, dtype):
                    faults.append(f"{name} is {found} {shape}, should be {dtype} {should.shape}")
                else:
                    row = measure(name, tensor, should, z)
                    rows.append(row)
                    if max(row.mean_error, row.deviation_error) > 1:
                        faults.append(f"{name} has mean {row.mean:g}, deviation {row.deviation:g}")
                    if should.deviation > 0:
                        beginning = tensor[:1].tobytes()[:64]
                        if other := beginnings.get(beginning):
                            faults.append(f"{name} begins with the same numbers as {other}")
                        beginnings[beginning] = name
    measured = [row.name for row in rows]
    if len(set(measured)) < len(measured):
        faults.append("a tensor is there twice")
    faults += [f"{name} is missing" for name in expected.keys() - set(measured)]
    return rows, faults


def report(rows: list[Row]) -> str:
    """Format one line for the same tensor of all layers, with its largest errors."""
    kinds: dict[tuple[str, tuple[int, ...]], list[Row]] = {}
    for row in rows:
        kinds.setdefault((re.sub(r"\d+", "*", row.name, count=1), row.shape), []).append(row)
    title = f"{'tensor':<25}{'times':>6}{'shape':>15}{'mean':>11}{'deviation':>12}"
    lines = [title + f"{'worst error / bound: mean, deviation':>40}"]
    for (name, shape), group in kinds.items():
        mean = sum(row.mean for row in group) / len(group)
        deviation = math.sqrt(sum(row.deviation**2 for row in group) / len(group))
        lines.append(
            f"{name:<25}{len(group):>6}"
            f"{' x '.join(map(str, shape)):>15}{mean:>11.6f}{deviation:>12.8f}"
            f"{max(row.mean_error for row in group):>28.2f}"
            f"{max(row.deviation_error for row in group):>12.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Check the checkpoint of the command line; exit with status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    rows, faults = check(parser.parse_args().directory)
    print(report(rows))
    parameters = sum(math.prod(row.shape) for row in rows)
    if faults:
        print("\n".join(["", *faults[:20]]))
        sys.exit(f"{len(faults)} faults")
    print(f"{len(rows)} tensors, {parameters:,} parameters: all as they should be")


if __name__ == "__main__":
    main()
