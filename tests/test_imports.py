"""The house's order: which file may use which, and what the build rests on."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "winit_fast"
CSRC = ROOT / "csrc"

# From the bottom up: a module imports only from lines above its own, or from its own package.
LAYERS = [
    {"_core", "_dlpack", "names"},
    {"truncation"},
    {"distributions", "dtypes", "fans", "gains", "threads"},
    {"fill"},
    {"stream"},
    {"initializers"},
    {"orthogonal"},
    {"__init__"},
    {"tensor"},
    {"recipes"},
    {"checkpoint"},
    {"cli"},
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}


def _room(path):
    """Name the module of a file, or the package that it is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path):
    """Find which rooms of this package a file imports, those for type checkers left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *rooms = name.split(".")
            if package == "winit_fast":
                yield rooms[0] if rooms and rooms[0] in LEVEL else "__init__"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_down(path):
    room = _room(path)
    assert room in LEVEL, f"{room}: give it a place in LAYERS"
    for used in _imported(path):
        assert used == room or LEVEL[used] < LEVEL[room], f"{path.name} imports {used}"


def test_importing_the_package_imports_no_framework():
    heavy = ["torch", "jax", "keras", "tensorflow", "dask", "scipy", "matplotlib", "click", "rich"]
    program = f"import sys, winit_fast; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


def _includes(path):
    return re.findall(r'^\s*#\s*include\s*([<"][^>"]+[>"])', path.read_text(), re.MULTILINE)


C_FILES = sorted(CSRC.glob("*.[ch]"))


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_c_knows_no_python_no_threads_no_allocation(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    for word in ("Python.h", "pthread", "threads.h", "malloc", "calloc", "realloc", "omp"):
        assert not re.search(rf"\b{re.escape(word)}\b", text), word
    for name in _includes(path):
        if name.startswith('"'):
            assert (CSRC / name.strip('"')).exists(), name


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_intrinsics_stand_in_the_vec_headers(path):
    intrinsics = {"<immintrin.h>", "<arm_neon.h>"} & set(_includes(path))
    assert not intrinsics or path.name.startswith("vec_") or path.name == "dispatch.c"


def test_includes_point_down():
    """Interface, then vectors, then the contract over them, then kernels, then their stubs."""
    below = {'"winit.h"': r".*", '"kernels.h"': r"(kernels|householder|dispatch|fill|vec).*"}
    for path in C_FILES:
        for name in _includes(path):
            if name in below:
                assert re.fullmatch(below[name], path.stem), f"{path.name} includes {name}"
            if name.startswith('"vec_'):
                assert path.suffix == ".c", f"{path.name} includes {name}"
            assert not name.endswith('.c"'), f"{path.name} includes {name}"


def test_build_flags():
    for build in ("setup.py", "Makefile"):
        text = (ROOT / build).read_text()
        assert "-ffp-contract=off" in text
        code = re.sub(r"#.*", "", text)
        assert "fast-math" not in code and "-march=" not in code and "-Ofast" not in code
