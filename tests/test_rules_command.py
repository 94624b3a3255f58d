"""Rules on the command line: their list, --rules on any source, --set, --base and --dry-run."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import winit_fast as wf
from winit_fast.cli import main
from winit_fast.models import Architecture, Rules, TensorSpec, plan_json, rule_names


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def plan(tmp_path):
    """The file of a small plan with the names of Llama."""
    shapes = {
        "model.embed_tokens.weight": (16, 8),
        "model.layers.0.mlp.down_proj.weight": (8, 32),
        "model.norm.weight": (8,),
        "lm_head.weight": (16, 8),
    }
    file = tmp_path / "own.json"
    wf.Plan(TensorSpec(name, shape, wf.Zeros()) for name, shape in shapes.items()).save(file)
    return file


def shown(*arguments):
    """The schemes of a plan that --dry-run prints."""
    result = run("init", *arguments, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    tensors = plan_json.read(result.stdout.encode(), "the output")
    return {tensor.name: tensor.initializer for tensor in tensors}


def test_the_list(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    output = run("rules").output
    for name in rule_names():
        assert re.search(rf"^ *{name} .*{re.escape(Rules.load(name).title)}", output, re.M), name
    found = json.loads(run("rules", "--json").output)["rules"]
    assert [one["name"] for one in found] == rule_names()


def test_one_of_them(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "250")
    output = run("rules", "small-init").output
    assert output.startswith("small_init: GPT-NeoX, Pythia: small init")
    formula = r"stddev=2 / \(layers \* sqrt\(width\)\)\)"
    assert re.search(rf"attention\.out, mlp\.out, .* {formula}", output)
    assert "Nguyen & Salazar, Transformers without Tears, 2019" in output
    assert "settings: std = 0.02; base_width, which must be given" in run("rules", "mup").output
    assert "mlp.* (decoder)" in run("rules", "deepnet").output
    assert re.search(r"ssm\.D, .* as the model's own code has it", run("rules", "gpt2").output)
    found = json.loads(run("rules", "mup", "--json").output)
    assert (found["settings"], found["needs"]) == ({"std": 0.02}, ["base_width"])
    own = tmp_path / "own.toml"
    own.write_text('[[rules]]\ntensors = "*"\ninitializer = "zeros"\n')
    assert re.search(r"own\.toml: own\.toml\n\n.*\n +\* +zeros\(\)", run("rules", own).output)
    result = run("rules", "gtp2")
    assert result.exit_code == 1 and "did you mean 'gpt2'" in result.stderr


def test_rules_on_a_plan(plan, tmp_path):
    schemes = shown(plan, "--rules", "gpt2")
    assert schemes["model.layers.0.mlp.down_proj.weight"] == wf.RandomNormal(0.0, 0.02 / 2**0.5)
    assert schemes["model.norm.weight"] == wf.Zeros()  # its own constant
    result = run("init", plan, "--rules", "gpt2", "--set", "std=0.5", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = wf.Plan.load(tmp_path / "out" / "winit_fast.plan.json")
    assert written["lm_head.weight"].initializer == wf.RandomNormal(0.0, 0.5)


def test_rules_on_a_built_in_model():
    schemes = shown("pythia-70m", "--rules", "small_init")
    expected = Rules.load("small_init").tensors(Architecture.load("pythia-70m"))
    assert schemes == {tensor.name: tensor.initializer for tensor in expected}
    assert schemes["embed_out.weight"] == wf.RandomNormal(0.0, (2 / (5 * 512)) ** 0.5)


@pytest.mark.parametrize("base", [2, "{plan}"])
def test_a_base_is_a_number_or_a_model(plan, tmp_path, base):
    if base != 2:
        base = tmp_path / "base.json"
        norm = TensorSpec("model.norm.weight", (2,), wf.Ones())
        wf.Plan([norm]).save(base)
    schemes = shown(plan, "--rules", "mup", "--base", base)
    assert schemes["lm_head.weight"] == wf.RandomNormal(0.0, 0.005)
    assert schemes["model.layers.0.mlp.down_proj.weight"] == wf.RandomNormal(0.0, 0.01)
    info = run("info", "llama-3.1-8b", "--rules", "mup", "--base", "256", "--json")
    assert json.loads(info.output)["rules"] == "mup"


def test_a_dry_run_prints_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("init", "gpt2", "--dry-run", "--keep-float32", "*.ln_*", "--out", "out")
    assert result.exit_code == 0, result.output
    first, _, header, *rows = result.output.splitlines()
    assert first == "gpt2, rules gpt2: Plan of 148 tensors, 124,439,808 elements"
    assert header.split() == ["times", "tensor", "shape", "type", "initializer"]
    assert any(re.match(r" *24  h\.\*\.ln_\*\.weight +768 +float32 +Ones\(\)", row) for row in rows)
    assert any(re.match(r" +1  wte\.weight +50257 x 768 +bfloat16 ", row) for row in rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gpt2"], 2, "Missing option '--out'"),
        (["{plan}", "--set", "std=1"], 1, "--set is for --rules, which is not given"),
        (["{plan}", "--base", "8"], 1, "--base is for --rules, which is not given"),
        (["gpt2", "--set", "std"], 2, "'std' is not NAME=NUMBER"),
        (["gpt2", "--set", "std=inf"], 2, "'std=inf' is not NAME=NUMBER"),
        (["gpt2", "--set", "std=1", "--set", "std=2"], 2, "std is given more than once"),
        (["gpt2", "--set", "sdt=1"], 1, "settings of rules 'gpt2' must be one of std, got 'sdt'"),
        (["gpt2", "--base", "8"], 1, "settings of rules 'gpt2' must be one of std"),
        (["{plan}", "--rules", "mup"], 1, "rules 'mup' need the setting base_width"),
        (["{plan}", "--rules", "mup", "--base", "0"], 1, "--base must be a width of at least 1"),
        (
            ["{plan}", "--rules", "mup", "--base", "8", "--set", "base_width=8"],
            1,
            "--base is the setting base_width, got both",
        ),
        (["{plan}", "--rules", "fixup"], 1, "no rule for 2 of 4 tensors of own.json: "),
        (["{plan}", "--rules", "gtp2"], 1, "--rules 'gtp2' is not a .toml file, and rules must be"),
    ],
)
def test_refusals(plan, arguments, status, message):
    given = [str(plan) if argument == "{plan}" else argument for argument in arguments]
    out = [] if "Missing" in message else ["--out", plan.parent / "out"]
    result = run("init", *given, *out)
    assert (result.exit_code, not (plan.parent / "out").exists()) == (status, True)
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_info_without_a_model_takes_no_settings():
    for option, value in ("--set", "std=1"), ("--base", "8"):
        result = run("info", option, value)
        assert result.exit_code == 2 and f"{option} needs a MODEL" in result.output


def test_the_table_of_the_page_has_all_rules():
    page = (Path(__file__).parents[1] / "docs" / "rules.md").read_text()
    table = page[page.index("| rules | weights") : page.index("- DeepNet")]
    assert sorted(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*)\|", table, re.M)))
    ) == sorted(rule_names())
