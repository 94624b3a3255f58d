"""Count the instructions of every kernel with valgrind's callgrind; they are the same in every run.

    python bench/instructions.py

The kernels are compiled separately for this, with the flags of setup.py, and linked with
instructions.c. AVX-512 is left out, because valgrind cannot run it.
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
    """Name what the counts depend on beside the source: the architecture and the compiler."""
    run = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True)
    # whatever the command was called
    name = re.sub(r"^\S+ \(", "gcc (", run.stdout.splitlines()[0])
    return f"{platform.machine()}, {name}"


def build(folder: Path) -> Path:
    """Compile the kernels and instructions.c with setup.py's flags; return the program's path."""
    with (
        mock.patch("setuptools.setup"),
        mock.patch("Cython.Build.cythonize"),
        mock.patch.dict(os.environ),
    ):
        os.environ.pop("CFLAGS", None)  # they may contain the flags of a sanitizer
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
    """Read a case's name and count from one callgrind file; None if the file has no case.

    >>> parse("desc: Trigger: Client Request: avx2: normal\\nevents: Ir\\ntotals: 1234\\n")
    ('avx2: normal', 1234)
    """
    name = re.search(r"^desc: Trigger: Client Request: (.*)$", dump, re.MULTILINE)
    total = re.search(r"^totals: (\d+)$", dump, re.MULTILINE)
    return (name[1], int(total[1])) if name and total else None


def count() -> dict[str, int]:
    """Count the instructions of every case; return them by name.

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
