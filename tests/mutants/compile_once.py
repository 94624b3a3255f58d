"""Stands for the C compiler: what was compiled before is not compiled again.

python compile_once.py FOLDER UNUSED COMPILER ARGUMENT ...

An object is kept in the folder under the hash of the preprocessed source and of the arguments. So
of the builds of many mutants each compiles only the files that its line is in. Of the unused files,
named with commas between them, that are for instruction sets that this processor lacks, the first
object serves.
"""

import hashlib
import subprocess
import sys
from pathlib import Path


def main(folder: Path, unused: set[str], command: list[str]) -> int:
    """Compile, or give what was kept; all but compiling is the compiler's own business."""
    if "-c" not in command or "-o" not in command:
        return subprocess.run(command).returncode
    output = Path(command[command.index("-o") + 1])
    asked = [word for word in command if word not in ("-c", "-o", str(output))]
    text = b""
    if not any(Path(word).name in unused for word in asked):
        preprocessed = subprocess.run([*asked, "-E", "-P"], stdout=subprocess.PIPE)
        if preprocessed.returncode:
            return preprocessed.returncode
        text = preprocessed.stdout
    kept = folder / hashlib.sha256(repr(asked).encode() + text).hexdigest()
    if not kept.exists():
        code = subprocess.run(command).returncode
        if code:
            return code
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(output.read_bytes())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(kept.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), set(sys.argv[2].split(",")), sys.argv[3:]))
