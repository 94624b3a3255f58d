"""``winit-fast bench``: a short benchmark of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from winit_fast.cli.parameters import json_option, seconds, threads_option
from winit_fast.cli.terminal import console, print_json, spinner, table

if TYPE_CHECKING:
    from winit_fast.benchmark.quick import Row

_HELP = """\
Compare winit_fast with memset, NumPy and other installed libraries on this machine, in a minute.

GB/s is the rate of winit_fast. "of memory" is that rate as a share of memset's, with as many
threads. The other columns say how many times as fast as a library winit_fast is. All take turns in
one process; the figures are medians. A dash means that the library cannot do the case."""


def _installed(name: str) -> str:
    """Check the name of an installed library; the libraries are searched only if one is named."""
    import winit_fast.benchmark as benchmark

    known = benchmark.installed()
    for peer in known:
        if peer.lower() == name.lower():
            return peer
    raise click.BadParameter(f"{name!r} is not one of {', '.join(known)}")


@click.command(help=_HELP)
@click.option("--size", type=click.IntRange(1), help="Elements of each array; by default 2^25.")
@click.option(
    "--seconds",
    "limit",
    type=seconds,
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="Time for each case; at least five turns of each library.",
)
@threads_option
@click.option(
    "--against",
    type=_installed,
    metavar="PACKAGE",
    multiple=True,
    help="A library to compare with; may be given several times. By default all installed ones.",
)
@json_option
def bench(
    size: int | None, limit: float, threads: int | None, against: tuple[str, ...], as_json: bool
) -> None:
    import winit_fast.benchmark as benchmark
    from winit_fast.benchmark import quick
    from winit_fast.cli.machine import in_a_line, machine

    facts = machine(threads)
    size = quick.SIZE if size is None else size
    matrix = min(quick.MATRIX, size)
    peers = list(against) or benchmark.installed()
    if as_json:
        rows = list(benchmark.run(size, limit, threads, matrix, peers))
        cases = [{"case": r.case, "nbytes": r.nbytes, "seconds": r.seconds} for r in rows]
        print_json({**facts, "size": size, "cases": cases})
        return
    terminal = console()
    terminal.print(in_a_line(facts), highlight=False, soft_wrap=True)
    rows = []
    with terminal.status("racing", spinner=spinner()) as status:
        for row in benchmark.run(size, limit, threads, matrix, peers):
            status.update(f"{row.case} done")
            rows.append(row)
    rates = (row.nbytes / row.seconds[quick.LIMIT] for row in rows if quick.LIMIT in row.seconds)
    what = "caches, which hold so few, are" if size < quick.IN_CACHE else "memory is"
    terminal.print(
        f"{size:,} elements; this machine's {what} written at {max(rates) / 1e9:.1f} GB/s\n",
        highlight=False,
        soft_wrap=True,
    )
    columns = ("GB/s", "of memory", *(f"x {peer}" for peer in peers))
    shown = table("case", *columns, right=columns)
    for row in rows:
        shown.add_row(*_cells(row, quick.LIMIT, peers))
    terminal.print(shown)


def _cells(row: Row, limit: str, peers: list[str]) -> list[str]:
    part = row.times_as_fast(limit)
    ratios = (row.times_as_fast(peer) for peer in peers)
    return [
        row.case,
        f"{row.rate / 1e9:.2f}",
        "-" if part is None else f"{part:.0%}",
        *("-" if ratio is None else f"{ratio:.3g}" for ratio in ratios),
    ]
