"""Mutation testing: plants faults, one line at a time, and lists those that no test catches.

    python tests/mutants/run.py             every mutant of mutants.toml
    python tests/mutants/run.py torch .c    mutants with one of these texts in their file or line
    python tests/mutants/run.py 12 40-45    mutants with these numbers
    python tests/mutants/run.py --check     only check that each still applies

A mutant is found by its text, anywhere in src/ and csrc/. If the text does not occur exactly once,
the mutant no longer applies. That is an error: find out where the line has gone. All work is done
in a copy, build/mutants. A mutant of C or Cython compiles only the files that contain it, and no
files of instruction sets that this processor lacks. The exit status is 1 if a mutant no longer
applies or cannot be compiled, or if fewer than 95 % are caught.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from winit_fast._core import supported_isas
from winit_fast.base.frameworks import FRAMEWORKS

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutants"
OBJECTS = ROOT / "build" / "mutants-objects"
COMPILED = {".c", ".h", ".pxd", ".pxi", ".pyx"}
LIST = Path(__file__).with_name("mutants.toml")
SECONDS = 900  # a mutant that makes the tests run longer than this counts as caught

_COMPILER = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
_KERNELS = {f"kernels_{name}.c" for name in supported_isas()}
_UNUSED = {path.name for path in (ROOT / "csrc").glob("kernels_*.c")} - _KERNELS
_ONCE = [sys.executable, "-I", Path(__file__).with_name("compile_once.py")]
_ONCE += [OBJECTS, ",".join(sorted(_UNUSED))]

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(COPY / "src"),
    # bytecode of the original must not be used for a mutant of equal size and time
    "PYTHONDONTWRITEBYTECODE": "1",
    "KERAS_BACKEND": "jax",
    "CFLAGS": "-O1 -g0",  # compiles faster; the bits are the same
    "CC": f"{shlex.join(map(str, _ONCE))} {_COMPILER}",
}

Mutant = dict[str, str]


def mutants() -> list[Mutant]:
    """Read the list of mutants."""
    listed: list[Mutant] = tomllib.loads(LIST.read_text())["mutant"]
    return listed


def sources(root: Path) -> dict[Path, str]:
    """Read all files that a mutant can be in."""
    return {
        path: path.read_text()
        for folder in ("src", "csrc")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in COMPILED | {".py"}
    }


def place(mutant: Mutant, texts: dict[Path, str]) -> Path:
    """Find the one file that contains a mutant's line.

    Raises
    ------
    ValueError
        If the line does not occur exactly once.
    """
    old, new = mutant["old"], mutant["new"]
    found = [path for path, text in texts.items() for _ in range(text.count(old))]
    if len(found) != 1:
        raise ValueError(f"{len(found)} times in src/ and csrc/: {old}")
    (path,) = found
    if path.suffix == ".py":  # no test deserves credit for catching a syntax error
        compile(texts[path].replace(old, new), path.name, "exec")
    return path


def missing_tests(mutant: Mutant, root: Path) -> list[str]:
    """List the tests that a mutant names and that do not exist."""
    missing = []
    for word in shlex.split(mutant["tests"]):
        file, _, name = word.partition("::")
        if not file.endswith(".py"):
            continue  # an option of pytest
        path = root / file
        known = path.read_text() if path.is_file() else ""
        if not known or (name and not re.search(rf"def {name.partition('[')[0]}\(", known)):
            missing.append(word)
    return missing


def make_copy() -> None:
    """Copy the repository, including the compiled modules."""
    shutil.rmtree(COPY, ignore_errors=True)
    for folder in ("bench", "csrc", "docs", "src", "tests", "tools"):
        shutil.copytree(
            ROOT / folder,
            COPY / folder,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, COPY)


def built() -> dict[Path, tuple[bytes, os.stat_result]]:
    """Read the files that a build makes, with their times."""
    files = [*COPY.rglob("*.so"), *(COPY / "build").rglob("*.c")]
    return {file: (file.read_bytes(), file.stat()) for file in files}


def put_back(files: dict[Path, tuple[bytes, os.stat_result]]) -> None:
    """Restore files and their modification times, which decide what a build compiles."""
    for file, (content, stat) in files.items():
        if file.stat().st_mtime_ns != stat.st_mtime_ns:
            file.unlink()  # another process may have mapped the library
            file.write_bytes(content)
            file.chmod(stat.st_mode)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def build() -> bool:
    """Compile the copy; return whether that worked."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=COPY, env=ENVIRONMENT, capture_output=True).returncode == 0


