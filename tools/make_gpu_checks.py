"""Write the frozen hashes by which the kernels of GPUs check themselves.

    python tools/make_gpu_checks.py > src/winit_fast/gpu/checks.toml

What the processor draws is frozen by tests/hashes.txt, and this file follows it: a change of either
is a new stream version. tests/test_gpu_checks.py compares the file with this program's output.
"""

import numpy as np

from winit_fast.gpu.cases import BOXES, SEED, STREAM, digest, drawn
from winit_fast.streams.fill import fill

HEADER = """\
# What the kernels of GPUs must draw: BLAKE2b of the boxes in cases.py, one after the other.
# Made by: python tools/make_gpu_checks.py > src/winit_fast/gpu/checks.toml
"""


def table() -> str:
    """Return the file."""
    lines, before = [HEADER.rstrip()], None
    for label, dtype, distribution in drawn():
        if label != before:
            lines += ["", f'["{label}"]']
            before = label
        hashes = []
        for box in BOXES:
            array = np.empty(box.shape, dtype)
            fill(distribution, SEED, STREAM, array, box)
            hashes.append(f'"{digest(array)}"')
        lines.append(f"{dtype} = [{', '.join(hashes)}]")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
