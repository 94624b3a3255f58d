"""The choice of a scheme, with reasons, and what is set badly in a network.

`recommend`, `explain` and `examine` need no framework; `advise` looks at a module of PyTorch, which
is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from winit_fast.advice.advice import Advice
from winit_fast.advice.examination import Finding, WeightFacts, examine, remedy
from winit_fast.advice.explanation import Explanation, explain
from winit_fast.advice.recommendation import Reason, Recommendation, recommend

if TYPE_CHECKING:
    from winit_fast.advice.torch.modules import advise

__all__ = [
    "Advice",
    "Explanation",
    "Finding",
    "Reason",
    "Recommendation",
    "WeightFacts",
    "advise",
    "examine",
    "explain",
    "recommend",
    "remedy",
]


def __getattr__(name: str) -> object:
    """Import what needs PyTorch at its first use."""
    if name == "advise":
        import_module("winit_fast.torch")  # its error says how to install it
        return import_module("winit_fast.advice.torch.modules").advise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
