"""``winit-fast init``: writes a checkpoint of freshly initialised weights."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from winit_fast.cli.parameters import json_option, rules_option, size, threads_option
from winit_fast.cli.terminal import Refused, console, print_json, printing, table, tell

if TYPE_CHECKING:
    from winit_fast.checkpoint import Summary

_HELP = """\
Write a checkpoint of a model with freshly initialised weights, by its authors' own rules.

SOURCE is the path of a Hugging Face config.json or of a folder that has one (this needs torch and
transformers, whose initialisation code is recorded), a plan (.json), or a name that `winit-fast
info` lists. The files are safetensors files with the tensor names and layouts of Hugging Face. The
same seed gives the same bytes on any machine."""


@click.command(help=_HELP)
@click.argument("source")
@click.option("--out", type=click.Path(), required=True, help="Directory to create.")
@click.option(
    "--dtype",
    help="Type of the weights: by default the one that config.json or the plan says, or bfloat16.",
)
@click.option(
    "--keep-float32",
    metavar="PATTERN",
    multiple=True,
    help="Tensors that are float32 all the same, such as '*norm*'; may be given several times.",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@rules_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["safetensors", "dcp"]),
    default="safetensors",
    show_default=True,
    help="Of the files: dcp is that of torch.distributed.checkpoint, and needs PyTorch.",
)
@click.option("--prefix", default="", help="Text before every name in a dcp, such as 'model.'.")
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
@click.option("--rank", type=click.IntRange(0), help="Number of this process, of --world.")
@click.option(
    "--world",
    type=click.IntRange(1),
    help="Number of processes, each of which writes some of the files. The last one publishes all.",
)
@click.option(
    "--distributed",
    is_flag=True,
    help="Take --rank and --world from torchrun, MPI or SLURM.",
)
@click.option(
    "--finalize", is_flag=True, help="Only publish the files that all ranks have written."
)
@click.option(
    "--dask",
    metavar="ADDRESS|local",
    help="Write with the workers of a Dask scheduler, one file a task, or of this machine.",
)
@threads_option
@json_option
def init(
    source: str,
    out: str,
    dtype: str | None,
    keep_float32: tuple[str, ...],
    seed: int,
    rules: str | None,
    format_: str,
    prefix: str,
    max_shard_size: int,
    force: bool,
    resume: bool,
    rank: int | None,
    world: int | None,
    distributed: bool,
    finalize: bool,
    dask: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    # SIGTERM cleans up in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    rank, world = _ranks(rank, world, distributed, finalize)
    in_place = False
    try:
        summary, model, kind = _write(
            source,
            out,
            dtype,
            rules,
            format_,
            prefix,
            dask,
            threads,
            seed=seed,
            dtypes=dict.fromkeys(keep_float32, "float32"),
            max_shard_size=max_shard_size,
            force=force,
            resume=resume,
            rank=rank,
            world=world,
            finalize=finalize,
        )
        in_place = True
        lost = f"the new checkpoint is in place in {out}, but the summary is lost: "
        if not summary.published:
            lost = f"this rank's files are in {out}, but the summary is lost: "
        with printing(lost):
            _print(summary, out, model, kind, seed, as_json)
    except KeyboardInterrupt as interrupt:
        if world is not None and not in_place:
            tell(f"interrupted: start rank {rank} again to write its files to {out}")
        elif in_place or type(interrupt) is not KeyboardInterrupt:  # TooLate
            tell(f"interrupted, but the new checkpoint is in place in {out}")
        else:
            tell(f"interrupted: nothing was changed in {out}")
        sys.exit(130)


def _ranks(
    rank: int | None, world: int | None, distributed: bool, finalize: bool
) -> tuple[int | None, int | None]:
    """Find the number of this process, and of all."""
    from winit_fast.cli.launchers import launched

    try:
        found = launched(os.environ)
        if distributed:
            if (rank, world, finalize) != (None, None, False):
                raise ValueError("--distributed is for no --rank, --world or --finalize")
            if found is None:
                raise ValueError(
                    "--distributed needs RANK and WORLD_SIZE, or the variables of MPI or SLURM"
                )
            return found.rank, found.world
    except ValueError as error:
        if distributed:
            raise Refused(str(error)) from error
        found = None
    if found is not None and found.world > 1 and (rank, world, finalize) == (None, None, False):
        tell(f"{found.names} are set, but all files are written here: see --distributed")
    return rank, world


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _write(
    source: str,
    out: str,
    dtype: str | None,
    rules: str | None,
    format_: str,
    prefix: str,
    dask: str | None,
    threads: int | None,
    **options: Any,
) -> tuple[Summary, str, str]:
    """Write the files; return the summary, the model's full name and the dtype's name."""
    try:
        from winit_fast.cli.progress import progress
        from winit_fast.sources import find

        if prefix and format_ != "dcp":
            raise ValueError(f"--prefix is for --format dcp, got {prefix!r}")
        if dask is not None and format_ == "dcp":
            raise ValueError(f"--dask is for --format safetensors, got {dask!r}")
        if dask is not None and (options["world"] is not None or options["finalize"]):
            raise ValueError(
                f"--dask is for no --rank, --world, --distributed or --finalize, got {dask!r}"
            )
        model = find(source, dtype=dtype, rules=rules, out=out)
        options["texts"] = model.texts
        if format_ == "safetensors":
            options["metadata"] = {"format": "pt", **model.metadata}
        with progress() as report, _writer(format_, prefix, dask, threads) as write:
            summary = write(out, model.plan, progress=report, **options)
    except ModuleNotFoundError as error:
        raise Refused(f"init needs {error.name}, which this system does not have") from error
    except (ImportError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise Refused(str(error)) from error
    except MemoryError as error:
        raise Refused(f"out of memory: {error}; fewer --threads take less") from error
    return summary, model.name, model.dtype or "types of the plan"


@contextmanager
def _writer(
    format_: str, prefix: str, dask: str | None, threads: int | None
) -> Iterator[Callable[..., Summary]]:
    """Yield the function that writes a checkpoint: on this machine's threads, or with Dask."""
    if format_ == "dcp":
        from winit_fast.torch.dcp import write_dcp

        yield partial(write_dcp, names=prefix.__add__, num_threads=threads)
    elif dask is None:
        from winit_fast.checkpoint import write_checkpoint

        yield partial(write_checkpoint, num_threads=threads)
    else:
        from winit_fast.dask.checkpoint import connected
        from winit_fast.dask.checkpoint import write_checkpoint as write_with_dask

        with connected(dask, threads) as client:
            yield partial(write_with_dask, client=client)


def _print(summary: Summary, out: str, model: str, dtype: str, seed: int, as_json: bool) -> None:
    from winit_fast.cli.machine import machine

    rate = summary.nbytes / max(summary.seconds, 1e-9)
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
                "published": summary.published,
            }
        )
        return
    folder = click.format_filename(out)
    shown = table("", "", header=False)
    state = [] if summary.published else [("published", "no, other ranks have files to write")]
    for row in (
        ("model", f"{model}, {dtype}"),
        ("parameters", f"{summary.parameters:,}"),
        ("files", f"{len(summary.files)} ({summary.nbytes:,} bytes) in {folder}"),
        ("seconds", f"{summary.seconds:.2f}, flush to the disk included"),
        ("rate", f"{rate / 1e9:.2f} GB/s"),
        ("instruction set", facts["isa"]),
        ("threads", str(facts["threads"])),
        *state,
    ):
        shown.add_row(*row)
    console().print(shown)
