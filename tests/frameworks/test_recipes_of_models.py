"""Rules by name on the models of transformers, and checkpoints that grow and are loaded there."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from click.testing import CliRunner

import winit_fast as wf
import winit_fast.torch
from winit_fast.cli import main
from winit_fast.models import Rules, TensorSpec, from_config
from winit_fast.models.roles import assign
from winit_fast.models.unset import Unset

# Those whose every tensor has a role: the other small models have layers of their own.
KNOWN = [
    "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "DeepseekV3ForCausalLM",
    "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM",
    "PhiForCausalLM", "Olmo2ForCausalLM", "GraniteForCausalLM", "GptOssForCausalLM",
    "CohereForCausalLM", "StableLmForCausalLM", "GPT2LMHeadModel", "GPTNeoForCausalLM",
    "GPTNeoXForCausalLM", "GPTJForCausalLM", "OPTForCausalLM", "BloomForCausalLM",
    "FalconForCausalLM", "MptForCausalLM", "MambaForCausalLM", "Mamba2ForCausalLM",
    "FalconMambaForCausalLM", "T5ForConditionalGeneration", "MT5ForConditionalGeneration",
    "BartForConditionalGeneration", "MBartForConditionalGeneration",
    "PegasusForConditionalGeneration", "MarianMTModel", "BertForMaskedLM", "RobertaForMaskedLM",
    "DistilBertForMaskedLM", "ModernBertForMaskedLM", "ViTForImageClassification", "DeiTModel",
    "ViTMAEModel", "Dinov2Model", "CLIPModel",
]  # fmt: skip


def run(*arguments: object):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("name", KNOWN)
def test_every_tensor_has_a_role(name):
    with torch.device("meta"):
        model = tiny_models.of_transformers(name)()
    tensors = [TensorSpec(key, tuple(p.shape), Unset()) for key, p in model.named_parameters()]
    found = assign(tensors, {})
    roles = {key: one and one.parts[0].role for key, one in found.items()}
    assert not {
        key: role for key, role in roles.items() if role in (None, "linear", "conv", "bias")
    }


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM", "GPTNeoXForCausalLM"])
@pytest.mark.parametrize("rules", ["torch_default", "keras_default"])
def test_fans_are_those_of_the_modules(name, rules):
    """The fans that follow from names and shapes, against those of the layers themselves."""
    model = tiny_models.of_transformers(name)()
    plan = wf.torch.record(tiny_models.of_transformers(name)).with_rules(
        rules, numbers={"num_attention_heads": 4}
    )
    for key, module in model.named_modules():
        if key == "lm_head" and name == "GPT2LMHeadModel":  # it is tied to the embedding
            continue
        if isinstance(module, torch.nn.Linear):
            fan_in, fan_out = module.in_features, module.out_features
        elif isinstance(module, transformers.pytorch_utils.Conv1D):
            fan_in, fan_out = module.weight.shape
        else:
            continue
        scheme = plan[f"{key}.weight"].initializer
        if "c_attn" in key or "query_key_value" in key:  # three layers in one
            fan_out //= 3
        limit = fan_in**-0.5 if rules == "torch_default" else (6 / (fan_in + fan_out)) ** 0.5
        assert scheme.maxval == pytest.approx(limit), key


def test_norms_that_add_1_keep_their_0():
    plan = from_config("gemma", num_hidden_layers=1, hidden_size=64, vocab_size=100)
    changed = plan.with_rules("megatron")
    assert changed["model.norm.weight"].initializer == wf.Zeros()
    embedding = changed["model.embed_tokens.weight"].initializer
    assert embedding.parts[0].initializer == wf.RandomNormal(0.0, 0.02)
    assert embedding.parts[1].stops[0] == 1  # the padding row remains 0


def test_a_configuration_by_rules(tmp_path):
    config = transformers.GPTNeoXConfig(**tiny_models.TRANSFORMERS["GPTNeoXForCausalLM"])
    config.save_pretrained(tmp_path / "config")
    run(
        "init", tmp_path / "config", "--rules", "small_init", "--out", tmp_path / "out", "--seed", 7
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    name = "gpt_neox.layers.1.attention.dense.weight"
    weight = model.state_dict()[name]
    width, layers = config.hidden_size, config.num_hidden_layers
    scheme = wf.RandomNormal(0.0, 2 / (layers * width**0.5))
    assert np.array_equal(weight.numpy(), scheme(tuple(weight.shape), seed=7, name=name))


@pytest.mark.parametrize("options", [["--rules", "gpt2"], ["--from", "old"]])
def test_weights_with_scales_are_refused(tmp_path, options):
    config = transformers.LlamaConfig(**tiny_models.TRANSFORMERS["LlamaForCausalLM"])
    content = config.to_dict() | {"quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(content, default=str))
    arguments = ["init", tmp_path, "--out", tmp_path / "out", *options]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert f"{options[0]} " in result.stderr and "for weights without scales" in result.stderr
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------- growth


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A narrow GPT-2 of 12 layers with all its words, saved, and the model."""
    folder = tmp_path_factory.mktemp("gpt2") / "old"
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_head=2, n_layer=12, n_positions=64)
    ).eval()
    model.save_pretrained(folder)
    return folder, model


def grown(gpt2, out, *arguments, **settings):
    """Write a larger model from the saved one, and load it."""
    folder, _ = gpt2
    config = json.loads((folder / "config.json").read_text()) | settings
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    report = out / "report.json"
    run(
        "init", out / "config.json", "--from", folder, "--out", out / "new", "--report", report,
        *arguments,
    )  # fmt: skip
    model, info = transformers.GPT2LMHeadModel.from_pretrained(
        out / "new", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), json.loads(report.read_text())


