"""How fast `winit-fast init` writes, compared with pwrite of zeros in the same chunks.

    python bench/write_rate.py [--model gpt2-xl] [--dtype bfloat16] [--place DIR] [--rounds 5]

Both sides write the same files in the same chunks with the same number of threads. They flush the
files while they are written and at the end (fsync). The time is from the first byte made to the
last byte on the disk. The zeros are also written by one thread in a plain loop, because threads may
not help; the faster of the two counts. The contestants alternate in one process, so that a slow
moment of a shared disk affects all of them. The ratio is that of the medians.

``--no-flush`` leaves out the flushes on both sides. This measures the rate into the page cache,
where making the numbers has to keep up with a memory copy instead of a disk.
"""

import argparse
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
from safetensors.numpy import save_file

import winit_fast as wf
from winit_fast import get_num_threads
from winit_fast.base import dtypes
from winit_fast.checkpoint import layout, write_checkpoint
from winit_fast.checkpoint.segments import SEGMENT_BYTES, of_shards
from winit_fast.models import Architecture, Rules

BAR = 0.8
SHARD_SIZE = 5 * 10**9


def write_zeros(directory: Path, model: str, dtype: str, num_threads: int) -> None:
    """Write zeros where the checkpoint's bytes would go: the same files, the same chunks."""
    architecture = Architecture.load(model)
    plan = Rules.load(architecture.rules).tensors(architecture).cast(dtype)
    shards = layout.shards(list(plan), SHARD_SIZE, {})
    chunks = of_shards(shards, 0, SEGMENT_BYTES)
    zeros = memoryview(bytes(SEGMENT_BYTES))
    lock = threading.Lock()
    files = [os.open(directory / shard.filename, os.O_WRONLY | os.O_CREAT) for shard in shards]

    def work() -> None:
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            nbytes = sum(cut.nbytes for cut in chunk.cuts)
            os.pwrite(files[chunk.file], zeros[:nbytes], chunk.offset)

    workers = [threading.Thread(target=work) for _ in range(num_threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for file in files:
        os.fsync(file)
        os.close(file)


def write_weights(directory: Path, model: str, dtype: str, num_threads: int) -> None:
    """Write the checkpoint."""
    architecture = Architecture.load(model)
    tensors = Rules.load(architecture.rules).tensors(architecture)
    write_checkpoint(
        directory,
        tensors,
        seed=0,
        dtype=dtype,
        max_shard_size=SHARD_SIZE,
        num_threads=num_threads,
    )


def write_with_numpy(directory: Path, model: str, dtype: str, num_threads: int) -> None:
    """Do the same without winit_fast: NumPy's normals, rounded, and safetensors' save_file.

    It writes as many numbers of the same type to one file, and flushes it. NumPy uses one thread.
    """
    architecture = Architecture.load(model)
    rng, kind = np.random.default_rng(0), dtypes.find(dtype).dtype

    def drawn(shape: tuple[int, ...], scheme: wf.Initializer) -> np.ndarray:
        if isinstance(scheme, wf.RandomNormal):
            values = rng.standard_normal(shape, np.float32)
            values *= scheme.stddev
            return values.astype(kind)
        return np.full(shape, float(scheme == wf.Ones()), kind)

    path = directory / "model.safetensors"
    tensors = Rules.load(architecture.rules).tensors(architecture)
    save_file({each.name: drawn(each.shape, each.initializer) for each in tensors}, path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def size(model: str, dtype: str) -> int:
    """Count the bytes of a model's weights."""
    architecture = Architecture.load(model)
    tensors = Rules.load(architecture.rules).tensors(architecture)
    return sum(tensor.size for tensor in tensors) * dtypes.find(dtype).dtype.itemsize


def seconds(contestant: Callable[[Path], None], place: Path) -> float:
    """Time one run in a new directory, which is removed afterwards."""
    directory = Path(tempfile.mkdtemp(dir=place))
    os.sync()  # data of other programs that is still unwritten must not slow this run down
    try:
        begin = time.perf_counter()
        contestant(directory)
        return time.perf_counter() - begin
    finally:
        shutil.rmtree(directory)


def main() -> None:
    """Run the contestants in turns; print their rates and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gpt2-xl")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--place", type=Path, default=Path())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-flush", action="store_true")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 below {BAR}")
    options = parser.parse_args()

    threads = get_num_threads()
    contestants: dict[str, Callable[[Path], None]] = {
        "weights": lambda place: write_weights(place, options.model, options.dtype, threads),
        **{
            f"zeros, {count} threads": lambda place, count=count: write_zeros(
                place, options.model, options.dtype, count
            )
            for count in {1, threads}
        },
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    flush = mock.patch("os.fsync", lambda file: None) if options.no_flush else mock.MagicMock()
    with flush:
        # The first round is not counted: it touches memory that the machine has not used yet.
        for turn, name in itertools.product(range(options.rounds + 1), contestants):
            taken = seconds(contestants[name], options.place)
            if turn > 0:
                times[name].append(taken)

    nbytes = size(options.model, options.dtype)
    medians = {name: median(taken) for name, taken in times.items()}
    for name, taken in times.items():
        spread = ", ".join(f"{nbytes / each / 1e9:.2f}" for each in sorted(taken))
        print(f"{name:<20} {nbytes / medians[name] / 1e9:6.2f} GB/s   ({spread})")
    fastest = min(taken for name, taken in medians.items() if name != "weights")
    ratio = fastest / medians["weights"]
    flushed = "without flush" if options.no_flush else "flush included"
    what = f"{options.model} {options.dtype}"
    print(f"{what}: {ratio:.2f} of the rate of zeros, {flushed} (bar {BAR})")
    if options.check and ratio < BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
