"""``winit-fast init``: writes a checkpoint of freshly initialised weights."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import click

from winit_fast.cli.parameters import (
    json_option,
    model_and_rules,
    rules_option,
    size,
    threads_option,
)
from winit_fast.cli.terminal import Refused, console, print_json, printing, table, tell

if TYPE_CHECKING:
    from winit_fast.checkpoint import Summary

_HELP = """\
Write a checkpoint of MODEL with freshly initialised weights, by its authors' own rules.

MODEL is a name that `winit-fast info` lists. The files are safetensors files with the tensor names
and layouts of Hugging Face. The same seed gives the same bytes on any machine."""


@click.command(help=_HELP)
@click.argument("model")
@click.option("--out", type=click.Path(), required=True, help="Directory to create.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Type of the weights.")
@click.option(
    "--keep-float32",
    metavar="PATTERN",
    multiple=True,
    help="Tensors that are float32 all the same, such as '*norm*'; may be given several times.",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@rules_option
@click.option(
    "--max-shard-size",
    type=size,
    metavar="SIZE",
    default="5GB",
    show_default=True,
    help="A larger checkpoint has several files and an index.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Write to a directory that is not empty, and replace the checkpoint in it.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the same checkpoint where a killed run left it.",
)
@click.option(
    "--dask",
    metavar="ADDRESS|local",
    help="Write with the workers of a Dask scheduler, one file a task, or of this machine.",
)
@threads_option
@json_option
def init(
    model: str,
    out: str,
    dtype: str,
    keep_float32: tuple[str, ...],
    seed: int,
    rules: str | None,
    max_shard_size: int,
    force: bool,
    resume: bool,
    dask: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    # SIGTERM cleans up in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    in_place = False
    try:
        summary, model, dtype = _write(
            model,
            out,
            dtype,
            keep_float32,
            seed,
            rules,
            max_shard_size,
            force,
            resume,
            dask,
            threads,
        )
        in_place = True
        lost = f"the new checkpoint is in place in {out}, but the summary is lost: "
        with printing(lost):
            _print(summary, model, dtype, seed, as_json)
    except KeyboardInterrupt as interrupt:
        if in_place or type(interrupt) is not KeyboardInterrupt:  # checkpoint.TooLate
            tell(f"interrupted, but the new checkpoint is in place in {out}")
        else:
            tell(f"interrupted: nothing was changed in {out}")
        sys.exit(130)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _write(
    model: str,
    out: str,
    dtype: str,
    keep_float32: tuple[str, ...],
    seed: int,
    rules: str | None,
    max_shard_size: int,
    force: bool,
    resume: bool,
    dask: str | None,
    threads: int | None,
) -> tuple[Summary, str, str]:
    """Write the files; return the summary, the model's full name and the dtype's name."""
    try:
        from winit_fast.base import dtypes
        from winit_fast.cli.progress import progress

        architecture, chosen = model_and_rules(model, rules)
        kind = dtypes.find(dtype)
        configuration = {**architecture.configuration, "torch_dtype": kind.name}
        with progress() as report, _writer(dask, threads) as write:
            summary = write(
                out,
                chosen.tensors(architecture),
                seed=seed,
                dtype=kind.dtype,
                dtypes=dict.fromkeys(keep_float32, "float32"),
                max_shard_size=max_shard_size,
                metadata={
                    "format": "pt",
                    "winit_fast.model": architecture.name,
                    "winit_fast.rules": chosen.name,
                },
                texts={"config.json": json.dumps(configuration, indent=2) + "\n"},
                force=force,
                resume=resume,
                progress=report,
            )
    except ModuleNotFoundError as error:
        raise Refused(f"init needs {error.name}, which this system does not have") from error
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise Refused(str(error)) from error
    except MemoryError as error:
        raise Refused(f"out of memory: {error}; fewer --threads take less") from error
    return summary, architecture.name, kind.name


@contextmanager
def _writer(dask: str | None, threads: int | None) -> Iterator[Callable[..., Summary]]:
    """Yield the function that writes a checkpoint: on this machine's threads, or with Dask."""
    if dask is None:
        from winit_fast.checkpoint import write_checkpoint

        yield partial(write_checkpoint, num_threads=threads)
        return
    try:
        from winit_fast.dask.checkpoint import connected
        from winit_fast.dask.checkpoint import write_checkpoint as write_with_dask
    except ImportError as error:  # it says what to install
        raise Refused(str(error)) from error
    with connected(dask, threads) as client:
        yield partial(write_with_dask, client=client)


def _print(summary: Summary, model: str, dtype: str, seed: int, as_json: bool) -> None:
    from winit_fast.cli.machine import machine

    rate = summary.nbytes / summary.seconds
    facts = machine(summary.num_threads)
    if as_json:
        print_json(
            {
                **facts,
                "model": model,
                "dtype": dtype,
                "seed": seed,
                "parameters": summary.parameters,
                "files": [str(file) for file in summary.files],
                "nbytes": summary.nbytes,
                "seconds": summary.seconds,
                "bytes_per_second": rate,
            }
        )
        return
    folder = click.format_filename(str(summary.files[0]).rpartition("/")[0] or ".")
    shown = table("", "", header=False)
    for row in (
        ("model", f"{model}, {dtype}"),
        ("parameters", f"{summary.parameters:,}"),
        ("files", f"{len(summary.files)} ({summary.nbytes:,} bytes) in {folder}"),
        ("seconds", f"{summary.seconds:.2f}, flush to the disk included"),
        ("rate", f"{rate / 1e9:.2f} GB/s"),
        ("instruction set", facts["isa"]),
        ("threads", str(facts["threads"])),
    ):
        shown.add_row(*row)
    console().print(shown)
