"""Configurations of Hugging Face: recorded, written by the command, read by from_pretrained."""

import json
import math

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_models import TRANSFORMERS

import winit_fast as wf
import winit_fast.torch as init
from winit_fast.checkpoint import verify, write_checkpoint
from winit_fast.cli import main
from winit_fast.models import Architecture, Rules, from_config, model_names

SAMPLE = {
    "LlamaForCausalLM", "MixtralForCausalLM", "DeepseekV3ForCausalLM", "Mamba2ForCausalLM",
    "T5ForConditionalGeneration", "BertForMaskedLM", "SwinModel", "Wav2Vec2Model",
}  # fmt: skip
"""Those of `make test-frameworks`: `make test-models` has all."""

HALF = {"T5ForConditionalGeneration", "RwkvForCausalLM", "GptOssForCausalLM"}
"""Models of which transformers keeps tensors in float32 when the others are float16."""

NORMED = {"Wav2Vec2Model", "HubertModel"}
"""Models with weight_norm."""


def configured(name, folder, **settings):
    """A folder with the config.json of a small model."""
    config = getattr(transformers, name).config_class(**TRANSFORMERS[name] | settings)
    config.architectures = [name]
    config.save_pretrained(folder)
    return config


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def command(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def loaded(name, folder):
    """What from_pretrained makes of a checkpoint, in which it finds all that it looks for."""
    model, told = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param(place, name, id=name, marks=() if name in SAMPLE else pytest.mark.models)
        for place, name in enumerate(TRANSFORMERS)
    ],
)
def test_a_configuration_becomes_a_checkpoint(place, name, tmp_path):
    """Nothing is missing, unexpected or mismatched, and every bit is the plan's."""
    dtype = "float16" if name in HALF else ("bfloat16", "float32")[place % 2]
    configured(name, tmp_path / "config", dtype=dtype)
    command("init", tmp_path / "config", "--out", tmp_path / "out", "--seed", 3)
    model = loaded(name, tmp_path / "out")
    plan = from_config(tmp_path / "config", form="module")
    arrays = dict(plan.arrays(3))
    state = model.state_dict()
    assert {tensor.name for tensor in plan if tensor.kind != "non-persistent buffer"} <= {*state}
    for key, tensor in state.items():
        expected = plan[key]
        assert str(tensor.dtype) == f"torch.{expected.dtype}", key
        assert bits(tensor) == arrays[expected.name].tobytes(), key
    stale = {finding for finding in verify(tmp_path / "out").tensors if finding.status != "fresh"}
    assert all(finding.status == "not checked" for finding in stale)
    if name not in NORMED:
        assert not stale
    else:  # a norm over many drawn elements cannot be written
        (norm,) = stale
        assert "parametrizations.weight.original0" in norm.name
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["dtype"], written["architectures"]) == (dtype, [name])
    small = getattr(model.config, "initializer_range", 1) <= 0.02
    if small and name.endswith(("ForCausalLM", "LMHeadModel")) and name != "XLNetLMHeadModel":
        ids = torch.arange(64).view(2, 32) * 37 % 190 + 3
        with torch.no_grad():
            loss = model.float()(input_ids=ids, labels=ids).loss.item()
        assert loss == pytest.approx(math.log(200), rel=0.05)


def test_the_forms_of_a_plan_have_the_same_bits(tmp_path):
    """The experts of a layer are one tensor of the module, and many of the checkpoint."""
    settings = TRANSFORMERS["Qwen3MoeForCausalLM"] | {"dtype": "bfloat16"}
    module, files = (
        from_config("qwen3_moe", form=form, **settings) for form in ("module", "checkpoint")
    )
    config = transformers.Qwen3MoeConfig(**settings)
    model = init.fill_(transformers.AutoModelForCausalLM.from_config(config), module, seed=1)
    model.save_pretrained(tmp_path / "saved")
    write_checkpoint(tmp_path / "written", files, seed=1)
    saved, written = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("saved", "written")
    )
    assert saved.keys() == written.keys()
    assert len([key for key in saved if ".experts." in key]) == 2 * 4 * 3
    for key, tensor in saved.items():
        assert bits(tensor) == bits(written[key]), key


