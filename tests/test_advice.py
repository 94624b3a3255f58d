"""Recommendations, explanations, and what is found in plans and files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import winit_fast as wf
from winit_fast.advice import WeightFacts, examine, explain, recommend
from winit_fast.advice.weight_facts import of_checkpoint, of_plan
from winit_fast.checkpoint import inspect
from winit_fast.cli import main
from winit_fast.initializers.activations import activation_function
from winit_fast.models import TensorSpec, model_names
from winit_fast.sources import find


@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "prelu", "gelu", "silu", "elu", "mish"]
)
def test_rectifiers_and_others_get_he(activation):
    found = recommend(activation)
    assert found.initializer == wf.HeNormal(nonlinearity=activation)
    assert found.gain == wf.gain(activation)
    assert recommend(activation, distribution="uniform").initializer == wf.HeUniform(
        nonlinearity=activation
    )
    assert recommend("leaky_relu", param=0.2).gain == wf.gain("leaky_relu", 0.2)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softmax", "linear"])
def test_saturating_ones_get_glorot(activation):
    assert recommend(activation).initializer == wf.GlorotNormal()
    assert recommend(activation, distribution="uniform").initializer == wf.GlorotUniform()


def test_selu_gets_lecun_at_any_depth():
    assert recommend("selu").initializer == wf.LecunNormal()
    assert recommend("SELU", depth=64, distribution="uniform").initializer == wf.LecunUniform()


def test_by_depth():
    assert recommend("relu", depth=60).initializer == wf.HeNormal()
    assert recommend("tanh", depth=19).initializer == wf.GlorotNormal()
    assert recommend("tanh", depth=20).initializer == wf.Orthogonal()
    assert recommend("gelu", depth=60).initializer == wf.Orthogonal(wf.gain("gelu"))
    deepest = recommend("relu", depth=1000)
    assert deepest.initializer == wf.Orthogonal(math.sqrt(2))
    assert deepest.then == "winit_fast.dynamic.lsuv_"
    assert recommend("tanh", depth=1000, task="cnn").initializer == wf.DeltaOrthogonal()
    assert recommend("relu", depth=1000, norm=True).initializer == wf.HeNormal()


def test_by_task():
    cnn = recommend("relu", task="cnn")
    assert cnn.initializer == wf.HeNormal() and "kernel" in cnn.reasons[-1].text
    rnn = recommend("tanh", task="rnn")
    assert rnn.rules["*weight_hh*"] == rnn.initializer == wf.Orthogonal()
    transformer = recommend("gelu", task="transformer", depth=12, width=768)
    assert transformer.initializer == wf.RandomNormal(0.0, 0.02)
    assert transformer.last_of_branch.value == 1 / math.sqrt(24)
    assert any("0.0228" in reason.text for reason in transformer.reasons)


def test_residual():
    fixup = recommend("relu", depth=16, residual=True)
    assert fixup.initializer == wf.Scaled(wf.HeNormal(), "L ** -(1 / 2)", {"L": 16})
    assert fixup.last_of_branch == wf.Zeros()
    assert recommend("relu", residual=True, norm=True).last_of_branch is None


def test_every_reason_has_a_source():
    for arguments in (
        {}, {"depth": 50}, {"depth": 500}, {"task": "cnn"}, {"task": "rnn"}, {"residual": True},
        {"task": "transformer", "depth": 2, "width": 8}, {"pretrained": True}, {"norm": True},
    ):  # fmt: skip
        found = recommend("relu", **arguments)
        assert found.reasons and len(found.instead_of) == 3
        assert all(reason.source for reason in found.reasons + found.instead_of)
        assert str(found.reasons[0]) in str(found)
    assert "wf" not in str(found) and "trained model" in str(recommend("relu", pretrained=True))


def test_the_rejected_ranges_have_the_numbers_of_the_width():
    text = str(recommend("relu", width=100))
    assert "U(-0.3, 0.3) multiplies the mean square of signals by 3 a layer" in text
    assert "U(-1, 1) by 33.3" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "rleu"}, "got 'rleu'; did you mean 'relu'"),
        ({"task": "gan"}, "task must be one of mlp, cnn, rnn, transformer, got 'gan'"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"distribution": "laplace"}, "distribution must be one of normal, uniform"),
        ({"param": 2.0}, "param must not be given for 'relu'"),
    ],
)
def test_refused_recommendations(arguments, message):
    with pytest.raises(ValueError, match=message):
        recommend(**arguments)


def test_refused_types():
    with pytest.raises(TypeError, match="activation must be a str, got 3"):
        recommend(3)
    with pytest.raises(TypeError, match="residual must be a bool, got 'yes'"):
        recommend(residual="yes")


# ------------------------------------------------------------------------------------- explain


@pytest.mark.parametrize(
    ("scheme", "shape"),
    [
        (wf.HeNormal(), (256, 128)),
        (wf.GlorotUniform(), (128, 256)),
        (wf.RandomNormal(0, 0.02), (256, 256)),
        (wf.RandomUniform(-0.3, 0.3), (256, 256)),
        (wf.TruncatedNormal(0, 0.02), (256, 256)),
        (wf.Scaled(wf.HeNormal(), 0.5), (256, 256)),
        (wf.Orthogonal(), (256, 128)),
        (wf.DeltaOrthogonal(), (3, 3, 32, 64)),
        (wf.Identity(), (64, 64)),
        (wf.Sparse(0.5, 0.01), (256, 256)),
        (wf.RandomUniform(0.0, 1.0), (256, 256)),
        (wf.RandomNormal(0.5, 0.1), (256, 256)),
        (wf.TruncatedNormal(0.3, 0.2, -1.0, 2.0), (256, 256)),
        (wf.Constant(0.25), (64, 64)),
        (wf.Ones(), (64, 64)),
        (wf.Dirac(), (3, 3, 32, 32)),
        (wf.Scaled(wf.RandomUniform(0.0, 1.0), 0.5), (256, 256)),
        (
            wf.Parts(
                [
                    ((0, 0), (64, 32), wf.HeNormal()),
                    ((64, 0), (192, 32), wf.RandomNormal(1, 2)),
                    ((3, 0), (4, 32), wf.Zeros()),
                ]
            ),
            (192, 32),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_deviation_is_that_of_the_elements(scheme, shape):
    """The relative error of a deviation of n normal elements is 1 / sqrt(2 n): 6 of them."""
    found = explain(scheme, shape)
    elements = scheme(shape, seed=0, dtype="float64")
    size = elements.size if not isinstance(scheme, wf.DeltaOrthogonal) else 32 * 64
    assert found.deviation == pytest.approx(elements.std(), rel=6 / math.sqrt(2 * size))
    assert found.mean == pytest.approx(elements.mean(), abs=6 * elements.std() / size**0.5)


def test_torchs_axes():
    jax = explain("he_normal", (3, 3, 64, 128))
    torch = explain("he_normal", (128, 64, 3, 3), convention="torch")
    assert jax.deviation == torch.deviation == math.sqrt(2 / 576)
    assert torch.numbers == {"scale": 2.0, "fan_in": 576.0}


def test_what_becomes_of_a_signal():
    he = explain("he_normal", (512, 512), activation="relu", depth=50)
    np.testing.assert_allclose(he.signal, 1, rtol=1e-8)
    wide = explain(wf.RandomUniform(-0.3, 0.3), (512, 512), activation="relu", depth=10)
    np.testing.assert_allclose(wide.signal, (512 * 0.03 / 2) ** np.arange(10), rtol=1e-6)
    assert "3.8e+03" in str(wide) or "times as large" in str(wide)
    assert explain("zeros", (8, 8)).deviation == 0


@pytest.mark.parametrize(
    ("scheme", "activation"),
    [
        (wf.RandomUniform(0.0, 0.1), "relu"),
        (wf.RandomUniform(-0.2, 0.1), "tanh"),
        (wf.TruncatedNormal(0.01, 0.05, -1.0, 2.0), "gelu"),
        (wf.Constant(0.001), "tanh"),
        (wf.RandomNormal(0.002, 0.05), "linear"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_mean_is_followed(scheme, activation):
    """Against the mean over 24 networks: its standard error is below 3 %, seeds are fixed."""
    width, depth, networks = 400, 5, 24
    found = explain(scheme, (width, width), activation=activation, depth=depth)
    function = activation_function(activation)
    squares, gradients, shared = np.zeros((3, networks, depth))
    for number in range(networks):
        x, gradient = (
            wf.Stream(number, name).normal(shape=width, dtype="float64") for name in "xg"
        )
        x += 1 / math.sqrt(width) - x.mean()  # of sum sqrt(width)
        layers = []
        for layer in range(depth):
            w = scheme((width, width), seed=number, name=f"{layer}.kernel", dtype="float64")
            h = x @ w
            layers.append((w, h))
            squares[number, layer], shared[number, layer] = np.mean(h * h), h.mean() ** 2
            x = function(h)
        for layer in range(depth - 1, -1, -1):
            gradients[number, layer] = np.mean(gradient**2)
            h = layers[layer - 1][1]
            slope = (function(h + 1e-6) - function(h - 1e-6)) / 2e-6
            gradient = (layers[layer][0] @ gradient) * slope
    signal, back = squares.mean(0), gradients.mean(0)
    np.testing.assert_allclose(found.signal, signal / signal[0], rtol=0.15)
    np.testing.assert_allclose(found.gradient, back / back[-1], rtol=0.2, atol=1e-12)
    assert found.shared == pytest.approx(shared.mean(0)[-1] / signal[-1], abs=0.03)


def test_identities_pass_units_on():
    relu = explain("identity", (64, 64), activation="relu", depth=20)
    np.testing.assert_allclose(relu.signal, [1, *[0.5] * 19], rtol=1e-6)
    np.testing.assert_allclose(relu.gradient, [*[0.5] * 19, 1], rtol=1e-6)
    half = explain(wf.Scaled(wf.Dirac(), 0.5), (3, 3, 8, 8), depth=4)
    np.testing.assert_allclose(half.signal, [1, 1 / 4, 1 / 16, 1 / 64])


def test_what_is_shown_of_a_mean():
    text = str(explain(wf.RandomUniform(0.0, 0.1), (512, 512), activation="relu", depth=10))
    assert "mean      = (maxval + minval) / 2 = 0.05" in text
    assert "of it the same in all units" in text


def test_parts_are_explained_apart():
    scheme = wf.Parts([((0, 0), (64, 64), wf.HeNormal(in_axis=1, out_axis=0)),
                       ((64, 0), (128, 64), wf.Zeros())])  # fmt: skip
    found = explain(scheme, (128, 64), convention="torch")
    assert found.signal is None and "signals are not followed: parts are used apart" in str(found)
    he, zero = found.parts
    assert he.deviation == math.sqrt(2 / 64) and zero.deviation == 0
    assert found.deviation == pytest.approx(math.sqrt(1 / 64))
    assert "  deviation = sqrt(scale / fan_in)" in str(found)
    bias = explain("ones", 64)
    assert bias.signal is None and "fewer than two axes" in str(bias)


def test_refused_explanations():
    with pytest.raises(ValueError, match="no known deviation for shape .* STFT"):
        explain(wf.STFT("real", None), (8, 1, 16))
    with pytest.raises(ValueError, match="no known deviation for shape .* Computed"):
        explain(wf.Computed(np.ones((8, 8))), (8, 8))
    with pytest.raises(ValueError, match="convention must be one of jax, keras, torch, got 'tf'"):
        explain("he_normal", (8, 8), convention="tf")


# ------------------------------------------------------------------------------------- examine


def layer(number, deviation, before="relu", width=64, **more):
    name = f"layers.{number}.weight"
    return WeightFacts(name, (width, width), "linear", width, width, 0.0, deviation, before, **more)


def test_sound_networks_have_no_findings():
    he = math.sqrt(2 / 64)
    assert examine([layer(i, he) for i in range(60)]) == []
    assert examine([layer(i, he / 2) for i in range(3)]) == []  # too shallow to matter
    assert examine([layer(i, 0.01, normalised=True) for i in range(60)]) == []


def test_glorot_in_a_deep_relu_network():
    findings = examine([layer(i, math.sqrt(1 / 64)) for i in range(60)])
    assert len(findings) == 60
    assert all(one.remedy == wf.HeNormal() for one in findings)


def test_forgotten_zeros_and_constants():
    he = math.sqrt(2 / 64)
    layers = [layer(0, he), layer(1, 0.0), layer(2, he), layer(3, 0.0, may_be_zero=True)]
    (finding,) = examine(layers)
    assert finding.name == "layers.1.weight" and finding.problem == "all elements are 0"
    constant = WeightFacts("fc.weight", (8, 8), "linear", 8, 8, 0.5, 0.0, "relu")
    assert examine([constant])[0].consequence == "all its units stay equal"
    broken = WeightFacts("fc.weight", (8, 8), "linear", 8, 8, 0.0, 0.0, not_finite=64)
    assert "64 of 64 elements are not finite" in examine([broken])[0].problem


def test_a_tied_head():
    table = WeightFacts("wte.weight", (5000, 256), "embedding", 256, 5000, 0.0, 1.0, is_head=True)
    (finding,) = examine([table])
    assert finding.remedy == wf.RandomNormal(0.0, 0.0625)
    assert "logits have a deviation of 16" in finding.consequence
    logits = wf.Stream(0, "h").normal(shape=(64, 256)) @ wf.Stream(0, "w").normal(shape=(256, 5000))
    loss = np.log(np.exp(logits - 100).sum(1)).mean() + 100
    said = float(finding.consequence.split("about ")[1].split()[0])
    assert said == pytest.approx(loss, rel=0.25)


@pytest.mark.parametrize("cut", [2, 4, 8])
def test_the_fans_of_a_shard(cut):
    he = math.sqrt(2 / 64)
    layers = [layer(i, he) for i in range(5)]
    layers[3] = layer(3, he * math.sqrt(cut))
    (finding,) = examine(layers)
    assert finding.name == "layers.3.weight"
    assert f"fan_in / {cut}" in finding.problem and finding.remedy == wf.HeNormal()


def test_like_layers_may_go_with_fan_out_or_with_depth():
    """As in ResNets, and in rules with the number of the layer. A shard still stands out."""
    shapes = [(64, 64), (64, 256), (64, 256), (128, 256), (128, 512)]
    facts = [
        WeightFacts(f"layers.{i}.weight", shape, "linear", shape[1], shape[0], 0.0,
                    math.sqrt(2 / shape[0]), "relu", normalised=True)
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    assert examine(facts) == []
    facts[3] = replace(facts[3], deviation=2 * facts[3].deviation)
    (finding,) = examine(facts)
    assert finding.name == "layers.3.weight" and "fan_in / 4" in finding.problem
    by_depth = [layer(i, 0.02 / math.sqrt(i + 1)) for i in range(8)]
    assert examine([replace(one, normalised=True) for one in by_depth]) == []


@pytest.mark.parametrize("name", model_names())
def test_authors_own_rules_are_not_found_fault_with(name):
    model = find(name)
    text = model.texts.get("config.json")
    assert examine(of_plan(model.plan, json.loads(text) if text else {})) == []


# --------------------------------------------------------------------------------------- files


def plan_of(*tensors):
    return wf.Plan([TensorSpec(*one) for one in tensors])


def test_a_plan_whose_logits_are_too_large():
    plan = plan_of(
        ("embed_tokens.weight", (1000, 64), wf.RandomNormal(0, 1.0)),
        ("layers.0.norm.weight", (64,), wf.Ones()),
        ("layers.0.fc.weight", (64, 64), wf.RandomNormal(0, 0.02)),
    )
    findings = examine(of_plan(plan, {"tie_word_embeddings": True}))
    assert [one.name for one in findings] == ["embed_tokens.weight"]
    assert examine(of_plan(plan, {"tie_word_embeddings": False})) == []


def test_what_a_tensor_is_follows_from_its_role():
    """As rules see it. Only of names that no naming scheme has it is guessed."""
    plan = plan_of(
        ("model.embed_tokens.weight", (1000, 64), wf.RandomNormal()),
        ("model.layers.0.mlp.shared_expert.up_proj.weight", (96, 64), wf.RandomNormal()),
        ("model.layers.0.mlp.down_proj.weight", (64, 96), wf.RandomNormal()),
        ("tok_emb.weight", (1000, 64), wf.RandomNormal()),
        ("own.head.weight", (1000, 64), wf.RandomNormal()),
        ("own.output.weight", (64, 64), wf.RandomNormal()),
        ("own.LayerNorm.weight", (64,), wf.Ones()),
    )
    facts = of_plan(plan)
    assert [(one.kind, one.is_head, one.normalised) for one in facts] == [
        ("embedding", False, True), ("linear", False, True), ("linear", False, True),
        ("embedding", False, True), ("linear", True, True), ("linear", False, True),
    ]  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
def test_fans_follow_from_the_naming_scheme(turned):
    """GPT-2 has layers (in, out); other codes have its names for layers that are (out, in)."""
    shapes = {"attn.c_attn": (64, 192), "attn.c_proj": (64, 64), "mlp.c_fc": (64, 256),
              "mlp.c_proj": (256, 64)}  # fmt: skip
    facts = of_plan(plan_of(*(
        (f"transformer.h.0.{name}.weight", shape[::-1] if turned else shape, wf.RandomNormal())
        for name, shape in shapes.items()
    )))  # fmt: skip
    assert [(one.fan_in, one.fan_out) for one in facts] == list(shapes.values())


def test_the_command_examines_plans_and_checkpoints(tmp_path):
    from safetensors.numpy import save_file

    good = plan_of(("fc.weight", (64, 64), wf.HeNormal()), ("fc.bias", (64,), wf.Zeros()))
    (tmp_path / "good.json").write_text(good.to_json())
    run = CliRunner().invoke(main, ["advise", str(tmp_path / "good.json")])
    assert run.exit_code == 0 and "1 schemes of the plan examined, 0 findings" in run.output
    bad = good.with_rules({"fc.weight": "zeros"})
    (tmp_path / "bad.json").write_text(bad.to_json())
    run = CliRunner().invoke(main, ["advise", "--json", str(tmp_path / "bad.json")])
    assert run.exit_code == 1
    (finding,) = json.loads(run.output)["findings"]
    assert finding["name"] == "fc.weight" and finding["problem"] == "all elements are 0"
    assert finding["remedy"]["class_name"] == "VarianceScaling"

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    weights = dict(good.arrays(seed=0)) | {"out.weight": np.full((4, 4), np.nan, np.float32)}
    save_file(weights, folder / "model.safetensors")
    for source in (folder, folder / "model.safetensors"):
        run = CliRunner().invoke(main, ["advise", str(source)])
        assert (
            run.exit_code == 1 and "2 weights of the checkpoint examined, 1 findings" in run.output
        )
        (finding,) = json.loads(CliRunner().invoke(main, ["advise", "--json", str(source)]).output)[
            "findings"
        ]
        assert finding["problem"] == "16 of 16 elements are not finite"
    run = CliRunner().invoke(main, ["advise", str(tmp_path / "nothing")])
    assert run.exit_code == 2 and "nothing" in run.output


def test_integers_of_a_checkpoint_are_no_weights(tmp_path):
    from safetensors.numpy import save_file

    arrays = {kind: np.zeros((4, 4), kind) for kind in ("int8", "uint8", "int64", "uint32", "bool")}
    arrays["fc.weight"] = np.full((4, 4), 0.5, np.float32)
    arrays["nan.weight"] = np.full((4, 4), np.nan, np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    facts = of_checkpoint(inspect(tmp_path / "model.safetensors").tensors)
    assert [(one.name, one.mean, one.deviation) for one in facts] == [
        ("fc.weight", 0.5, 0.0), ("nan.weight", 0.0, 0.0),
    ]  # fmt: skip


def test_a_built_in_model_is_sound():
    run = CliRunner().invoke(main, ["advise", "gpt2"])
    assert run.exit_code == 0, run.output
