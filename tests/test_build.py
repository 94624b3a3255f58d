"""Builds with flags that would change the bits: setup.py's own flags come last and undo them."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parent.parent
UNSAFE = ["-ffast-math", "-funsafe-math-optimizations", "-ffinite-math-only", "-ffp-contract=fast"]

needs_gcc = pytest.mark.skipif(
    os.name != "posix" or not shutil.which("gcc"), reason="builds with gcc"
)

# Tells whether loading a library makes the process flush subnormals: then 2^-1074 equals 0.
FLUSHES = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(5e-324 * float('1') == 0)"


def settings(monkeypatch):
    """Read setup.py without building anything."""
    monkeypatch.chdir(ROOT)
    with mock.patch("setuptools.setup"), mock.patch("Cython.Build.cythonize"):
        return runpy.run_path("setup.py")


@needs_gcc
@pytest.mark.parametrize("flag", UNSAFE[:3])
def test_sources_refuse_fast_math(monkeypatch, flag):
    """For builds without setup.py, which do not have its flags."""
    for flags, status in ((["-O1", flag], 1), (["-O1", flag, *settings(monkeypatch)["EXACT"]], 0)):
        command = ["gcc", "-std=c11", *flags, "-E", "-o", os.devnull, "csrc/distribution.c"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == status, run.stderr
        assert ("compile without -ffast-math" in run.stderr) == bool(status)


@needs_gcc
@pytest.mark.parametrize("flag", ["-Ofast", "-ffast-math", "-funsafe-math-optimizations"])
def test_linking_adds_nothing_that_flushes_subnormals(monkeypatch, tmp_path, flag):
    setup = settings(monkeypatch)
    (tmp_path / "empty.c").write_text("int nothing;\n")
    library = tmp_path / "empty.so"
    command = setup["without_fast"](["gcc", "-shared", "-fPIC", flag])
    command += [str(tmp_path / "empty.c"), "-o", str(library), *setup["EXACT"]]
    subprocess.run(command, check=True)
    run = subprocess.run(
        [sys.executable, "-c", FLUSHES, library], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"


@pytest.mark.parametrize(
    ("given", "optimised"), [(None, True), ("", True), ("-g -march=native", True), ("-O1", False)]
)
def test_flags_of_ones_own_leave_the_kernels_fast(monkeypatch, given, optimised):
    """Setuptools uses CFLAGS instead of Python's own flags, which contain -O3 or -O2."""
    if given is None:
        monkeypatch.delenv("CFLAGS", raising=False)
    else:
        monkeypatch.setenv("CFLAGS", given)
    assert ("-O3" in settings(monkeypatch)["C_FLAGS"]) == optimised


@pytest.mark.slow  # it compiles everything; a faster test shows that the sources refuse these flags
@needs_gcc
def test_hashes_of_a_build_that_asks_for_fast_math(tmp_path):
    """All instruction sets, in a separate build; -O1 saves time."""
    environment = os.environ | {"CFLAGS": " ".join(["-O1", "-Wno-unused", *UNSAFE])}
    for folder in ("csrc", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    run = subprocess.run(build, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    program = """if True:
        import sys
        sys.path[:0] = [sys.argv[1] + "/src", sys.argv[2]]
        import numpy
        assert 5e-324 * float("1") > 0, "subnormals are flushed before"
        import make_hashes, winit_fast._core as core
        assert core.__file__.startswith(sys.argv[1]), core.__file__
        assert 5e-324 * float("1") > 0, "subnormals are flushed"
        for isa in core.supported_isas():
            core.set_isa(isa)
            hashes = {key: make_hashes.blake2b(data) for key, data in make_hashes.table()}
            assert hashes == make_hashes.frozen(), isa
        print(len(hashes) == len(make_hashes.frozen()) > 0)
    """
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path, ROOT / "tests"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "True\n"), run.stderr


@needs_gcc
def test_the_emulated_fma_rounds_as_the_c_library_does(monkeypatch, tmp_path):
    command = ["gcc", *settings(monkeypatch)["C_FLAGS"], "-Werror", "-Icsrc", "tests/c/fma.c"]
    subprocess.run([*command, "-lm", "-o", tmp_path / "fma"], cwd=ROOT, check=True)
    run = subprocess.run([tmp_path / "fma"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
