"""A stand-in for the C compiler that does not compile the same source twice.

python compile_once.py FOLDER UNUSED COMPILER ARGUMENT ...

Objects are cached in FOLDER under the hash of the preprocessed source and the arguments. So a build
of a mutant compiles only the files that contain its line. UNUSED lists, with commas, the files of
instruction sets that this processor lacks: for them the first object is used again.
"""

import hashlib
import subprocess
import sys
from pathlib import Path


def main(folder: Path, unused: set[str], command: list[str]) -> int:
    """Compile, or copy the cached object; any other command goes to the real compiler."""
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
