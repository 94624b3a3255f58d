"""Sources: where the plan of a model comes from.

A source is the name of a built-in model, a plan file, or a configuration of Hugging Face, whose
plan is recorded from the initialisation code of transformers (``configuration``). An existing
checkpoint gives names and shapes (``like``), or the weights themselves (``pretrained``). Everything
here is above the frameworks; they are imported only when a configuration is recorded.
"""

from winit_fast.sources.configuration import from_config
from winit_fast.sources.pretrained import from_checkpoint
from winit_fast.sources.source import Source, find

__all__ = ["Source", "find", "from_checkpoint", "from_config"]
