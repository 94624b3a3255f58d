"""PyTorch as a contestant: it gets as many threads as we do, and its settings are restored."""

import operator

import numpy as np
import pytest
import torch

from winit_fast import benchmark
from winit_fast.benchmark.contestants import TORCH


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("distribution", TORCH)
def test_threads_are_as_asked_for_and_left_as_they_were(distribution, two_threads, monkeypatch):
    seen = []
    owner, _, name = TORCH[distribution].rpartition(".")
    owner = operator.attrgetter(owner)(torch)
    monkeypatch.setattr(owner, name, lambda tensor: seen.append(torch.get_num_threads()))
    out = np.zeros(100, np.float32)
    benchmark.peers(distribution, out, 1, ["PyTorch"])["PyTorch"]()
    benchmark.fresh(distribution, out.shape, out.dtype, 1)["PyTorch"]()
    benchmark.peers(distribution, out, 2, ["PyTorch"])["PyTorch"]()
    assert seen == [1, 1, 2]
    assert torch.get_num_threads() == 2


def test_orthogonal_too(two_threads, monkeypatch):
    seen = []
    monkeypatch.setattr(
        torch.nn.init, "orthogonal_", lambda tensor: seen.append(torch.get_num_threads())
    )
    benchmark.orthogonal(np.zeros((4, 4), np.float32), 1, ["PyTorch"])["PyTorch"]()
    assert seen == [1] and torch.get_num_threads() == 2
