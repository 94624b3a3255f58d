"""The index has torchvision for CUDA builds of torch only: a CPU build lacks its operators.

timm and transformers import it, which fails where these two have not been declared. No test calls
them.
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
