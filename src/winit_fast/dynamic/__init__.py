"""Weights adjusted to what is seen of a network at work, before training and during it.

Everything that works on a module needs PyTorch, which is imported when it is first used; the
arithmetic (``adjustment``, ``dormancy``, ``growth``, ``schedule``) does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from winit_fast.dynamic.adjustment import Adjusted, Adjustment, log_factors
from winit_fast.dynamic.dormancy import dormant

if TYPE_CHECKING:
    from winit_fast.dynamic.torch.activity import Watched
    from winit_fast.dynamic.torch.controller import DynamicInit, Reset
    from winit_fast.dynamic.torch.growth import deepen_, widen_
    from winit_fast.dynamic.torch.lsuv import lsuv_
    from winit_fast.dynamic.torch.rescaling import rescale_
    from winit_fast.dynamic.torch.scale_schedule import ScaleSchedule
    from winit_fast.dynamic.torch.shrink import shrink_and_perturb_

__all__ = [
    "Adjusted",
    "Adjustment",
    "DynamicInit",
    "Reset",
    "ScaleSchedule",
    "Watched",
    "deepen_",
    "dormant",
    "log_factors",
    "lsuv_",
    "rescale_",
    "shrink_and_perturb_",
    "widen_",
]

_WITH_TORCH = {
    "DynamicInit": "controller",
    "Reset": "controller",
    "ScaleSchedule": "scale_schedule",
    "Watched": "activity",
    "deepen_": "growth",
    "lsuv_": "lsuv",
    "rescale_": "rescaling",
    "shrink_and_perturb_": "shrink",
    "widen_": "growth",
}


def __getattr__(name: str) -> object:
    """Import what needs PyTorch at its first use."""
    if name in _WITH_TORCH:
        import_module("winit_fast.torch")  # its error says how to install it
        return getattr(import_module(f"winit_fast.dynamic.torch.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
