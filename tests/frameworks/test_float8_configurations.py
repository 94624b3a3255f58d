"""Configurations of Hugging Face whose quantization_config is float8."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny_models import TRANSFORMERS
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear

import winit_fast.torch as init
from winit_fast.checkpoint import verify
from winit_fast.cli import main
from winit_fast.models import from_config

FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
FINE = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}

MODELS = {
    "llama": (
        "LlamaForCausalLM",
        {"hidden_size": 256, "intermediate_size": 384},
        {"weight_block_size": [128, 128]},
    ),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {}, {"weight_block_size": None}),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        {},
        {
            "weight_block_size": [16, 16],
            "modules_to_not_convert": ["lm_head", "model.layers.0.self_attn"],
        },
    ),
}


def configuration(model_type, folder):
    """Write the config.json of a small quantised model; return its content and its class."""
    name, sizes, setting = MODELS[model_type]
    settings = TRANSFORMERS[name] | sizes
    config = getattr(transformers, name).config_class(**settings, dtype="bfloat16")
    config.architectures = [name]
    content = config.to_dict() | {"quantization_config": FINE | setting}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content))
    return content, getattr(transformers, name)


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def written(folder, out):
    words = ["init", str(folder), "--out", str(out), "--seed", "3"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return load_file(out / "model.safetensors")


def plain(content):
    """The plan without quantization, in float32: what is drawn before any rounding."""
    plan = from_config(content | {"quantization_config": None})
    return plan, dict(plan.cast("float32").arrays(3))


@pytest.mark.parametrize("model_type", MODELS)
def test_every_weight_is_the_plain_one_after_one_rounding(model_type, tmp_path):
    content, _ = configuration(model_type, tmp_path / "config")
    files = written(tmp_path / "config", tmp_path / "out")
    plan, arrays = plain(content)
    names = {tensor.name for tensor in plan if tensor.kind != "non-persistent buffer"}
    scales = {name for name in files if name.endswith("_scale_inv")}
    assert {*files} - scales == names
    quantised = {name.removesuffix("_scale_inv") for name in scales}
    assert quantised == {name for name in names if files[name].dtype == torch.float8_e4m3fn}
    block = content["quantization_config"]["weight_block_size"]
    for name in quantised:
        scale = files[name + "_scale_inv"]
        assert scale.dtype == torch.float32 and scale.unique().numel() == 1
        if block is not None:
            shape = tuple(
                -(-size // step) for size, step in zip(files[name].shape, block, strict=True)
            )
        else:
            shape = (1, 1) if ".experts." in name else ()
        assert scale.shape == shape, name
        expected = (arrays[name] / scale.numpy().flat[0]).astype(FLOAT8)
        assert bits(files[name]) == expected.tobytes(), name
    for name in names - quantised:
        assert str(files[name].dtype) == f"torch.{plan[name].dtype}", name
        assert bits(files[name]) == plan[name].array(3).tobytes(), name
    kept = {name for name in names if re.search(r"lm_head|norm|embed|mlp\.gate\.", name)}
    assert not kept & quantised and "model.layers.1.self_attn.o_proj.weight" in quantised
    attention = "model.layers.0.self_attn.o_proj.weight"
    assert (attention in quantised) == (model_type != "deepseek_v3")
    assert verify(tmp_path / "out").fresh
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"] == content["quantization_config"]
    assert config["dtype"] == "bfloat16"


@pytest.mark.parametrize("model_type", MODELS)
def test_transformers_reads_it(model_type, tmp_path):
    """On a CPU it dequantises. No key is missing or unexpected, and every number is the plan's."""
    content, kind = configuration(model_type, tmp_path / "config")
    files = written(tmp_path / "config", tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    config.quantization_config["dequantize"] = True
    model, told = kind.from_pretrained(tmp_path / "out", config=config, output_loading_info=True)
    assert not any(told.values()), told
    module = from_config(content | {"quantization_config": None}, form="module")
    arrays = dict(module.cast("float32").arrays(3))
    quantised = {tensor.name: tensor.dtype for tensor in from_config(content, form="module")}
    step = files["model.layers.1.self_attn.o_proj.weight_scale_inv"].flatten()[0].numpy()
    for name, tensor in model.state_dict().items():
        expected = arrays[module[name].name]
        if quantised[name] == "float8_e4m3fn":
            expected = (expected / step).astype(FLOAT8).astype(np.float32) * step
        assert torch.equal(tensor, torch.from_numpy(expected).to(tensor.dtype)), name
    ids = torch.arange(32).view(1, 32) * 37 % 190 + 3
    with torch.no_grad():
        assert model.eval()(input_ids=ids).logits.isfinite().all()


@pytest.mark.parametrize("model_type", MODELS)
def test_a_module_of_float8_layers_is_filled(model_type, tmp_path):
    """With the bits of the files, also where they have the experts one by one."""
    content, kind = configuration(model_type, tmp_path / "config")
    setting = content["quantization_config"]
    config = kind.config_class(**content | {"quantization_config": None})
    with torch.device("meta"):
        model = kind._from_config(config, dtype=torch.bfloat16)
    kept = setting.get("modules_to_not_convert", ["lm_head"])
    chosen = transformers.FineGrainedFP8Config(**setting)
    replace_with_fp8_linear(model, kept, chosen, pre_quantized=True)
    plan = from_config(content, form="module")
    arrays = dict(plan.arrays(3))
    for name, tensor in init.fill_(model.to_empty(device="cpu"), plan, seed=3).state_dict().items():
        assert tuple(tensor.shape) == plan[name].shape, name
        assert bits(tensor) == arrays.pop(plan[name].name).tobytes(), name
    assert {plan[name].kind for name in arrays} == {"non-persistent buffer"}
    files = dict(from_config(content).arrays(3))
    for name, array in plan.arrays(3):
        if name.endswith("experts.gate_up_proj"):
            prefix = name.removesuffix("gate_up_proj")
            for number, expert in enumerate(array):
                parts = [files[f"{prefix}{number}.{part}_proj.weight"] for part in ("gate", "up")]
                assert expert.tobytes() == np.concatenate(parts).tobytes()
        elif name in files:
            assert array.tobytes() == files[name].tobytes()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "has quantization_config=.*'fp8', got 'gptq'"),
        ({"bits": 4}, "for quant_method 'fp8', got None"),
        ("fp8", "quantization_config of config must be a mapping, got 'fp8'"),
        (FINE | {"fmt": "e5m2"}, "fmt of .* must be 'e4m3', got 'e5m2'"),
        (FINE | {"activation_scheme": "static"}, "activation_scheme of .* must be 'dynamic', got"),
        (FINE | {"scale_fmt": "ue8m0"}, "scale_fmt of .* must be 'float', got 'ue8m0'"),
        (FINE | {"expert_dtype": "fp4"}, "expert_dtype of .* must be 'fp8', got 'fp4'"),
        (FINE | {"weight_block_size": [128]}, "layers of LlamaForCausalLM cannot be float8: .*two"),
        (FINE | {"modules_to_not_convert": ["model", "lm_head"]}, "applies to no layer: none is l"),
        (
            FINE | {"modules_to_not_convert": ["model"]},
            "'lm_head.weight'.*: modules_to_not_convert must have its module",
        ),
    ],
)  # fmt: skip
def test_other_quantizations_are_refused(setting, message):
    settings = TRANSFORMERS["LlamaForCausalLM"] | {"tie_word_embeddings": True}
    with pytest.raises(ValueError, match=message):
        from_config("llama", **settings, quantization_config=setting)


def test_the_quantization_of_a_part_is_refused():
    content = {"model_type": "llava", "text_config": {"quantization_config": FINE}}
    with pytest.raises(ValueError, match="text_config of config has quantization_config=.*whole m"):
        from_config(content)
