"""Plants faults, one line at a time, and lists those that no test notices: `make mutants`.

    python tests/mutants/run.py             every mutant of mutants.toml
    python tests/mutants/run.py torch .c    those whose file or line has one of these texts
    python tests/mutants/run.py 12 40-45    those of these numbers
    python tests/mutants/run.py --check     whether each still applies; nothing is run

A mutant is found by its text, wherever in src/ and csrc/ that stands; one whose text is not there
exactly once no longer applies, which is an error: look for where the line has gone. Everything is
done in a copy in build/mutants, of which mutants of C and Cython compile the files that they are
in, but none for instruction sets that this processor lacks. The exit status is 1 if some no longer
apply or cannot be compiled, or if less than 95 % are killed.
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
SECONDS = 900  # a mutant that runs on is noticed, too

_COMPILER = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
_KERNELS = {f"kernels_{name}.c" for name in supported_isas()}
_UNUSED = {path.name for path in (ROOT / "csrc").glob("kernels_*.c")} - _KERNELS
_ONCE = [sys.executable, "-I", Path(__file__).with_name("compile_once.py")]
_ONCE += [OBJECTS, ",".join(sorted(_UNUSED))]

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(COPY / "src"),
    "PYTHONDONTWRITEBYTECODE": "1",  # a mutant as long as the line and as new leaves no trace
    "KERAS_BACKEND": "jax",
    "CFLAGS": "-O1 -g0",  # less to wait for; the bits are the same
    "CC": f"{shlex.join(map(str, _ONCE))} {_COMPILER}",
}

Mutant = dict[str, str]


def mutants() -> list[Mutant]:
    """Read the list."""
    listed: list[Mutant] = tomllib.loads(LIST.read_text())["mutant"]
    return listed


def sources(root: Path) -> dict[Path, str]:
    """Read what mutants may be in."""
    return {
        path: path.read_text()
        for folder in ("src", "csrc")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in COMPILED | {".py"}
    }


def place(mutant: Mutant, texts: dict[Path, str]) -> Path:
    """Find the one file that a mutant is in.

    Raises
    ------
    ValueError
        If it no longer applies.
    """
    old, new = mutant["old"], mutant["new"]
    found = [path for path, text in texts.items() for _ in range(text.count(old))]
    if len(found) != 1:
        raise ValueError(f"{len(found)} times in src/ and csrc/: {old}")
    (path,) = found
    if path.suffix == ".py":  # what cannot be read is noticed by no merit of a test
        compile(texts[path].replace(old, new), path.name, "exec")
    return path


def missing_tests(mutant: Mutant, root: Path) -> list[str]:
    """List the tests that a mutant names and that are not there."""
    missing = []
    for word in shlex.split(mutant["tests"]):
        file, _, name = word.partition("::")
        if not file.endswith(".py"):
            continue  # an option
        path = root / file
        known = path.read_text() if path.is_file() else ""
        if not known or (name and not re.search(rf"def {name.partition('[')[0]}\(", known)):
            missing.append(word)
    return missing


def make_copy() -> None:
    """Copy what the repository has, compiled modules included."""
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
    """Remember the files that builds make."""
    files = [*COPY.rglob("*.so"), *(COPY / "build").rglob("*.c")]
    return {file: (file.read_bytes(), file.stat()) for file in files}


def put_back(files: dict[Path, tuple[bytes, os.stat_result]]) -> None:
    """Make files what they were, times included, which builds go by."""
    for file, (content, stat) in files.items():
        if file.stat().st_mtime_ns != stat.st_mtime_ns:
            file.unlink()  # a library may be mapped
            file.write_bytes(content)
            file.chmod(stat.st_mode)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def build() -> bool:
    """Compile the copy; whether it could be."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=COPY, env=ENVIRONMENT, capture_output=True).returncode == 0


def test(arguments: str) -> str:
    """Run some tests in the copy: "passed", "failed" or what else happened."""
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
    if run.returncode in (4, 5):  # no such file, no test
        return f"no tests are run by {arguments!r}: {run.stdout[-300:]}"
    return "passed" if run.returncode == 0 else "failed"


def is_asked_for(number: int, text: str, asked: list[str]) -> bool:
    """Tell whether a mutant has one of the numbers or texts."""
    for word in asked:
        if span := re.fullmatch("([0-9]+)(?:-([0-9]+))?", word):
            if int(span[1]) <= number <= int(span[2] or span[1]):
                return True
        elif word in text:
            return True
    return not asked


def chosen(asked: list[str]) -> Iterator[tuple[int, Mutant]]:
    """Leave out what was not asked for, and aloud what needs frameworks that are not there."""
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
    """Print which mutants no longer apply, or name tests that are not there."""
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
    """Plant one after another and print what becomes of each."""
    todo = list(chosen(asked))
    make_copy()
    texts = sources(COPY)
    of_c = any(
        path.suffix in COMPILED and mutant["old"] in text
        for _, mutant in todo
        for path, text in texts.items()
    )
    if of_c and not build():  # all of it once, and then what a mutant is in
        print("the copy cannot be built")
        return 1
    original = built()
    sound: dict[str, str] = {}  # what each choice of tests says of the code as it is
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
