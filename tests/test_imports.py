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
    {"_core", "_dlpack", "arguments", "names"},
    {"dtypes", "expression", "gains", "threads", "truncation"},
    {"distributions", "fill"},
    {"fans", "stream"},
    {"bit_generator", "initializers"},
    {"patterns", "pretrained", "scaled", "stft"},
    {"_householder"},
    {"householder"},
    {"orthogonal"},
    {"__init__"},
    {"dask", "jax", "keras", "torch"},
    {"tensor"},
    {"recipes"},
    {"checkpoint", "benchmark"},
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


def test_importing_the_package_is_light():
    """What costs milliseconds is imported where it is used, unless NumPy has imported it."""
    slow = ["numpy.polynomial", "numpy.random"]
    slow += ["decimal", "difflib", "hashlib", "json", "pathlib"]
    program = (
        "import sys, numpy; before = set(sys.modules); import winit_fast; "
        f"print([m for m in {slow} if m in sys.modules.keys() - before])"
    )
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
    """The processor's settings and its name are asked for in a file of their own each."""
    intrinsics = {"<immintrin.h>", "<arm_neon.h>"} & set(_includes(path))
    allowed = path.name.startswith("vec_") or path.name in {"dispatch.c", "environment.h"}
    assert allowed or not intrinsics


# From the bottom up: a file includes only files that match an earlier line.
C_LAYERS = [
    r"coefficients\.h|winit\.h|vec_\w+\.h|householder\.h|reflect-inl\.h",
    r"kernels\.h|philox-inl\.h",
    r"environment\.h|math-inl\.h",
    r"(narrow|uniform|normal|truncated)-inl\.h",
    r"(kernels|householder)-inl\.h",
    r"\w+\.c",
]


def _c_level(name):
    return next(level for level, names in enumerate(C_LAYERS) if re.fullmatch(names, name))


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_includes_point_down(path):
    for name in _includes(path):
        if name.startswith('"'):
            assert _c_level(name.strip('"')) < _c_level(path.name), name


def test_build_flags():
    assert '"-ffp-contract=off"' in (ROOT / "setup.py").read_text()
    for build in ("setup.py", "Makefile"):
        code = re.sub(r"#.*", "", (ROOT / build).read_text())
        assert "fast-math" not in code and "-march=" not in code and "-Ofast" not in code
