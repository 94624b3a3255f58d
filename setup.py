"""Builds the extension modules; everything else is in pyproject.toml."""

import os
import platform
import re
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Bit identity needs these flags: no contraction of a * b + c to an fma, and nothing of -ffast-math,
# whatever CFLAGS contains. They come after CFLAGS, so that they win. The linker gets them too: with
# -ffast-math it would link startup code that makes the whole process flush subnormals.
EXACT = ["-fno-fast-math", "-fno-unsafe-math-optimizations", "-fno-finite-math-only"]
EXACT += ["-fno-associative-math", "-fno-reciprocal-math", "-fsigned-zeros", "-ffp-contract=off"]
C_FLAGS = ["-std=c11", "-fno-math-errno", "-Wall", "-Wextra", *EXACT]
if not re.search(r"(?<!\S)-O", os.environ.get("CFLAGS", "")):
    # Without a level, the kernels are twenty times slower.
    C_FLAGS += ["-O3"]
if "CFLAGS" not in os.environ:
    C_FLAGS += ["-g0"]  # -g, in many Pythons' flags, makes the extension ten times as large
if os.name == "nt":  # clang-cl ignores GCC's flags, with only a warning, without this prefix
    EXACT = [f"/clang:{flag}" for flag in EXACT]
    C_FLAGS = [f"/clang:{flag}" for flag in C_FLAGS]
# The list of instruction sets; the file csrc/kernels_NAME.c is compiled with the set's flags.
SETS = re.findall(r'ON_(\w+)\(X\((\w+), "(.*)"\)\)', Path("csrc/sets.h").read_text())
FLAGS = {name: flags.split() for _, name, flags in SETS}


def foreign(processor):
    """List the instruction sets of other architectures than ``processor``, by any of its names."""
    processor = {"amd64": "x86_64", "arm64": "aarch64"}.get(processor.lower(), processor.lower())
    return {name for owner, name, _ in SETS if owner.lower() not in {processor, "any"}}


# The target architecture; in a cross-build, sysconfig describes the target: linux-aarch64, ...
MACHINE = sysconfig.get_platform().rpartition("-")[2]
if MACHINE == "universal2":  # flags of two architectures cannot be given to one compilation
    MACHINE = platform.machine()
    os.environ.setdefault("ARCHFLAGS", f"-arch {MACHINE}")


def instruction_set(source):
    """Return the instruction set that a file is compiled for, from the end of its name."""
    return Path(source).stem.rpartition("_")[2]


SOURCES = sorted(
    path.as_posix()
    for path in Path("csrc").glob("*.c")
    if instruction_set(path) not in foreign(MACHINE)
)

# One wheel for every Python from 3.11 on; a free-threaded Python has no limited API.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def without_fast(command):
    """Replace -Ofast by -O3: for the linker no later flag cancels -Ofast."""
    return ["-O3" if word == "-Ofast" else word for word in command]


class BuildExt(build_ext):
    """Compiles each file of csrc/ with the flags of its instruction set, in parallel."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":  # cl has no flags for FMA and F16C alone
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
        else:
            for name in ("compiler_so", "linker_so"):
                setattr(self.compiler, name, without_fast(getattr(self.compiler, name)))
        compile_together = self.compiler.compile

        def compile_apart(sources, extra_postargs=None, **options):
            def compile_one(source):
                flags = [*(extra_postargs or []), *EXACT]
                if source in SOURCES:
                    flags += C_FLAGS + FLAGS.get(instruction_set(source), [])
                return compile_together([source], extra_postargs=flags, **options)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [file for files in pool.map(compile_one, sources) for file in files]

        self.compiler.compile = compile_apart
        super().build_extensions()


def extension(pyx):
    """Describe one extension module; only _core contains the kernels."""
    return Extension(
        f"winit_fast.{pyx.stem}",
        [pyx.as_posix(), *(SOURCES if pyx.stem == "_core" else [])],
        depends=sorted(path.as_posix() for path in Path("csrc").glob("*.h")),
        include_dirs=["csrc"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [],
        libraries=["m"] if os.name == "posix" else [],
        extra_link_args=EXACT if os.name == "posix" else [],
        py_limited_api=LIMITED_API,
    )


setup(
    ext_modules=cythonize(
        [extension(pyx) for pyx in sorted(Path("src/winit_fast").glob("*.pyx"))], build_dir="build"
    ),
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
