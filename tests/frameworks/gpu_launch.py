"""Launch fills on a device that is not there, as far as Triton compiles; print how many kernels.

A program of its own, because it must not have Triton's interpreter, and replaces the driver.
"""

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from winit_fast.base.boxes import whole
from winit_fast.gpu.fill import fill
from winit_fast.gpu.loops import fill_box
from winit_fast.streams import distributions


class Driver:
    """What Triton asks before it compiles."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def main():
    driver.set_active(Driver())
    launch, kernels = type(fill_box).run, []

    def compile_only(self, *arguments, grid, warmup, **options):
        kernels.append(launch(self, *arguments, grid=grid, warmup=True, **options))

    type(fill_box).run = compile_only
    for key in (0, 1, 16, 2**31, 2**63, 2**64 - 1):
        for size in (64, 4096, 2**20):
            distribution = distributions.normal(np.dtype(np.float32), 1 / (key + 1), float(size))
            out, offset = torch.empty(size), 4 * key % 2**64
            fill(distribution, key, 2**64 - 1 - key, out, whole((size,)), offset)
    assert len(kernels) == 18
    assert not any(kernel.metadata.enable_fp_fusion for kernel in kernels)
    print(len(set(map(id, kernels))))


if __name__ == "__main__":
    main()
