"""What fills tensors of a GPU besides the kernels, on CPU tensors: no triton is needed."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import winit_fast as wf
from winit_fast.base.boxes import Box, whole
from winit_fast.cli import machine, main
from winit_fast.gpu import choice
from winit_fast.streams import distributions
from winit_fast.streams.fill import fill
from winit_fast.streams.stream import Stream
from winit_fast.torch import memory, on_device
from winit_fast.torch.memory import FLOATS, as_array, fill_through_host

STREAM = Stream(3, "w")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def drawn_by_the_cpu(monkeypatch):
    """Let the CPU's kernels draw what a device would."""

    def draw(out, box, distribution, key, stream):
        fill(distribution, key, stream, as_array(out), box)
        return True

    monkeypatch.setattr(on_device, "draw", draw)


def largest_difference(scheme, box, dtype=torch.float32):
    """Compare a box with the CPU's, in units of the stated bound: (8 + sqrt(m)) eps gain."""
    found, expected = torch.zeros(2, *box.sizes, dtype=dtype)
    assert on_device.fill_box(found, box, scheme, STREAM)
    scheme.fill_box(as_array(expected), box, STREAM, 1)
    epsilon = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    bound = (8 + math.sqrt(max(box.tensor))) * epsilon * abs(scheme.gain)
    return float((found.double() - expected.double()).abs().max()) / bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 1), (5, 5), (64, 64), (65, 64), (130, 129), (40, 300), (500, 300)]
)
def test_orthogonal_matrices(shape, dtype, drawn_by_the_cpu):
    assert largest_difference(wf.Orthogonal(1.5), whole(shape), dtype) < 1
    q = torch.empty(shape, dtype=dtype)
    on_device.fill_box(q, whole(shape), wf.Orthogonal(), STREAM)
    q = q if shape[0] >= shape[1] else q.T
    error = (q.double().T @ q.double() - torch.eye(q.shape[1])).abs().max()
    assert error < (8 + 2 * math.sqrt(max(shape))) * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("starts", "sizes"),
    [((0, 5), (300, 20)), ((17, 0), (9, 200)), ((100, 60), (70, 90)), ((299, 199), (1, 1))],
)
@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_orthogonal_boxes(shape, starts, sizes, drawn_by_the_cpu):
    if shape[0] < shape[1]:
        starts, sizes = starts[::-1], sizes[::-1]
    assert largest_difference(wf.Orthogonal(), Box(shape, starts, sizes, (0, 1))) < 1


@pytest.mark.parametrize(
    ("scheme", "shape"),
    [
        (wf.Orthogonal(column_axis=0), (6, 5, 3, 3)),
        (wf.Orthogonal(column_axis=(2, 1)), (6, 5, 4, 3)),
        (wf.Orthogonal(batch_axis=0), (7, 6, 10)),
        (wf.Orthogonal(batch_axis=(2, 0)), (3, 12, 4, 9)),
        (wf.DeltaOrthogonal(), (3, 4, 5, 9)),
        (wf.DeltaOrthogonal(0.5, in_axis=1, out_axis=0), (9, 5, 3)),
    ],
    ids=str,
)
def test_orthogonal_axes(scheme, shape, drawn_by_the_cpu):
    assert largest_difference(scheme, whole(shape)) < 1
    inner = Box(shape, (1,) * len(shape), tuple(extent - 1 for extent in shape),
                tuple(range(len(shape))))  # fmt: skip
    assert largest_difference(scheme, inner) < 1