IDS = torch.arange(48)[None] * 1000


def test_gpt2_with_more_rows_keeps_its_outputs(gpt2, tmp_path):
    model, report = grown(gpt2, tmp_path / "a", "--new-rows", "mean", vocab_size=50304)
    assert report["counts"] == {
        "copied": 147, "converted": 0, "extended": 1, "anew": 0, "unused": 0,
    }  # fmt: skip
    with torch.no_grad():
        old, new = gpt2[1](IDS).logits, model(IDS).logits
    assert new.shape[-1] == 50304
    torch.testing.assert_close(new[..., :50257], old, rtol=1e-5, atol=1e-6)
    table = gpt2[1].transformer.wte.weight
    added = model.transformer.wte.weight[50257:]
    torch.testing.assert_close(added, table.mean(0).expand_as(added), rtol=0, atol=1e-5)
    assert len({tuple(row.tolist()) for row in added}) > 1


def test_gpt2_with_more_layers(gpt2, tmp_path):
    layers = "18=0..11,6..11"
    model, report = grown(gpt2, tmp_path / "b", "--layers", layers, n_layer=18, vocab_size=50304)
    assert report["counts"] == {
        "copied": 219, "converted": 0, "extended": 1, "anew": 0, "unused": 0,
    }  # fmt: skip
    for layer, source in enumerate([*range(12), *range(6, 12)]):
        old, new = gpt2[1].transformer.h[source], model.transformer.h[layer]
        for (name, one), other in zip(old.named_parameters(), new.parameters(), strict=True):
            assert torch.equal(one, other), name
    scheme = wf.RandomNormal(0.0, 0.02)
    rows = scheme((50304, 32), seed=0, name="transformer.wte.weight", index=np.s_[50257:])
    assert np.array_equal(model.transformer.wte.weight[50257:].detach().numpy(), rows)
    with torch.no_grad():  # the first blocks compute what they did
        old = gpt2[1](IDS, output_hidden_states=True).hidden_states[11]
        new = model(IDS, output_hidden_states=True).hidden_states[11]
    torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-6)


def test_a_dense_model_becomes_a_mixture(tmp_path):
    common = tiny_models.GROUPED | {"num_hidden_layers": 2}
    torch.manual_seed(0)
    dense = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**common)).eval()
    dense.save_pretrained(tmp_path / "dense")
    sizes = {"num_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 96}
    config = transformers.Qwen3MoeConfig(**common, **sizes, norm_topk_prob=True)
    config.save_pretrained(tmp_path / "moe")
    run(
        "init", tmp_path / "moe", "--from", tmp_path / "dense", "--out", tmp_path / "new",
        "--map", "*.experts.{e}.*=*.*",
    )  # fmt: skip
    mixture = transformers.Qwen3MoeForCausalLM.from_pretrained(tmp_path / "new").eval()
    ids = torch.arange(16)[None]
    with torch.no_grad():  # all experts are the dense MLP, and their weights sum to 1
        torch.testing.assert_close(mixture(ids).logits, dense(ids).logits, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------- uses


def test_dummy_weights_balance_the_routing_and_stay_finite():
    """100 layers in float16. Each of 8 experts is expected for 1,024 of 4,096 tokens, with a
    standard deviation of 28 if tokens are independent: 10 % are 3.7 of them, at a fixed seed."""
    config = transformers.Qwen3MoeConfig(
        vocab_size=4096, hidden_size=64, intermediate_size=64, moe_intermediate_size=16,
        num_hidden_layers=100, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        num_experts=8, num_experts_per_tok=2, dtype="float16", output_router_logits=True,
    )  # fmt: skip
    plan = from_config(config, form="module").with_rules("dummy")
    model = transformers.Qwen3MoeForCausalLM._from_config(config, dtype=torch.float16)
    wf.torch.fill_(model, plan, seed=0)
    ids = torch.randperm(4096, generator=torch.Generator().manual_seed(0)).view(128, 32)
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=ids[:1, :8]).logits).all()
        out = model.model.float()(input_ids=ids, output_router_logits=True)
    assert len(out.router_logits) == 100
    for logits in out.router_logits:
        chosen = logits.topk(2, dim=-1).indices
        share = torch.bincount(chosen.flatten(), minlength=8) / (chosen.numel() / 8)
        assert share.min() > 0.9 and share.max() < 1.1, share


def test_coordinate_check_of_mup():
    """Sizes after four steps of Adam at four times the width: flat under muP, much larger else."""
    path = Path(__file__).parents[2] / "tools" / "coordinate_check.py"
    spec = importlib.util.spec_from_file_location("coordinate_check", path)
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    narrow, wide = check.growth("mup", (64, 256), 1)
    for before, after in zip(narrow, wide, strict=True):
        assert 0.5 < after / before < 2.0
    narrow, wide = check.growth("gpt2", (64, 256), 1)
    assert wide[0] > 5 * narrow[0]


def test_rules_of_a_module():
    """A plan that rules changed fills a module with the bits of its file, fused experts too."""
    name = "Qwen3MoeForCausalLM"
    model = tiny_models.of_transformers(name)()
    by_module = from_config(model.config, form="module").with_rules("deepseek")
    in_files = from_config(model.config).with_rules(Rules.load("deepseek"))
    wf.torch.fill_(model, by_module, seed=3)
    key = "model.layers.1.mlp.experts.2.down_proj.weight"
    fused = model.state_dict()["model.layers.1.mlp.experts.down_proj"]
    assert np.array_equal(fused[2].numpy(), in_files[key].array(seed=3))
