"""Check the kernels on a GPU, and time them: a few minutes, most of which Triton compiles.

    python bench/gpu.py [--no-speed]

It has not been run on a device yet. Whatever differs ends it with status 1.

- The frozen hashes, of tests/hashes.txt, in every distribution and type.
- Random boxes and strides against the CPU.
- A fill that was captured in a CUDA graph.
- The rates of each distribution, of torch's own functions, and of setting the same memory to zero.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import triton

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import make_hashes
from draws import DRAWS, FROZEN

from winit_fast.base import dtypes
from winit_fast.base.boxes import Box, box, whole
from winit_fast.gpu import cases
from winit_fast.gpu.device import unable
from winit_fast.gpu.fill import fill
from winit_fast.streams import distributions
from winit_fast.streams.fill import fill as fill_on_cpu

KEY, STREAM = make_hashes.SEED, make_hashes.STREAM
METHODS = dict(cases.DISTRIBUTIONS)  # others have no kernel
DRAWN = {label: draw for label, draw in FROZEN.items() if draw[0] in METHODS}
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(CARRIERS[tensor.itemsize]).cpu().numpy()


def prepared(method: str, parameters: tuple[float, ...], dtype: str) -> object:
    return getattr(distributions, method)(dtypes.find(dtype).dtype, *parameters)


def empty(shape: tuple[int, ...], dtype: str, device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype), device=device)


def on_cpu(distribution: object, cut: Box, dtype: str) -> np.ndarray:
    out = np.empty(cut.shape, dtypes.find(dtype).dtype)
    fill_on_cpu(distribution, KEY, STREAM, out, cut)
    return out.view(f"u{out.itemsize}")


def differing_hashes(device: torch.device) -> Iterator[str]:
    """Yield the lines of the table, those of 4099 elements, that the device does not reproduce."""
    frozen = make_hashes.frozen()
    for label, (method, parameters) in DRAWN.items():
        for dtype in cases.DTYPES:
            distribution = prepared(method, parameters, dtype)
            for offset in make_hashes.OFFSETS:
                cut = box((2**63,), np.s_[offset : offset + 4099])
                out = empty(cut.shape, dtype, device)
                fill(distribution, KEY, STREAM, out, cut)
                key = f"{label} {dtype} {offset} 4099"
                if make_hashes.blake2b(bits(out).tobytes()) != frozen[key]:
                    yield key


def differing_boxes(device: torch.device, count: int) -> Iterator[str]:
    """Yield random boxes, in random layouts, that differ from those of the CPU."""
    random = np.random.default_rng(18)
    for _ in range(count):
        axes = int(random.integers(1, 5))
        shape = tuple(random.integers(1, 40, axes).tolist())
        first = [int(random.integers(0, extent)) for extent in shape]
        last = [int(random.integers(a, b)) + 1 for a, b in zip(first, shape, strict=True)]
        cut = box((2**30, *shape), (2**29, *map(slice, first, last)))
        order = random.permutation(axes).tolist()
        gap = int(random.integers(1, 3))
        method, dtype = random.choice(list(METHODS)), str(random.choice(cases.DTYPES))
        out = empty([cut.shape[axis] * gap for axis in order], dtype, device)
        out = out[tuple(slice(0, None, gap) for _ in order)]
        out = out.permute([order.index(axis) for axis in range(axes)])
        distribution = prepared(method, DRAWS[method].wide, dtype)
        fill(distribution, KEY, STREAM, out, cut)
        if (bits(out).view(f"u{out.itemsize}") != on_cpu(distribution, cut, dtype)).any():
            yield f"{method} {dtype} {cut} strides {out.stride()}"


def differing_large(device: torch.device, size: int) -> Iterator[str]:
    """Yield distributions and types of which a whole large tensor differs from the CPU's."""
    for label, (method, parameters) in DRAWN.items():
        for dtype in cases.DTYPES:
            distribution, cut = prepared(method, parameters, dtype), whole((size,))
            out = empty(cut.shape, dtype, device)
            fill(distribution, KEY, STREAM, out, cut)
            if (bits(out).view(f"u{out.itemsize}") != on_cpu(distribution, cut, dtype)).any():
                yield f"{label} {dtype} {size}"


def differing_graph(device: torch.device) -> Iterator[str]:
    """Yield a name if a captured fill, replayed, does not give the elements."""
    distribution, cut = prepared("normal", (0.0, 1.0), "float32"), whole((1 << 20,))
    out = empty(cut.shape, "float32", device)
    fill(distribution, KEY, STREAM, out, cut)  # compiles the kernel
    want, graph = out.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fill(distribution, KEY, STREAM, out, cut)
    out.zero_()
    graph.replay()
    if not torch.equal(out, want):
        yield "a replayed CUDA graph"


def rates(device: torch.device, size: int) -> None:
    """Print gigabytes per second and the share of memset's rate: medians of alternating runs."""
    for dtype in ("float32", "bfloat16", "float64"):
        out = empty((size,), dtype, device)
        cut = whole((size,))
        contestants: dict[str, Callable[[], object]] = {
            "memset": out.zero_,
            "torch uniform_": out.uniform_,
            "torch normal_": out.normal_,
            "torch trunc_normal_": lambda out=out: torch.nn.init.trunc_normal_(out),
        }
        for label, method, parameters in (
            ("uniform", "uniform", (-0.3, 0.7)),
            ("normal", "normal", (0.01, 0.02)),
            ("truncated, 2 sigma", "truncated_normal", (0.01, 0.02, -2.0, 2.0)),
            ("truncated, 3 sigma", "truncated_normal", (0.01, 0.02, -3.0, 3.0)),
            ("truncated, a tail", "truncated_normal", (0.0, 1.0, -30.0, -29.0)),
        ):
            distribution = prepared(method, parameters, dtype)
            contestants[label] = lambda d=distribution, out=out, cut=cut: fill(
                d, KEY, STREAM, out, cut
            )
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(9):
            for name, run in contestants.items():
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                run()
                end.record()
                end.synchronize()
                times[name].append(begin.elapsed_time(end) / 1e3)
        reference = np.median(times["memset"][2:])
        print(f"\n{dtype}, {size} elements")
        for name, each in times.items():
            median = np.median(each[2:])  # the first runs compile and warm up
            rate = out.nbytes / median / 1e9
            print(f"  {name:20} {rate:8.0f} GB/s  {reference / median:5.2f} of memset")


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the kernels on a GPU, and time them.")
    parser.add_argument("--log2-size", type=int, default=28, help="elements of a timed tensor")
    parser.add_argument("--boxes", type=int, default=200, help="random boxes to compare")
    parser.add_argument("--no-speed", action="store_true", help="only compare bits")
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    obstacle = unable(device)
    if obstacle is not None:
        print(f"The kernels cannot run on {device}: {obstacle}")
        return 1
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "Triton's interpreter"
    print(f"{name}, torch {torch.__version__}, triton {triton.__version__}")

    different = []
    for what, found in (
        ("frozen hashes", differing_hashes(device)),
        ("random boxes", differing_boxes(device, options.boxes)),
        ("large tensors", differing_large(device, 1 << 20 if cuda else 1 << 12)),
        ("a CUDA graph", differing_graph(device) if cuda else iter(())),
    ):
        begin, lines = time.perf_counter(), list(found)
        print(f"{what}: {len(lines)} differ, {time.perf_counter() - begin:.0f} s", flush=True)
        different += lines
    for line in different:
        print(f"  differs: {line}")
    if cuda and not options.no_speed:
        rates(device, 1 << options.log2_size)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
