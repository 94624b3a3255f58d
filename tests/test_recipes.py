"""Architectures and rules: the tensor lists of real models and the initializer of each tensor."""

import math

import pytest

import winit_fast as wf
from winit_fast.models import Architecture, Rule, Rules, evaluate, model_names, rule_names


def test_formulas_are_arithmetic():
    numbers = {"n_layer": 48, "d": 1600}
    assert evaluate("0.02 / sqrt(2 * n_layer)", numbers) == 0.02 / math.sqrt(96)
    assert evaluate("-(d // 3) + 2 ** 3", numbers) == -525
    assert evaluate("min(d, n_layer) - max(1, 2) + log(1)", numbers) == 46
    assert evaluate(0.5, numbers) == 0.5
    assert isinstance(evaluate("3 * d", numbers), int)
    assert evaluate("0 ** 0.5 + 0 ** 2 + 0.0 ** 3", numbers) == 0
    assert evaluate("(-2) ** 3.0", numbers) == -8
    assert evaluate("(-2) ** -2", numbers) == 1 / 4
    assert evaluate("7 // 2 + 2 ** 0 - +1", numbers) == 3


@pytest.mark.parametrize(
    "formula",
    ["().__class__", "d.real", "__import__('os')", "[1][0]", "'a'", "1 if d else 2", "1 +", ""],
)
def test_formulas_are_nothing_else(formula):
    with pytest.raises(ValueError, match="formula"):
        evaluate(formula, {"n_layer": 48, "d": 1600})


@pytest.mark.parametrize(
    "formula",
    ["1 / 0", "0 ** -1", "sqrt(-1)", "log(0)", "(-2) ** 0.5", "min()", "sqrt(1, 2)", "9 ** 9 ** 9",
     "2.0 ** 5000", "-" * 5000 + "1", "1" + " + 1" * 5000, "(" * 500, "\0", "True"],
    ids=lambda formula: formula[:12],
)  # fmt: skip
def test_formulas_without_a_value(formula):
    with pytest.raises(ValueError, match="formula"):
        evaluate(formula, {})


def test_an_unknown_name_in_a_formula_is_shown_with_the_nearest():
    with pytest.raises(ValueError, match=r"'2 \* n_layers'.*; did you mean 'n_layer'"):
        evaluate("2 * n_layers", {"n_layer": 48, "d": 1600})


# Counted from the published checkpoints, the causal masks left out.
@pytest.mark.parametrize(
    ("model", "tensors", "parameters"),
    [
        ("gpt2", 148, 124_439_808),
        ("gpt2-medium", 292, 354_823_168),
        ("gpt2-large", 436, 774_030_080),
        ("gpt2-xl", 580, 1_557_611_200),
        ("llama-3.1-8b", 291, 8_030_261_248),
        ("llama-3.1-70b", 723, 70_553_706_496),
        ("llama-3.1-405b", 1137, 405_853_388_800),
    ],
)
def test_sizes_of_models(model, tensors, parameters):
    shapes = Architecture.load(model).shapes
    assert len(shapes) == tensors
    assert sum(map(math.prod, shapes.values())) == parameters


def test_tensors_of_gpt2_xl():
    shapes = Architecture.load("gpt2-xl").shapes
    outer = {name: shape for name, shape in shapes.items() if not name.startswith("h.")}
    assert outer == {
        "wte.weight": (50257, 1600),
        "wpe.weight": (1024, 1600),
        "ln_f.weight": (1600,),
        "ln_f.bias": (1600,),
    }
    block = {
        "ln_1.weight": (1600,),
        "ln_1.bias": (1600,),
        "attn.c_attn.weight": (1600, 4800),
        "attn.c_attn.bias": (4800,),
        "attn.c_proj.weight": (1600, 1600),
        "attn.c_proj.bias": (1600,),
        "ln_2.weight": (1600,),
        "ln_2.bias": (1600,),
        "mlp.c_fc.weight": (1600, 6400),
        "mlp.c_fc.bias": (6400,),
        "mlp.c_proj.weight": (6400, 1600),
        "mlp.c_proj.bias": (1600,),
    }
    for layer in range(48):
        prefix = f"h.{layer}."
        found = {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}
        assert found == block


def test_configuration_names_the_numbers_of_the_model():
    configuration = Architecture.load("gpt2-xl").configuration
    assert configuration["model_type"] == "gpt2"
    assert (configuration["n_layer"], configuration["n_head"]) == (48, 25)
    assert (configuration["n_embd"], configuration["n_positions"]) == (1600, 1024)