def test_orthogonal_in_little_memory(drawn_by_the_cpu, monkeypatch):
    from winit_fast.torch import reflectors

    for scheme, shape in (
        (wf.Orthogonal(), (150, 140)), (wf.Orthogonal(batch_axis=0), (9, 20, 12))
    ):  # fmt: skip
        at_once, in_parts = torch.empty(2, *shape)
        on_device.fill_box(at_once, whole(shape), scheme, STREAM)
        with monkeypatch.context() as patch:
            patch.setattr(reflectors, "BYTES", 20_000)
            on_device.fill_box(in_parts, whole(shape), scheme, STREAM)
        assert torch.allclose(at_once, in_parts, rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_a_narrow_orthogonal_matrix_is_the_rounded_one(dtype, drawn_by_the_cpu):
    wide, narrow = torch.empty(90, 60), torch.empty(60, 90, dtype=dtype).T
    for tensor in wide, narrow:
        on_device.fill_box(tensor, whole((90, 60)), wf.Orthogonal(), STREAM)
    assert torch.equal(narrow.float(), wide.to(dtype).float())


def test_float32_settings_do_not_matter(drawn_by_the_cpu):
    plain, loose = torch.empty(2, 90, 60)
    on_device.fill_box(plain, whole((90, 60)), wf.Orthogonal(), STREAM)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            on_device.fill_box(loose, whole((90, 60)), wf.Orthogonal(), STREAM)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(plain, loose)


class Event:
    """Stands for an event of CUDA: the copy is done when it is waited for."""

    def __init__(self, log, number):
        self.log, self.number = log, number

    def synchronize(self):
        self.log.append(f"wait {self.number}")


@pytest.fixture
def log(monkeypatch):
    """Let a CPU tensor stand for a GPU's, with pinned memory and events that are written down."""
    log, marks = [], []

    def pinned(size, dtype):
        log.append(f"pin {size}")
        return torch.empty(size, dtype=dtype)

    def mark(device):
        marks.append(device)
        log.append(f"copy {len(marks)}")
        return Event(log, len(marks))

    monkeypatch.setattr(memory, "_copies_by_itself", lambda device: True)
    monkeypatch.setattr(memory, "_pinned", pinned)
    monkeypatch.setattr(memory, "_mark", mark)
    monkeypatch.setattr(memory, "HOST_BYTES", 80)
    return log


def fill_normals(log, out, cut):
    log.append(f"fill {out.shape[0]}")
    fill(distributions.normal(out.dtype, 0.0, 1.0), 3, 7, out, cut)


def test_two_buffers_in_turn(log):
    tensor = torch.zeros(45)
    fill_through_host(tensor, lambda *piece: fill_normals(log, *piece))
    assert log == [
        "pin 10", "fill 10", "copy 1", "pin 10", "fill 10", "copy 2",
        "wait 1", "fill 10", "copy 3", "wait 2", "fill 10", "copy 4", "wait 3", "fill 5", "copy 5",
    ]  # fmt: skip
    expected = wf.Stream(3, 7).normal(0.0, 1.0, (45,))
    assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("dtype", list(FLOATS), ids=str)
def test_pieces_of_any_layout(dtype, log):
    """The pieces are rounded, and have different sizes: rows are longer than a buffer."""
    tensor = torch.zeros(33, 5, dtype=dtype).T
    fill_through_host(tensor, lambda *piece: fill_normals(log, *piece), dtype=torch.float32)
    expected = torch.from_numpy(wf.Stream(3, 7).normal(0.0, 1.0, (5, 33)))
    assert torch.equal(tensor.float(), expected.to(dtype).float())
    pinned = sum(line.startswith("pin") for line in log)
    assert pinned < sum(line.startswith("fill") for line in log) - 2


def test_a_graph_does_not_capture_the_host(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="a CUDA graph cannot capture"):
        memory._Staging(torch.device("cuda:0"), torch.float32)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert memory._Staging(torch.device("cuda:0"), torch.float32).count == 2
    assert memory._Staging(torch.device("cpu"), torch.float32).count == 1


CUDA = torch.device("cuda:0")


@pytest.fixture
def obstacle(monkeypatch):
    def set_to(text):
        monkeypatch.setattr(choice, "_obstacle", lambda device: text)

    monkeypatch.delenv("WINIT_FAST_GPU", raising=False)
    return set_to


def test_the_variable(obstacle, monkeypatch):
    obstacle(None)
    assert choice.usable(CUDA)
    monkeypatch.setenv("WINIT_FAST_GPU", "off")
    assert not choice.usable(CUDA)
    monkeypatch.setenv("WINIT_FAST_GPU", "on")
    assert choice.usable(CUDA)
    obstacle("triton is not installed")
    with pytest.raises(RuntimeError, match="WINIT_FAST_GPU=on, but .* cuda:0: triton is not"):
        choice.usable(CUDA)
    assert not choice.usable(torch.device("cpu")) and not choice.usable(torch.device("meta"))
    monkeypatch.delenv("WINIT_FAST_GPU")
    assert not choice.usable(CUDA)
    monkeypatch.setenv("WINIT_FAST_GPU", "yes")
    with pytest.raises(ValueError, match="WINIT_FAST_GPU must be off or on, got 'yes'"):
        choice.usable(CUDA)


def test_a_wrong_variable_is_told_at_import(monkeypatch):
    monkeypatch.setenv("WINIT_FAST_GPU", "yes")
    run = subprocess.run(
        [sys.executable, "-c", "import winit_fast.torch"], capture_output=True, text=True
    )
    assert "ValueError: WINIT_FAST_GPU must be off or on, got 'yes'" in run.stderr


def gpus():
    return json.loads(CliRunner().invoke(main, ["info", "--json"]).output)["gpus"]


def test_info(monkeypatch):
    from winit_fast.gpu import device

    monkeypatch.delenv("WINIT_FAST_GPU", raising=False)
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "triton" else name)
    assert gpus() == {"variable": "", "kernels": {}, "host": {"all": "triton is not installed"}}
    monkeypatch.setattr(machine, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus()["host"] == {"all": "torch finds no GPU"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    reasons = {"cuda:0": None, "cuda:1": "it is old"}
    monkeypatch.setattr(device, "unable", lambda device: reasons[str(device)])
    assert gpus()["kernels"] == {"cuda:0": "Some GPU"} and gpus()["host"] == {"cuda:1": "it is old"}
    line = "tensors of GPUs: cuda:0 (Some GPU) by its kernels; cuda:1 through host memory (it is"
    assert line in CliRunner().invoke(main, ["info"]).output
    monkeypatch.setenv("WINIT_FAST_GPU", "off")
    assert gpus()["host"] == {"all": "WINIT_FAST_GPU is off"}
