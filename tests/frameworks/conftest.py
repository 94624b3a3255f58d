"""Declare two operators that torchvision lacks beside a CPU build of torch.

The package index has torchvision only for CUDA builds. timm and transformers import it, which fails
if these operators are missing. No test calls them.
"""

import torch

try:
    import torchvision
except RuntimeError:
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    import torchvision  # noqa: F401
