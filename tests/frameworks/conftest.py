"""Shared by the frameworks' tests: the fixture `one_thread`, and two operators of torchvision.

The operators are declared because torchvision lacks them beside a CPU build of torch. The package
index has torchvision only for CUDA builds. timm and transformers import it, which fails if these
operators are missing. No test calls them.
"""

import pytest
import torch

try:
    import torchvision
except RuntimeError:
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    import torchvision  # noqa: F401


@pytest.fixture
def one_thread():
    """Use one thread of torch: small models are slower with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
