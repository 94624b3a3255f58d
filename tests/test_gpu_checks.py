"""The frozen hashes by which the kernels of GPUs check themselves: they are those of the CPU."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from draws import DRAWS

import winit_fast._core as _core
from winit_fast.gpu import cases
from winit_fast.streams import distributions

ROOT = Path(__file__).parent.parent


def test_the_file_is_what_the_cpu_draws():
    table = runpy.run_path(str(ROOT / "tools" / "make_gpu_checks.py"))["table"]
    file = Path(cases.__file__).with_name(cases.FILE)
    assert file.read_text() == table()


def test_all_hashes_differ():
    """Uniform numbers of one box in two dtypes have different bytes, and so on."""
    hashes = [case.blake2b for case in cases.cases()]
    assert len(set(hashes)) == len(hashes) > 200


@pytest.mark.parametrize("method", DRAWS)
def test_a_kernel_has_a_name(method):
    """By it a device finds its own kernel, or that it has none."""
    made = getattr(distributions, method)(np.dtype("float32"), *DRAWS[method].wide)
    assert _core.parameters(made)["kernel"] in {"uniform", "inside", method, "truncated", "central"}
