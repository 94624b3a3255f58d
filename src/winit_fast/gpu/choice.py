"""Whether the kernels are to fill the tensors of a device: what is wanted, and what is possible."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VARIABLE = "WINIT_FAST_GPU"
"""The environment variable: ``off`` never uses the kernels, ``on`` raises where they cannot."""


def wanted() -> str:
    """Read the environment variable: ``off``, ``on``, or ``""`` where it is not set.

    Raises
    ------
    ValueError
        If it has another value.

    Examples
    --------
    >>> wanted()
    ''
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "off", "on"):
        raise ValueError(f"{VARIABLE} must be off or on, got {value!r}")
    return value


def usable(device: torch.device) -> bool:
    """Return whether the kernels are to fill the tensors of a device.

    Raises
    ------
    RuntimeError
        If ``WINIT_FAST_GPU=on``, and they cannot.

    Examples
    --------
    >>> import torch
    >>> usable(torch.device("cpu"))
    False
    """
    if device.type in ("cpu", "meta"):
        return False
    choice = wanted()
    if choice == "off":
        return False
    obstacle = _obstacle(device)
    if obstacle is not None and choice == "on":
        raise RuntimeError(
            f"{VARIABLE}=on, but no kernel can fill a tensor of {device}: {obstacle}"
        )
    return obstacle is None


@cache
def _obstacle(device: torch.device) -> str | None:
    from winit_fast.gpu.device import unable

    return unable(device)
