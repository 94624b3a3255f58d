"""Checkpoints: tensors and their initializers in, safetensors files out, streaming.

`write_checkpoint` shares the tensors out among files (``layout``), writes down where their numbers
come from (``provenance``), fills and writes them piece by piece with several threads (``writer``)
and puts them in place as a whole or not at all (``directory``, ``stage``). `verify` makes the
numbers again and compares (``verification``), and `inspect` tells what is in any safetensors file
(``inspection``, ``repeats``). Nothing here knows which model it writes.
"""

from winit_fast.checkpoint.directory import DiskFull, TooLate
from winit_fast.checkpoint.inspection import Inspection, Repeat, Statistics, inspect
from winit_fast.checkpoint.verification import Finding, Verification, verify
from winit_fast.checkpoint.writer import Summary, write_checkpoint

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
