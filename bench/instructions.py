"""How many instructions every kernel takes, counted by valgrind's callgrind: the same in every run.

    python bench/instructions.py

The kernels are compiled for this by themselves, with the flags of setup.py, and linked with
instructions.c. AVX-512 is left out, since valgrind cannot run it.
"""

import os
import platform
import re
import runpy
import shutil
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]


def compiler() -> list[str]:
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()


def compiler_version() -> str:
    """What the counts depend on beside the source: the architecture and the compiler."""
    run = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True)
    name = re.sub(r"^\S+ \(", "gcc (", run.stdout.splitlines()[0])  # not as what it was called
    return f"{platform.machine()}, {name}"


def build(folder: Path) -> Path:
    """Compile the kernels and instructions.c as setup.py would; return the program."""
    with (
        mock.patch("setuptools.setup"),
        mock.patch("Cython.Build.cythonize"),
        mock.patch.dict(os.environ),
    ):
        os.environ.pop("CFLAGS", None)  # a sanitizer's, say
        setup = runpy.run_path(str(ROOT / "setup.py"))

    def compile_one(source: Path) -> Path:
        flags = setup["C_FLAGS"] + setup["FLAGS"].get(setup["instruction_set"](source), [])
        target = folder / f"{source.stem}.o"
        includes = ["-Icsrc", "-Itests/c"]
        command = [*compiler(), *flags, "-Wno-unused", *includes, "-c", source, "-o", target]
        subprocess.run(command, check=True, cwd=ROOT)
        return target

    sources = [ROOT / source for source in setup["SOURCES"]] + [ROOT / "bench/instructions.c"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    program = folder / "instructions"
    subprocess.run([*compiler(), *objects, "-lm", "-o", program], check=True)
    return program


def parse(dump: str) -> tuple[str, int] | None:
    """Read the case's name and its count from one file of callgrind; None from any other.

    >>> parse("desc: Trigger: Client Request: avx2: normal\\nevents: Ir\\ntotals: 1234\\n")
    ('avx2: normal', 1234)
    """
    name = re.search(r"^desc: Trigger: Client Request: (.*)$", dump, re.MULTILINE)
    total = re.search(r"^totals: (\d+)$", dump, re.MULTILINE)
    return (name[1], int(total[1])) if name and total else None


def count() -> dict[str, int]:
    """Instructions of every case, by name.

    Raises
    ------
    SystemExit
        If valgrind is not installed.
    """
    if not shutil.which("valgrind"):
        raise SystemExit("instruction counts need valgrind (apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [
                *("valgrind", "--quiet", "--tool=callgrind", "--collect-atstart=no"),
                *("--dump-instr=no", f"--callgrind-out-file={folder / 'out'}", build(folder)),
            ],
            check=True,
        )
        found = (parse(path.read_text()) for path in folder.glob("out*"))
        counts = dict(sorted(each for each in found if each))
    if not counts:
        raise SystemExit("callgrind wrote no counts")
    return counts


if __name__ == "__main__":
    for case, instructions in count().items():
        print(f"{case:<48} {instructions:>12,}")
