"""Which file may import or include which, and other rules of the source tree and the build."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from textwrap import dedent

import pytest

import winit_fast as wf
import winit_fast.initializers as initializers
from winit_fast.base.frameworks import FRAMEWORKS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "winit_fast"
CSRC = ROOT / "csrc"

# The layers of src/winit_fast/, in the order in which data flows: a file imports only from earlier
# layers and from its own folder. Folders on the same line do not import from each other.
FLOORS = [
    {"_core", "_dlpack"},
    {"base"},
    {"streams"},
    {"initializers"},
    {"__init__"},
    {"models"},
    {"checkpoint"},
    {"gpu"},
    {*FRAMEWORKS},
    {"sources"},
    {"diagnosis"},
    {"dynamic"},
    {"advice"},
    {"benchmark"},
    {"cli", "_pyinstaller"},
    {"__main__"},
]
LEVEL = {floor: level for level, floors in enumerate(FLOORS) for floor in floors}


def _module(path):
    """Return the module name of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in PACKAGE.rglob("*.py")}


def _floor(module):
    """Return the folder or top-level file that a module is in; "__init__" is the package itself."""
    _, *rooms = module.split(".")
    return rooms[0] if rooms else "__init__"


def _imported(path, for_types=False):
    """Yield the modules of this package that a file imports; on demand also those for types."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not for_types
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
            if name.split(".")[0] == "winit_fast":
                parent, _, _ = name.rpartition(".")
                yield name if name in MODULES or parent == "winit_fast" else parent


def climbing(module, path):
    """List the imports of a file from a later layer or from another folder of its own layer."""
    own = _floor(module)
    assert own in LEVEL, f"{module}: give its floor a place in FLOORS"
    return [
        used
        for used in _imported(path)
        if _floor(used) != own and not LEVEL[_floor(used)] < LEVEL[own]
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    assert not climbing(module, MODULES[module])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_inside_imports_through_the_face(module):
    """Inside the package nothing imports the public names of `winit_fast`; only the command may."""
    text = MODULES[module].read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(">>>"))
    through = re.findall(
        r"^\s*(?:from winit_fast import .*|import winit_fast$)", code, re.MULTILINE
    )
    assert not through


@pytest.mark.parametrize("floor", sorted({_floor(module) for module in MODULES} - {"__init__"}))
def test_no_circle_inside_a_floor(floor):
    graph = {
        module: {used for used in _imported(path, True) if _floor(used) == floor and used != module}
        for module, path in MODULES.items()
        if _floor(module) == floor
    }
    # prepare() raises if there is a circle. There is one, too, if a file imports from the __init__
    # of its own folder, which imports all files.
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "line",
    [
        "from winit_fast.streams import fill",
        "import winit_fast.torch",
        "from winit_fast.initializers.registry import get",
    ],
)
def test_an_import_that_climbs_is_seen(line, tmp_path):
    planted = tmp_path / "arguments.py"
    planted.write_text((PACKAGE / "base" / "arguments.py").read_text() + f"\n\n{line}\n")
    assert climbing("winit_fast.base.arguments", planted)


def test_importing_the_package_imports_no_framework():
    heavy = ["torch", "jax", "keras", "tensorflow", "dask", "scipy", "matplotlib", "click", "rich"]
    program = f"import sys, winit_fast; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize("floor", ["diagnosis", "dynamic", "advice"])
def test_the_numerics_import_no_framework(floor):
    """Only the folder torch/ of these layers does; the names in it are imported when used."""
    above = {"torch", "jax", "keras", "dask", "flax"}
    for path in (PACKAGE / floor).glob("*.py"):
        tree = ast.parse(path.read_text())
        used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
        used |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in used if name.split(".")[0] in above}, path
        assert not set(_imported(path)) & {f"winit_fast.{one}" for one in above}, path
    program = f"import sys, winit_fast.{floor}; print([m for m in {above} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


def test_importing_the_package_is_light():
    """The import has what checks the environment's variables; the rest is imported when used."""
    slow = ["dataclasses", "decimal", "difflib", "hashlib", "json", "numpy.polynomial"]
    slow += ["numpy.random", "pathlib", "tomllib"]
    program = (
        "import sys, numpy, ml_dtypes; before = set(sys.modules); import winit_fast; "
        "hasattr(winit_fast, '__wrapped__'); "
        "new = sorted(sys.modules.keys() - before); "
        f"print(*[m for m in new if m.startswith('winit_fast') or m in {slow}])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    base = [f"winit_fast.base{rest}" for rest in ("", ".arguments", ".frameworks", ".threads")]
    ours = ["winit_fast", "winit_fast._core", *base, "winit_fast.base.version"]
    assert run.stdout.split() == ours, run.stderr


def test_type_checkers_see_the_public_names():
    """The face has the names that are no schemes twice: for type checkers, and for __all__."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List)]
    lists = [ast.literal_eval(each) for each in lists if "Philox4x32" in ast.dump(each)]
    assert lists[0] == lists[1]
    assert wf.__all__ == [*lists[0], *initializers.__all__]


def test_what_commands_need_is_light():
    """What takes 10 ms and more to import, and is used rarely or not at all."""
    slow = ["concurrent.futures.process", "difflib", "importlib.resources", "numpy.random"]
    program = (
        "import sys, numpy, ml_dtypes; before = set(sys.modules); "
        "import winit_fast.checkpoint, winit_fast.sources; "
        "from winit_fast.models import Plan, Rules; Rules.load('gpt2'); "
        f"print([m for m in {slow} if m in sys.modules.keys() - before])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize(
    "program",
    [
        """
        exec("from winit_fast import *", names := {})
        assert names.keys() >= {*PUBLIC} and repr(names["get"]("he_normal")) == "HeNormal()"
        """,
        """
        import numpy as np
        out = np.empty(1, "bfloat16")
        assert {*dir(wf)} >= {*PUBLIC, "streams"} and wf.Ones().fill(out) == 1
        try:
            wf.HeNorml
        except AttributeError as error:
            assert str(error) == "module 'winit_fast' has no attribute 'HeNorml'"
        else:
            raise AssertionError
        """,
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(len(PUBLIC)) as pool:
            found = [*pool.map(lambda name: getattr(wf, name), PUBLIC)]
        assert found == [getattr(wf, name) for name in PUBLIC]
        assert wf.streams.stream.Stream is wf.Stream
        """,
    ],
    ids=["star", "dir", "threads"],
)
def test_public_names_are_there_from_the_start(program):
    """A process that has only imported the package can use any of its names, in any way."""
    first = f"import winit_fast as wf; PUBLIC = {wf.__all__}\n"
    run = subprocess.run(
        [sys.executable, "-c", first + dedent(program)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


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
    """Detecting the processor and setting its rounding mode have files of their own."""
    intrinsics = {"<immintrin.h>", "<arm_neon.h>"} & set(_includes(path))
    allowed = path.name.startswith("vec_") or path.name in {"dispatch.c", "environment.h"}
    assert allowed or not intrinsics


# From the bottom up: a file includes only files of earlier lines.
C_LAYERS = [
    r"(coefficients|philox|winit|sets|householder|householder_real-inl)\.h|vec_\w+\.h",
    r"(environment|probes|philox-inl)\.h",
    r"(kernels|math-inl|narrow-inl|householder-inl)\.h",
    r"(loops|(?!kernels|probes|chunks|steps)\w+)-inl\.h",  # the file of a distribution belongs here
    r"(probes|chunks|steps)-inl\.h",
    r"kernels-inl\.h",
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
        for flag in ("-ffast-math", "-march=", '= ["-Ofast"'):
            assert flag not in code
