"""Runs threads.c under ThreadSanitizer: with the real kernels, and with a data race put into them.

    python tests/c/races.py build/tsan

The second build uses a copy of fill.c in which a tile's buffer is static, so that all threads share
it. The sanitizer must report nothing for the first build, and a race in the second; otherwise its
silence would prove nothing. The exit status is 1 if it does not.
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
    """Write stub tables for the sets other than plain C, because dispatch.c refers to them.

    What threads share does not depend on the set, and plain C compiles in seconds.
    """
    names = re.findall(r"\(X\((\w+),", (csrc / "sets.h").read_text())
    names.remove("scalar")
    lines = [
        f'const winit_kernels winit_kernels_{name} = {{.name = "no {name}"}};' for name in names
    ]
    return "\n".join(['#include "kernels.h"', *lines, ""])


def build(folder):
    """Compile the kernels and threads.c, with fill.c as it is and with the race."""
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
    """Run the program; return whether the sanitizer reported a race, and the output."""
    # Recent kernels randomise more bits of addresses than gcc's ThreadSanitizer can handle.
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
