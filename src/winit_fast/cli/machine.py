"""The version, the instruction set, the threads and the GPUs in use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TypedDict

import winit_fast._core as _core
from winit_fast.base.threads import get_num_threads
from winit_fast.base.version import __version__
from winit_fast.streams.identity import STREAM_VERSION


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


class Gpus(TypedDict):
    """What fills the tensors of GPUs.

    Attributes
    ----------
    variable : str
        The value of WINIT_FAST_GPU.
    kernels : dict of str to str
        The devices that the kernels serve, with their names.
    host : dict of str to str
        What is filled through host memory, with the reason.
    """

    variable: str
    kernels: dict[str, str]
    host: dict[str, str]


def gpus() -> Gpus:
    """Find out what fills the tensors of this machine's GPUs; torch is imported if it matters."""
    from winit_fast.gpu.choice import VARIABLE, wanted

    found = Gpus(variable=wanted(), kernels={}, host={})
    if found["variable"] == "off":
        reason: str | None = f"{VARIABLE} is off"
    else:
        missing = [name for name in ("torch", "triton") if find_spec(name) is None]
        reason = f"{missing[0]} is not installed" if missing else None
    if reason is not None:
        found["host"]["all"] = reason
        return found
    import torch

    from winit_fast.gpu.device import unable

    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        obstacle = unable(device)
        if obstacle is None:
            found["kernels"][str(device)] = torch.cuda.get_device_name(device)
        else:
            found["host"][str(device)] = obstacle
    if not (found["kernels"] or found["host"]):
        found["host"]["all"] = "torch finds no GPU"
    return found


def gpus_in_a_line(found: Gpus) -> str:
    """Format what fills the tensors of GPUs in one line."""
    own = [f"{device} ({name}) by its kernels" for device, name in found["kernels"].items()]
    own += [f"{device} through host memory ({why})" for device, why in found["host"].items()]
    return f"tensors of GPUs: {'; '.join(own)}"
