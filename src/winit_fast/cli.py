"""The command ``winit-fast``: reads the command line and prints; the work is done elsewhere."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import NoReturn, TextIO

try:
    import click
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Table
except ImportError as error:
    raise SystemExit(
        f"winit-fast needs {error.name}, which its extra brings: pip install 'winit_fast[cli]'"
    ) from None

import winit_fast._core as _core
import winit_fast.benchmark as benchmark
from winit_fast.base import dtypes
from winit_fast.base.threads import get_num_threads
from winit_fast.base.version import __version__
from winit_fast.checkpoint import Summary, TooLate, write_checkpoint
from winit_fast.models import Architecture, Rules, model_names
from winit_fast.streams.stream import STREAM_VERSION

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def _size(text: str) -> int:
    """A number of bytes such as ``5GB`` (powers of 1000) or ``500MiB`` (powers of 1024)."""
    found = re.fullmatch(r"(\d{1,20}(?:\.\d{1,20})?) *([KMGT]?)(i?)B?", text, re.I | re.A)
    base = 1024 if found and found[3] else 1000
    size = int(Fraction(found[1]) * base ** _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise click.BadParameter(f"{text!r} is not a size such as 5GB or 500MiB")
    return size


def _seconds(text: str) -> float:
    """A time that ends: NaN is in every range of click's."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise click.BadParameter(f"{text!r} is not a finite number of at least 0")
    return seconds


def _console(*, stderr: bool = False) -> Console:
    """A console that takes no ``[...]`` or ``:...:`` in a user's names for its own signs."""
    return Console(stderr=stderr, markup=False, emoji=False)


@contextmanager
def _printing(done: str = "") -> Iterator[None]:
    """Make an error of standard output, a full disk say, one line that begins with what is done."""
    try:
        yield
    except BrokenPipeError:  # whoever read has seen enough: click ends the program
        raise
    except OSError as error:
        _silence(sys.stdout)
        raise click.ClickException(f"{done}{error}") from error


