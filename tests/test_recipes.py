"""The authors' rules by name, against their closed forms at two depths and two widths.

Every number is that of the paper or code which the rules cite, worked out by hand for a model of 2
layers and width 64 and one of 8 layers and width 256, whose MLPs are four times as wide.
"""

import math
import re

import numpy as np
import pytest

import winit_fast as wf
from winit_fast.models import Architecture, Rule, Rules, TensorSpec, model_names, rule_names
from winit_fast.models.naming import known_roles, namings
from winit_fast.models.roles import assign
from winit_fast.models.unset import Unset

SIZES = [(2, 64), (8, 256)]


def bare(shapes):
    return [TensorSpec(name, shape, Unset()) for name, shape in shapes.items()]


def llama(layers, width, head=True):
    shapes = {"model.embed_tokens.weight": (512, width)}
    for layer in range(layers):
        block = f"model.layers.{layer}."
        for name in "qkvo":
            shapes[f"{block}self_attn.{name}_proj.weight"] = (width, width)
        for name in "gate", "up":
            shapes[f"{block}mlp.{name}_proj.weight"] = (4 * width, width)
        shapes[f"{block}mlp.down_proj.weight"] = (width, 4 * width)
        for name in "input", "post_attention":
            shapes[f"{block}{name}_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if head:
        shapes["lm_head.weight"] = (512, width)
    return bare(shapes)


def gpt2(layers, width):
    shapes = {"wte.weight": (512, width), "wpe.weight": (128, width)}
    for layer in range(layers):
        block = f"h.{layer}."
        for name, out, into in [
            ("attn.c_attn", 3 * width, width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ]:
            shapes |= {f"{block}{name}.weight": (into, out), f"{block}{name}.bias": (out,)}
        for name in "ln_1", "ln_2":
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
    return bare(shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)})


def bart(layers, width, deeper=0, shared=True):
    shapes = {"model.shared.weight": (512, width)} if shared else {}
    for stack, attentions, depth in [
        ("encoder", ["self_attn"], layers),
        ("decoder", ["self_attn", "encoder_attn"], layers + deeper),
    ]:
        shapes[f"model.{stack}.embed_positions.weight"] = (128, width)
        if not shared:
            shapes[f"model.{stack}.embed_tokens.weight"] = (512, width)
        for layer in range(depth):
            block = f"model.{stack}.layers.{layer}."
            for attention in attentions:
                for name in "q_proj", "k_proj", "v_proj", "out_proj":
                    shapes[f"{block}{attention}.{name}.weight"] = (width, width)
                    shapes[f"{block}{attention}.{name}.bias"] = (width,)
                shapes[f"{block}{attention}_layer_norm.weight"] = (width,)
            shapes[f"{block}fc1.weight"] = (4 * width, width)
            shapes[f"{block}fc2.weight"] = (width, 4 * width)
    return bare(shapes)


def vit(layers, width):
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 17, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)}
    for layer in range(layers):
        block = f"blocks.{layer}."
        for name, out, into in [
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ]:
            shapes |= {f"{block}{name}.weight": (out, into), f"{block}{name}.bias": (out,)}
        for name in "norm1", "norm2":
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
    return bare(shapes | {"head.weight": (10, width), "head.bias": (10,)})


