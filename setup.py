"""Builds the extensions; everything else stands in pyproject.toml."""

import os
import platform
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Bit identity rests on these: no contraction of a * b + c, and no -ffast-math.
C_FLAGS = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
if "CFLAGS" not in os.environ:
    C_FLAGS += ["-O3", "-g0"]  # many Pythons ask for debug information: ten times the size
if os.name == "nt":  # clang-cl drops, with no more than a warning, what it is not given this way
    C_FLAGS = [f"/clang:{flag}" for flag in C_FLAGS]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mf16c"]
FLAGS = {"avx2": AVX2, "avx512": AVX512, "neon": []}  # for the files csrc/*_avx2.c and so on
ARCHITECTURES = {"x86_64": {"avx2", "avx512"}, "amd64": {"avx2", "avx512"}}
ARCHITECTURES |= {"aarch64": {"neon"}, "arm64": {"neon"}}

# The processor to build for, which a cross-build's Python names: linux-aarch64, win-amd64, ...
MACHINE = sysconfig.get_platform().rpartition("-")[2]
if MACHINE == "universal2":  # two processors' flags do not go into one compilation
    MACHINE = platform.machine()
    os.environ.setdefault("ARCHFLAGS", f"-arch {MACHINE}")
FOREIGN = FLAGS.keys() - ARCHITECTURES.get(MACHINE, set())


def instruction_set(source):
    """Read which set a file is compiled for from the end of its name."""
    return Path(source).stem.rpartition("_")[2]


SOURCES = sorted(
    path.as_posix() for path in Path("csrc").glob("*.c") if instruction_set(path) not in FOREIGN
)

# One wheel for every Python from 3.11 on; a free-threaded Python has no limited API.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildExt(build_ext):
    """Compiles each file of csrc/ with the flags of its instruction set, several at once."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":  # whose cl has neither FMA's nor F16C's flag
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
        compile_together = self.compiler.compile

        def compile_apart(sources, extra_postargs=None, **options):
            def compile_one(source):
                flags = list(extra_postargs or [])
                if source in SOURCES:
                    flags += C_FLAGS + FLAGS.get(instruction_set(source), [])
                return compile_together([source], extra_postargs=flags, **options)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [file for files in pool.map(compile_one, sources) for file in files]

        self.compiler.compile = compile_apart
        super().build_extensions()


def extension(pyx):
    """Describe one module: householder's files are its own, all others are the core's."""
    householder = [source for source in SOURCES if "/householder" in source]
    core = [source for source in SOURCES if source not in householder]
    return Extension(
        f"winit_fast.{pyx.stem}",
        [pyx.as_posix(), *{"_core": core, "_householder": householder}.get(pyx.stem, [])],
        depends=sorted(path.as_posix() for path in Path("csrc").glob("*.h")),
        include_dirs=["csrc"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [],
        libraries=["m"] if os.name == "posix" else [],
        py_limited_api=LIMITED_API,
    )


setup(
    ext_modules=cythonize(
        [extension(pyx) for pyx in sorted(Path("src/winit_fast").glob("*.pyx"))], build_dir="build"
    ),
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