def _silence(stream: TextIO) -> None:
    """Lead a stream that takes no more to nowhere: what is left in it fails again at the end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="winit_fast")
def main() -> None:
    """Fresh neural-network weights: the same bits on any machine."""


@main.command()
@click.argument("model")
@click.option("--out", type=click.Path(), required=True, help="Directory to make.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Type of the weights.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@click.option(
    "--max-shard-size",
    type=_size,
    metavar="SIZE",
    default="5GB",
    show_default=True,
    help="Above it the checkpoint is several files and an index.",
)
@click.option("--force", is_flag=True, help="Replace the checkpoint in a directory not empty.")
@click.option("--threads", type=click.IntRange(1), help="By default all processors.")
def init(
    model: str,
    out: str,
    dtype: str,
    seed: int,
    max_shard_size: int,
    force: bool,
    threads: int | None,
) -> None:
    """Write a checkpoint of MODEL with fresh weights, by its authors' own rules.

    MODEL is a name that `winit-fast info` lists. The files are safetensors under the names and in
    the layout of Hugging Face. The same seed gives the same bytes everywhere.
    """
    # A plain kill clears up behind itself as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    summary = None
    try:
        architecture = Architecture.load(model)
        kind = dtypes.find(dtype)
        rules = Rules.load(architecture.rules)
        configuration = {**architecture.configuration, "torch_dtype": kind.name}
        with _progress() as progress:
            summary = write_checkpoint(
                out,
                rules.tensors(architecture),
                seed=seed,
                dtype=kind.dtype,
                max_shard_size=max_shard_size,
                metadata={
                    "format": "pt",
                    "winit_fast.model": architecture.name,
                    "winit_fast.recipe": rules.name,
                },
                texts={"config.json": json.dumps(configuration, indent=2) + "\n"},
                force=force,
                num_threads=threads,
                progress=progress,
            )
    except KeyboardInterrupt as interrupt:
        if summary is None and not isinstance(interrupt, TooLate):
            click.echo(f"interrupted: nothing was changed in {out}", err=True)
        else:
            click.echo(f"interrupted, but the new checkpoint is in place in {out}", err=True)
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    except MemoryError as error:
        raise click.ClickException(f"out of memory: {error}; fewer --threads take less") from error
    with _printing(f"the new checkpoint is in place in {out}, but the summary is lost: "):
        _console().print(_closing_table(architecture.name, kind.name, summary))


@main.command()
@click.option(
    "--size",
    type=click.IntRange(1),
    default=benchmark.quick.SIZE,
    show_default=True,
    help="Elements of each array.",
)
@click.option(
    "--seconds",
    type=_seconds,
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="For each case; everybody has five turns at least.",
)
@click.option("--threads", type=click.IntRange(1), help="By default all processors.")
@click.option(
    "--against",
    type=click.Choice(benchmark.installed(), case_sensitive=False),
    multiple=True,
    help="A package to race; may be given several times. By default all that are installed.",
)
@_printing()
def bench(size: int, seconds: float, threads: int | None, against: tuple[str, ...]) -> None:
    """Measure this machine, in about a minute: fills against memory, NumPy and what is installed.

    GB/s is our own rate. "of memory" is the part of the speed at which memset writes the same
    memory with as many threads. The other columns are how many times as fast we are; all take
    turns in one process, and medians count. A dash: that package cannot do the case.
    """
    console = _console()
    console.print(_machine(threads), highlight=False, soft_wrap=True)
    peers = list(against) or benchmark.installed()
    table = Table("case", box=None)
    for title in ("GB/s", "of memory", *(f"x {peer}" for peer in peers)):
        table.add_column(title, justify="right")
    limits = []
    with console.status("racing") as status:
        matrix = min(benchmark.quick.MATRIX, size)
        for row in benchmark.run(size, seconds, threads, matrix, peers):
            status.update(f"{row.case} done")
            limit = row.times_as_fast(benchmark.quick.LIMIT)
            if limit is not None:
                limits.append(row.rate / limit)
            ratios = (row.times_as_fast(peer) for peer in peers)
            table.add_row(
                row.case,
                f"{row.rate / 1e9:.2f}",
                "-" if limit is None else f"{limit:.0%}",
                *("-" if ratio is None else f"{ratio:.3g}" for ratio in ratios),
            )
    what = "caches, which hold so few, are" if size < benchmark.quick.IN_CACHE else "memory is"
    console.print(
        f"{size:,} elements; this machine's {what} written at {max(limits) / 1e9:.1f} GB/s\n",
        highlight=False,
        soft_wrap=True,
    )
    console.print(table)


def _machine(threads: int | None = None) -> str:
    """One line on what is running, and with what."""
    threads = threads or get_num_threads()
    return (
        f"winit_fast {__version__}, stream version {STREAM_VERSION}, instruction set "
        f"{_core.isa()} (of {', '.join(_core.supported_isas())}), "
        f"{threads} thread{'s' * (threads > 1)}"
    )


@main.command()
@click.argument("model", required=False)
@_printing()
def info(model: str | None) -> None:
    """Show what this machine uses and the known models, or the tensors of one MODEL.

    With MODEL, every line has the rule for its tensors.
    """
    console = _console()
    if model is None:
        console.print(_machine(), highlight=False, soft_wrap=True)
        console.print()
        table = Table("model", "recipe", box=None)
        table.add_column("tensors", justify="right")
        table.add_column("parameters", justify="right")
        for name in model_names():
            architecture = Architecture.load(name)
            parameters = sum(map(math.prod, architecture.shapes.values()))
            tensors = len(architecture.shapes)
            table.add_row(name, architecture.rules, f"{tensors:,}", f"{parameters:,}")
        console.print(table)
        return
    try:
        architecture = Architecture.load(model)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    rules = Rules.load(architecture.rules)
    rows = Counter(
        (re.sub(r"\b\d+\b", "*", tensor.name), tensor.shape, repr(tensor.initializer))
        for tensor in rules.tensors(architecture)
    )
    console.print(f"{architecture.name}, recipe {rules.name}: {rules.title}\n", highlight=False)
    table = Table(box=None)
    table.add_column("times", justify="right")
    for title in ("tensor", "shape", "initializer"):
        table.add_column(title, overflow="fold")
    for (name, shape, initializer), times in rows.items():
        table.add_row(str(times), name, " x ".join(map(str, shape)), initializer)
    console.print(table)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a plain line every few seconds elsewhere."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _PlainProgress()
        return
    columns = (
        TextColumn("writing"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("writing")
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _PlainProgress:
    """Progress for logs: a line after every tenth, but not more than one a second."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()
        self._tenths = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        tenths = 10 * done // total
        if tenths <= self._tenths or (now - self._last < 1 and done < total):
            return
        self._tenths, self._last = tenths, now
        rate = done / (now - self._begin)
        try:
            click.echo(
                f"{done / total:4.0%}  {done / 1e9:.2f} of {total / 1e9:.2f} GB  "
                f"{rate / 1e9:.2f} GB/s  {(total - done) / rate:.0f} s left",
                err=True,
            )
        except OSError:  # nobody can read it, which is no reason to stop
            _silence(sys.stderr)


def _closing_table(model: str, dtype: str, summary: Summary) -> Table:
    folder = click.format_filename(summary.files[0].parent)
    table = Table("", box=None, show_header=False)
    table.add_column(overflow="fold")
    for row in (
        ("model", f"{model}, {dtype}"),
        ("parameters", f"{summary.parameters:,}"),
        ("files", f"{len(summary.files)} ({summary.nbytes:,} bytes) in {folder}"),
        ("seconds", f"{summary.seconds:.2f}, flush to the disk included"),
        ("rate", f"{summary.nbytes / summary.seconds / 1e9:.2f} GB/s"),
        ("instruction set", _core.isa()),
        ("threads", str(summary.num_threads)),
    ):
        table.add_row(*row)
    return table
