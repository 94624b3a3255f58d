"""How tensors of a GPU are filled, on CPU tensors: Triton's interpreter runs the kernels.

`make test-gpu` runs these tests. The bits must be those of the CPU's kernels.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import _StridedShard

import winit_fast as wf
import winit_fast.torch as init
from winit_fast.base.boxes import Box, whole
from winit_fast.initializers.parts import Parts
from winit_fast.streams.stream import Stream
from winit_fast.torch import draw, memory, mode, on_device
from winit_fast.torch.memory import FLOATS, as_array


def same(one, other):
    return torch.equal(*(each.detach().contiguous().view(torch.uint8) for each in (one, other)))


@pytest.fixture
def on_cpu(device_calls):
    """A function that calls another one with CPU tensors as such."""

    def call(function, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            for module in draw, memory, mode:
                patch.setattr(module, "on_host", lambda tensor: True)
            before = len(device_calls)
            result = function(*arguments)
            assert len(device_calls) == before
            return result

    return call


FUNCTIONS = [
    ("uniform_", (-0.3, 0.7), list(FLOATS)),
    ("normal_", (0.1, 2.0), list(FLOATS)),
    ("trunc_normal_", (0.1, 2.0, -1.0, 3.0), list(FLOATS)),
    ("xavier_normal_", (), [torch.bfloat16]),
    ("kaiming_uniform_", (), [torch.float32]),
    ("sparse_", (0.3,), list(FLOATS)),
]


@pytest.mark.parametrize(
    ("function", "arguments", "dtype"),
    [(function, arguments, dtype) for function, arguments, dtypes in FUNCTIONS for dtype in dtypes],
    ids=str,
)
def test_functions(function, arguments, dtype, on_cpu, device_calls):
    def make():
        tensor = torch.empty(37, 21, dtype=dtype)
        return getattr(init, function)(tensor, *arguments, seed=3, name="w")

    found = make()
    assert device_calls
    assert same(found, on_cpu(make))


def test_layouts_and_autograd(on_cpu, device_calls):
    def make():
        memory = torch.zeros(9, 40, 14, dtype=torch.bfloat16)
        init.normal_(memory[1:8:2, 3:34].permute(2, 0, 1), seed=1, name="w")
        return memory

    found = make()
    assert len(device_calls) == 1
    assert same(found, on_cpu(make))
    weight = nn.Parameter(torch.zeros(5, 3))
    loss = (weight * weight).sum()
    init.normal_(weight, seed=0)
    assert weight.requires_grad and weight.grad_fn is None and weight._version == 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_is_not_plain_memory_goes_through_the_host(on_cpu, device_calls):
    def make():
        memory = torch.zeros(11, dtype=torch.complex64)
        init.normal_(memory.conj().imag, seed=4, name="w")
        return torch.view_as_real(memory)

    assert same(make(), on_cpu(make))
    assert not device_calls
    with pytest.raises(RuntimeError, match="single memory location"):
        init.normal_(torch.zeros(3, 1).expand(3, 4), seed=0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 12, padding_idx=3)
        self.up = nn.Linear(12, 31)
        self.conv = nn.Conv1d(4, 6, 3)
        self.narrow = nn.Linear(31, 12, dtype=torch.bfloat16)
        self.norm = nn.LayerNorm(12)
        self.offset = nn.Parameter(torch.full((7,), 0.1))
        self.phases = nn.Parameter(torch.empty(9, dtype=torch.complex64))
        with torch.no_grad():
            nn.init.trunc_normal_(self.up.weight, std=0.02)
            nn.init.dirac_(self.conv.weight)
            nn.init.sparse_(self.narrow.weight, 0.5)
            self.phases.normal_(std=0.5)


def tensors(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        real = (torch.view_as_real(x) if x.is_complex() else x for x in (tensor, expected[name]))
        assert same(*real), name


def small():
    return nn.Sequential(nn.Embedding(50, 12, padding_idx=3), nn.Linear(12, 31), nn.Conv1d(4, 6, 3))


def test_whole_modules_and_plans(on_cpu, device_calls):
    model = Net()
    plan = init.record(Net)

    def both():
        found = tensors(init.init_(small(), seed=5))
        return found | tensors(init.fill_(model, plan, seed=6))

    found = both()
    assert len(device_calls) >= 12
    check_equal(found, on_cpu(both))


def test_fast_init(on_cpu, device_calls):
    def make():
        with init.fast_init(seed=7):
            return tensors(Net())

    found = make()
    assert device_calls
    check_equal(found, on_cpu(make))


@pytest.fixture(scope="module")
def mesh():
    dist.init_process_group("fake", store=dist.HashStore(), rank=1, world_size=2)
    yield init_device_mesh("cpu", (2,))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "placement", [Shard(0), Shard(1), _StridedShard(0, split_factor=3)], ids=str
)
def test_sharded(placement, mesh, on_cpu, device_calls):
    """This process is the second of two ranks."""

    def make():
        shape = {0: (12, 21), 1: (24, 10)}[placement.dim]
        found = {}
        for fill in init.normal_, init.trunc_normal_, lambda w, **o: init.sparse_(w, 0.5, **o):
            local = torch.zeros(shape)
            tensor = DTensor.from_local(
                local, mesh, [placement], shape=torch.Size((24, 21)), stride=(21, 1)
            )
            fill(tensor, seed=8, name="w")
            found[str(len(found))] = local
        return found

    found = make()
    assert len(device_calls) >= 4
    check_equal(found, on_cpu(make))


@dataclass(frozen=True, repr=False)
class Rows(wf.Initializer):
    """A scheme of a user: the kernels know nothing of it."""

    def fill_box(self, out, box, stream, num_threads):
        out[...] = np.arange(box.starts[0], box.starts[0] + box.sizes[0]).reshape(-1, 1)


PARTS = [
    ((0, 0), (4, 9), wf.RandomNormal(0.0, 0.02)),
    ((2, 0), (9, 9), wf.HeNormal(), "other"),
    ((4, 2), (6, 9), wf.TruncatedNormal(), "another", ((5, 11), (3, 4))),
    ((6, 0), (8, 9), Rows()),
    ((8, 1), (9, 9), wf.Sparse(0.5)),
    ((1, 3), (2, 9), wf.Zeros()),
]

SCHEMES = [
    (wf.HeUniform(), (9, 7)),
    (wf.Constant(-0.1), (9, 7)),
    (wf.Constant(math.inf), (3, 3)),
    (wf.Zeros(), (9, 7)),
    (wf.Ones(), (9, 7)),
    (wf.Identity(0.3), (9, 7)),
    (wf.Identity(0.3), (5, 8)),
    (wf.Dirac(), (6, 3, 4, 2)),
    (wf.Dirac(groups=2, gain=0.3, in_axis=1, out_axis=0), (8, 3, 5)),
    (wf.Sparse(0.4), (33, 9)),
    (wf.Sparse(1.0), (4, 9)),
    (wf.Sparse(0.0), (4, 9)),
    (Parts(PARTS), (9, 9)),
    (wf.Scaled("he_normal", "1 / sqrt(2 * L)", {"L": 8}), (9, 7)),
    (wf.Scaled(Parts(PARTS[:2]), 0.5), (9, 9)),
]


def boxes_of(shape):
    yield whole(shape)
    every = tuple(range(len(shape)))
    yield Box(shape, (1,) * len(shape), tuple(extent - 2 for extent in shape), every)
    yield Box(shape, tuple(extent // 2 for extent in shape), (1,) * len(shape), every)
    yield Box(shape, (0,) * len(shape), (0, *shape[1:]), every)


@pytest.mark.parametrize(("scheme", "shape"), SCHEMES, ids=str)
def test_every_scheme_in_boxes(scheme, shape, device_calls):
    stream = Stream(9, "w")
    for dtype in torch.float32, torch.float8_e5m2:
        for box in boxes_of(shape) if dtype == torch.float32 else [whole(shape)]:
            found, expected = torch.zeros(2, *box.sizes, dtype=dtype)
            scheme.fill_box(as_array(expected), box, stream, 1)
            assert on_device.fill_box(found, box, scheme, stream)
            assert same(found, expected), box


def test_a_scheme_without_a_way(device_calls):
    box = whole((4, 3))
    assert not on_device.fill_box(torch.empty(4, 3), box, Rows(), Stream(0, "w"))
    assert not on_device.fill_box(torch.empty(4, 3), box, wf.Scaled(Rows(), 2.0), Stream(0, "w"))

    class Own(wf.Zeros):
        def fill_box(self, out, box, stream, num_threads):
            out[...] = 3

    assert not on_device.fill_box(torch.empty(4, 3), box, Own(), Stream(0, "w"))
    model = nn.Linear(3, 4, bias=False)
    init.fill_(model, wf.Plan([wf.models.TensorSpec("weight", (4, 3), Rows())]), seed=0)
    assert model.weight[:, 0].tolist() == [0, 1, 2, 3]


def test_drawn_in_another_dtype(on_cpu, device_calls):
    spec = wf.models.TensorSpec
    plan = wf.Plan(
        [
            spec(
                "weight", (8, 6), wf.RandomUniform(0.0, 1.0), dtype="bfloat16", drawn_in="float32"
            ),
            spec("bias", (8,), wf.RandomNormal(), dtype="bfloat16", drawn_in="float64"),
        ]
    )

    def make():
        return tensors(init.fill_(nn.Linear(6, 8, dtype=torch.bfloat16), plan, seed=2))

    found = make()
    assert len(device_calls) == 2
    check_equal(found, on_cpu(make))


def test_a_generator_draws_the_same_key(on_cpu, device_calls):
    def make():
        torch.manual_seed(0)
        return init.normal_(torch.empty(7, 5))

    found = make()
    assert device_calls
    assert same(found, on_cpu(make))