def test_all_ways_to_give_a_configuration(tmp_path):
    name = "LlamaForCausalLM"
    config = configured(name, tmp_path, dtype="bfloat16")
    content = json.loads((tmp_path / "config.json").read_text())
    plan = from_config(tmp_path)
    for given in (str(tmp_path / "config.json"), content, config):
        assert from_config(given) == plan
    assert from_config("llama", dtype="bfloat16", **TRANSFORMERS[name]) == plan == wf.Plan(plan)
    assert from_config(content, dtype="float32") == plan.cast("float32")
    head = from_config(content, architectures=["LlamaForSequenceClassification"])
    assert "score.weight" in head and "lm_head.weight" not in head
    assert from_config(content | {"architectures": None})["lm_head.weight"] is not None
    vision = from_config("vit", **TRANSFORMERS["ViTForImageClassification"])
    assert "embeddings.cls_token" in vision  # there is no language model of this type
    assert content == json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("content", "settings", "error", "message"),
    [
        ({}, {}, ValueError, "config must have a model_type, got None"),
        ({"model_type": "lama"}, {}, ValueError, "got 'lama'; did you mean 'llama'"),
        ({"model_type": "own", "auto_map": {"AutoModel": "x.Y"}}, {}, ValueError, "is not run"),
        ({"architectures": ["Own"]}, {}, ValueError, r"\(other code is not run\), got \['Own'\]"),
        ({"architectures": ["GPT2Model"]}, {}, ValueError, "must fit model_type 'llama'"),
        ({"architectures": ["LlamaConfig"]}, {}, ValueError, "must be of transformers"),
        ({}, {"hidden_sizes": 3}, ValueError, "config must have a model_type"),
        ({"dtype": "float8_e4m3fn"}, {}, ValueError, "dtype of config must be one of float64, "),
        ({"dtype": "int8"}, {}, TypeError, "dtype must be one of"),
        ({"hidden_act": "nothing"}, {}, ValueError, "LlamaForCausalLM cannot be recorded: Key"),
        ({"vocab_size": "many"}, {}, ValueError, "config is no configuration of llama"),
        ({"quantization_config": {"bits": 4}}, {}, ValueError, "has quantization_config"),
        ({"num_hidden_layers": 1}, {"hidden_sizes": 3}, TypeError, "did you mean 'hidden_size'"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(content, settings, error, message):
    if content and "model_type" not in content:
        content = {"model_type": "llama", **TRANSFORMERS["LlamaForCausalLM"], **content}
    with pytest.raises(error, match=message):
        from_config(content, **settings)


def test_what_is_no_configuration(tmp_path):
    for given, error, message in [
        (3, TypeError, "config must be a path, a model type or a configuration, got 3"),
        (tmp_path, OSError, "config.json"),
        (tmp_path / "none.json", OSError, "none.json"),
        ("nollama", ValueError, "did you mean"),
    ]:
        with pytest.raises(error, match=message):
            from_config(given)
    with pytest.raises(ValueError, match="form must be one of checkpoint, module, got 'file'"):
        from_config("llama", form="file")
    for text in ("[]", "{", '{"a": 1'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="is no configuration"):
            from_config(tmp_path)


def test_nothing_is_loaded_asked_or_run(tmp_path, monkeypatch):
    """Code beside a configuration stays unread, and no model is asked of the network."""
    import socket

    def refused(*_):
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr("builtins.input", refused)
    configured("LlamaForCausalLM", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["auto_map"] = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    content["_attn_implementation"] = content["attn_implementation"] = "flash_attention_2"
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "own.py").write_text("raise AssertionError('this was run')")
    command("init", tmp_path, "--out", tmp_path / "out")
    assert "auto_map" not in (tmp_path / "out" / "config.json").read_text()
    loaded("LlamaForCausalLM", tmp_path / "out")


def test_the_command_says_what_it_wrote(tmp_path):
    configured("LlamaForCausalLM", tmp_path, tie_word_embeddings=True)
    shown = json.loads(
        command("init", tmp_path, "--out", tmp_path / "out", "--dtype", "bf16", "--json",
                "--keep-float32", "*norm*")
    )  # fmt: skip
    assert (shown["model"], shown["dtype"]) == ("LlamaForCausalLM", "bfloat16")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" not in written
    assert {tensor.dtype for key, tensor in written.items() if "norm" in key} == {torch.float32}
    assert {tensor.dtype for key, tensor in written.items() if "proj" in key} == {torch.bfloat16}
    assert (tmp_path / "out" / "generation_config.json").exists()
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "pt" and metadata["winit_fast.model"] == "LlamaForCausalLM"
    assert metadata["winit_fast.rules"] == f"transformers {transformers.__version__}"
    again = tmp_path / "out" / "winit_fast.plan.json"
    command("init", again, "--out", tmp_path / "again")
    other = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(other[key], tensor) for key, tensor in written.items())
    result = CliRunner().invoke(
        main, ["init", str(tmp_path), "--out", str(tmp_path / "x"), "--rules", "gpt2"]
    )
    assert result.exit_code == 1 and "--rules is for built-in models" in result.stderr


def test_a_model_on_meta_whose_tied_bias_is_computed():
    """Tying pads the bias with known numbers, in real memory."""
    config = transformers.BertConfig(**TRANSFORMERS["BertForMaskedLM"])

    def on_meta():
        with torch.device("meta"):
            return transformers.BertForMaskedLM(config)

    assert init.record(on_meta) == init.record(lambda: transformers.BertForMaskedLM(config))


@pytest.mark.parametrize(
    "model",
    ["gpt2", "llama-2-7b", "llama-3-8b", "llama-3.1-8b", "llama-3.2-1b", "mistral-7b", "pythia-70m",
     "qwen2.5-0.5b", "qwen2.5-7b", "qwen3-0.6b", "qwen3-8b", "vit-b-16"],
)  # fmt: skip
def test_a_built_in_model_is_initialised_as_transformers_does(model):
    """Llama 3.1 has torchtitan's rules unless others are asked for."""
    architecture = Architecture.load(model)
    rules = "huggingface" if model.startswith("llama") else architecture.rules
    built_in = {tensor.name: tensor for tensor in Rules.load(rules).tensors(architecture)}
    theirs = from_config(architecture.configuration)
    prefix = "transformer." if model == "gpt2" else ""  # published without it
    recorded = {
        tensor.name.removeprefix(prefix): (tensor.shape, tensor.initializer)
        for tensor in theirs if tensor.kind == "parameter"
    }  # fmt: skip
    assert {name: (own.shape, own.initializer) for name, own in built_in.items()} == recorded


@pytest.mark.parametrize("model", [name for name in model_names() if name != "resnet-50"])
def test_a_built_in_model_has_the_shapes_of_transformers(model):
    """Every size of every family, and so the number of parameters."""
    architecture = Architecture.load(model)
    content = architecture.configuration
    config = transformers.AutoConfig.for_model(**content)
    with torch.device("meta"):
        theirs = getattr(transformers, content["architectures"][0])(config)
    shapes = [tuple(tensor.shape) for tensor in theirs.parameters()]
    assert sorted(architecture.shapes.values()) == sorted(shapes)


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("resnet-50", "ResNet50_Weights.IMAGENET1K_V2"),
        ("vit-b-16", "ViT_B_16_Weights.IMAGENET1K_V1"),
        ("vit-b-32", "ViT_B_32_Weights.IMAGENET1K_V1"),
        ("vit-l-16", "ViT_L_16_Weights.IMAGENET1K_V1"),
        ("vit-l-32", "ViT_L_32_Weights.IMAGENET1K_V1"),
        ("vit-h-14", "ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1"),
    ],
)
def test_a_built_in_model_has_the_parameters_that_torchvision_states(model, weights):
    import torchvision

    architecture = Architecture.load(model)
    shapes = [shape for name, shape in architecture.shapes.items()
              if name not in architecture.buffers]  # fmt: skip
    stated = torchvision.models.get_weight(weights).meta["num_params"]
    assert sum(map(math.prod, shapes)) == stated


