"""The kernels for GPUs compile, without a GPU, to exact operations alone.

The assembly may have no other floating-point instructions than those listed here, each of which is
rounded once, to nearest, and keeps subnormals.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = (("cuda", "80"), ("cuda", "90"), ("hip", "gfx942"))

PTX = r"""(add|sub|mul|fma|sqrt)\.rn\.f(32|64)
    | cvt\.rn\.(f16(x2)?\.f32 | f32\.[su]32 | f64\.[su]64)
    | (selp|neg|abs|max)\.f(32|64)
    | setp\.(gt|lt|le|ge)u?\.f(32|64)"""

# v_rcp, v_trunc and conversions to integers are parts of the division of integers, which only the
# loops over rows have; v_sqrt and v_rsq are parts of LLVM's correctly rounded root.
AMDGCN = r"""v_(pk_)?(add|sub|subrev|mul|fma|fmac|fmaak|fmamk)_f(32|64)
    | v_cvt_(f32_[iu]32 | f64_[iu]32 | f16_f32) | v_ldexp_f64 | v_pack_b32_f16 | v_max_f(32|64)
    | v_cmp(_class|_n?[lg][te])_f(32|64)"""
ROOT = r"v_(sqrt_f32|rsq_f64)"
DIVISION = r"v_(rcp(_iflag)?|trunc)_f32 | v_cvt_u32_f32"


def printed(program, folder, *arguments):
    """Run a program of this folder without the interpreter, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name(program), *arguments],
        capture_output=True,
        text=True,
        env=environment | {"TRITON_CACHE_DIR": str(folder)},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module", params=TARGETS, ids=" ".join)
def kernels(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    return request.param[0], json.loads(printed("gpu_compile.py", folder, *request.param))


def instructions(backend, code):
    """The names of the instructions that compute with floating-point numbers."""
    names = re.findall(r"^\s+(?:@!?%\w+\s+)?([a-z][\w.]*)", code, re.MULTILINE)
    kind = r"\.(f|bf)\d+" if backend == "cuda" else r"_(b?f)(16|32|64)"
    encoding = "" if backend == "cuda" else r"_(e32|e64|dpp|sdwa)$"
    return {
        re.sub(encoding, "", name) if encoding else name for name in names if re.search(kind, name)
    }


def test_only_exact_operations(kernels):
    backend, results = kernels
    for name, result in results.items():
        allowed = PTX if backend == "cuda" else AMDGCN
        if backend == "hip" and re.match("normal|central", name):
            allowed += "|" + ROOT
        if backend == "hip" and name.endswith(("strided", "rows")):
            allowed += "|" + DIVISION
        found = instructions(backend, result["code"])
        assert found or name.startswith("bits"), name
        others = {each for each in found if not re.fullmatch(allowed, each, re.VERBOSE)}
        assert not others, name


def test_no_flags_that_allow_approximation(kernels):
    """LLVM has no leave to reorder, to contract, to approximate or to flush subnormals.

    It marks some operations as free of NaN itself, where it can prove it.
    """
    backend, results = kernels
    for name, result in results.items():
        operations = [line for line in result["llir"].splitlines() if re.search("= |call ", line)]
        loose = r"\b(fast|contract|reassoc|afn|arcp|nsz)\b|!fpmath"
        assert not [line for line in operations if re.search(loose, line)], name
        assert "preserve-sign" not in result["llir"], name
        assert not re.search(r"\.ftz|\.approx|\bcall\b", result["code"]), name
        if backend == "hip":
            modes = re.findall(r"\.amdhsa_float_(\w+)_mode_\w+ (\d)", result["code"])
            assert sorted(modes) == [("denorm", "3")] * 2 + [("round", "0")] * 2, name


def test_no_other_fma_than_the_source_writes(kernels):
    """Allowed to contract, the compiler finds nothing to contract."""
    checked = [each for each in kernels[1].values() if "fused" in each]
    assert len(checked) == 8
    for result in checked:
        assert len(result["machine"]) > 300
        assert result["fused"] == result["machine"]


def test_float32_fits_into_registers(kernels):
    for name, result in kernels[1].items():
        assert result["spilled"] == 0 or "float64" in name, name


def test_a_contracted_operation_would_be_seen(kernels):
    """The search finds what it is to find, in a line put into the code."""
    backend, results = kernels
    planted = "\n\tfma.rn.ftz.f32 \t%r1, %r2;" if backend == "cuda" else "\n\tv_exp_f32_e32 v1, v2"
    found = instructions(backend, results["normal float32"]["code"] + planted)
    allowed = PTX if backend == "cuda" else AMDGCN + "|" + ROOT
    assert {each for each in found if not re.fullmatch(allowed, each, re.VERBOSE)}


def test_values_select_no_kernel(tmp_path):
    """Keys, streams, indices, parameters and sizes are data: one kernel is compiled for all."""
    assert printed("gpu_launch.py", tmp_path) == "1\n"
