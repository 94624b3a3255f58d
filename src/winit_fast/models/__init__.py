"""Whole-model recipes: which tensors a model has and by which rule each one is initialised.

Both are data. An *architecture* (``architectures/*.toml``) lists the tensors of a family of models
as formulas over a few numbers; *rules* (``rules/*.toml``) map patterns of tensor names to
initializers whose parameters may be formulas over the same numbers. Nothing here knows of files
other than these, of arrays or of checkpoints.
"""

from winit_fast.base.formulas import evaluate
from winit_fast.models.architectures import Architecture, model_names
from winit_fast.models.rules import Rule, Rules, rule_names

__all__ = ["Architecture", "Rule", "Rules", "evaluate", "model_names", "rule_names"]
