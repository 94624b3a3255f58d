"""Edge cases of the command: imports, closed or full outputs, terminals, JSON, rules."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from safetensors import safe_open
from safetensors.numpy import load_file

import winit_fast as wf
from winit_fast.cli import main

CALL = "from winit_fast_command import main; main()"
SMALL = ["--dtype", "float8_e5m2"]
RULES = """
[[rules]]
tensors = "h.{i}.*.weight"
initializer = "he_normal"
parameters = { fan_in = "n_embd * (i + 1)" }

[[rules]]
tensors = "*"
initializer = "ones"
"""


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def command(*arguments, python=(), before="", env=None, **options):
    return subprocess.run(
        [sys.executable, *python, "-c", f"{before}\n{CALL}", *map(os.fspath, arguments)],
        env=os.environ | (env or {}),
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )


def python(*lines):
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True)


def commands(lines):
    """Return a program that runs the command with each line, and prints its exit status."""
    return (
        "import sys\nfrom winit_fast_command import main\n"
        f"for arguments in {[list(map(os.fspath, line)) for line in lines]}:\n"
        "    try:\n        sys.argv[1:] = arguments\n        main()\n"
        "    except SystemExit as end:\n        print('exit status', end.code)\n"
    )


def test_help_imports_none_of_what_the_commands_need():
    heavy = ["rich", "fcntl", "tomllib", "multiprocessing", "numpy.random", "torch", "jax"]
    heavy += ["decimal", "difflib", "fractions", "importlib.resources", "tempfile"]
    ours = ["initializers", "streams", "models", "checkpoint", "benchmark", "torch", "jax"]
    heavy += [f"winit_fast.{name}" for name in [*ours, "keras", "dask"]]
    lines = [["--help"], ["init", "--help"], ["bench", "--help"], ["--version"]]
    result = python(
        "import sys, numpy; before = set(sys.modules)",
        commands(lines),
        f"print([m for m in {heavy} if m in sys.modules.keys() - before])",
    )
    assert result.stdout.count(b"exit status 0\n") == len(lines), result.stderr
    assert result.stdout.splitlines()[-1] == b"[]"


def test_without_fcntl_everything_works_but_init(tmp_path):
    lines = [["info", "gpt2"], ["init", "--help"]]
    lines += [["bench", "--size", "300", "--seconds", "0", "--against", "NumPy"]]
    result = python(
        "import sys; sys.modules['fcntl'] = None",
        "import importlib, pkgutil, winit_fast.cli as cli",
        "for module in pkgutil.iter_modules(cli.__path__, 'winit_fast.cli.'):",
        "    importlib.import_module(module.name); print(module.name)",
        commands([*lines, ["init", "gpt2", "--out", tmp_path / "out"]]),
    )
    assert b"winit_fast.cli.init\n" in result.stdout
    assert re.findall(rb"exit status (.*)", result.stdout) == [b"0"] * len(lines) + [b"1"]
    assert result.stderr == b"Error: init needs fcntl, which this system does not have\n"
    assert not list(tmp_path.iterdir())


PRINTING = [
    ["--help"],
    pytest.param(["--version"], marks=pytest.mark.slow),
    pytest.param(["init", "--help"], marks=pytest.mark.slow),
    pytest.param(["info"], marks=pytest.mark.slow),
    ["info", "gpt2", "--json"],
    ["bench", "--size", "300", "--seconds", "0", "--against", "NumPy"],
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_is_told_in_a_line(arguments):
    with Path("/dev/full").open("w") as full:
        result = command(*arguments, stdout=full)
    assert result.returncode == 1
    assert re.fullmatch(rb"Error: .*No space left on device\n", result.stderr)


@pytest.mark.parametrize("arguments", [*PRINTING, ["init", "pythia-14m", *SMALL]], ids=" ".join)
def test_who_closes_the_pipe_has_seen_enough(arguments, tmp_path):
    if arguments[:2] == ["init", "pythia-14m"]:
        arguments = [*arguments, "--out", tmp_path / "out"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = command(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert result.returncode == 0
    assert not [line for line in result.stderr.splitlines() if b" GB/s " not in line]
    if "init" in arguments and "--help" not in arguments:
        assert (tmp_path / "out" / "model.safetensors").stat().st_size > 14_067_712


def test_an_interruption_while_the_summary_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(Console, "print", lambda *_: signal.raise_signal(signal.SIGINT))
    result = run("init", "pythia-14m", "--out", tmp_path / "out", *SMALL)
    assert result.exit_code == 130
    last = result.stderr.splitlines()[-1]
    assert last == f"interrupted, but the new checkpoint is in place in {tmp_path / 'out'}"
    assert "Aborted" not in result.output
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 14_067_712


def test_help_does_not_come_from_docstrings():
    every = (
        "from winit_fast.cli import main\n"
        "for name in [], ['init'], ['bench']:\n"
        "    main([*name, '--help'], standalone_mode=False)"
    )
    plain, optimised = (
        command("info", "--help", python=flags, before=every, env={"COLUMNS": "80"}).stdout
        for flags in ([], ["-OO"])
    )
    assert plain == optimised
    for text in (
        b"Initial weights of neural networks",
        b"The same seed gives the same bytes on any machine.",
        b"All take turns in one process; the figures are medians.",
        b"a line stands for the tensors of all layers",
    ):
        assert text in b" ".join(plain.split())


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, marks=pytest.mark.slow),
        {"PYTHONIOENCODING": "iso-8859-5", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environment: "-".join(environment.values()),
)
def test_terminals_that_know_no_utf_8(tmp_path, environment):
    name = "dé".encode()
    arguments = ["init", "pythia-14m", *SMALL, "--out", os.path.join(os.fsencode(tmp_path), name)]  # noqa: PTH118
    result = subprocess.run(
        [sys.executable, "-c", CALL, *arguments],
        env=os.environ | environment,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii() and result.stderr.isascii()
    assert b"parameters" in result.stdout
    refused = subprocess.run(  # needs --force
        [sys.executable, "-c", CALL, *arguments],
        env=os.environ | environment,
        capture_output=True,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"Error: ") and refused.stderr.isascii()


def test_the_largest_seed_stands_in_the_file(tmp_path):
    seed = 2**64 - 1
    result = run("init", "pythia-14m", "--out", tmp_path / "out", "--seed", seed)
    assert result.exit_code == 0, result.output
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata()["winit_fast.seed"] == "18446744073709551615"
    found = load_file(tmp_path / "out" / "model.safetensors")["gpt_neox.embed_in.weight"]
    made = wf.RandomNormal(0, 0.02)(
        (50304, 128), seed=seed, name="gpt_neox.embed_in.weight", dtype="bfloat16"
    )
    assert found.tobytes() == made.tobytes()


def test_info_has_a_line_a_tensor_of_a_layer_with_the_formula(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = run("info", "llama-3.1-405b").output
    block = [line for line in output.splitlines() if "model.layers" in line]
    assert len(block) == 9
    assert all(line.split()[0] == "126" for line in block)
    formula = r"TruncatedNormal\(stddev=0\.02 / sqrt\(2 \* \(layer \+ 1\)\)\) within \[-2, 2\] *\n"
    name = r"model\.layers\.\{layer\}\.mlp\.up_proj\.weight"
    assert re.search(rf" 126 +{name} +53248 x 16384 +{formula}", output)
    name = r"model\.layers\.\*\.self_attn\.q_proj\.weight"
    assert re.search(rf"{name} .* TruncatedNormal\(stddev=0\.02\) within \[-2, 2\] *\n", output)
    # low=-3.0 and high=3.0 are not the default bounds, so they are shown.
    own = r"TruncatedNormal\(stddev=1 / sqrt\(width\), low=-3\.0, high=3\.0\) *\n"
    assert re.search(rf"lm_head\.weight .* {own}", output)
    assert output.endswith("\nwhere width = 16384\n")
    assert "100" not in output


def test_json_of_the_machine_and_the_models():
    found = json.loads(run("info", "--json").output)
    assert found["stream_version"] == 1 and found["isa"] in found["supported_isas"]
    assert found["gpus"].keys() == {"variable", "kernels", "host"}
    small = {"model": "gpt2", "rules": "gpt2", "tensors": 148, "parameters": 124_439_808}
    assert small in found["models"]


def test_json_of_a_model():
    found = json.loads(run("info", "llama-3.1-8b", "--json").output)
    assert (found["model"], found["rules"]) == ("llama-3.1-8b", "torchtitan_llama")
    assert found["numbers"]["hidden_size"] == 4096
    assert len(found["tensors"]) == 291
    (tensor,) = (t for t in found["tensors"] if t["name"] == "model.layers.31.mlp.up_proj.weight")
    assert tensor["shape"] == [14336, 4096]
    scheme = wf.get({"class_name": tensor["class_name"], "config": tensor["config"]})
    assert scheme == wf.TruncatedNormal(0.0, 0.02 / 8, -800.0, 800.0)


def test_json_of_a_race():
    arguments = "--size", 100, "--seconds", 0, "--against", "numpy", "--threads", 1, "--json"
    found = json.loads(run("bench", *arguments).output)
    assert (found["size"], found["threads"]) == (100, 1)
    assert {row["case"] for row in found["cases"]} >= {"normal float32", "orthogonal 100 x 100"}
    for row in found["cases"]:
        assert row["seconds"].keys() - {"memory"} == {"winit_fast", "NumPy"}
        assert row["nbytes"] > 0 and all(seconds > 0 for seconds in row["seconds"].values())


def test_json_of_a_checkpoint(tmp_path):
    result = run("init", "pythia-14m", "--out", tmp_path / "out", "--seed", 3, *SMALL, "--json")
    found = json.loads(result.stdout)
    assert found["files"] == [str(tmp_path / "out" / "model.safetensors")]
    assert found["nbytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert (found["model"], found["dtype"], found["seed"]) == ("pythia-14m", "float8_e5m2", 3)
    assert found["parameters"] == 14_067_712


def test_what_json_has_no_form_of_is_a_text(tmp_path):
    (tmp_path / "own.toml").write_text(
        '[[rules]]\ntensors = "*"\ninitializer = "truncated_normal"\n'
        "parameters = { low = 0.0, high = inf }\n"
    )
    result = run("info", "gpt2", "--rules", tmp_path / "own.toml", "--json")
    found = json.loads(result.output, parse_constant=pytest.fail)
    assert found["tensors"][0]["config"]["high"] == "inf"


def test_rules_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    own = tmp_path / "own.toml"
    own.write_text(RULES)
    shown = run("info", "gpt2", "--rules", own).output
    assert shown.startswith("gpt2, rules own.toml: own.toml\n")
    assert re.search(r" 12 +h\.\{i\}\.mlp\.c_fc\.weight .* HeNormal\(fan_in=n_embd \* \(i", shown)
    result = run("init", "gpt2", "--out", tmp_path / "out", "--rules", own, "--dtype", "float16")
    assert result.exit_code == 0, result.output
    found = load_file(tmp_path / "out" / "model.safetensors")
    made = wf.HeNormal(fan_in=768 * 4)(
        (768, 3072), seed=0, name="h.3.mlp.c_fc.weight", dtype="float16"
    )
    assert found["h.3.mlp.c_fc.weight"].tobytes() == made.tobytes()
    assert (found["wte.weight"] == 1).all()
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata()["winit_fast.rules"] == "own.toml"


@pytest.mark.parametrize(
    ("model", "rules", "message"),
    [
        ("gpt2", "gtp2", r"--rules 'gtp2' is not a \.toml file, and .*did you mean 'gpt2'"),
        ("gpt2", "missing.toml", "rules must be a file, got 'missing.toml'"),
        ("gpt2", "bad.toml", "bad.toml cannot be read: rule 1 has no 'initializer'"),
        (
            "gpt2",
            "torchtitan_llama",
            r"no rule for 1 of 148 tensors of gpt2: wpe.weight \(position\)",
        ),
        (
            "resnet-50",
            "gpt2",
            r"have no rule for 53 of 320 tensors of resnet-50: conv1.weight \(conv",
        ),
        ("gpt2", "huggingface_vit", "have no rule for 25 of|matches no tensor"),
    ],
)
def test_rules_that_do_not_fit_are_refused(tmp_path, monkeypatch, model, rules, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text('[[rules]]\ntensors = "*"\n')
    for arguments in (["info", model], ["init", model, "--out", "out"]):
        result = run(*arguments, "--rules", rules)
        assert result.exit_code == 1
        assert re.search(message, result.stderr)
        assert len(result.stderr) < 500
    assert not Path("out").exists()


def test_rules_without_a_model():
    result = run("info", "--rules", "gpt2")
    assert result.exit_code == 2
    assert "--rules needs a MODEL" in result.output


@pytest.mark.parametrize("name", ["bf16", "half"])
def test_types_by_their_short_names(tmp_path, name):
    result = run("init", "pythia-14m", "--out", tmp_path / "out", "--dtype", name, "--json")
    kind = {"bf16": "bfloat16", "half": "float16"}[name]
    assert json.loads(result.stdout)["dtype"] == kind
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == kind
