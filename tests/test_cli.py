"""The command ``winit-fast``: what it writes and prints, and which arguments it rejects."""

import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import winit_fast as wf
from winit_fast.cli import main
from winit_fast.models import Architecture, Rules, TensorSpec

COMMAND = [sys.executable, "-c", "from winit_fast_command import main; main()"]


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def check():
    """Run the tool that checks a checkpoint with only the safetensors library."""
    path = Path(__file__).parents[1] / "tools" / "check_checkpoint.py"
    spec = importlib.util.spec_from_file_location("check_checkpoint", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """GPT-2 small, written once, and the command's output."""
    out = tmp_path_factory.mktemp("models") / "gpt2"
    result = run("init", "gpt2", "--out", out, "--seed", 11)
    assert result.exit_code == 0, result.output
    return out, result


def test_the_checkpoint_is_what_the_rule_says(small, check):
    rows, faults = check(small[0])
    assert faults == []
    assert len(rows) == 148


def test_any_tensor_can_be_made_again_bit_for_bit(small):
    found = load_file(small[0] / "model.safetensors")
    architecture = Architecture.load("gpt2")
    for tensor in Rules.load("gpt2").tensors(architecture):
        again = tensor.initializer(tensor.shape, seed=11, name=tensor.name, dtype="bfloat16")
        assert found[tensor.name].tobytes() == again.tobytes(), tensor.name
    name = "h.5.mlp.c_proj.weight"
    by_hand = wf.RandomNormal(0, 0.02 / 24**0.5)((3072, 768), seed=11, name=name, dtype="bfloat16")
    assert found[name].tobytes() == by_hand.tobytes()


def test_where_it_comes_from_stands_in_the_file(small):
    with (small[0] / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    plan = (small[0] / "winit_fast.plan.json").read_bytes()
    assert header["__metadata__"] == {
        "format": "pt",
        "winit_fast.stream": "1",
        "winit_fast.seed": "11",
        "winit_fast.plan": f"sha256:{sha256(plan).hexdigest()}",
        "winit_fast.model": "gpt2",
        "winit_fast.rules": "gpt2",
    }
    config = json.loads((small[0] / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["torch_dtype"] == "bfloat16"


def test_progress_in_plain_lines_and_the_closing_table(small):
    result = small[1]
    assert re.search(r"^100%  0\.25 of 0\.25 GB  \d+\.\d\d GB/s  0 s left$", result.stderr, re.M)
    for line in (
        "parameters +124,439,808",
        "rate +.* GB/s",
        "instruction set +\\w+",
        "threads +\\d",
    ):
        assert re.search(line, result.stdout), line


def test_a_checkpoint_with_a_fault_is_found_out(small, check, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((small[0] / name).read_bytes())
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-768 * 2 * 1000, os.SEEK_END)  # inside h.11.mlp.c_proj.weight, in the last block
        file.write(b"\x80\x3f")  # 1.0 in bfloat16
    _, faults = check(tmp_path)
    assert len(faults) == 1
    assert re.match(r"h\.11\.mlp\.c_proj\.weight has mean", faults[0])


def test_several_files(tmp_path, check):
    result = run("init", "gpt2", "--out", tmp_path / "out", "--max-shard-size", "100MB")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").glob("model-0000?-of-00003.safetensors"))) == 3
    rows, faults = check(tmp_path / "out")
    assert faults == []
    assert len(rows) == 148


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt2-xxl"], "'gpt2-xxl'; did you mean 'gpt2-xl'?"),
        (["gpt2", "--dtype", "bfloat"], "'bfloat'; did you mean 'bfloat16'?"),
        (["gpt2", "--seed", "-1"], "-1 is not in the range"),
        (["gpt2", "--seed", str(2**64)], "18446744073709551616 is not in the range"),
        (["gpt2", "--max-shard-size", "5XB"], "'5XB' is not a size"),
        (["gpt2", "--max-shard-size", "0"], "'0' is not a size"),
        (["gpt2", "--max-shard-size", "9" * 400], "99' is not a size"),
        # the Kelvin sign, which lower() makes a "k"
        (["gpt2", "--max-shard-size", "5\u212ab"], "is not a size"),
        (["gpt2\udcff"], "did you mean 'gpt2'?"),
        (["gpt2", "--threads", "0"], "0 is not in the range"),
        (["gpt2", "--dtype", ""], "dtype must be one of"),
        (
            ["gpt2", "--keep-float32", "ln"],
            "dtypes has the pattern 'ln', which applies to no tensor",
        ),
    ],
)
def test_refused_with_the_value_and_nothing_written(tmp_path, arguments, message):
    result = run("init", *arguments, "--out", tmp_path / "out")
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_empty_needs_force(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    result = run("init", "gpt2", "--out", tmp_path)
    assert result.exit_code == 1
    assert "not empty (it holds model.safetensors)" in result.output
    assert (tmp_path / "model.safetensors").read_text() == "precious"
    assert run("init", "gpt2", "--out", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "model.safetensors").stat().st_size > 2 * 124_439_808


@pytest.mark.parametrize(
    ("text", "size"),
    [("300MB", 300_000_000), ("200MiB", 200 << 20), ("0.25 gb", 250_000_000), ("300000", 300_000)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    (parameter,) = (p for p in main.commands["init"].params if p.name == "max_shard_size")
    assert parameter.type.convert(text, parameter, None) == size


def test_info():
    result = run("info")
    machine = (
        r"winit_fast [\d.]+, stream version 1, instruction set \w+ \(of .*scalar\), \d+ threads"
    )
    assert re.search(machine, result.output)
    assert re.search(r"gpt2-xl +gpt2 +580 +1,557,611,200", result.output)
    result = run("info", "gpt2-xl")
    assert re.search(r"48 +h\.\*\.attn\.c_attn\.weight +1600 x 4800 +RandomNormal", result.output)
    assert "did you mean 'gpt2'" in run("info", "gpt").output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_clears_up(tmp_path, number):
    out = tmp_path / "a" / "out"
    process = subprocess.Popen(
        [*COMMAND, "init", "gpt2-large", "--out", out, "--dtype", "float32", "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(out.glob(".winit-fast-*/model.safetensors")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert not list(tmp_path.iterdir())


def test_an_interruption_that_comes_too_late_says_so(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_text("old")
    rmtree = shutil.rmtree

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)
        rmtree(*args, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    result = run("init", "gpt2", "--out", tmp_path, "--force")
    assert result.exit_code == 130
    assert f"interrupted, but the new checkpoint is in place in {tmp_path}" in result.stderr
    files = {"config.json", "model.safetensors", "winit_fast.plan.json"}
    assert {path.name for path in tmp_path.iterdir()} == files
    assert (tmp_path / "model.safetensors").stat().st_size > 2 * 124_439_808


def test_a_file_that_may_not_grow_is_named(tmp_path):
    limit = 100 << 20
    result = subprocess.run(
        [*COMMAND, "init", "gpt2", "--out", tmp_path / "out"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    found = re.search(r"no room left for (\S+): ([\d,]+) of its ([\d,]+) bytes", result.stderr)
    assert found[1] == str(tmp_path / "out" / "model.safetensors")
    assert int(found[3].replace(",", "")) > 2 * 124_439_808
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WINIT_FAST_ISA", "sse"),
        ("WINIT_FAST_ISA", "AVX2"),
        ("WINIT_FAST_NUM_THREADS", "0"),
        ("WINIT_FAST_NUM_THREADS", "x"),
        ("WINIT_FAST_GPU", "yes"),
    ],
)
def test_a_bad_environment_variable_is_told_in_a_line(variable, value):
    environment = os.environ | {variable: value}
    result = subprocess.run([*COMMAND, "info"], env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert re.fullmatch(rf"Error: {variable}.*'?{value}'?.*\n", result.stderr)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [pytest.param("run[seed]", marks=slow), "a[/foo]", pytest.param("a:smile:b", marks=slow)],
)
def test_names_are_printed_as_they_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = run("init", "gpt2", "--out", name)
    assert result.exit_code == 0, result.output
    assert re.search(rf"bytes\) in {re.escape(name)} *$", result.stdout, re.M)


def test_a_name_that_is_no_text_is_printed(tmp_path):
    result = subprocess.run(
        [*COMMAND, "init", "gpt2", "--out", b"\xff"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "bytes) in \ufffd" in result.stdout


def test_a_directory_without_a_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("init", "gpt2", "--out", "")
    assert result.exit_code == 1
    assert "directory must have a name, got ''" in result.stderr
    assert not list(tmp_path.iterdir())


FULL = Path("/dev/full")


def test_standard_error_that_takes_nothing_stops_nothing(tmp_path):
    with FULL.open("w") as full:
        result = subprocess.run(
            [*COMMAND, "init", "gpt2", "--out", tmp_path / "out"],
            stdout=subprocess.PIPE,
            stderr=full,
        )
    assert result.returncode == 0
    assert b"parameters" in result.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_standard_output_that_takes_nothing(tmp_path):
    for arguments in (["init", "gpt2", "--out", tmp_path / "out"], ["info"], ["info", "gpt2"]):
        with FULL.open("w") as full:
            result = subprocess.run(
                [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert result.returncode == 1
        errors = result.stderr.splitlines()
        assert re.fullmatch("Error: .*No space left on device", errors[-1])
        assert all(" GB/s " in line for line in errors[:-1])
        if arguments[0] == "init":
            assert f"the new checkpoint is in place in {tmp_path / 'out'}, but" in errors[-1]


def test_more_threads_than_memory_has_room_for(tmp_path):
    """A gigabyte of address space, of which every thread's stack and malloc arena use some."""
    result = subprocess.run(
        [*COMMAND, "init", "gpt2", "--out", tmp_path / "out", "--threads", "3000"],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert int(re.search(r"threads +(\d+)", result.stdout)[1]) < 128


def test_starting_threads_leaves_memory_for_those_that_run(tmp_path):
    """If it took everything, a worker that runs could not even call a function."""
    program = (
        "import mmap, sys\n"
        "from winit_fast.checkpoint import write_checkpoint\n"
        "from winit_fast.models import Architecture, Rules\n"
        "def probe(*_): mmap.mmap(-1, 1 << 26).close()\n"
        "plan = Rules.load('gpt2').tensors(Architecture.load('gpt2'))\n"
        "write_checkpoint(sys.argv[1], plan, seed=0, num_threads=128, progress=probe)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out"],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("threads", [pytest.param(2, marks=slow), 1000])
def test_peak_memory_depends_neither_on_the_model_nor_on_threads(tmp_path, threads):
    # 498 MB of weights. For any model, the command must need at most 256 MiB more than Python
    # alone.
    program = (
        "import resource, sys, winit_fast, winit_fast.cli\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "winit_fast.cli.main(sys.argv[1:], standalone_mode=False)\n"
        "print('peak', (peak() - before) * 1024)\n"
    )
    arguments = ["init", "gpt2", "--dtype", "float32", "--out", tmp_path / "out"]
    arguments += ["--threads", str(threads)]
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert int(result.stdout.split()[-1]) < 256 << 20


def test_the_largest_seed(tmp_path):
    largest = str(2**64 - 1)
    result = run("init", "gpt2", "--out", tmp_path / "out", "--seed", largest)
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert header["__metadata__"]["winit_fast.seed"] == largest


def test_tensors_that_are_kept_in_float32(tmp_path):
    patterns = ("--keep-float32", "*.ln_{i}.*", "--keep-float32", "wpe.weight")
    result = run("init", "gpt2", "--out", tmp_path / "out", *patterns)
    assert result.exit_code == 0, result.output
    found = load_file(tmp_path / "out" / "model.safetensors")
    kept = {name for name, array in found.items() if array.dtype == "float32"}
    assert kept == {name for name in found if ".ln_" in name or name == "wpe.weight"}
    assert len(kept) == 49
    assert run("verify", tmp_path / "out").exit_code == 0


def test_a_plan_is_a_source(tmp_path):
    """Its tensors have types of their own, unless another is asked for."""
    tensors = [
        TensorSpec("w", (64, 32), wf.RandomNormal(0, 0.02), dtype="float16"),
        TensorSpec("table", (2, 3), wf.Computed(np.arange(6.0).reshape(2, 3)), dtype="float64"),
        TensorSpec("steps", (), wf.Zeros(), dtype="int64", kind="buffer"),
    ]
    plan = wf.Plan(tensors)
    plan.save(tmp_path / "own.plan.json")
    for options, kinds in (([], ["f2", "f8"]), (["--dtype", "fp32"], ["f4", "f4"])):
        out = tmp_path / f"out{len(options)}"
        result = run("init", tmp_path / "own.plan.json", "--out", out, "--seed", 2, *options)
        assert result.exit_code == 0 and "own.plan.json" in result.stdout
        found = load_file(out / "model.safetensors")
        assert [found[name].dtype for name in ("w", "table", "steps")] == [*kinds, "i8"]
        expected = wf.RandomNormal(0, 0.02)((64, 32), seed=2, name="w", dtype=kinds[0])
        assert (found["w"] == expected).all() and (found["table"].ravel() == range(6)).all()
        assert run("verify", out).exit_code == 0
        again = run("init", out / "winit_fast.plan.json", "--out", tmp_path / "again", "--force")
        assert again.exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "gone.json"),
        ("folder/none", None, "has no config.json, and is no plan (.json) nor the name of a"),
        ("list.json", "[]", "list.json is no configuration: it holds []"),
        ("text.json", "{", "text.json is no configuration"),
        ("plan.json", '{"format": 7, "tensors": []}', "is not a plan of this version"),
        ("config.json", '{"model_type": "llama"}', "a configuration needs torch and transformers"),
    ],
)
def test_sources_that_are_refused(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setitem(sys.modules, "torch", None)
    if content is not None:
        (tmp_path / name).write_text(content)
    result = run("init", tmp_path / name, "--out", tmp_path / "out")
    assert result.exit_code == 1 and message in result.stderr
    assert not (tmp_path / "out").exists()
