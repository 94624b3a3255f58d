"""Plants faults, one line at a time, and lists those that no test notices: `make mutants`.

    python tests/mutants/run.py           every mutant of mutants.toml
    python tests/mutants/run.py torch .c  those whose file or line has one of these texts

A mutant is found by its text, wherever in src/ and csrc/ that stands; one whose text is not there
exactly once no longer applies, which is an error: look for where the line has gone. Everything is
done in a copy in build/mutants, which is compiled anew for mutants of C and Cython. The exit status
is 1 if some no longer apply or if less than 95 % are killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from winit_fast.base.frameworks import FRAMEWORKS

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutants"
COMPILED = {".c", ".h", ".pyx", ".pxd"}
SECONDS = 900  # a mutant that runs on is noticed, too

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(COPY / "src"),
    "PYTHONDONTWRITEBYTECODE": "1",  # a mutant as long as the line and as new leaves no trace
    "KERAS_BACKEND": "jax",
    "CFLAGS": "-O1 -g0",  # less to wait for; the bits are the same
}


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
            [*command, *arguments.split()],
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


def places(old: str) -> Iterator[Path]:
    """Find the files of the copy that have a text, as often as they have it."""
    for folder in ("src", "csrc"):
        for path in sorted((COPY / folder).rglob("*")):
            if path.suffix in COMPILED | {".py"}:
                yield from [path] * path.read_text().count(old)


def chosen(mutants: list[dict[str, str]], texts: list[str]) -> Iterator[dict[str, str]]:
    """Leave out what was not asked for, and aloud what needs frameworks that are not there."""
    missing = [name for name in FRAMEWORKS if find_spec(name) is None]
    left_out = 0
    for mutant in mutants:
        if texts and not any(text in " ".join(mutant.values()) for text in texts):
            continue
        if missing and "tests/frameworks" in mutant["tests"]:
            left_out += 1
            continue
        yield mutant
    if left_out:
        print(f"LEFT OUT: {left_out} that need {', '.join(missing)}: make test-frameworks first")


def main(texts: list[str]) -> int:
    """Plant one after another and print what becomes of each."""
    mutants = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())["mutant"]
    mutants = list(chosen(mutants, texts))
    make_copy()
    of_c = any(path.suffix in COMPILED for mutant in mutants for path in places(mutant["old"]))
    if of_c and not build():  # all of it once, and then what a mutant is in
        print("the copy cannot be built")
        return 1
    original = built()
    sound: dict[str, str] = {}  # what each choice of tests says of the code as it is
    killed, survivors, gone = 0, [], []
    for number, mutant in enumerate(mutants, start=1):
        old, new, tests = mutant["old"], mutant["new"], mutant["tests"]
        found = list(places(old))
        shown = " ".join(old.split())
        if len(found) != 1:
            gone.append(f"{len(found)} times in src/ and csrc/: {shown}")
            print(f"{number}/{len(mutants)} NO LONGER APPLIES: {gone[-1]}", flush=True)
            continue
        begin = time.perf_counter()
        (path,) = found
        shown = f"{path.relative_to(COPY)}: {shown} -> {' '.join(new.split())}"
        if sound.setdefault(tests, test(tests) if tests not in sound else "") != "passed":
            gone.append(f"its tests do not pass without it, {sound[tests]}: {tests}")
            print(f"{number}/{len(mutants)} {gone[-1]}", flush=True)
            continue
        before = original | {path: (path.read_bytes(), path.stat())}
        path.write_text(path.read_text().replace(old, new))
        state = test(tests) if path.suffix not in COMPILED or build() else "failed"
        put_back(before)
        if state == "failed":
            killed += 1
        else:
            survivors.append(shown)
        word = {"failed": "killed", "passed": "SURVIVED"}.get(state, state)
        print(
            f"{number}/{len(mutants)} {word} {time.perf_counter() - begin:.0f} s {shown}",
            flush=True,
        )
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
    sys.exit(main(sys.argv[1:]))
