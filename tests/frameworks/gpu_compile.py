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
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from winit_fast.gpu.fill import TILES, WARPS, _tile
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
    f"normal {dtype}, strided": {"KERNEL": "normal", "TYPE": dtype, "LOOPS": 4, "DENSE": False}
    for dtype in ("float32", "float64")
}
CASES["normal float32, rows"] = {"KERNEL": "normal", "TYPE": "float32", "LOOPS": 1}
CASES["normal float32, odd"] = {"KERNEL": "normal", "TYPE": "float32", "VECTOR": 1}


def compiled(target, options, case):
    size = BYTES.get(case["TYPE"], 1)
    per_block = 2 if size == 8 else 4
    constants = {"OCTAVES": 1, "LOOPS": 0, "DENSE": True, "VECTOR": max(per_block, 16 // size)}
    constants |= case | ({} if case.get("DENSE", True) else {"VECTOR": 1})
    rows, blocks = (64, 999) if constants["LOOPS"] else (1, 99999)
    tile = _tile(rows, blocks, TILES[per_block], constants["DENSE"])
    constants |= dict(zip(("ROWS", "BLOCKS"), tile, strict=True))
    signature = {"out": f"*i{8 * size}"}
    for parameter in fill_box.params[1:]:
        kind = "constexpr" if parameter.is_constexpr else parameter.annotation_type
        # a value that is specialised would be compiled into the kernel
        assert parameter.is_constexpr or (parameter.do_not_specialize and kind)
        signature[parameter.name] = kind
    aligned = {(0,): [["tt.divisibility", 16]]}
    source = ASTSource(fill_box, signature, constants, aligned)
    return triton.compile(source, target=target, options={"num_warps": WARPS, **options})


def spilled(kernel):
    """Count the bytes of memory that hold what does not fit into a thread's registers."""
    if "amdgcn" in kernel.asm:
        sizes = re.findall(r"\.private_segment_fixed_size: *(\d+)", kernel.asm["amdgcn"])
    else:
        version = re.search(r"^\.target (\w+)", kernel.asm["ptx"], re.MULTILINE)[1]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "kernel.ptx")
            source.write_text(kernel.asm["ptx"])
            command = [get_ptxas(int(version.strip("sm_a"))).path, "-v", "--fmad=false"]
            command += [f"--gpu-name={version}", source, "-o", source.with_suffix(".o")]
            run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        sizes = re.findall(r"(\d+) bytes spill (?:stores|loads)", run.stderr)
    assert sizes
    return sum(map(int, sizes))


def machine_code(kernel):
    """The instructions that the device executes."""
    if "amdgcn" in kernel.asm:
        lines = re.findall(r"^\t(?![.;])([^;\n]*)", kernel.asm["amdgcn"], re.MULTILINE)
        return [line.strip() for line in lines]
    return [line.split("\t")[-1] for line in kernel.asm["sass"].splitlines()]


def main(backend, arch):
    cuda = backend == "cuda"
    target = GPUTarget(backend, int(arch) if cuda else arch, 32 if cuda else 64)
    results = {}
    for name, case in CASES.items():
        kernel = compiled(target, {"enable_fp_fusion": False}, case)
        results[name] = {
            "code": kernel.asm["ptx" if cuda else "amdgcn"],
            "llir": kernel.asm["llir"],
            "spilled": spilled(kernel),
        }
        if case["KERNEL"] in ("normal", "truncated"):
            fused = compiled(target, {"enable_fp_fusion": True}, case)
            results[name] |= {"machine": machine_code(kernel), "fused": machine_code(fused)}
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
