"""Unusual modules, wrappers and optimizers: each works, or is refused by name."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import winit_fast as wf
import winit_fast.torch
from winit_fast.diagnosis import compare, propagate
from winit_fast.dynamic import (
    DynamicInit,
    ScaleSchedule,
    deepen_,
    lsuv_,
    rescale_,
    shrink_and_perturb_,
    widen_,
)

pytestmark = pytest.mark.usefixtures("one_thread")

RULES = {"*.weight": "he_normal", "*.bias": "zeros"}


def draw(*shape, seed=0, name="batch"):
    return winit_fast.torch.normal_(torch.empty(shape), seed=seed, name=name)


def chain(depth, width, activation=nn.ReLU):
    parts = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(*parts)


def with_dead_unit(unit=3):
    """The first layer has a unit that is never active."""
    net = winit_fast.torch.init_(chain(2, 8), RULES, seed=0)
    with torch.no_grad():
        net[0].bias[unit] = -100.0
    return net


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, before):
    return all((value == before[name]).all() for name, value in module.state_dict().items())


# ------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("parametrise", [parametrizations.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_computed(parametrise):
    """By torch.nn.utils.parametrize, and by a hook as before it."""
    net = chain(3, 8)
    parametrise(net[2])
    before, batch = state(net), draw(16, 8)
    assert (
        "not watched: 2: its weight is computed" in DynamicInit(chain_with(net), seed=0).describe()
    )
    with pytest.raises(ValueError, match="layer '2' cannot be widened: its weight is computed"):
        widen_(net, "2", 16)
    for adjust in (lsuv_, rescale_):
        with pytest.raises(TypeError, match="the weight of layer '2' must be a parameter, but it"):
            adjust(net, batch)
    assert same(net, before)
    row = propagate(net, batch)["2"]
    assert row.weight == pytest.approx(float(net[2].weight.detach().square().mean().sqrt()))


def chain_with(net):
    """Two more layers, of which the first can be watched."""
    return nn.Sequential(*net, *chain(2, 8))


def test_schemes_are_compared_for_parametrised_layers():
    net = chain(3, 8)
    parametrizations.weight_norm(net[2])
    found = compare({"zeros": "he_normal", "small": wf.RandomNormal(0, 0.01)}, net, draw(16, 8))
    assert found["small"]["2"].weight < 0.02


def test_parameters_that_other_layers_have_too():
    net = chain(5, 8)
    net[4].weight = net[2].weight
    watch = DynamicInit(net, seed=0)
    assert list(watch._units) == ["6"]
    with pytest.raises(ValueError, match="units of layer '2' .*: '2.weight' is also '4.weight'"):
        DynamicInit(net, seed=0, layers=["2"])
    with pytest.raises(ValueError, match="cannot be widened: '2.weight' is also '4.weight'"):
        widen_(net, "2", 16)


def test_frozen_layers_are_only_watched():
    net = chain(3, 8)
    net[2].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="no layer .*'0': '2.weight' is frozen; '2': '2.weight'"):
        DynamicInit(net, seed=0)
    assert list(DynamicInit(net, seed=0, reset=False)._units) == ["0", "2"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    net, batch = with_dead_unit().to(dtype), draw(64, 8).to(dtype)
    watch = DynamicInit(net, seed=3, every=1, rules=RULES)
    net(batch)
    (reset,) = watch.step()
    kind = {torch.float64: "float64", torch.float16: "float16"}.get(dtype, "bfloat16")
    fresh = wf.HeNormal(in_axis=1, out_axis=0)(
        (8, 8), seed=3, name="0.weight\0generation 1", dtype=kind
    )
    expected = torch.from_numpy(fresh.astype("float64")[3]).to(dtype)
    assert 3 in reset.units and (net[0].weight[3] == expected).all()
    found = lsuv_(chain(4, 32).to(dtype), draw(64, 32).to(dtype))
    assert all(0.9 <= layer.after <= 1.1 for layer in found.layers)
    shrink_and_perturb_(net, seed=0)
    assert all(row.gradient > 0 for row in propagate(net, batch).layers)


def test_queries_keys_and_values_are_drawn_apart():
    net = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True))
    lsuv_(net, draw(4, 5, 16), seed=7)
    fused = net[0].self_attn.in_proj_weight.detach()
    for low in (0, 16, 32):
        alone = winit_fast.torch.orthogonal_(
            torch.empty(16, 16), seed=7,
            name=f"0.self_attn.in_proj_weight\0[{low}:{low + 16},0:16]",
        )  # fmt: skip
        assert (fused[low : low + 16] == alone).all()


def test_many_ranges_of_a_whole_layer():
    """Units that are drawn range by range, and whose columns are set by a mask or by index."""
    for units in ([5], [0, 1, 2, 9, 40, 63], list(range(0, 64, 2)), list(range(64))):
        net = winit_fast.torch.init_(chain(2, 64), RULES, seed=0)
        with torch.no_grad():
            net[0].weight.abs_()
            net[0].bias[units] = -1000.0
        before = state(net)
        watch = DynamicInit(net, seed=3, every=1, tau=0.0, layers=["0"], rules=RULES)
        net(draw(8, 64).abs())
        (reset,) = watch.step()
        assert list(reset.units) == units
        fresh = wf.HeNormal(in_axis=1, out_axis=0)((64, 64), seed=3, name="0.weight\0generation 1")
        before["0.weight"][units] = torch.from_numpy(fresh)[units]
        before["0.bias"][units] = 0.0
        before["2.weight"][:, units] = 0.0
        assert same(net, before)


def convolutions():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    winit_fast.torch.init_(net, RULES, seed=0)
    with torch.no_grad():
        net[0].bias[5] = -100.0
    return net


def test_channels_last_and_inputs_without_a_batch():
    nets = [convolutions(), convolutions().to(memory_format=torch.channels_last), convolutions()]
    batches = [draw(2, 3, 8, 8), draw(2, 3, 8, 8).to(memory_format=torch.channels_last)]
    batches.append(draw(2, 3, 8, 8)[0])
    for net, batch in zip(nets, batches, strict=True):
        watch = DynamicInit(net, seed=1, every=1, rules=RULES)
        net(batch)
        (reset,) = watch.step()
        assert reset.units == (5,)
        watch.close()
    assert same(nets[1], state(nets[0])) and same(nets[2], state(nets[0]))
    expected = nets[1](batches[1])
    widen_(nets[1], "0", 12)
    torch.testing.assert_close(nets[1](batches[1]), expected, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------- wrappers


@pytest.mark.parametrize("wrapped", [True, False])
def test_compiled_modules(wrapped):
    net = with_dead_unit()
    compiled = torch.compile(net, backend="eager")
    watch = DynamicInit(compiled if wrapped else net, seed=3, every=2, rules=RULES)
    for _ in range(2):
        compiled(draw(16, 8)).sum().backward()
        done = watch.step()
    assert 3 in done[0].units and watch.seen["0"].gradient > 0
    assert all(0.9 <= one.after <= 1.1 for one in lsuv_(compiled, draw(64, 8)).layers)


def test_a_module_that_has_run_compiled_before():
    """torch does not look for new hooks then; nothing must pass without effect."""
    net = with_dead_unit()
    compiled = torch.compile(net, backend="eager")
    compiled(draw(16, 8))
    watch = DynamicInit(compiled, seed=3, every=1, rules=RULES)
    compiled(draw(16, 8))
    try:
        (reset,) = watch.step()
    except RuntimeError as error:
        assert "compiled earlier must be compiled again" in str(error)
    else:
        assert 3 in reset.units


def test_copies_of_a_module_do_not_count():
    net = with_dead_unit()
    watch = DynamicInit(net, seed=3, every=1, rules=RULES)
    target = copy.deepcopy(net)
    target(draw(16, 8))
    with pytest.raises(RuntimeError, match=r"step\(\) must come after a forward pass"):
        watch.step()
    net(draw(16, 8))
    before = watch._activity._sums["0"].moments.clone()
    target(draw(16, 8))
    assert (watch._activity._sums["0"].moments == before).all()


def test_hooks_of_the_module():
    net, batch = chain(3, 16), draw(64, 16)
    net[2].register_forward_hook(lambda module, inputs, output: 5 * output)
    found = lsuv_(net, batch)
    assert all(0.9 <= layer.after <= 1.1 for layer in found.layers)
    assert propagate(net, batch)["2"].deviation == pytest.approx(found["2"].after, rel=1e-4)
    assert len(net[2]._forward_hooks) == 1


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Returning(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.body, self.wrap = chain(2, 8), wrap

    def forward(self, x):
        return self.wrap(self.body(x))


@pytest.mark.parametrize("wrap", [Output, lambda x: {"y": x}, lambda x: [x, (x, 3)]])
def test_what_modules_return(wrap):
    net = Returning(wrap)
    assert all(row.gradient > 0 for row in propagate(net, draw(4, 8)).layers)
    rescale_(net, draw(64, 8), "gradient")


# ------------------------------------------------------------------------------ optimizers


class Lion(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 1e-3})


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, 1e-3, foreach=True),
    "NAdam": lambda p: torch.optim.NAdam(p, 1e-3),
    "RAdam": lambda p: torch.optim.RAdam(p, 1e-3),
    "Adamax": lambda p: torch.optim.Adamax(p, 1e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 1e-3, initial_accumulator_value=0.5),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_optimizers(name):
    net = with_dead_unit()
    optimizer = OPTIMIZERS[name](net.parameters())
    watch = DynamicInit(net, optimizer, seed=3, every=2, rules=RULES)
    start = 0.5 if name == "Adagrad" else 0.0

    def step():
        optimizer.zero_grad()
        net(draw(16, 8)).square().sum().backward()
        optimizer.step()
        return watch.step()

    step()
    (reset,) = step()
    units = list(reset.units)
    others = [unit for unit in range(8) if unit not in units]
    for parameter, axis in ((net[0].weight, 0), (net[0].bias, 0), (net[2].weight, 1)):
        held = [one for one in optimizer.state[parameter].values()
                if isinstance(one, torch.Tensor) and one.shape == parameter.shape]  # fmt: skip
        assert held
        for one in held:
            assert (one.index_select(axis, torch.tensor(units)) == start).all()
            assert (one.index_select(axis, torch.tensor(others)) != start).any()
    step()
    assert all(bool(torch.isfinite(one).all()) for one in net.parameters())


def test_refused_optimizers():
    net = chain(2, 8)
    with pytest.raises(TypeError, match=r"optimizer must be one of SGD, .* got .*\.Lion"):
        DynamicInit(net, Lion(net.parameters()), seed=0)
    with pytest.raises(ValueError, match="optimizer must have the parameters .* not '0.weight'"):
        DynamicInit(net, torch.optim.SGD(chain(2, 8).parameters(), 0.1), seed=0)
    optimizer = torch.optim.SGD([net[0].weight, net[0].bias], 0.1)
    with pytest.raises(ValueError, match="optimizer must have the parameters .* not '2.weight'"):
        DynamicInit(net, optimizer, seed=0)


# ----------------------------------------------------------------------------- controllers


def test_steps_that_would_have_no_effect():
    net = with_dead_unit()
    watch = DynamicInit(net, seed=3, every=1)
    with pytest.raises(RuntimeError, match=r"step\(\) must come after a forward pass"):
        watch.step()
    before = state(net)
    net(torch.full((4, 8), math.nan))
    with pytest.raises(ValueError, match="units of layer '0' yield numbers that are not finite"):
        watch.step()
    assert same(net, before)
    watch.close()
    with pytest.raises(RuntimeError, match=r"step\(\) must come before close\(\)"):
        watch.step()
    schedule = ScaleSchedule(net, {"0.weight": 0.5}, 3)
    schedule.close()
    with pytest.raises(RuntimeError, match=r"step\(\) must come before close\(\)"):
        schedule.step()


def test_two_controllers_of_one_module():
    net, alone = with_dead_unit(), with_dead_unit()
    first = DynamicInit(net, seed=3, every=1, rules=RULES)
    second = DynamicInit(net, seed=4, every=1, rules=RULES)
    only = DynamicInit(alone, seed=4, every=1, rules=RULES)
    for one in (net, alone):
        one(draw(16, 8))
    assert first.step()[0].units == second.step()[0].units == only.step()[0].units
    assert same(net, state(alone))  # the later one's numbers


def test_states_of_other_models():
    saved = DynamicInit(chain(2, 8), seed=0).state_dict()
    other = DynamicInit(chain(2, 16), seed=5)
    with pytest.raises(ValueError, match="state must be for the 16 units of layer '0', got .* 8"):
        other.load_state_dict(saved)
    assert other.state_dict()["seed"] == 5
    net = chain(2, 8)
    saved = ScaleSchedule(net, {"0.weight": 0.5}, 3).state_dict()
    with pytest.raises(ValueError, match=r"state must be that of .*'steps': 4.*got .*'steps': 3"):
        ScaleSchedule(net, {"0.weight": 0.5}, 4).load_state_dict(saved)


def test_a_schedule_scales_parameters_that_have_been_replaced():
    net = chain(1, 4)
    schedule = ScaleSchedule(net, {"0.weight": 0.5}, 2)
    net[0].weight = nn.Parameter(torch.full((4, 4), 0.5))
    schedule.step()
    schedule.step()
    torch.testing.assert_close(net[0].weight.detach(), torch.ones(4, 4))


# --------------------------------------------------------------------------------- growth


class PreNorm(nn.Module):
    """A residual block with normalised inputs."""

    def __init__(self, width=16):
        super().__init__()
        self.norm, self.fc1, self.fc2 = (
            nn.LayerNorm(width),
            nn.Linear(width, 32),
            nn.Linear(32, width),
        )

    def forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class Stack(nn.Module):
    def __init__(self, block=PreNorm):
        super().__init__()
        self.blocks = nn.ModuleList(block() for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_a_deeper_stack_of_blocks_computes_the_same():
    net, batch = Stack(), draw(4, 5, 16)
    expected = net(batch)
    deepen_(net, "blocks.1", batch=batch)
    assert len(net.blocks) == 4 and not net.blocks[2].fc2.weight.any()
    assert (net.blocks[2].fc1.weight == net.blocks[1].fc1.weight).all()
    torch.testing.assert_close(net(batch), expected)
    net(batch).sum().backward()
    assert net.blocks[2].fc2.weight.grad.any()  # it learns
    deepen_(net, "blocks.0", batch=batch, noise=0.01, seed=1)
    assert 0.008 < float(net.blocks[1].fc2.weight.detach().std()) < 0.012
    sequence = nn.Sequential(PreNorm(), PreNorm(), nn.Linear(16, 4))
    expected = sequence(batch)
    deepen_(sequence, "1", batch=batch, outputs=["fc2"])
    assert len(sequence) == 4
    torch.testing.assert_close(sequence(batch), expected)


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_transformer(norm_first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    net, batch = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), draw(2, 5, 16)
    with torch.no_grad():
        net.layers[0].norm2.bias[3] = 1.5  # so that a second normalisation is no identity
    expected = net(batch)
    if norm_first:
        deepen_(net, "layers.0", batch=batch)
        assert len(net.layers) == 3
    else:
        with pytest.raises(
            ValueError, match="block 'layers.0' cannot be followed by a copy: with "
        ):
            deepen_(net, "layers.0", batch=batch)
        assert len(net.layers) == 2
    torch.testing.assert_close(net(batch), expected)


@pytest.mark.parametrize("family", ["GPT2", "Llama", "Qwen3", "GPTNeoX"])
def test_models_of_transformers_get_deeper(family):
    transformers = pytest.importorskip("transformers")
    small = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32,
             "intermediate_size": 48, "vocab_size": 50, "max_position_embeddings": 32}  # fmt: skip
    if family in ("Llama", "Qwen3"):
        small |= {"num_key_value_heads": 2, "head_dim": 8}
    config = getattr(transformers, f"{family}Config")(**small)
    if family == "GPT2":
        config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=50)
    auto = transformers.AutoModelForCausalLM.from_config(config).eval()
    winit_fast.torch.init_(auto, seed=0)
    name = {"GPT2": "transformer.h.0", "GPTNeoX": "gpt_neox.layers.1"}.get(family, "model.layers.1")
    ids = {"input_ids": torch.arange(12).reshape(2, 6)}
    expected = auto(**ids).logits
    deepen_(auto, name, batch=ids)
    assert auto.config.num_hidden_layers == 3
    torch.testing.assert_close(auto(**ids).logits, expected, rtol=1e-5, atol=1e-5)
    cached = auto.generate(ids["input_ids"], max_new_tokens=4, do_sample=False)
    plain = auto.generate(ids["input_ids"], max_new_tokens=4, do_sample=False, use_cache=False)
    assert (cached == plain).all()  # the cache has a place for every layer
    again = type(auto)(copy.deepcopy(auto.config)).eval()
    again.load_state_dict(auto.state_dict())
    torch.testing.assert_close(again(**ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_what_blocks_are_refused():
    net, batch = Stack(), draw(4, 5, 16)
    before = state(net)
    with pytest.raises(ValueError, match="batch must be given for a block, got None"):
        deepen_(net, "blocks.1")
    with pytest.raises(ValueError, match="outputs must be layers of block 'blocks.1', got 'fc3'"):
        deepen_(net, "blocks.1", batch=batch, outputs=["fc3"])
    with pytest.raises(ValueError, match="with fc1 zero, the output changes by"):
        net.blocks[1].norm.bias.data.fill_(0.5)
        net.blocks[1].fc1.bias.data.fill_(0.5)
        deepen_(net, "blocks.1", batch=batch, outputs=["fc1"])
    with pytest.raises(ValueError, match="batch and outputs must be None for 'head'"):
        deepen_(net, "head", batch=batch)

    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(16, 16)

        def forward(self, x):
            return x + self.one(x)

    with pytest.raises(ValueError, match="branches are not known: give them as outputs="):
        deepen_(Stack(Other), "blocks.0", batch=batch)
    net.load_state_dict(before)
    assert len(net.blocks) == 3


def test_a_gradient_that_is_no_number_is_reported_as_it_is():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    controller = DynamicInit(model, seed=0, every=1)
    output = model(torch.ones(3, 4))
    (output.sum() * float("nan")).backward()
    controller.step()
    assert math.isnan(controller.seen["0"].gradient)
