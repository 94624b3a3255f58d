"""Checkpoints: writes tensors with their initializers as safetensors files, in bounded memory.

`write_checkpoint` distributes the tensors over files (``layout``), records where their numbers come
from (``provenance``), fills and writes them segment by segment on several threads (``segments``,
``segment_writer``), and moves either all files into place or none (``transaction``, ``directory``,
``stage``). `verify` makes the
numbers again and compares (``verification``). `inspect` summarises any safetensors file
(``inspection``, ``statistics``, ``repeats``). Nothing here depends on the model.
"""

from winit_fast.checkpoint.directory import DiskFull, TooLate
from winit_fast.checkpoint.inspection import Inspection, Repeat, inspect
from winit_fast.checkpoint.statistics import Statistics
from winit_fast.checkpoint.transaction import Summary
from winit_fast.checkpoint.verification import Finding, Verification, verify
from winit_fast.checkpoint.writer import write_checkpoint

__all__ = [
    "DiskFull",
    "Finding",
    "Inspection",
    "Repeat",
    "Statistics",
    "Summary",
    "TooLate",
    "Verification",
    "inspect",
    "verify",
    "write_checkpoint",
]
