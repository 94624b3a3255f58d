"""CPU tensors of PyTorch are filled in place, with the same bits as NumPy arrays."""

import numpy as np
import pytest
import torch

import winit_fast as wf
from winit_fast.base import dtypes

TYPES = [getattr(torch, name) for name in dtypes.NAMES]
WORDS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
SHAPE = (37, 53)


def _words(tensor):
    """Read a tensor's bits as an array of unsigned integers."""
    return tensor.detach().contiguous().view(WORDS[tensor.itemsize]).numpy()


def _expected(initializer, dtype, shape=SHAPE):
    array = initializer(shape, seed=1, name="fc", dtype=dtype)
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    "initializer",
    [
        wf.HeNormal(in_axis=1, out_axis=0),
        wf.GlorotUniform(distribution="truncated_normal"),
        wf.RandomUniform(-1.0, 1.0),
        wf.Constant(0.1),
        wf.Identity(),
    ],
    ids=repr,
)
def test_layouts(initializer, dtype):
    expected = _expected(initializer, dtype)
    rows, columns = SHAPE
    for tensor in (
        torch.zeros(SHAPE, dtype=dtype),
        torch.zeros((columns, rows), dtype=dtype).T,
        torch.zeros((3 * rows, 2 * columns), dtype=dtype)[1::3, ::2],
        torch.zeros(rows * columns + 1, dtype=dtype)[1:].view(SHAPE),
        torch.nn.Parameter(torch.zeros(SHAPE, dtype=dtype)),
    ):
        assert initializer.fill(tensor, seed=1, name="fc") is tensor
        np.testing.assert_array_equal(_words(tensor), expected)


def test_between_the_elements_nothing_is_written():
    whole = torch.zeros((20, 40))
    wf.Ones().fill(whole[::2, ::2])
    assert whole.sum() == 200 and whole[1::2].sum() == whole[:, 1::2].sum() == 0


def test_shard_of_a_module():
    layer = torch.nn.Linear(64, 16, bias=False, dtype=torch.bfloat16)
    scheme = wf.HeNormal(in_axis=1, out_axis=0)
    scheme.fill(layer.weight, seed=1, name="fc", shape=(48, 64), index=np.s_[16:32, :])
    whole = _expected(scheme, "bfloat16", (48, 64))
    np.testing.assert_array_equal(_words(layer.weight), whole[16:32])
    assert layer.weight.requires_grad and layer.weight.grad_fn is None


def test_stream_and_sizes():
    tensor = torch.zeros((), dtype=torch.bfloat16)
    wf.Stream(1).normal(out=tensor)
    assert tensor != 0
    assert wf.Stream(1).normal(out=torch.zeros((0, 3))).shape == (0, 3)
    words = torch.zeros(9, dtype=torch.uint32)
    assert (wf.Stream(1).bits(out=words).numpy() == wf.Stream(1).bits(9)).all()
    made = wf.Stream(1).normal(shape=torch.Size([2, 3]), dtype=torch.float16)
    assert made.shape == (2, 3) and made.dtype == np.float16


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (torch.zeros(4, dtype=torch.int32), TypeError, "one of the types .*, got int32"),
        (torch.zeros(4, dtype=torch.bool), TypeError, "got bool"),
        (torch.zeros(1).expand(4), ValueError, "elements that overlap"),
        (torch.zeros(4, device="meta"), TypeError, "must be on the CPU, got Tensor: .*meta"),
        (torch.zeros(4, 4).to_sparse(), TypeError, "must support DLPack on the CPU, got Tensor"),
        (torch.zeros(4, dtype=torch.complex64).conj().imag, TypeError, "a negated view"),
    ],
    ids=str,
)
def test_refused(tensor, error, message):
    with pytest.raises(error, match=message):
        wf.RandomNormal().fill(tensor)


def test_readme():
    layer = torch.nn.Linear(4096, 1024, bias=False, dtype=torch.bfloat16)
    wf.HeNormal(in_axis=1, out_axis=0).fill(layer.weight, seed=0, name="mlp.down")
    deviation = layer.weight.float().std().item()
    assert deviation == pytest.approx((2 / 4096) ** 0.5, rel=0.01)
