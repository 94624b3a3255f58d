"""Compiles csrc/ for other systems, and compares with the frozen hashes where the program can run.

    python tools/cross.py [TARGET ...]

It uses setup.py's flags, and every warning is an error. The compilers are gcc and clang for this
system, gcc for aarch64, and zig's clang (`pip install ziglang`) for Windows, macOS, musl and a
processor that only has plain C. The files of each target are linked into one program,
tests/c/isa_hashes.c, so that a missing symbol is found too. Programs for Linux then run, in qemu's
user mode if they are for another processor; those for Windows on x86-64 run if wine is installed.
Programs for macOS and for Windows on arm64 are only compiled.

The target x86_64-avx512 runs the kernels for AVX-512 on a processor with AVX2, by SIMDe
(apt install libsimde-dev); see tests/c/avx512_emulated.h.
"""

import os
import platform
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
HERE = platform.machine()
ZIG = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline", "-target"]

TARGETS = {
    f"{HERE}-gcc": ["gcc"],
    f"{HERE}-clang": ["clang"],
    "aarch64-gcc": ["aarch64-linux-gnu-gcc", "-static"],
    "x86_64-linux-musl": [*ZIG, "x86_64-linux-musl"],
    "aarch64-linux-musl": [*ZIG, "aarch64-linux-musl"],
    "riscv64-linux-musl": [*ZIG, "riscv64-linux-musl"],
    "x86_64-windows": [*ZIG, "x86_64-windows-gnu"],
    "aarch64-windows": [*ZIG, "aarch64-windows-gnu"],
    "x86_64-macos": [*ZIG, "x86_64-macos"],
    "aarch64-macos": [*ZIG, "aarch64-macos"],
    "x86_64-avx512": ["gcc"],
}

EMULATED = {
    "x86_64-avx512": {
        "dispatch": "dispatch_avx512",
        "kernels_avx512": "kernels_avx512_emulated",
    }
}
"""By target: the files of csrc/ that are replaced by those of tests/c/."""


def build_settings() -> dict[str, object]:
    """Read setup.py's flags without building anything."""
    with mock.patch("setuptools.setup"), mock.patch("Cython.Build.cythonize"):
        return runpy.run_path("setup.py")


def compile_program(target: str, settings: dict) -> Path:
    """Compile and link every file that the target's processor can use."""
    folder = ROOT / "build" / "cross" / target
    folder.mkdir(parents=True, exist_ok=True)
    processor = target.partition("-")[0]
    foreign = settings["foreign"](processor)
    command = [*TARGETS[target], *settings["C_FLAGS"], "-Werror", "-Icsrc", "-Itests/c"]

    def compile_one(source: Path) -> Path:
        instruction_set = settings["instruction_set"](source)
        flags = settings["FLAGS"].get(instruction_set, [])
        if source.stem.endswith("_emulated"):
            flags = [*settings["FLAGS"]["avx2"], "-O1", "-Wno-psabi"]
        output = folder / f"{source.stem}.o"
        subprocess.run([*command, *flags, "-c", str(source), "-o", str(output)], check=True)
        return output

    replaced = EMULATED.get(target, {})
    sources = sorted(path for path in Path("csrc").glob("*.c") if path.stem not in replaced)
    sources = [s for s in sources if settings["instruction_set"](s) not in foreign]
    sources += [Path(f"tests/c/{name}.c") for name in (*replaced.values(), "isa_hashes")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    program = folder / ("isa_hashes.exe" if "windows" in target else "isa_hashes")
    libraries = [] if "windows" in target else ["-lm"]
    link = [*TARGETS[target], *map(str, objects), *libraries, "-o", str(program)]
    subprocess.run(link, check=True)
    return program


def runner(target: str) -> list[str] | None:
    """Return the command before a program that runs it: [], an emulator, or None if it cannot."""
    processor, _, system = target.partition("-")
    if system == "windows":
        wine = shutil.which("wine64") or shutil.which("wine")
        return [wine] if wine and processor == HERE else None
    if system == "macos" or platform.system() != "Linux":
        return None
    if processor == HERE:
        return []
    emulator = shutil.which(f"qemu-{processor}")
    return [emulator] if emulator else None


def main() -> None:
    """Compile the given targets, or all; exit with status 1 if one fails."""
    os.chdir(ROOT)
    settings = build_settings()
    for target in sys.argv[1:] or TARGETS:
        program = compile_program(target, settings)
        run = runner(target)
        if run is None:
            print(f"{target}: compiled without a warning; not run", flush=True)
        else:
            print(f"{target}: compiled without a warning; run:", flush=True)
            subprocess.run([*run, str(program), "tests/hashes.txt"], check=True)


if __name__ == "__main__":
    main()
