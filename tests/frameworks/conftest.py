"""Shared by the frameworks' tests: fixtures, and two operators of torchvision.

The operators are declared because torchvision lacks them beside a CPU build of torch. The package
index has torchvision only for CUDA builds. timm and transformers import it, which fails if these
operators are missing. No test calls them.
"""

import pytest
import torch

collect_ignore_glob = ["test_gpu_*.py"]  # `make test-gpu` names them

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


@pytest.fixture
def elsewhere(monkeypatch):
    """Let CPU tensors stand for those of a device: they are not filled in place."""
    from winit_fast.torch import draw, memory, mode

    for module in draw, memory, mode:
        monkeypatch.setattr(module, "on_host", lambda tensor: False)


@pytest.fixture
def device_calls(monkeypatch, elsewhere):
    """Let CPU tensors stand for a GPU's: Triton's interpreter runs the kernels on them.

    Returns
    -------
    list of tuple
        The arguments of each call of a kernel, except for those of the checks.
    """
    import exact_fma

    from winit_fast.gpu import cases, device, self_check
    from winit_fast.torch import draw

    assert device.interpreted(), "TRITON_INTERPRET=1 must be set: make test-gpu does"
    exact_fma.install()
    monkeypatch.setattr(draw, "usable", lambda device: True)
    calls = []
    unchecked = self_check.fill_unchecked

    def counted(*arguments):
        if arguments[1] != cases.SEED:
            calls.append(arguments)
        unchecked(*arguments)

    monkeypatch.setattr(self_check, "fill_unchecked", counted)
    return calls
