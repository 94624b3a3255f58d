"""Installs a wheel into fresh environments without a compiler, and runs its tests there.

    python tools/check_wheel.py WHEEL VERSION ...

The tests are those of [tool.cibuildwheel] in pyproject.toml. They run in an empty folder, so that
only the installed package can be imported. Then importing the package is timed against importing
NumPy. The interpreter of each version is looked up on the PATH and in pyenv; a missing one is an
error, because a wheel was promised for it.
"""

import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "check_wheel"
MAX_BYTES = 2_000_000
MAX_IMPORT_MILLISECONDS = 50  # in addition to NumPy's import


def interpreter(version: str) -> str:
    """Find the Python of a version such as 3.12."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        show = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(show, capture_output=True, text=True).stdout.strip() == version:
            return str(candidate)
    raise SystemExit(f"Python {version} is neither on the PATH nor in {pyenv}")


def check_paths(wheel: Path) -> None:
    """Check that no library contains a path of the build machine, as an RPATH would be."""
    with zipfile.ZipFile(wheel) as archive:
        libraries = {name: archive.read(name) for name in archive.namelist() if ".so" in name}
    if not libraries:
        raise SystemExit(f"{wheel.name} has no library")
    for name, library in libraries.items():
        for folder in (ROOT, Path(sys.base_prefix, "lib")):
            if os.fsencode(folder) in library:
                raise SystemExit(f"{name} in {wheel.name} names the builder's {folder}")


def import_milliseconds(python: Path) -> tuple[float, float]:
    """Measure the CPU time that importing winit_fast adds to importing NumPy.

    Returns the difference of the medians of 15 alternating runs, and that of the shortest runs.
    """

    def seconds(program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, "-c", program], check=True, cwd=FOLDER)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    both, numpy = "import numpy; import winit_fast", "import numpy"
    times = [(seconds(both), seconds(numpy)) for _ in range(15)]
    with_ours, alone = zip(*times, strict=True)
    median = statistics.median(with_ours) - statistics.median(alone)
    return 1000 * median, 1000 * (min(with_ours) - min(alone))


def check(wheel: Path, version: str, settings: dict) -> None:
    """Install and test the wheel with one Python."""
    environment = FOLDER / f"python{version}"
    python = environment / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    clean |= {"CC": "false", "PATH": os.pathsep.join([str(python.parent), "/usr/bin", "/bin"])}
    subprocess.run([interpreter(version), "-m", "venv", environment], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel]
    subprocess.run([*install, *settings["test-requires"]], check=True, env=clean)
    test = shlex.split(settings["test-command"])
    subprocess.run([*test, "-p", "no:cacheprovider"], check=True, env=clean, cwd=FOLDER / "tests")
    median, shortest = import_milliseconds(python)
    print(
        f"Python {version}: the import takes {median:.0f} ms more than NumPy's "
        f"(shortest runs: {shortest:.0f} ms)"
    )
    if shortest > MAX_IMPORT_MILLISECONDS:
        raise SystemExit(
            f"Python {version}: that is more than {MAX_IMPORT_MILLISECONDS} ms, even in the "
            "shortest runs; a busy machine can make it so"
        )


def main() -> None:
    """Check the wheel's size and libraries, then run the tests with each Python."""
    wheel = Path(sys.argv[1]).resolve()
    if wheel.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{wheel.name}: {wheel.stat().st_size} bytes, more than {MAX_BYTES}")
    check_paths(wheel)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "tests").mkdir(parents=True)
    for source in settings["test-sources"]:
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, FOLDER / "tests" / source)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
    for version in sys.argv[2:]:
        check(wheel, version, settings)


if __name__ == "__main__":
    main()
