"""The version, the instruction set and the threads in use."""

from __future__ import annotations

from typing import TypedDict

import winit_fast._core as _core
from winit_fast.base.threads import get_num_threads
from winit_fast.base.version import __version__
from winit_fast.streams.stream import STREAM_VERSION


class Machine(TypedDict):
    """The version, the instruction set and the number of threads of a run."""

    winit_fast: str
    stream_version: int
    isa: str
    supported_isas: list[str]
    threads: int


def machine(threads: int | None = None) -> Machine:
    """Return the facts of a run."""
    return Machine(
        winit_fast=__version__,
        stream_version=STREAM_VERSION,
        isa=_core.isa(),
        supported_isas=list(_core.supported_isas()),
        threads=threads or get_num_threads(),
    )


def in_a_line(facts: Machine) -> str:
    """Format the facts in one line."""
    return (
        f"winit_fast {facts['winit_fast']}, stream version {facts['stream_version']}, "
        f"instruction set {facts['isa']} (of {', '.join(facts['supported_isas'])}), "
        f"{facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    )
