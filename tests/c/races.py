"""Runs threads.c under ThreadSanitizer: on the kernels, and on a copy with a race put into it.

    python tests/c/races.py build/tsan

The copy of fill.c has the buffer of a tile static, so that threads share it: what an
author might do to keep it off the stack. The sanitizer must be silent on the one and report the
other, else a silent run would mean nothing. Exit status 1 if it does not.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c11", "-O1", "-g", "-fsanitize=thread", "-ffp-contract=off", "-pthread"]
WITHOUT, WITH = "    char made[TILE_BYTES];", "    static char made[TILE_BYTES];"


def unused_tables(csrc):
    """Write tables that nobody takes, for all sets but plain C, which dispatch.c knows of.

    What is shared between threads is the same for every set: plain C will do, and compiles in
    seconds.
    """
    names = re.findall(r"\(X\((\w+),", (csrc / "sets.h").read_text())
    names.remove("scalar")
    lines = [
        f'const winit_kernels winit_kernels_{name} = {{.name = "no {name}"}};' for name in names
    ]
    return "\n".join(['#include "kernels.h"', *lines, ""])


def build(folder):
    """Compile the kernels and the driver, with fill.c as it is and with the race."""
    csrc = ROOT / "csrc"
    source = (csrc / "fill.c").read_text()
    assert WITHOUT in source, "fill.c has changed: the race must be put in elsewhere"
    racy, tables = folder / "racy_fill.c", folder / "tables.c"
    racy.write_text(source.replace(WITHOUT, WITH))
    tables.write_text(unused_tables(csrc))
    common = [csrc / f"{name}.c" for name in ("dispatch", "distribution", "kernels_scalar")]
    common += [ROOT / "tests" / "c" / "threads.c", tables]
    objects = {}
    for path in [*common, csrc / "fill.c", racy]:
        objects[path] = folder / f"{path.stem}.o"
        command = ["gcc", *FLAGS, "-I", csrc, "-c", path, "-o", objects[path]]
        subprocess.run(command, check=True)
    for name, path in (("threads", csrc / "fill.c"), ("racy_threads", racy)):
        used = [objects[each] for each in [*common, path]]
        subprocess.run(["gcc", *FLAGS, *used, "-lm", "-o", folder / name], check=True)


def run(program):
    """Tell whether the sanitizer reported a race, and all that was printed."""
    # Address space layouts of recent kernels have more random bits than gcc's sanitizer knows.
    command = ["setarch", os.uname().machine, "--addr-no-randomize", program]
    environment = os.environ | {"TSAN_OPTIONS": "exitcode=66"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    printed = done.stdout + done.stderr
    if done.returncode not in (0, 1, 66) or (done.returncode == 66) != ("data race" in printed):
        raise SystemExit(f"{program} ended with {done.returncode}:\n{printed}")
    return done.returncode, printed


def main():
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    build(folder)
    status, printed = run(folder / "threads")
    print(printed, end="")
    if status:
        raise SystemExit("a race, or bytes that differ")
    status, printed = run(folder / "racy_threads")
    if status != 66:
        raise SystemExit(f"the race that was put in was not reported:\n{printed}")
    print("no race in the kernels; the one put into a copy of fill.c was reported")


if __name__ == "__main__":
    main()
