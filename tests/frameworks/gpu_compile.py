"""Compile the kernels for a device that need not be there, and print what came out as JSON.

    python gpu_compile.py cuda 90

A program of its own, because it must not have Triton's interpreter.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from winit_fast.gpu.fill import TILES, WARPS
from winit_fast.gpu.loops import fill_box

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
KERNELS = (("uniform", 1), ("inside", 1), ("normal", 1), ("central", 1), ("truncated", 8))
CASES = {
    f"{kernel} {dtype}": {"KERNEL": kernel, "TYPE": dtype, "OCTAVES": octaves}
    for dtype in ("float32", "float64")
    for kernel, octaves in (("bits", 1), *KERNELS)
}
CASES |= {
    f"inside {dtype}": {"KERNEL": "inside", "TYPE": dtype}
    for dtype in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
}
CASES |= {
    f"normal {dtype}, strided": {
        "KERNEL": "normal", "TYPE": dtype, "LOOPS": 4, "ROWS": 64, "DENSE": False, "VECTOR": 1
    }
    for dtype in ("float32", "float64")
}  # fmt: skip


def compiled(target, options, case):
    size = BYTES.get(case["TYPE"], 1)
    per_block = 2 if size == 8 else 4
    constants = {"OCTAVES": 1, "LOOPS": 0, "ROWS": 1, "DENSE": True}
    constants |= {"VECTOR": max(per_block, 16 // size)} | case
    constants["BLOCKS"] = TILES[per_block] // constants["ROWS"]
    signature = {"out": f"*i{8 * size}"}
    for parameter in fill_box.params[1:]:
        kind = "constexpr" if parameter.is_constexpr else parameter.annotation_type
        # a value that is specialised would be compiled into the kernel
        assert parameter.is_constexpr or (parameter.do_not_specialize and kind)
        signature[parameter.name] = kind
    aligned = {(0,): [["tt.divisibility", 16]]}
    source = ASTSource(fill_box, signature, constants, aligned)
    return triton.compile(source, target=target, options={"num_warps": WARPS, **options})


def spilled(kernel, arch):
    """Count the bytes or registers that do not fit into a thread's registers."""
    if "amdgcn" in kernel.asm:
        counts = re.findall(r"\.[sv]gpr_spill_count: *(\d+)", kernel.asm["amdgcn"])
    else:
        version = re.search(r"^\.target (\w+)", kernel.asm["ptx"], re.MULTILINE)[1]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "kernel.ptx")
            source.write_text(kernel.asm["ptx"])
            command = [
                triton.knobs.nvidia.ptxas.path,
                "-v",
                "--fmad=false",
                f"--gpu-name={version}",
            ]
            run = subprocess.run(
                [*command, source, "-o", source.with_suffix(".o")], capture_output=True, text=True
            )
        assert run.returncode == 0, run.stderr
        counts = re.findall(r"(\d+) bytes spill (?:stores|loads)", run.stderr)
    assert counts
    return sum(map(int, counts))


def main(backend, arch):
    target = GPUTarget(
        backend, int(arch) if backend == "cuda" else arch, 32 if backend == "cuda" else 64
    )
    code = "ptx" if backend == "cuda" else "amdgcn"
    results = {}
    for name, case in CASES.items():
        kernel = compiled(target, {"enable_fp_fusion": False}, case)
        results[name] = {
            "code": kernel.asm[code],
            "llir": kernel.asm["llir"],
            "spilled": spilled(kernel, arch),
        }
        if case["KERNEL"] in ("normal", "truncated"):
            results[name]["fused"] = compiled(target, {"enable_fp_fusion": True}, case).asm[code]
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
