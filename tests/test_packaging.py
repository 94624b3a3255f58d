"""The contents of the sdist and the wheels: nothing is built, the lists are read."""

import ast
import importlib
import importlib.machinery
import re
import runpy
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from setuptools.command.egg_info import FileList

import winit_fast as wf
import winit_fast._core as _core
import winit_fast._dlpack as _dlpack

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "winit_fast"
SOURCES = {".pyx", ".pxd", ".pxi"}
BUILT = {".so", ".pyd", ".pyc"}


def data_files(folder):
    """Find the files that are neither Python nor made by a build."""
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", *BUILT} and "egg-info" not in str(path)
    }


@pytest.mark.parametrize("module", [_core, _dlpack], ids=lambda m: m.__name__)
def test_one_module_serves_every_python(module):
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    limited = next((suffix for suffix in suffixes if ".abi3" in suffix or suffix == ".pyd"), None)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        limited = suffixes[0]
    assert Path(module.__file__).name == module.__name__.rpartition(".")[2] + limited


def test_sdist_has_every_source(monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = FileList()
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        listed.process_template_line(line)
    found = {Path(name) for name in listed.files}
    needed = data_files(PACKAGE) - {PACKAGE / "py.typed"}  # py.typed is listed in package_data
    for folder in ("bench", "csrc", "docs", "tests", "tools"):
        paths = (ROOT / folder).rglob("*")
        needed |= {path for path in paths if path.is_file() and path.suffix not in BUILT}
    assert needed >= {ROOT / "csrc" / "dispatch.c", PACKAGE / "_core.pyx", PACKAGE / "_core.pyi"}
    assert {path.relative_to(ROOT) for path in needed} <= found


def test_wheel_has_every_data_file():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["winit_fast"]
    listed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    needed = {path for path in data_files(PACKAGE) if path.suffix not in SOURCES}
    assert PACKAGE / "py.typed" in needed
    assert any(path.suffix == ".toml" for path in needed)
    assert needed <= listed


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == wf.__version__


def test_pyinstallers_hook_lists_every_data_file():
    """PyInstaller asks the entry point for folders, and runs the hook files in them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, _, function = settings["entry-points"]["pyinstaller40"]["hook-dirs"].partition(":")
    folders = getattr(importlib.import_module(name), function)()
    (hook,) = (path for folder in folders for path in Path(folder).glob("hook-*.py"))
    assert hook.stem == "hook-winit_fast"
    listed = {(Path(file), folder) for file, folder in runpy.run_path(str(hook))["datas"]}
    rules = PACKAGE / "models" / "data" / "rules" / "gpt2.toml"
    assert (rules, str(Path("winit_fast", "models", "data", "rules"))) in listed
    assert {path for path, _ in listed} == {
        path for path in data_files(PACKAGE) if path.suffix == ".toml"
    }
    for path, folder in listed:
        assert path.parent == PACKAGE.parent / folder


def test_a_wheel_is_tested_with_all_that_its_tests_import():
    """`make wheel` installs the wheel and `test-requires`, and nothing else."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["cibuildwheel"]
    left = [ROOT / name for name in re.findall(r"tests/\w+\.py", wheel["test-command"])]
    left.append(ROOT / "tests" / "conftest.py")
    read, imported = set(), set()
    while left:
        path = left.pop()
        if path in read:
            continue
        read.add(path)
        for node in ast.parse(path.read_text()).body:  # those of a function may be skipped
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            for name in names:
                root = name.partition(".")[0]
                helper = ROOT / "tests" / f"{root}.py"
                if helper.exists():
                    left.append(helper)
                elif root not in sys.stdlib_module_names:
                    imported.add(root)
    installed = [*wheel["test-requires"], *settings["project"]["dependencies"]]
    known = {re.match(r"[\w-]+", each)[0].replace("-", "_") for each in installed}
    assert imported <= known | {"winit_fast"} and "hypothesis" in imported
