"""Checkpoints: tensors and their initializers in, safetensors files out, streaming.

`write_checkpoint` plans the files (``layout``), fills and writes them piece by piece with several
threads (``writer``) and puts them in place as a whole or not at all (``directory``). Nothing here
knows which model it writes.
"""

from winit_fast.checkpoint.directory import DiskFull, TooLate
from winit_fast.checkpoint.writer import Summary, write_checkpoint

__all__ = ["DiskFull", "Summary", "TooLate", "write_checkpoint"]
