"""Whole models: which tensors a model has and by which rule each one is initialised.

Both are data. An *architecture* (``data/architectures/*.toml``) lists the tensors of a family of
models as formulas over a few numbers; *rules* (``data/rules/*.toml``, or a file of one's own) map
patterns of tensor names to initializers whose parameters may be formulas over the same numbers.
Together
they give a *plan*, a `TensorSpec` for every tensor, which is what is filled, written and compared.
Nothing here knows of checkpoints or of a framework.
"""

from winit_fast.base.formulas import evaluate
from winit_fast.models.architectures import Architecture, model_names
from winit_fast.models.plan import Plan
from winit_fast.models.rules import Rule, Rules, rule_names
from winit_fast.models.tensor_spec import TensorSpec

__all__ = [
    "Architecture",
    "Plan",
    "Rule",
    "Rules",
    "TensorSpec",
    "evaluate",
    "model_names",
    "rule_names",
]
