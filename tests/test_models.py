"""Architectures and rules: the tensor lists of real models and the initializer of each tensor."""

import math
import os
import re

import pytest

import winit_fast as wf
from winit_fast.models import Architecture, Rule, Rules, model_names, rule_names


# Parameters as others count them, each tensor once. GPT-2, Llama 2 7B, Llama 3 8B, Mistral, Qwen2.5
# but 14B (1.5B and 7B as Qwen2.5-Math) and Qwen3: "params" in KerasHub's presets, for example in
# keras_hub/src/models/gpt2/gpt2_presets.py. Qwen2.5 14B and the other sizes of Llama: the total
# that Hugging Face states for the files of a repository ("safetensors.total" in its API), less the
# 64 rotary frequencies of each layer that the files of Llama 2 have. Pythia: "total params" in the
# table of the model cards at Hugging Face. ViT and ResNet-50: "num_params" of torchvision's
# weights, which tests/frameworks/test_configurations.py reads; there the shapes of all models but
# ResNet-50 are also compared with those of transformers.
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
        ("llama-2-7b", 291, 6_738_415_616),
        ("llama-2-13b", 363, 13_015_864_320),
        ("llama-2-70b", 723, 68_976_648_192),
        ("llama-3-8b", 291, 8_030_261_248),
        ("llama-3-70b", 723, 70_553_706_496),
        ("llama-3.2-1b", 146, 1_235_814_400),
        ("llama-3.2-3b", 254, 3_212_749_824),
        ("mistral-7b", 291, 7_241_732_096),
        ("pythia-14m", 76, 14_067_712),
        ("pythia-31m", 76, 30_494_720),
        ("pythia-70m", 76, 70_426_624),
        ("pythia-160m", 148, 162_322_944),
        ("pythia-410m", 292, 405_334_016),
        ("pythia-1b", 196, 1_011_781_632),
        ("pythia-1.4b", 292, 1_414_647_808),
        ("pythia-2.8b", 388, 2_775_208_960),
        ("pythia-6.9b", 388, 6_857_302_016),
        ("pythia-12b", 436, 11_846_072_320),
        ("qwen2.5-0.5b", 290, 494_032_768),
        ("qwen2.5-1.5b", 338, 1_543_714_304),
        ("qwen2.5-3b", 434, 3_085_938_688),
        ("qwen2.5-7b", 339, 7_615_616_512),
        ("qwen2.5-14b", 579, 14_770_033_664),
        ("qwen2.5-32b", 771, 32_763_876_352),
        ("qwen2.5-72b", 963, 72_706_203_648),
        ("qwen3-0.6b", 310, 596_049_920),
        ("qwen3-1.7b", 310, 1_720_574_976),
        ("qwen3-4b", 398, 4_022_468_096),
        ("qwen3-8b", 399, 8_190_735_360),
        ("qwen3-14b", 443, 14_768_307_200),
        ("qwen3-32b", 707, 32_762_123_264),
        ("resnet-50", 161, 25_557_032),
        ("vit-b-16", 200, 86_567_656),
        ("vit-b-32", 200, 88_224_232),
        ("vit-l-16", 392, 304_326_632),
        ("vit-l-32", 392, 306_535_400),
        ("vit-h-14", 520, 632_045_800),
    ],
)
def test_sizes_of_models(model, tensors, parameters):
    architecture = Architecture.load(model)
    plan = Rules.load(architecture.rules).tensors(architecture)
    sizes = [tensor.size for tensor in plan if tensor.kind == "parameter"]
    assert (len(sizes), sum(sizes)) == (tensors, parameters)
    assert {tensor.name for tensor in plan if tensor.kind == "buffer"} == {*architecture.buffers}


def test_buffers_have_types_of_their_own():
    architecture = Architecture.load("resnet-50")
    plan = Rules.load("torchvision_resnet").tensors(architecture)
    buffers = [tensor for tensor in plan if tensor.kind == "buffer"]
    assert len(buffers) == 3 * 53
    for tensor in buffers:
        is_count = tensor.name.endswith("num_batches_tracked")
        assert tensor.dtype == ("int64" if is_count else "float32")
        assert tensor.shape == (
            () if is_count else plan[tensor.name.rpartition(".")[0] + ".bias"].shape
        )
    plan.check()


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
    applied = rules.applied_to_architecture(architecture)
    assert [one.tensor.name for one in applied] == list(architecture.shapes)
    deciding = {one.rule.pattern for one in applied}
    assert deciding >= {rule.pattern for rule in rules.rules if rule.pattern is not None}


def test_patterns():
    rule = Rule("h.{i}.*.weight", "zeros", {})
    assert rule.match("h.12.attn.c_proj.weight") == {"i": 12}
    assert rule.match("h.x.attn.c_proj.weight") is None
    assert rule.match("h.1.attn.c_proj.weight2") is None
    # A dot in a pattern matches only a dot: patterns are not regular expressions.
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
    with pytest.raises(ValueError, match="rules 'test' have no rule for tensor 'head'"):
        rules.initializer("head", {})


def test_a_number_of_the_name_wins_over_the_architectures():
    rules = Rules("test", "", (), (Rule("h.{n_layer}.w", "constant", {"value": "n_layer"}),))
    assert rules.initializer("h.3.w", {"n_layer": 48}) == wf.Constant(3)