def test(arguments: str) -> str:
    """Run some tests in the copy; return "passed", "failed" or an error message."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    try:
        run = subprocess.run(
            [*command, *shlex.split(arguments)],
            cwd=COPY,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "failed"
    if run.returncode in (4, 5):  # pytest found no such file or no test
        return f"no tests are run by {arguments!r}: {run.stdout[-300:]}"
    return "passed" if run.returncode == 0 else "failed"


def is_asked_for(number: int, text: str, asked: list[str]) -> bool:
    """Tell whether a mutant has one of the given numbers or texts."""
    for word in asked:
        if span := re.fullmatch("([0-9]+)(?:-([0-9]+))?", word):
            if int(span[1]) <= number <= int(span[2] or span[1]):
                return True
        elif word in text:
            return True
    return not asked


def chosen(asked: list[str]) -> Iterator[tuple[int, Mutant]]:
    """Select the mutants; print those left out because their frameworks are not installed."""
    missing = [name for name in FRAMEWORKS if find_spec(name) is None]
    left_out = 0
    texts = sources(ROOT)
    for number, mutant in enumerate(mutants(), start=1):
        files = [str(path.relative_to(ROOT)) for path in texts if mutant["old"] in texts[path]]
        if not is_asked_for(number, " ".join([*mutant.values(), *files]), asked):
            continue
        if missing and "tests/frameworks" in mutant["tests"]:
            left_out += 1
            continue
        yield number, mutant
    if left_out:
        print(f"LEFT OUT: {left_out} that need {', '.join(missing)}: make test-frameworks first")


def check() -> int:
    """Print the mutants that no longer apply or that name tests that do not exist."""
    texts = sources(ROOT)
    bad = 0
    for number, mutant in enumerate(mutants(), start=1):
        faults = [f"no such test: {test}" for test in missing_tests(mutant, ROOT)]
        try:
            place(mutant, texts)
        except (SyntaxError, ValueError) as error:
            faults.append(str(error))
        for fault in faults:
            print(f"{number} {fault}")
        bad += bool(faults)
    print(f"{bad} of {len(mutants())} do not apply")
    return int(bad > 0)


def main(asked: list[str]) -> int:
    """Plant one mutant after another, and print whether the tests caught it."""
    todo = list(chosen(asked))
    make_copy()
    texts = sources(COPY)
    of_c = any(
        path.suffix in COMPILED and mutant["old"] in text
        for _, mutant in todo
        for path, text in texts.items()
    )
    if of_c and not build():  # compiles everything once; a mutant then compiles only its own files
        print("the copy cannot be built")
        return 1
    original = built()
    sound: dict[str, str] = {}  # for each list of tests, the result on the unchanged code
    killed, survivors, gone = 0, [], []
    for number, mutant in todo:
        old, new, tests = mutant["old"], mutant["new"], mutant["tests"]
        begin = time.perf_counter()
        try:
            path = place(mutant, texts)
        except (SyntaxError, ValueError) as error:
            gone.append(f"{number} {error}")
            print(f"NO LONGER APPLIES: {gone[-1]}", flush=True)
            continue
        shown = f"{number} {path.relative_to(COPY)}: {old} -> {new}"
        shown = " ".join(shown.split())
        if sound.setdefault(tests, test(tests) if tests not in sound else "") != "passed":
            gone.append(f"{number} its tests do not pass without it, {sound[tests]}: {tests}")
            print(gone[-1], flush=True)
            continue
        before = original | {path: (path.read_bytes(), path.stat())}
        path.write_text(texts[path].replace(old, new))
        can_run = path.suffix not in COMPILED or build()
        state = test(tests) if can_run else "NOT COMPILED"
        put_back(before)
        if state == "failed":
            killed += 1
        elif state == "passed":
            survivors.append(shown)
        else:
            gone.append(f"{state}: {shown}")
        word = {"failed": "killed", "passed": "SURVIVED"}.get(state, state)
        print(f"{word} {time.perf_counter() - begin:.0f} s {shown}", flush=True)
    tried = killed + len(survivors)
    print(
        f"\n{killed} of {tried} killed; {len(survivors)} survived, {len(gone)} could not be tried"
    )
    for line in survivors:
        print("SURVIVED", line)
    for line in gone:
        print("NOT TRIED", line)
    return int(bool(gone) or killed < 0.95 * tried)


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["--check"] else main(sys.argv[1:]))