def mamba(layers, width):
    inner = 2 * width
    shapes = {"backbone.embeddings.weight": (512, width), "backbone.norm_f.weight": (width,)}
    for layer in range(layers):
        block = f"backbone.layers.{layer}."
        shapes |= {
            f"{block}norm.weight": (width,),
            f"{block}mixer.A_log": (inner, 16),
            f"{block}mixer.D": (inner,),
            f"{block}mixer.conv1d.weight": (inner, 1, 4),
            f"{block}mixer.conv1d.bias": (inner,),
            f"{block}mixer.in_proj.weight": (2 * inner, width),
            f"{block}mixer.x_proj.weight": (width // 16 + 32, inner),
            f"{block}mixer.dt_proj.weight": (inner, width // 16),
            f"{block}mixer.dt_proj.bias": (inner,),
            f"{block}mixer.out_proj.weight": (width, inner),
        }
    return bare(shapes | {"lm_head.weight": (512, width)})


def resnet(blocks, channels, convolutions):
    shapes = {"conv1.weight": (channels, 3, 3, 3)}
    for stage in (1, 2):
        for block in range(blocks // 2):
            kernels = [3, 3] if convolutions == 2 else [1, 3, 1]
            for number, kernel in enumerate(kernels, 1):
                name = f"layer{stage}.{block}.conv{number}.weight"
                shapes[name] = (channels, channels, kernel, kernel)
    return bare(shapes | {"fc.weight": (10, channels), "fc.bias": (10,)})


def made(rules, tensors, numbers=None, **settings):
    applied = Rules.load(rules, **settings).applied(tensors, numbers)
    return {one.tensor.name: one.tensor.initializer for one in applied}


def same(scheme, expected):
    """Compare schemes; numbers agree to 12 digits."""
    assert type(scheme) is type(expected), scheme
    own, other = scheme.get_config(), expected.get_config()
    assert own.keys() == other.keys()
    for name, value in own.items():
        close = isinstance(value, float) and math.isfinite(value)
        assert value == (pytest.approx(other[name], rel=1e-9) if close else other[name]), name


def N(stddev):
    return wf.RandomNormal(0.0, stddev)


def U(bound):
    return wf.RandomUniform(-bound, bound)


def T(stddev, bound=3.0):
    return wf.TruncatedNormal(0.0, stddev, -bound, bound)


Q, K, V, OUT = (f"model.layers.{{}}.self_attn.{name}_proj.weight" for name in "qkvo")
GATE, UP, DOWN = (f"model.layers.{{}}.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

# The tensor ({} is the last layer), its scheme for 2 layers of width 64, and for 8 of width 256.
LLAMA = {
    "gpt2": [
        (EMBEDDING, N(0.02), N(0.02)),
        (Q, N(0.02), N(0.02)),
        (UP, N(0.02), N(0.02)),
        (OUT, N(0.01), N(0.005)),  # 0.02 / sqrt(4), 0.02 / sqrt(16)
        (DOWN, N(0.01), N(0.005)),
        (HEAD, N(0.02), N(0.02)),
    ],
    "megatron": [
        (EMBEDDING, N(0.02), N(0.02)),
        (V, N(0.02), N(0.02)),
        (OUT, N(0.01), N(0.005)),
        (DOWN, N(0.01), N(0.005)),
        (HEAD, N(0.02), N(0.02)),
    ],
    "small_init": [
        (EMBEDDING, N(0.07905694150420949), N(0.039528470752104745)),  # sqrt(2/320), sqrt(2/1280)
        (K, N(0.07905694150420949), N(0.039528470752104745)),
        (GATE, N(0.07905694150420949), N(0.039528470752104745)),
        (OUT, N(0.125), N(0.015625)),  # 2 / (2 * 8), 2 / (8 * 16)
        (DOWN, N(0.125), N(0.015625)),
        (HEAD, N(0.07905694150420949), N(0.039528470752104745)),
    ],
    "torchtitan_llama": [
        (EMBEDDING, N(1.0), N(1.0)),
        (HEAD, T(0.125), T(0.0625)),
        (Q, T(0.02, 100.0), T(0.02, 100.0)),
        (GATE, T(0.02, 100.0), T(0.02, 100.0)),
        (OUT, T(0.01, 200.0), T(0.005, 400.0)),  # 0.02 / sqrt(2 * 2), 0.02 / sqrt(2 * 8)
        (UP, T(0.01, 200.0), T(0.005, 400.0)),
        (DOWN, T(0.01, 200.0), T(0.005, 400.0)),
        (OUT.format(0), *[T(0.01414213562373095, 141.4213562373095)] * 2),
    ],
    "olmo_normal": [(name, T(0.02), T(0.02)) for name in (EMBEDDING, HEAD, Q, OUT, GATE, UP, DOWN)],
    "olmo_llama": [
        (EMBEDDING, N(1.0), N(1.0)),
        (HEAD, T(0.125), T(0.0625)),
        (Q, T(0.02), T(0.02)),
        (GATE, T(0.02), T(0.02)),
        (OUT, T(0.01), T(0.005)),
        (OUT.format(0), T(0.01), T(0.005)),
        (UP, T(0.01), T(0.005)),
        (DOWN, T(0.01), T(0.005)),
    ],
    "olmo_llama_depth": [
        (EMBEDDING, N(1.0), N(1.0)),
        (HEAD, T(0.125), T(0.0625)),
        (V, T(0.02), T(0.02)),
        (GATE, T(0.02), T(0.02)),
        (OUT, T(0.01), T(0.005)),
        (OUT.format(0), T(0.01414213562373095), T(0.01414213562373095)),
        (UP, T(0.01), T(0.005)),
        (DOWN, T(0.01), T(0.005)),
    ],
    "olmo_ngpt": [
        (EMBEDDING, N(0.125), N(0.0625)),
        (HEAD, T(0.125), T(0.0625)),
        (Q, T(0.125), T(0.0625)),
        (UP, T(0.125), T(0.0625)),
        (OUT, T(0.0625), T(0.015625)),  # 1/8 / 2, 1/16 / 4
        (DOWN, T(0.0625), T(0.015625)),
    ],
    "deepseek": [(name, N(0.006), N(0.006)) for name in (EMBEDDING, HEAD, Q, OUT, GATE, UP, DOWN)],
    "mitchell": [
        (EMBEDDING, T(0.125), T(0.0625)),
        (HEAD, T(0.125), T(0.0625)),
        (Q, T(0.125), T(0.0625)),
        (GATE, T(0.125), T(0.0625)),
        (OUT, T(0.0625), T(0.015625)),  # 1 / sqrt(2 * 64 * 2), 1 / sqrt(2 * 256 * 8)
        (DOWN, T(0.03125), T(0.0078125)),  # the same with inputs of 256 and 1024
    ],
    "deepnet": [
        (Q, N(0.125), N(0.0625)),  # sqrt(2 / (2 * 64)), sqrt(2 / (2 * 256))
        (V, N(0.0625), N(0.02209708691207961)),  # times 16^(-1/4), times 64^(-1/4)
        (OUT, N(0.0625), N(0.02209708691207961)),
        (UP, N(0.039528470752104745), N(0.013975424859373687)),  # sqrt(2 / 320), sqrt(2 / 1280)
        (DOWN, N(0.039528470752104745), N(0.013975424859373687)),
        (EMBEDDING, N(0.125), N(0.0625)),
    ],
    "torch_default": [
        (EMBEDDING, N(1.0), N(1.0)),
        (Q, U(0.125), U(0.0625)),
        (DOWN, U(0.0625), U(0.03125)),
        (HEAD, U(0.125), U(0.0625)),
    ],
    "keras_default": [
        (EMBEDDING, U(0.05), U(0.05)),
        (Q, U(0.21650635094610965), U(0.10825317547305482)),  # sqrt(6 / 128), sqrt(6 / 512)
        (DOWN, U(0.13693063937629152), U(0.06846531968814576)),  # sqrt(6 / 320), sqrt(6 / 1280)
    ],
    "orthogonal": [
        (Q, wf.Orthogonal(1.0, 0), wf.Orthogonal(1.0, 0)),
        (DOWN, wf.Orthogonal(1.0, 0), wf.Orthogonal(1.0, 0)),
        (EMBEDDING, N(0.02), N(0.02)),
    ],
    "selu": [
        (Q, N(0.125), N(0.0625)),
        (DOWN, N(0.0625), N(0.03125)),
        (EMBEDDING, N(1.0), N(1.0)),
    ],
    "dummy": [
        (EMBEDDING, U(1.7320508075688772), U(1.7320508075688772)),
        (Q, U(0.21650635094610965), U(0.10825317547305482)),  # sqrt(3 / 64), sqrt(3 / 256)
        (OUT, U(0.010825317547305483), U(0.002706329386826371)),  # sqrt(3/256)/10, sqrt(3/4096)/10
        (DOWN, U(0.0054126587736527415), U(0.0013531646934131854)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rules", LLAMA)
def test_closed_forms_of_a_decoder(rules):
    found = [made(rules, llama(*size)) for size in SIZES]
    for name, *expected in LLAMA[rules]:
        for (layers, _), schemes, scheme in zip(SIZES, found, expected, strict=True):
            same(schemes[name.format(layers - 1)], scheme)
    for schemes in found:
        assert schemes["model.norm.weight"] == wf.Ones()


@pytest.mark.parametrize(
    ("rules", "hidden", "head"),
    [
        ("mup", (0.01, 0.005), (0.005, 0.00125)),  # 4 and 16 times as wide as the base
        ("completep", (0.01, 0.005), (0.02, 0.02)),
    ],
)
def test_closed_forms_with_a_base_width(rules, hidden, head):
    for (layers, width), inner, outer in zip(SIZES, hidden, head, strict=True):
        schemes = made(rules, llama(layers, width), base_width=16)
        for name in Q, OUT, UP, DOWN:
            same(schemes[name.format(0)], N(inner))
        same(schemes[HEAD], N(outer))
        same(schemes[EMBEDDING], N(0.02))
    at_base = made(rules, llama(2, 64), base_width=64, std=0.5)
    assert set(at_base.values()) == {N(0.5), wf.Ones()}
    with pytest.raises(ValueError, match=f"rules '{rules}' need the setting base_width"):
        made(rules, llama(2, 64))


def test_mup_needs_a_head_of_its_own():
    message = "rules 'mup' need a tensor of its own for the role head, which the plan has not"
    with pytest.raises(ValueError, match=message):
        made("mup", llama(2, 64, head=False), base_width=16)
    embedding, *others = llama(2, 64, head=False)
    tied = TensorSpec(embedding.name, embedding.shape, Unset(), tied=[HEAD])
    with pytest.raises(ValueError, match=message):
        made("mup", [tied, *others], base_width=16)


# beta of the paper: 0.87 (N^4 M)^(-1/16) and (12 M)^(-1/4) for 2 + 2 and for 8 + 8 layers.
DEEPNET = [(0.7005632943979256, 0.45180100180492244), (0.45425909535592496, 0.3194715521231362)]
T_FIXUP = [(0.5634005982199888, 0.48549177170732344), (0.39838438352591155, 0.34329452398451965)]


@pytest.mark.parametrize("at", [0, 1])
def test_closed_forms_of_an_encoder_and_a_decoder(at):
    (layers, width), (encoder, decoder) = SIZES[at], DEEPNET[at]
    found = made("deepnet", bart(layers, width))
    square, wide = [(0.125, 0.07905694150420949), (0.0625, 0.039528470752104745)][at]
    for stack, beta, attentions in (
        ("encoder", encoder, ["self_attn"]),
        ("decoder", decoder, ["self_attn", "encoder_attn"]),
    ):
        block = f"model.{stack}.layers.{layers - 1}."
        for attention in attentions:
            same(found[f"{block}{attention}.q_proj.weight"], N(square))
            same(found[f"{block}{attention}.v_proj.weight"], N(beta * square))
            same(found[f"{block}{attention}.out_proj.weight"], N(beta * square))
            same(found[f"{block}{attention}.v_proj.bias"], wf.Zeros())
        same(found[f"{block}fc1.weight"], N(beta * wide))
        same(found[f"{block}fc2.weight"], N(beta * wide))
    found = made("t_fixup", bart(layers, width))
    # sqrt(6 / (2 width)), sqrt(6 / (5 width)), and queries with a gain of 1 / sqrt(2)
    square, wide, query = [
        (0.21650635094610965, 0.13693063937629152, 0.15309310892394862),
        (0.10825317547305482, 0.06846531968814576, 0.07654655446197431),
    ][at]
    for stack, factor in zip(("encoder", "decoder"), T_FIXUP[at], strict=True):
        block = f"model.{stack}.layers.0."
        same(found[f"{block}self_attn.k_proj.weight"], U(query))
        same(found[f"{block}self_attn.v_proj.weight"], U(factor * square))
        same(found[f"{block}self_attn.out_proj.weight"], U(factor * square))
        same(found[f"{block}fc1.weight"], U(factor * wide))
    same(found["model.decoder.layers.0.encoder_attn.v_proj.weight"], U(T_FIXUP[at][1] * square))
    same(found["model.shared.weight"], N(T_FIXUP[at][1] / math.sqrt(width)))
    same(found["model.encoder.embed_positions.weight"], N(1 / math.sqrt(width)))
    same(found["model.encoder.layers.0.self_attn.v_proj.bias"], U(1 / math.sqrt(width)))
    same(found["model.encoder.layers.0.self_attn.out_proj.bias"], wf.Zeros())


def test_depths_of_an_encoder_and_a_decoder_differ():
    """Two layers and nine: (9 * 2)^(-1/4) is 0.4855, and (9 * 9)^(-1/4) a third; 0.67 / 2^(1/4)."""
    found = made("t_fixup", bart(2, 64, deeper=7, shared=False))
    same(found["model.encoder.embed_tokens.weight"], N(0.48549177170732344 / 8))
    same(found["model.decoder.embed_tokens.weight"], N(1 / 24))
    square = 0.21650635094610965
    same(found["model.encoder.layers.1.self_attn.v_proj.weight"], U(0.5634005982199888 * square))
    same(found["model.decoder.layers.8.self_attn.v_proj.weight"], U(square / 3))
    shared = made("t_fixup", bart(2, 64, deeper=7))["model.shared.weight"]
    same(shared, N(0.48549177170732344 / 8))  # of the encoder
    found = made("deepnet", bart(2, 64, deeper=7))
    beta = 0.6377076059595177  # 0.87 (2^4 * 9)^(-1/16)
    same(found["model.encoder.layers.1.self_attn.v_proj.weight"], N(beta * 0.125))
    beta = 0.31020161970069987  # (12 * 9)^(-1/4)
    same(found["model.decoder.layers.8.encoder_attn.v_proj.weight"], N(beta * 0.125))


def test_t_fixup_is_for_an_encoder_and_a_decoder():
    with pytest.raises(ValueError, match="they are for transformers with an encoder and a decoder"):
        made("t_fixup", llama(2, 64))


def test_closed_forms_of_resnets():
    for blocks, channels, first, stem in [(4, 8, 1 / 12, 1 / 6), (16, 32, 1 / 48, 1 / 12)]:
        found = made("fixup", resnet(blocks, channels, 2))
        same(found["layer1.0.conv1.weight"], N(first))  # sqrt(2 / 72) / 2, sqrt(2 / 288) / 4
        same(found["layer2.1.conv1.weight"], N(first))
        same(found["layer2.0.conv2.weight"], wf.Zeros())
        same(found["conv1.weight"], N(stem))
        assert found["fc.weight"] == found["fc.bias"] == wf.Zeros()
    found = made("fixup", resnet(16, 8, 3))  # 16^(-1/4) is 1/2
    same(found["layer1.0.conv1.weight"], N(0.25))  # sqrt(2 / 8) / 2
    same(found["layer1.0.conv2.weight"], N(1 / 12))  # sqrt(2 / 72) / 2
    same(found["layer1.0.conv3.weight"], wf.Zeros())


@pytest.mark.parametrize(("count", "first"), [(2, 1 / 12), (3, 1 / (6 * 2**0.5))])
def test_closed_forms_of_resnets_by_the_names_of_transformers(count, first):
    """Four blocks: 4^(-1 / 2) with two convolutions a branch, 4^(-1 / 4) with three; sqrt(2/72)."""
    shapes = {"resnet.embedder.embedder.convolution.weight": (8, 3, 3, 3)}
    for stage in range(2):
        for block in range(2):
            for layer in range(count):
                name = f"encoder.stages.{stage}.layers.{block}.layer.{layer}.convolution.weight"
                shapes[f"resnet.{name}"] = (8, 8, 3, 3)
    found = made("fixup", bare(shapes | {"classifier.1.weight": (5, 8)}))
    block = "resnet.encoder.stages.1.layers.0.layer.{}.convolution.weight"
    for layer in range(count - 1):
        same(found[block.format(layer)], N(first))
    same(found[block.format(count - 1)], wf.Zeros())
    same(found["resnet.embedder.embedder.convolution.weight"], N(1 / 6))
    same(found["classifier.1.weight"], wf.Zeros())


def test_closed_forms_of_a_vision_transformer():
    for layers, width in SIZES:
        found = made("vit_timm", vit(layers, width))
        block = f"blocks.{layers - 1}."
        for name in "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2":
            same(found[f"{block}{name}.weight"], T(0.02, 100.0))
            same(found[f"{block}{name}.bias"], wf.Zeros())
        same(found["pos_embed"], T(0.02, 100.0))
        same(found["cls_token"], N(1e-6))
        same(found["patch_embed.proj.weight"], U(0.14433756729740643))  # 1 / sqrt(3 * 16)
        same(found["patch_embed.proj.bias"], U(0.14433756729740643))
        same(found["head.weight"], T(0.02, 100.0))
        same(found[f"{block}norm1.weight"], wf.Ones())


def test_closed_forms_of_mamba():
    for (layers, width), in_proj, out, dt in [
        (SIZES[0], 0.125, 0.0625, 0.5),  # 1/sqrt(64), 1/sqrt(128 * 2), 1/sqrt(4)
        (SIZES[1], 0.0625, 0.015625, 0.25),  # 1/sqrt(256), 1/sqrt(512 * 8), 1/sqrt(16)
    ]:
        tensors = mamba(layers, width)
        found = made("mamba", tensors)
        block = f"backbone.layers.{layers - 1}.mixer."
        same(found[f"{block}in_proj.weight"], U(in_proj))
        same(found[f"{block}out_proj.weight"], U(out))
        same(found[f"{block}dt_proj.weight"], U(dt))
        same(found[f"{block}conv1d.weight"], U(0.5))
        same(found["backbone.embeddings.weight"], N(0.02))
        same(found["lm_head.weight"], U(in_proj))  # 1/sqrt(width)
        assert found[f"{block}D"] == wf.Ones()
        a_log = found[f"{block}A_log"]((2 * width, 16), seed=0, name="A_log")
        assert np.array_equal(a_log[5], np.log(np.arange(1, 17.0)).astype("float32"))
        bias = found[f"{block}dt_proj.bias"](2 * width, seed=0, name="bias")
        u = wf.RandomUniform(0.0, 1.0)(2 * width, seed=0, name="bias").astype("float64")
        step = np.exp(u * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        assert np.allclose(np.log1p(np.exp(bias.astype("float64"))), step, rtol=1e-5)
        steps = made("mamba", tensors, dt_min=0.01, dt_max=0.02)[f"{block}dt_proj.bias"]
        near = np.log1p(np.exp(steps(2 * width, seed=0).astype("float64")))
        assert near.min() >= 0.01 * (1 - 1e-5) and near.max() <= 0.02 * (1 + 1e-5)


def test_mamba2_has_one_a_a_head():
    tensors = bare(
        {"backbone.layers.0.mixer.A_log": (24,), "backbone.layers.0.mixer.dt_bias": (24,)}
    )
    found = made("mamba", tensors)
    a = np.exp(found["backbone.layers.0.mixer.A_log"](24, seed=0, name="a").astype("float64"))
    assert np.allclose(a, wf.RandomUniform(1.0, 16.0)(24, seed=0, name="a"), rtol=1e-6)


def test_biases_of_torch_have_the_fan_of_their_weight():
    for layers, width in SIZES:
        found = made("torch_default", gpt2(layers, width))
        same(found["h.1.mlp.c_proj.bias"], U(1 / math.sqrt(4 * width)))
        same(found["h.1.attn.c_attn.bias"], U(1 / math.sqrt(width)))
        same(found["h.1.ln_1.bias"], wf.Zeros())
    alone = made("torch_default", bare({"0.weight": (4, 16), "0.bias": (4,)}))
    assert alone == {"0.weight": U(0.25), "0.bias": U(0.25)}


def test_closed_forms_of_gpt2s_layout():
    for (layers, width), out in zip(SIZES, (0.01, 0.005), strict=True):
        found = made("gpt2", gpt2(layers, width))
        same(found["h.0.attn.c_attn.weight"], N(0.02))
        same(found["h.0.mlp.c_proj.weight"], N(out))
        same(found["wpe.weight"], N(0.02))
        same(found["h.0.attn.c_attn.bias"], wf.Zeros())


# ---------------------------------------------------------------------------------- fused tensors


def test_a_fused_tensor_has_the_schemes_of_its_parts():
    scheme = made("deepnet", gpt2(2, 64))["h.1.attn.c_attn.weight"]
    assert [(part.starts, part.stops) for part in scheme.parts] == [
        ((0, 0), (64, 64)), ((0, 64), (64, 128)), ((0, 128), (64, 192)),
    ]  # fmt: skip
    for part, stddev in zip(scheme.parts, (0.125, 0.125, 0.0625), strict=True):
        same(part.initializer, N(stddev))
    scheme = made("orthogonal", gpt2(2, 64))["h.1.attn.c_attn.weight"]
    w = scheme((64, 192), seed=0, name="w")
    for part in np.split(w, 3, axis=1):
        assert np.allclose(part @ part.T, np.eye(64), atol=1e-5)


def test_heads_of_neox_alternate():
    names = {"gpt_neox.layers.0.attention.query_key_value.weight": (48, 16)}
    names |= {"gpt_neox.layers.0.attention.query_key_value.bias": (48,)}
    (name, bias) = names
    scheme = made("deepnet", bare(names), {"num_attention_heads": 2})[name]
    assert [(part.starts[0], part.stops[0]) for part in scheme.parts] == [
        (0, 8), (8, 16), (16, 24), (24, 32), (32, 40), (40, 48),
    ]  # fmt: skip
    deviations = [part.initializer.stddev for part in scheme.parts]
    assert deviations == pytest.approx([0.25, 0.25, 0.25 * 8**-0.25] * 2)
    alike = made("megatron", bare(names))
    assert alike == {name: N(0.02), bias: wf.Zeros()}
    with pytest.raises(ValueError, match=r"no rule for 1 of 2 tensors of the plan: gpt_neox"):
        made("deepnet", bare(names))


def test_shares_of_grouped_queries():
    name = "model.layers.0.self_attn.qkv_proj.weight"
    numbers = {"num_attention_heads": 4, "num_key_value_heads": 2}
    scheme = made("deepnet", bare({name: (64, 32)}), numbers)[name]
    assert [part.stops[0] for part in scheme.parts] == [32, 48, 64]
    assert scheme.parts[1].initializer.stddev == pytest.approx(math.sqrt(2 / (32 + 16)))
    numbers["num_attention_heads"] = 5
    with pytest.raises(
        ValueError, match=re.escape("cannot be divided into 1 x 9 sections along axis 0")
    ):
        made("deepnet", bare({name: (64, 32)}), numbers)


def test_layers_of_another_layout_are_refused():
    """nanoGPT has the names of GPT-2, but its layers are (out, in)."""
    for name, shape in ("attn.c_attn", (192, 64)), ("mlp.c_fc", (256, 64)):
        with pytest.raises(ValueError, match=r"name of a layer whose weight is \(in, out\)"):
            made("torch_default", bare({f"transformer.h.0.{name}.weight": shape}))
    neo = {"wte.weight": (512, 64), "h.0.mlp.c_fc.weight": (256, 64), "ln_f.weight": (64,)}
    neo |= {f"h.0.attn.attention.{name}_proj.weight": (64, 64) for name in ("q", "k", "v", "out")}
    same(made("torch_default", bare(neo))["h.0.mlp.c_fc.weight"], U(0.125))


def test_a_model_of_several_families():
    shapes = {f"vision.layers.0.self_attn.{name}_proj.weight": (8, 8) for name in ("q", "k", "out")}
    shapes |= {"vision.layers.0.mlp.fc1.weight": (32, 8), "vision.layers.0.mlp.fc2.weight": (8, 32)}
    shapes |= {"text.layers.0.mlp.down_proj.weight": (8, 32)}
    assert made("megatron", bare(shapes))["text.layers.0.mlp.down_proj.weight"].stddev < 0.02


def test_experts_are_matrices_of_their_own():
    down, router = "model.layers.0.mlp.experts.down_proj", "model.layers.0.mlp.gate.weight"
    found = made("orthogonal", bare({down: (4, 8, 32), router: (4, 8)}))
    assert found[down] == wf.Orthogonal(1.0, 1, (0,))
    for expert in found[down]((4, 8, 32), seed=0, name=down):
        assert np.allclose(expert @ expert.T, np.eye(8), atol=1e-5)
    same(made("mitchell", bare({down: (4, 8, 32), "model.norm.weight": (8,)}))[down], T(0.125))


def test_streams_of_experts_remain():
    name = "model.layers.0.mlp.experts.down_proj"
    parts = [
        ((expert, 0, 0), (expert + 1, 8, 32), N(0.02), f"experts.{expert}.down_proj.weight")
        for expert in range(4)
    ]
    fused = wf.Plan([TensorSpec(name, (4, 8, 32), wf.Parts(parts))]).with_rules("deepseek")
    w = fused[name].array(seed=0)
    own = N(0.006)((8, 32), seed=0, name="experts.2.down_proj.weight")
    assert np.array_equal(w[2], own)


# ----------------------------------------------------------------------------------- other families


def test_depth_of_layers_that_are_used_several_times():
    """ALBERT has one layer, used 18 times; the position of a layer is not known."""
    names = {f"albert.encoder.albert_layer_groups.0.albert_layers.0.{name}.weight": shape
             for name, shape in [("attention.dense", (8, 8)), ("ffn", (32, 8)),
                                 ("ffn_output", (8, 32))]}  # fmt: skip
    out = "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight"
    same(made("gpt2", bare(names), {"num_hidden_layers": 18})[out], N(0.02 / 6))
    with pytest.raises(ValueError, match="got 'layers'"):
        made("gpt2", bare(names))
    with pytest.raises(ValueError, match="got 'layer'"):
        made("mitchell", bare(names), {"num_hidden_layers": 18, "width": 8})


def test_a_model_of_several_stages_has_no_width():
    block = "encoder.layers.{}.blocks.0.attention.q_proj.weight"
    shapes = {block.format(stage): (8 * 2**stage,) * 2 for stage in range(3)}
    shapes |= {f"encoder.layers.2.blocks.{n}.layernorm_before.weight": (32,) for n in range(9)}
    with pytest.raises(ValueError, match="got 'width'"):
        made("small_init", bare(shapes))
    found = made("gpt2", bare(shapes | {"encoder.layers.1.blocks.0.mlp.fc2.weight": (16, 64)}))
    assert found["encoder.layers.1.blocks.0.mlp.fc2.weight"].stddev < 0.02


def test_parts_of_a_gated_delta_net():
    """Two heads of keys, each with a query and key of 4 and values and gates of 2 times 3."""
    block = "model.layers.0.linear_attn."
    shapes = {f"{block}in_proj_qkvz.weight": (40, 16), f"{block}in_proj_ba.weight": (8, 16)}
    tensors = [*bare(shapes), TensorSpec(f"{block}A_log", (4,), N(1.0))]
    numbers = {"linear_num_key_heads": 2, "linear_num_value_heads": 4,
               "linear_key_head_dim": 4, "linear_value_head_dim": 3}  # fmt: skip
    found = made("keras_default", tensors, numbers)
    fused = found[f"{block}in_proj_qkvz.weight"].parts
    assert [(part.starts[0], part.stops[0]) for part in fused] == [
        (0, 4), (4, 8), (8, 14), (14, 20), (20, 24), (24, 28), (28, 34), (34, 40),
    ]  # fmt: skip
    limits = [(6 / (16 + 8)) ** 0.5] * 2 + [(6 / (16 + 12)) ** 0.5] * 2
    assert [part.initializer.maxval for part in fused] == pytest.approx(limits * 2)
    assert found[f"{block}A_log"] == N(1.0)  # its own
    with pytest.raises(ValueError, match=r"1 of 3 tensors .*A_log \(ssm\.A\.heads\)"):
        made("keras_default", bare(shapes | {f"{block}A_log": (4,)}), numbers)


def test_matrices_of_three_axes():
    """XLNet's queries are (width, head, size of a head): 64 inputs, 48 outputs."""
    q, o = (f"transformer.layer.0.rel_attn.{name}" for name in "qo")
    shapes = {q: (64, 4, 12), o: (64, 4, 12), "transformer.layer.0.rel_attn.r_w_bias": (4, 12)}
    tensors = [TensorSpec(name, shape, N(3.0)) for name, shape in shapes.items()]
    found = made("torch_default", tensors)
    same(found[q], U(0.125))
    same(found[o], U(48**-0.5))
    assert found["transformer.layer.0.rel_attn.r_w_bias"] == N(3.0)
    same(made("keras_default", tensors)[o], U((6 / 112) ** 0.5))
    w = made("orthogonal", tensors)[q]((64, 4, 12), seed=0, name=q).reshape(64, 48)
    assert np.allclose(w.T @ w, np.eye(48), atol=1e-5)


def test_own_schemes():
    rule = Rule(None, "own", {}, roles=["attention.q"])
    q, k = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
    rules = Rules("mine", "", (), (rule, Rule("*k_proj.weight", "own", {}), Rule("*", "ones", {})))
    plan = wf.Plan(TensorSpec(name, (8, 8), N(3.0)) for name in (q, k, "other")).with_rules(rules)
    assert [t.initializer for t in plan] == [N(3.0), N(3.0), wf.Ones()]
    with pytest.raises(ValueError, match="no rule for 2 of 3 tensors"):
        wf.Plan(bare(dict.fromkeys((q, k, "other"), (8, 8)))).with_rules(rules)
    with pytest.raises(ValueError, match="'own' has no parameters, got"):
        Rule("*", "own", {"stddev": 1.0})
    fused = [TensorSpec("h.0.attn.c_attn.weight", (8, 24), N(3.0))]
    rules = Rules("mine", "", (), (rule, Rule(None, "ones", {}, roles=["attention.*"])))
    with pytest.raises(ValueError, match="rules 'mine' keep a section of tensor 'h.0.attn.c_at"):
        wf.Plan(fused).with_rules(rules)


# ------------------------------------------------------------------------- what plans already say


def test_the_norms_of_a_plan_keep_their_known_values():
    tensors = [
        TensorSpec("model.layers.0.input_layernorm.weight", (8,), wf.Zeros()),  # it adds 1
        TensorSpec("model.layers.0.mlp.up_proj.weight", (32, 8), N(0.5)),
        TensorSpec("model.rotary_emb.inv_freq", (4,), wf.Constant(3), kind="non-persistent buffer"),
    ]
    plan = wf.Plan(tensors).with_rules("gpt2")
    assert [tensor.initializer for tensor in plan] == [wf.Zeros(), N(0.02), wf.Constant(3)]


def test_a_padding_row_remains():
    parts = [((0, 0), (9, 4), N(1.0)), ((2, 0), (3, 4), wf.Zeros())]
    plan = wf.Plan([TensorSpec("wte.weight", (9, 4), wf.Parts(parts))]).with_rules("gpt2")
    w = plan["wte.weight"].array(seed=0)
    assert not w[2].any()
    assert np.array_equal(w[3:], N(0.02)((9, 4), seed=0, name="wte.weight")[3:])


def test_a_tied_head_is_the_embedding():
    tensor = TensorSpec("lm_head.weight", (512, 64), N(1.0), tied=["model.embed_tokens.weight"])
    assert wf.Plan([tensor]).with_rules("torchtitan_llama")[0].initializer == N(1.0)


def test_a_part_of_a_model_needs_its_numbers():
    plan = wf.Plan(tensor for tensor in llama(8, 64) if ".layers.3." in tensor.name)
    name = DOWN.format(3)
    assert plan.with_rules("gpt2")[name].initializer == N(0.02 / math.sqrt(8))
    assert plan.with_rules("gpt2", numbers={"layers": 8})[name].initializer == N(0.005)
    assert plan.with_rules("torchtitan_llama")[name].initializer.stddev == 0.02 / math.sqrt(8)


def test_rules_by_name_are_refused_by_name():
    plan = wf.Plan(llama(2, 64))
    with pytest.raises(ValueError, match="'gtp2'; did you mean 'gpt2'"):
        plan.with_rules("gtp2")
    with pytest.raises(ValueError, match="axes is for a mapping, got 'torch' for rules 'gpt2'"):
        plan.with_rules("gpt2", axes="torch")
    with pytest.raises(ValueError, match="numbers is for rules of a whole model, got"):
        plan.with_rules({"*": "zeros"}, numbers={"layers": 3})
    with pytest.raises(TypeError, match="rules must be a mapping of patterns to rules, got 3"):
        plan.with_rules(3)


# -------------------------------------------------------------------------------------- refusals


def test_a_tensor_without_a_rule_is_named_with_its_role():
    tensors = [*llama(8, 64), *bare({"model.other.weight": (4, 64), "model.mystery": (3, 3)})]
    with pytest.raises(ValueError) as error:
        made("olmo_ngpt", tensors)
    message = str(error.value)
    assert message.startswith("rules 'olmo_ngpt' have no rule for 2 of 77 tensors of the plan: ")
    assert "model.other.weight (linear), model.mystery (no known role)" in message
    assert message.endswith("; they are for dense Llama and OLMo")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sdt": 1.0}, "settings of rules 'megatron' must be one of std, got 'sdt'"),
        ({"std": "1"}, "setting std must be a real number, got '1'"),
        ({"std": math.inf}, "setting std must be finite, got inf"),
        ({"std": -1.0}, "stddev must be >= 0, got -1.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        made("megatron", llama(2, 64), **settings)


def test_rules_without_settings():
    with pytest.raises(ValueError, match="rules 'torchtitan_llama' have no settings, got 'std'"):
        Rules.load("torchtitan_llama", std=1.0)


OWN = """
extends = "megatron"

[settings]
mine = 0.5

[[rules]]
roles = ["attention.q"]
initializer = "random_normal"
parameters = { stddev = "mine * std" }

[[rules]]
tensors = "model.layers.{i}.self_attn.k_proj.weight"
initializer = "constant"
parameters = { value = "i" }
"""


def test_own_rules_extend_others(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    rules = Rules.read(file)
    assert rules.settings == {"std": 0.02, "mine": 0.5}
    schemes = {t.name: t.initializer for t in wf.Plan(llama(2, 64)).with_rules(rules)}
    assert schemes[Q.format(1)] == N(0.01)
    assert schemes[K.format(1)] == wf.Constant(1)
    assert schemes[V.format(1)] == N(0.02)
    with pytest.raises(ValueError, match="a rule matches no tensor of the plan"):
        rules.applied(gpt2(2, 64))


def test_own_rules_without_effect_are_refused(tmp_path):
    file = tmp_path / "own.toml"
    for roles in "router", "attention.q":  # no such tensor, or an earlier rule applies to all
        text = OWN + f'\n[[rules]]\nroles = "{roles}"\ninitializer = "ones"\n'
        file.write_text(text)
        message = f"rule {roles} of 'own.toml' applies to no tensor of the plan; with optional"
        with pytest.raises(ValueError, match=message):
            wf.Plan(llama(2, 64)).with_rules(Rules.read(file))
        file.write_text(text + "optional = true\n")
        assert wf.Plan(llama(2, 64)).with_rules(Rules.read(file))[Q.format(1)].initializer == N(
            0.01
        )


def test_numbers_of_single_tensors_are_refused():
    with pytest.raises(ValueError, match="numbers must be those of the whole model, got 'layer'"):
        wf.Plan(llama(2, 64)).with_rules("gpt2", numbers={"layer": 8})
    with pytest.raises(TypeError, match="rules must be a mapping of patterns to rules, got"):
        wf.Plan(llama(2, 64)).with_rules(Rules)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '["attention.q"]',
            '["attention.qq"]',
            r"rule 1: roles must be one of .*mean 'attention.q'",
        ),
        ('["attention.q"]', "3", "rule 1: roles must be a list of str, got 3"),
        ('["attention.q"]', "[]", "rule 1: a rule must have either a pattern of names or roles"),
        ("tensors", 'roles = "norm"\ntensors', "rule 2 has both 'tensors' and 'roles'"),
        ("tensors", 'stack = "encoder"\ntensors', "rule 2: stack is for rules of roles"),
        ("roles", 'stack = "middle"\nroles', "rule 1: stack must be one of encoder, decoder, only"),
        ("roles", "keep = 3\nroles", "rule 1: keep must be a bool, got 3"),
        ("roles", "optional = 3\nroles", "rule 1: optional must be a bool, got 3"),
        ('"random_normal"', '"random_norml"', "rule 1: .*did you mean 'random_normal'"),
        ('"random_normal"', '"my_own"', "rule 1: .*'my_own'.*known once its module is imported"),
        ("stddev", "stdev", "rule 1: parameters of random_normal must be one of mean, stddev"),
        ('"megatron"', '"megatrom"', "extends must be one of .*did you mean 'megatron'"),
        ('"megatron"', "3", "extends must be a str, got 3"),
        ("[settings]", 'requires = ["haed"]\n[settings]', "requires must be one of .*mean 'head'"),
        ("mine = 0.5", 'mine = "a"', "setting mine must be a real number, got 'a'"),
        ("mine = 0.5", "mine = 0.5\nother = 3", "setting other is in no formula of the rules"),
        (
            "[settings]",
            'needs = ["othr"]\n[settings]',
            "setting othr is in no formula of the rules",
        ),
        ("[settings]\nmine = 0.5", "settings = 3", "settings must be a table of numbers, got 3"),
    ],
)
def test_malformed_rules_say_where(tmp_path, old, new, message):
    file = tmp_path / "own.toml"
    assert old in OWN
    file.write_text(OWN.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        Rules.read(file)
    assert str(error.value).startswith(f"{file} cannot be read: ")


def test_a_rule_has_a_pattern_or_roles():
    with pytest.raises(ValueError, match="a rule must have either a pattern of names or roles"):
        Rule("*", "zeros", {}, roles=["norm"])
    assert Rule(None, "zeros", {}, roles="attention.*").match("attention.q") == {}
    assert Rule(None, "zeros", {}, roles="attention.*").match("attention.q.bias") is None
    assert Rule(None, "zeros", {}, roles="*.bias").match("attention.q.bias") == {}


# ------------------------------------------------------------------------------------ the catalogue


@pytest.mark.parametrize("name", rule_names())
def test_all_rules_say_what_they_are_for_and_where_they_come_from(name):
    rules = Rules.load(name)
    assert rules.title and rules.references and rules.rules
    assert Rules.load(name.replace("_", "-")) == rules
    for rule in rules.rules:
        rule.check()


@pytest.mark.parametrize("model", model_names())
def test_every_tensor_of_the_built_in_models_has_a_role(model):
    architecture = Architecture.load(model)
    tensors = bare(architecture.shapes)
    found = assign(tensors, architecture.numbers)
    assert all(found.values())
    roles = {section.role for one in found.values() for section in one.sections}
    assert not {"linear", "conv", "bias"} & roles
    assert {role.removesuffix(".bias") for role in roles} <= {*known_roles()}


def test_names_that_several_models_have_need_more_to_tell_them():
    """ResNets call their head fc, but so do others their layers."""
    alone = assign(bare({"fc.weight": (8, 4)}), {})["fc.weight"]
    assert [section.role for section in alone.sections] == ["linear"]
    block = {f"layer1.0.conv{n}.weight": (4, 4, 3, 3) for n in (1, 2)}
    found = assign(bare({**block, "fc.weight": (8, 4)}), {})["fc.weight"]
    assert [section.role for section in found.sections] == ["head"]


def test_naming_schemes_are_read():
    assert len(namings()) >= 14
    for naming in namings().values():
        assert naming.title