def test_resnet_is_initialised_as_torchvision_does(tmp_path):
    """Every number is the same, counters included; torchvision and timm load the file."""
    import timm
    import torchvision

    recorded = dict(init.record(torchvision.models.resnet50).arrays(seed=4))
    command("init", "resnet-50", "--out", tmp_path / "m", "--dtype", "float32", "--seed", 4)
    written = load_file(tmp_path / "m" / "model.safetensors")
    assert recorded.keys() == written.keys()
    for name, array in recorded.items():
        assert bits(written[name]) == array.tobytes(), name
    torchvision.models.resnet50().load_state_dict(written)
    model = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True)
    assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "vit-b-16"])
def test_a_built_in_model_is_read_by_transformers(model, tmp_path):
    command("init", model, "--out", tmp_path / "m")
    name = json.loads((tmp_path / "m" / "config.json").read_text())["architectures"][0]
    assert loaded(name, tmp_path / "m").dtype == torch.bfloat16


def test_the_folder_that_is_written_is_not_a_source(tmp_path, monkeypatch):
    """A command that is repeated means the same; elsewhere a folder goes before a name."""
    monkeypatch.chdir(tmp_path)
    command("init", "vit-b-16", "--out", "vit-b-16")
    first = (tmp_path / "vit-b-16" / "model.safetensors").read_bytes()
    command("init", "vit-b-16", "--out", "vit-b-16", "--force")
    assert (tmp_path / "vit-b-16" / "model.safetensors").read_bytes() == first
    told = command("init", "vit-b-16", "--out", "other", "--json")
    assert json.loads(told)["model"] == "ViTForImageClassification"