def test_an_alias_is_the_same_model():
    assert Architecture.load("gpt2-small") == Architecture.load("gpt2")


def test_unknown_names_get_the_nearest_known_one():
    with pytest.raises(ValueError, match="'gpt2-xll'; did you mean 'gpt2-xl'"):
        Architecture.load("gpt2-xll")
    with pytest.raises(ValueError, match="'gpt3'; did you mean 'gpt2'"):
        Rules.load("gpt3")


def test_rule_of_gpt2():
    architecture = Architecture.load("gpt2-xl")
    initializers = {
        tensor.name: tensor.initializer for tensor in Rules.load("gpt2").tensors(architecture)
    }
    residual = wf.RandomNormal(0.0, 0.02 / math.sqrt(2 * 48))
    assert list(initializers) == list(architecture.shapes)
    for name, initializer in initializers.items():
        if name.endswith(".bias"):
            assert initializer == wf.Zeros(), name
        elif "ln_" in name:
            assert initializer == wf.Ones(), name
        elif name.endswith(("attn.c_proj.weight", "mlp.c_proj.weight")):
            assert initializer == residual, name
        else:
            assert initializer == wf.RandomNormal(0.0, 0.02), name


def test_torchtitans_rule_of_llama():
    architecture = Architecture.load("llama-3.1-405b")
    initializers = {
        tensor.name: tensor.initializer
        for tensor in Rules.load("torchtitan_llama").tensors(architecture)
    }
    assert initializers["model.embed_tokens.weight"] == wf.RandomNormal(0.0, 1.0)
    assert initializers["lm_head.weight"] == wf.TruncatedNormal(0.0, 1 / 128, -3.0, 3.0)
    assert initializers["model.norm.weight"] == wf.Ones()
    block = "model.layers.31."
    for part in "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj":
        assert initializers[f"{block}{part}.weight"] == wf.TruncatedNormal(0.0, 0.02, -100.0, 100.0)
    for part in "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj":  # 1 / sqrt(2 * 32) = 1 / 8
        scaled = wf.TruncatedNormal(0.0, 0.02 / 8, -800.0, 800.0)
        assert initializers[f"{block}{part}.weight"] == scaled
    for part in "input_layernorm", "post_attention_layernorm":
        assert initializers[f"{block}{part}.weight"] == wf.Ones()


@pytest.mark.parametrize("model", model_names())
def test_every_model_has_rules_for_all_its_tensors_and_no_idle_rule(model):
    architecture = Architecture.load(model)
    assert architecture.rules in rule_names()
    rules = Rules.load(architecture.rules)
    deciding = set()
    for name in architecture.shapes:
        deciding.add(next(rule.pattern for rule in rules.rules if rule.match(name) is not None))
    assert deciding == {rule.pattern for rule in rules.rules}


def test_patterns():
    rule = Rule("h.{i}.*.weight", "zeros", {})
    assert rule.match("h.12.attn.c_proj.weight") == {"i": 12}
    assert rule.match("h.x.attn.c_proj.weight") is None
    assert rule.match("h.1.attn.c_proj.weight2") is None
    # A dot is a dot: no regular expression of the user's is run.
    assert Rule("a.b", "zeros", {}).match("axb") is None
    assert Rule("e.{i}.{j}", "zeros", {}).match("e.3.07") == {"i": 3, "j": 7}
    assert Rule("e.{i}", "zeros", {}).match("e." + "9" * 5000) is None
    assert Rule("e.{", "zeros", {}).match("e.{") == {}
    for pattern in ("{i}.{i}", "{1}"):
        with pytest.raises(ValueError, match="pattern must have different names in its braces"):
            Rule(pattern, "zeros", {})


def test_the_first_rule_that_matches_counts_and_knows_the_layer():
    rules = Rules(
        "test",
        "",
        (),
        (
            Rule("h.{i}.wo", "random_normal", {"stddev": "0.02 / sqrt(2 * (i + 1))"}),
            Rule("h.*", "constant", {"value": 3}),
        ),
    )
    assert rules.initializer("h.7.wo", {}) == wf.RandomNormal(0.0, 0.02 / 4)
    assert rules.initializer("h.7.wq", {}) == wf.Constant(3)
    with pytest.raises(ValueError, match="'test' has no rule for tensor 'head'"):
        rules.initializer("head", {})


def test_a_number_in_a_name_wins_over_the_architectures():
    rules = Rules("test", "", (), (Rule("h.{i}", "constant", {"value": "i + n"}),))
    assert rules.initializer("h.7", {"i": 100, "n": 1}) == wf.Constant(8)
