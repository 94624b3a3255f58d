"""Whole models: which tensors a model has, and which rule initialises each of them.

Both are data. An *architecture* (``data/architectures/*.toml``) lists the tensors of a family of
models, with formulas of a few numbers. *Rules* (``data/rules/*.toml``, or your own file) map
patterns of tensor names or roles to initializers, whose parameters may be formulas of numbers. The
role of a tensor follows from its name by a *naming scheme* (``data/naming/*.toml``).
Together they give a *plan*, with a `TensorSpec` for each tensor, which can be filled, written and
compared. This package does not deal with checkpoints or frameworks.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from winit_fast.base.formulas import evaluate
from winit_fast.models.application import Applied
from winit_fast.models.architectures import Architecture, model_names
from winit_fast.models.plan import Plan
from winit_fast.models.rule import Rule
from winit_fast.models.rule_list import rule_names
from winit_fast.models.rules import Rules
from winit_fast.models.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from winit_fast.sources.configuration import from_config
    from winit_fast.sources.pretrained import from_checkpoint

__all__ = [
    "Applied",
    "Architecture",
    "Plan",
    "Rule",
    "Rules",
    "TensorSpec",
    "evaluate",
    "from_checkpoint",
    "from_config",
    "model_names",
    "rule_names",
]


def __getattr__(name: str) -> object:
    """Find what is above this package, as the face of winit_fast does: nothing here needs it."""
    if name == "from_config":
        return import_module("winit_fast.sources.configuration").from_config
    if name == "from_checkpoint":
        return import_module("winit_fast.sources.pretrained").from_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
