"""What becomes of signals and gradients in a network: predicted by theory, and measured.

`theory` needs no framework. The functions that run a network, `propagate`, `compare` and
`coordinate_check`, need PyTorch, which is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from winit_fast.diagnosis.comparison import Comparison, CoordinateCheck
from winit_fast.diagnosis.prediction import predicted
from winit_fast.diagnosis.report import Propagation
from winit_fast.diagnosis.rows import Row
from winit_fast.diagnosis.singular_values import extreme_singular_values
from winit_fast.diagnosis.theory import Theory, theory

if TYPE_CHECKING:
    from winit_fast.diagnosis.torch.comparison import compare
    from winit_fast.diagnosis.torch.coordinates import coordinate_check
    from winit_fast.diagnosis.torch.propagation import propagate

__all__ = [
    "Comparison",
    "CoordinateCheck",
    "Propagation",
    "Row",
    "Theory",
    "compare",
    "coordinate_check",
    "extreme_singular_values",
    "predicted",
    "propagate",
    "theory",
]

_WITH_TORCH = {
    "compare": "comparison",
    "coordinate_check": "coordinates",
    "propagate": "propagation",
}


def __getattr__(name: str) -> object:
    """Import what needs PyTorch at its first use."""
    if name in _WITH_TORCH:
        import_module("winit_fast.torch")  # its error says how to install it
        return getattr(import_module(f"winit_fast.diagnosis.torch.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
