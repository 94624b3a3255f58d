"""``winit-fast init``: writes a checkpoint of freshly initialised weights."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from winit_fast.cli.growth import existing, growth_options
from winit_fast.cli.parameters import (
    json_option,
    rules_options,
    size,
    threads_option,
    wanted_rules,
)
from winit_fast.cli.terminal import Refused, console, print_json, printing, table, tell

if TYPE_CHECKING:
    from winit_fast.checkpoint import Summary
    from winit_fast.cli.growth import Weights
    from winit_fast.sources.report import Report
    from winit_fast.sources.source import Source

    Found = tuple[Source, Report | None]

_HELP = """\
Write a checkpoint of a model with freshly initialised weights, by its authors' own rules.

SOURCE is the path of a Hugging Face config.json or of a folder that has one (this needs torch and
transformers, whose initialisation code is recorded), a plan (.json), or a name that `winit-fast
info` lists. The files are safetensors files with the tensor names and layouts of Hugging Face. The
same seed gives the same bytes on any machine."""


@click.command(help=_HELP)
@click.argument("source", required=False)
@click.option("--out", type=click.Path(), help="Directory to create.")
@click.option("--dry-run", is_flag=True, help="Print the plan by layer, and write no checkpoint.")
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
@rules_options
@click.option(
    "--like",
    metavar="CHECKPOINT",
    type=click.Path(),
    help="Make the tensors of an existing checkpoint: its names, shapes and types. Without a "
    "SOURCE --rules give the schemes.",
)
@growth_options
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
    source: str | None,
    out: str | None,
    dry_run: bool,
    dtype: str | None,
    keep_float32: tuple[str, ...],
    seed: int,
    rules: str | None,
    settings: tuple[str, ...],
    base: str | None,
    like: str | None,
    from_: str | None,
    mappings: tuple[str, ...],
    new_rows: str | None,
    layers: str | None,
    noise: float | None,
    report: str | None,
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
    if source is None and like is None:
        raise click.UsageError("Missing argument 'SOURCE'.")
    wanted = wanted_rules(rules, settings, base)
    weights = existing(from_, mappings, new_rows, layers, noise, report)
    find = partial(_find, source, dtype=dtype, rules=wanted, out=out, like=like, weights=weights)
    types = dict.fromkeys(keep_float32, "float32")
    if weights is not None:
        weights.check(None if dry_run else out)
    if dry_run:
        _show(find, types, as_json, weights)
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    # SIGTERM cleans up in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    rank, world = _ranks(rank, world, distributed, finalize)
    in_place = False
    try:
        summary, model, kind, copied = _write(
            find,
            out,
            format_,
            prefix,
            dask,
            threads,
            seed=seed,
            dtypes=types,
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
        if weights is not None and copied is not None and summary.published:
            weights.write(copied, f"the new checkpoint is in place in {out}, but ")
        with printing(lost):
            _print(summary, out, model, kind, seed, copied, as_json)
    except KeyboardInterrupt as interrupt:
        if world is not None and not in_place:
            tell(f"interrupted: start rank {rank} again to write its files to {out}")
        elif in_place or type(interrupt) is not KeyboardInterrupt:  # TooLate
            tell(f"interrupted, but the new checkpoint is in place in {out}")
        else:
            tell(f"interrupted: nothing was changed in {out}")
        sys.exit(130)


def _find(source: str | None, weights: Weights | None, **options: Any) -> Found:
    """Find the model, and what of it is existing weights."""
    from winit_fast.sources import find
    from winit_fast.sources.source import grown

    model = find(source, **options)
    if weights is None:
        return model, None
    model, report = grown(model, weights.checkpoint, weights.growth)
    rules = options["rules"].rules
    if rules is not None and source is not None and not report.of_schemes(weights.growth):
        raise ValueError(
            f"--rules {rules} has no effect: every tensor is taken from {weights.checkpoint}"
        )
    return model, report


def _show(
    find: Callable[[], Found],
    types: Mapping[str, object],
    as_json: bool,
    weights: Weights | None,
) -> None:
    """Print the plan that would be written."""
    from winit_fast.checkpoint import layout
    from winit_fast.models import Plan, plan_json

    try:
        model, report = find()
        plan = Plan(layout.stored(layout.checked(model.plan), None, types))
        plan.check()
    except (ImportError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise Refused(str(error)) from error
    if weights is not None and report is not None:  # nothing refuses any more
        weights.write(report, "")
    if as_json:
        click.echo(plan_json.text(plan, inline=True, strict=False), nl=False)
    else:
        rules = model.metadata.get("winit_fast.rules")
        click.echo(f"{model.name}{'' if rules is None else f', rules {rules}'}: {plan!r}\n")
        click.echo(str(plan))
        _print_copied(report)


def _print_copied(report: Report | None) -> None:
    """Print what became of existing weights."""
    if report is None:
        return
    from winit_fast.sources.report import summary

    shown = table("weights", "tensors", "", right=("tensors",))
    for row in summary(report):
        shown.add_row(*row)
    console().print(shown)


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
    find: Callable[[], Found],
    out: str,
    format_: str,
    prefix: str,
    dask: str | None,
    threads: int | None,
    **options: Any,
) -> tuple[Summary, str, str, Report | None]:
    """Write the files; return the summary, the model's name, its dtype, and what was copied."""
    try:
        from winit_fast.cli.progress import progress

        if prefix and format_ != "dcp":
            raise ValueError(f"--prefix is for --format dcp, got {prefix!r}")
        if dask is not None and format_ == "dcp":
            raise ValueError(f"--dask is for --format safetensors, got {dask!r}")
        if dask is not None and (options["world"] is not None or options["finalize"]):
            raise ValueError(
                f"--dask is for no --rank, --world, --distributed or --finalize, got {dask!r}"
            )
        model, copied = find()
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
    return summary, model.name, model.dtype or "types of the plan", copied


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


def _print(
    summary: Summary,
    out: str,
    model: str,
    dtype: str,
    seed: int,
    copied: Report | None,
    as_json: bool,
) -> None:
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
                **({} if copied is None else {"weights": copied.counts()}),
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
    _print_copied(copied)
