"""Rules by name on the models of transformers, and checkpoints that grow and are loaded there."""

import json

import numpy as np
import pages
import pytest
import tiny_models
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file

import winit_fast as wf
import winit_fast.torch
from winit_fast.cli import main
from winit_fast.models import Rules, from_config
from winit_fast.models.roles import assign
from winit_fast.sources import configuration
from winit_fast.sources.source import numbers_of

SERVE_ANY = ["torch_default", "keras_default", "orthogonal", "selu", "dummy"]
"""The rules that are for any model of linear layers, convolutions and embeddings."""

# Falcon's fused queries, keys and values are in the order that a bool of its configuration says.
REFUSED = {
    ("FalconForCausalLM", "keras_default"): "tensor 'transformer.h.0.self_attention.query_key_v",
    ("FalconForCausalLM", "orthogonal"): "is fused .attention.q . attention.k . attention.v., an",
}


def run(*arguments: object):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("name", tiny_models.TRANSFORMERS)
def test_every_tensor_has_a_role_and_rules_for_any_model_serve_it(name):
    """By the names of modules and of files."""
    kind = getattr(transformers, name)
    config = kind.config_class(**tiny_models.TRANSFORMERS[name])
    content = config.to_dict() | {"architectures": [name]}
    numbers = numbers_of(content)
    recorded = configuration.recorded(content, name)
    saved = recorded.saved
    for plan in recorded.plan, saved:
        found = assign([tensor for tensor in plan if tensor.kind == "parameter"], numbers)
        roles = {
            key: one and {section.role for section in one.sections} for key, one in found.items()
        }
        lost = [key for key, own in roles.items() if not own or own & {"linear", "conv", "bias"}]
        assert not lost
    for rules in SERVE_ANY:
        message = REFUSED.get((name, rules))
        if message is None:
            saved.with_rules(rules, numbers=numbers).check()
        else:
            with pytest.raises(ValueError, match=message):
                saved.with_rules(rules, numbers=numbers)


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


def float8(folder, **settings):
    """Write the config.json of a small Llama in float8; return its folder."""
    sizes = tiny_models.TRANSFORMERS["LlamaForCausalLM"] | settings
    content = transformers.LlamaConfig(**sizes).to_dict()
    content["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content, default=str))
    return folder


def products(folder):
    """The numbers of a checkpoint, each float8 weight times its scale."""
    found = load_file(folder / "model.safetensors")
    steps = {name: found.pop(name) for name in [*found] if name.endswith("_scale_inv")}
    for name, step in steps.items():
        weight = name.removesuffix("_scale_inv")
        assert found[weight].dtype == torch.float8_e4m3fn and step.unique().numel() == 1
        found[weight] = found[weight].float() * step.flatten()[0]
    return {name: tensor.float().numpy() for name, tensor in found.items()}, steps


def near(made, expected):
    """Compare with one rounding to float8."""
    limit = np.maximum(np.abs(expected) * 2.0**-4, np.abs(expected).max() * 2.0**-15)
    return bool(np.all(np.abs(made - expected) <= limit))


def test_rules_of_a_float8_configuration(tmp_path):
    """The rules are those of what weights and scales stand for; transformers loads the result."""
    config = float8(tmp_path / "config")
    run("init", config, "--rules", "gpt2", "--set", "std=3", "--out", tmp_path / "out")
    made, steps = products(tmp_path / "out")
    assert len(steps) == 14
    for name in "q_proj", "o_proj":
        key = f"model.layers.1.self_attn.{name}.weight"
        scheme = wf.RandomNormal(0.0, 3.0 if name == "q_proj" else 1.5)
        own = scheme(made[key].shape, seed=0, name=key)
        assert near(made[key], own), name
    loaded = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    loaded.quantization_config["dequantize"] = True
    _, told = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out", config=loaded, output_loading_info=True
    )
    assert not any(told.values()), told


def test_float8_from_weights_of_another_type(tmp_path):
    """A plain checkpoint becomes float8, and that one a deeper one, bit for bit."""
    sizes = tiny_models.TRANSFORMERS["LlamaForCausalLM"]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    model.save_pretrained(tmp_path / "old")
    config = float8(tmp_path / "config", vocab_size=210)
    report = tmp_path / "report.json"
    run("init", config, "--from", tmp_path / "old", "--out", tmp_path / "new", "--report", report)
    made, steps = products(tmp_path / "new")
    for name, tensor in model.state_dict().items():
        old = tensor.numpy()
        assert near(made[name][: len(old)], old), name
    assert json.loads(report.read_text())["counts"] == {
        "copied": 5, "converted": 28, "extended": 2, "anew": 0, "unused": 0,
    }  # fmt: skip
    deeper = float8(tmp_path / "deeper", vocab_size=210, num_hidden_layers=3)
    run("init", deeper, "--from", tmp_path / "new", "--layers", "0..1,0", "--out", tmp_path / "out")
    old, new = (load_file(tmp_path / one / "model.safetensors") for one in ("new", "out"))
    for name in steps:
        for key in name, name.removesuffix("_scale_inv"):
            copy = key.replace("layers.0.", "layers.2.")
            assert torch.equal(old[key].view(torch.uint8), new[copy].view(torch.uint8)), key


@pytest.mark.parametrize("options", [["--noise", "0.1"], []])
def test_float8_that_cannot_be_copied(tmp_path, options):
    run("init", float8(tmp_path / "config"), "--out", tmp_path / "old")
    target = float8(tmp_path / "deeper", num_hidden_layers=3)
    arguments = ["--layers", "0..1,0", *options]
    if not options:  # a model without scales
        target, arguments = tmp_path / "plain", []
        sizes = tiny_models.TRANSFORMERS["LlamaForCausalLM"]
        transformers.LlamaConfig(**sizes).save_pretrained(target)
    arguments = ["init", target, "--from", tmp_path / "old", "--out", tmp_path / "out", *arguments]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    wanted = "noise is for tensors without scales" if options else "the model has no scales for it"
    assert wanted in result.stderr


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
    """The page's own example: no layer's output changes more with width than by a power of 0.25.
    Under GPT-2's rule, with one rate for all, they do."""
    page = pages.run(pages.DOCS / "rules.md")
    slopes = page["check"].slopes()
    assert max(slopes.values()) < 0.25, slopes
    other = page["checked"](Rules.load("gpt2"), is_mup=False).slopes()
    assert all(slope > 0.5 for name, slope in other.items() if "embed" not in name), other


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
