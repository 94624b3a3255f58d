"""The kernels check themselves: a wrong one warns, and what it would draw comes from the CPU's.

`make test-gpu` runs these tests, with Triton's interpreter.
"""

import math
import warnings

import pytest
import torch
from draws import WINDOWS

import winit_fast.torch as init
from winit_fast.base import dtypes
from winit_fast.gpu import choice, self_check
from winit_fast.gpu.cases import DTYPES
from winit_fast.streams import distributions


@pytest.fixture
def unchecked(monkeypatch, device_calls, tmp_path):
    """Forget what has been checked, and keep files in a new folder."""
    monkeypatch.setattr(self_check, "_known", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return device_calls


@pytest.fixture
def wrong(monkeypatch, unchecked):
    """Plant a normal kernel of float32 with one wrong bit in one element of a thousand."""
    right = self_check.fill_unchecked

    def fill(distribution, key, stream, out, box, offset=0):
        right(distribution, key, stream, out, box, offset)
        if self_check.kernel_of(distribution) == "normal" and out.dtype == torch.float32:
            out.detach().view(torch.int32).view(-1)[123::1000] ^= 1

    monkeypatch.setattr(self_check, "fill_unchecked", fill)


def expected(dtype=torch.float32):
    from winit_fast import Stream

    array = Stream(3, "w").normal(0.0, 0.5, (2000,), dtype=str(dtype).removeprefix("torch."))
    return torch.from_numpy(array)


def test_every_kernel_has_cases():
    truncated = {f"truncated {octaves}" for octaves in range(1, 9)}
    expected = {"uniform", "inside", "normal", "central", *truncated}
    known = {(kernel, dtype) for kernel in expected for dtype in DTYPES}
    known = known - {("inside", "float64")} | {("bits", "uint32"), ("bits", "uint64")}
    assert self_check.cases_by_kernel().keys() == known
    windows = [*WINDOWS, (38.3, 38.4), (-38.46, math.inf), (38.0, 38.45), (0.0, 1e-300)]
    for low, high in windows:
        loc = -low if math.isfinite(low) else 0.0  # so that every type has a value
        for name in DTYPES:
            dtype = dtypes.find(name).dtype
            made = distributions.truncated_normal(dtype, loc, 1.0, low, high)
            assert (self_check.kernel_of(made), name) in known


@pytest.mark.parametrize("kernel", ["bits", "uniform", "inside", "normal", "central", "truncated"])
def test_kernels_pass(kernel, device_calls):
    """Not all of them: the interpreter would take minutes, and test_gpu_kernels.py draws more."""
    for name, dtype in self_check.cases_by_kernel():
        if dtype in ("float16", "float8_e5m2"):
            continue
        short = kernel != "truncated" or (dtype, name[-1]) in {("float32", "1"), ("bfloat16", "8")}
        if name.split()[0] == kernel and short:
            assert self_check._fault(name, dtype, torch.device("cpu")) is None


def test_what_no_kernel_draws_goes_through_the_host(monkeypatch, unchecked):
    """As a distribution or a dtype does that only the CPU has: no warning, the same numbers."""
    known = {place: cases for place, cases in self_check.cases_by_kernel().items()
             if place != ("normal", "float32")}  # fmt: skip
    monkeypatch.setattr(self_check, "cases_by_kernel", lambda: known)
    monkeypatch.setattr(self_check, "fill_unchecked", pytest.fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = init.normal_(torch.empty(2000), 0.0, 0.5, seed=3, name="w")
    assert torch.equal(found, expected())


def test_a_wrong_kernel_is_not_used(wrong):
    with pytest.warns(RuntimeWarning, match="normal numbers of float32 draws other bits on cpu"):
        found = init.normal_(torch.empty(2000), 0.0, 0.5, seed=3, name="w")
    assert torch.equal(found, expected())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns once
        again = init.normal_(torch.empty(2000), 0.0, 0.5, seed=3, name="w")
    assert torch.equal(again, expected())


def test_another_kernel_is_used(wrong, unchecked):
    found = init.normal_(torch.empty(2000, dtype=torch.float64), 0.0, 0.5, seed=3, name="w")
    assert unchecked and torch.equal(found, expected(torch.float64))


def test_a_wrong_kernel_in_a_composition(wrong):
    with pytest.warns(RuntimeWarning, match="through host memory"):
        found = init.sparse_(torch.empty(50, 6), 0.5, seed=3, name="w")
        matrix = init.orthogonal_(torch.empty(20, 6), seed=3, name="w")
    from winit_fast import Orthogonal, Sparse

    array = Sparse(0.5)((50, 6), seed=3, name="w")
    assert torch.equal(found, torch.from_numpy(array))
    array = Orthogonal(column_axis=0)((20, 6), seed=3, name="w")
    assert torch.equal(matrix, torch.from_numpy(array))


def test_a_kernel_that_does_not_run(monkeypatch, unchecked):
    def fill(*arguments):
        raise OSError("no compiler")

    monkeypatch.setattr(self_check, "fill_unchecked", fill)
    with pytest.warns(RuntimeWarning, match="does not run on cpu: OSError: no compiler"):
        found = init.normal_(torch.empty(2000), 0.0, 0.5, seed=3, name="w")
    assert torch.equal(found, expected())


def test_on_refuses_a_wrong_kernel(monkeypatch, wrong):
    monkeypatch.setenv("WINIT_FAST_GPU", "on")
    tensor = torch.zeros(2000)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="WINIT_FAST_GPU=on, but the kernel of normal"):
            init.normal_(tensor, seed=3)
    assert not tensor.any()


def passes(monkeypatch, circumstances):
    """Whether a new process with these circumstances would check the kernel."""
    checked = []
    with monkeypatch.context() as patch:
        patch.setattr(self_check, "_known", {})
        patch.setattr(self_check, "_circumstances", lambda device: circumstances)
        patch.setattr(self_check, "_fault", lambda *place: checked.append(place))
        init.normal_(torch.empty(3), seed=0)
    return not checked


def test_a_file_tells_later_processes(monkeypatch, unchecked, tmp_path):
    assert not passes(monkeypatch, "a device, driver 1")
    assert passes(monkeypatch, "a device, driver 1")
    assert not passes(monkeypatch, "a device, driver 2")
    assert len(list((tmp_path / "winit_fast" / "gpu").iterdir())) == 2
    assert not passes(monkeypatch, None) and not passes(monkeypatch, None)


def test_a_wrong_kernel_leaves_no_file(monkeypatch, wrong, tmp_path):
    monkeypatch.setattr(self_check, "_circumstances", lambda device: "a device")
    with pytest.warns(RuntimeWarning):
        init.normal_(torch.empty(3), seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["file", "file/in", "", "relative", None])
def test_a_folder_that_cannot_be_written(folder, monkeypatch, unchecked, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    if folder is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        said = folder if folder in ("", "relative") else str(tmp_path / folder)
        monkeypatch.setenv("XDG_CACHE_HOME", said)
    for _ in range(2):
        assert not passes(monkeypatch, "a device")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_check_while_a_graph_is_captured(monkeypatch, unchecked):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    place = "normal", "float32", "cuda:0"
    with pytest.raises(RuntimeError, match="fill such a tensor once before"):
        self_check._checked(place, torch.device("cuda:0"))


def test_the_variable(monkeypatch):
    monkeypatch.setattr(choice, "_obstacle", lambda device: None)
    cuda = torch.device("cuda:0")
    assert choice.usable(cuda)
    monkeypatch.setenv("WINIT_FAST_GPU", "off")
    assert not choice.usable(cuda)
    monkeypatch.setenv("WINIT_FAST_GPU", "on")
    assert choice.usable(cuda)
