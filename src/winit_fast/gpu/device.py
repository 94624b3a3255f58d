"""Which devices can run the kernels."""

import os
from importlib.util import find_spec

import torch

CAPABILITY = (8, 0)
"""The oldest compute capability of CUDA that the kernels are compiled and checked for."""


def interpreted() -> bool:
    """Return whether Triton interprets kernels, on the CPU, instead of compiling them.

    Examples
    --------
    >>> interpreted()
    False
    """
    return os.environ.get("TRITON_INTERPRET", "0").lower() in {"1", "true", "yes", "on", "y"}


def unable(device: torch.device) -> str | None:
    """Return why the kernels cannot run on a device, or None if they can.

    Under Triton's interpreter they run on the CPU, and nowhere else.

    Examples
    --------
    >>> unable(torch.device("meta"))
    "it is not a CUDA or ROCm device: 'meta'"
    """
    if device.type != ("cpu" if interpreted() else "cuda"):
        return f"it is not a CUDA or ROCm device: {device.type!r}"
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < CAPABILITY:
            needed, found = (".".join(map(str, each)) for each in (CAPABILITY, capability))
            return f"its compute capability is below {needed}: {found}"
    return None