def test_text_stays_text_and_everything_else_is_a_formula():
    numbers = {"fan_in": 7, "d": 8}
    parameters = {"mode": "fan_in", "distribution": "uniform", "scale": "d / 4", "fan_in": "2 * d"}
    made = Rule("*", "variance_scaling", parameters).make(numbers)
    assert made == wf.VarianceScaling(2.0, "fan_in", "uniform", fan_in=16)
    scaled = Rule("*", "scaled", {"initializer": "he_normal", "factor": "1 / sqrt(d)"})
    assert scaled.make({"d": 16}) == wf.Scaled("he_normal", 0.25)
    axes = Rule("*", "he_normal", {"in_axis": [1], "out_axis": 0}).make({})
    assert axes == wf.HeNormal(in_axis=[1], out_axis=0)


GPT2 = Architecture.load("gpt2")


def test_a_tensor_without_a_rule_is_an_error_with_the_count():
    rules = Rules("own", "", (), (Rule("*.weight", "normal", {}),))
    message = (
        "rules 'own' have no rule for 73 of 148 tensors of gpt2: h.0.ln_1.bias, "
        "h.0.attn.c_attn.bias, h.0.attn.c_proj.bias, h.0.ln_2.bias, h.0.mlp.c_fc.bias, ..."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        rules.tensors(GPT2)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*.wieght", "a rule matches no tensor of gpt2: rule '*.wieght' of 'own' must be one of "),
        (
            "wte.weight",
            "rule 'wte.weight' of 'own' applies to no tensor of gpt2: earlier rules apply",
        ),
    ],
)
def test_a_rule_without_effect_is_an_error(pattern, message):
    rules = Rules("own", "", (), (Rule("*", "normal", {}), Rule(pattern, "zeros", {})))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        rules.tensors(GPT2)
    assert len(str(error.value)) < 400


def test_an_error_in_a_formula_names_rule_and_tensor():
    rules = Rules("own", "", (), (Rule("h.{i}.*", "normal", {"stddev": "1 / (i - 3)"}),))
    rules.initializer("h.4.w", {})
    with pytest.raises(
        ValueError, match=r"rule 'h\.\{i\}\.\*' of 'own', tensor 'h\.3\.w': formula"
    ):
        rules.initializer("h.3.w", {})


OWN = """
title = "deeper layers smaller"

[[rules]]
tensors = "h.{i}.*.weight"
initializer = "he_normal"
parameters = { mode = "fan_avg", fan_in = "n_embd * (i + 1)" }

[[rules]]
tensors = "*"
initializer = "zeros"
"""


def test_rules_of_ones_own(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    rules = Rules.read(file)
    assert (rules.name, rules.title, rules.references) == ("own.toml", "deeper layers smaller", ())
    assert rules == Rules.read(str(file))
    made = {tensor.name: tensor.initializer for tensor in rules.tensors(GPT2)}
    assert made["h.3.mlp.c_fc.weight"] == wf.HeNormal(mode="fan_avg", fan_in=4 * 768)
    assert made["wte.weight"] == wf.Zeros()
    file.write_text(OWN[OWN.index("[[") :])
    assert Rules.read(file).title == "own.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "parameters",
            "parameter",
            "keys of rule 1 must be one of .*'parameter'; did you mean 'pa",
        ),
        ("title", "titel", "keys of the file must be one of .*'titel'; did you mean 'title'"),
        ('tensors = "*"', "", "rule 2 has no 'tensors'"),
        ('initializer = "zeros"', "", "rule 2 has no 'initializer'"),
        ('"*"', "3", "rule 2: pattern must be a str, got 3"),
        ("{i}", "{1}", "rule 1: pattern must have different names in its braces"),
        ('"zeros"', '"zeros', "own.toml is not a TOML file"),
        ('"zeros"', '"zeros"\nparameters = 3', "rule 2: parameters must be a Mapping, got 3"),
        ('"deeper layers smaller"', "3", "title must be a str, got 3"),
        ("title", "references = 3\ntitle", "references must be a list of str, got 3"),
        (OWN, "rules = 3", "rules must be tables, .*, got 3"),
        (OWN, "", "the file has no 'rules'"),
        (OWN, "\0", "own.toml is not a TOML file"),
        (OWN, "#" * (1 << 20) + "\n", "own.toml is not a file of rules: .* than 1,048,576 bytes"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_name(tmp_path, old, new, message):
    file = tmp_path / "own.toml"
    assert old in OWN
    file.write_text(OWN.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        Rules.read(file)
    assert str(error.value).startswith(str(file))


def test_what_is_no_file_of_rules(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", ""):
        with pytest.raises(FileNotFoundError, match="rules must be a file, got"):
            Rules.read(tmp_path / name)
    with pytest.raises(TypeError, match="file must be a path, got 3"):
        Rules.read(3)


def test_a_number_of_the_name_is_the_one_that_formulas_see():
    rules = Rules("test", "", (), (Rule("h.{i}", "constant", {"value": "i + n"}),))
    assert rules.initializer("h.7", {"i": 100, "n": 1}) == wf.Constant(8)
