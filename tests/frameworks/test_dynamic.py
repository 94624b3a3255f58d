"""LSUV, rescaling, dormant units, schedules and growth, on modules of PyTorch."""

import copy
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import winit_fast as wf
import winit_fast.torch
from winit_fast.diagnosis import propagate
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


def draw(*shape, seed=0, name="batch"):
    return winit_fast.torch.normal_(torch.empty(shape), seed=seed, name=name)


def chain(depth, width, activation):
    return nn.Sequential(
        *[part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    )


class Residual(nn.Module):
    """A residual network without normalisation."""

    def __init__(self, blocks=6, channels=16):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"one": nn.Conv2d(channels, channels, 3, padding=1),
                           "two": nn.Conv2d(channels, channels, 3, padding=1)})
            for _ in range(blocks)
        )  # fmt: skip
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["two"](F.relu(block["one"](F.relu(x))))
        return self.head(x.mean((2, 3)))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, before):
    return all((value == before[name]).all() for name, value in module.state_dict().items())


NETWORKS = {
    "tanh": (lambda: chain(50, 64, nn.Tanh), (64, 64)),
    "relu": (lambda: chain(50, 64, nn.ReLU), (64, 64)),
    "residual": (Residual, (16, 3, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_lsuv_brings_every_layer_to_its_deviation(name):
    make, shape = NETWORKS[name]
    net, batch = make(), draw(*shape)
    found = lsuv_(net, batch, seed=1)
    measured = propagate(net, batch)
    assert [layer.name for layer in found.layers] == [row.name for row in measured.layers]
    for layer, row in zip(found.layers, measured.layers, strict=True):
        assert 0.9 <= row.deviation <= 1.1
        assert layer.after == pytest.approx(row.deviation, rel=1e-3)
    again = make()
    again.load_state_dict(net.state_dict())
    lsuv_(again, batch, seed=1)
    assert same(again, state(net))  # repeatable


def test_lsuv_weights_are_the_orthonormal_ones_of_their_streams():
    net = nn.Sequential(nn.Linear(32, 16, bias=False), nn.ReLU(), nn.Linear(16, 8, bias=False))
    found = lsuv_(net, draw(64, 32), seed=4)
    for name, layer in (("0", net[0]), ("2", net[2])):
        whole = wf.Orthogonal(column_axis=0)(
            tuple(layer.weight.shape), seed=4, name=f"{name}.weight"
        )
        np.testing.assert_allclose(
            layer.weight.detach().numpy(), whole * found[name].factor, rtol=1e-5, atol=1e-7
        )


def test_lsuv_changes_nothing_else():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(10, 16)
            self.attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.shared = nn.Linear(16, 16)
            self.norm = nn.BatchNorm1d(16)
            self.head = nn.Linear(16, 10, bias=False)
            self.head.weight = self.words.weight

        def forward(self, ids, scale):
            x = self.attention(self.words(ids) * scale).mean(1)
            return self.head(self.norm(self.shared(torch.tanh(self.shared(x)))))

    net = Net()
    before, generator = state(net), torch.get_rng_state()
    found = lsuv_(net, (torch.arange(40).reshape(8, 5) % 10, torch.tensor(3.0)), seed=0)
    assert found["shared"].calls == 2
    assert {layer.name for layer in found.layers} == {
        "attention.self_attn", "attention.linear1", "attention.linear2", "shared"}  # fmt: skip
    assert all(0.9 <= layer.after <= 1.1 for layer in found.layers)
    assert (generator == torch.get_rng_state()).all() and net.training
    changed = {name for name, value in net.state_dict().items() if (value != before[name]).any()}
    assert changed == {
        "attention.self_attn.in_proj_weight", "attention.self_attn.out_proj.weight",
        "attention.linear1.weight", "attention.linear2.weight", "shared.weight"}  # fmt: skip


def test_lsuv_refuses_what_it_cannot_do_and_changes_nothing():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    with torch.no_grad():
        net[2].bias.copy_(5 * torch.arange(8.0))
    before = state(net)
    with pytest.raises(ValueError, match="layer '2' does not get to a deviation of 1"):
        lsuv_(net, draw(16, 8))
    assert same(net, before)
    with pytest.raises(ValueError, match="layer '0' yields the same number everywhere"):
        lsuv_(nn.Sequential(nn.Linear(8, 8, bias=False)), torch.zeros(4, 8))
    with pytest.raises(ValueError, match="layer '0' yields numbers that are not finite"):
        lsuv_(net, torch.full((4, 8), math.nan))
    with pytest.raises(ValueError, match="batch does not fit the module"):
        lsuv_(net, torch.zeros(4, 9))
    with pytest.raises(ValueError, match="module must have a layer with a weight"):
        lsuv_(nn.LayerNorm(4), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="tolerance must be more than 0, got 0"):
        lsuv_(net, draw(16, 8), tolerance=0)
    assert same(net, before)


def test_a_deep_network_learns_only_with_lsuv():
    """50 tanh layers, digits: the default loses every signal. None of five seeds differs."""
    from digits import batches

    pictures, labels = batches(40, 64)

    def loss_of(seed, is_lsuv):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), *chain(50, 64, nn.Tanh), nn.Linear(64, 10))
        if is_lsuv:
            lsuv_(net, torch.from_numpy(pictures[0]), seed=seed)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for step in range(40):
            loss = F.cross_entropy(net(torch.from_numpy(pictures[step])),
                                   torch.from_numpy(labels[step]).long())  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    default = [loss_of(seed, False) for seed in range(5)]
    ours = [loss_of(seed, True) for seed in range(5)]
    assert min(default) > 2.2 > 2.0 > max(ours), (default, ours)  # ln 10 = 2.30


# ------------------------------------------------------------------------------------ rescale_


def test_rescaling_activations_centres_them_if_asked():
    net = chain(10, 64, nn.ReLU)
    found = rescale_(net, draw(64, 64), deviation=0.5, center=True)
    assert all(abs(layer.after / 0.5 - 1) <= 0.05 for layer in found.layers)
    x = draw(64, 64)
    for part in net:
        x = part(x)
        if isinstance(part, nn.Linear):
            assert float(x.detach().mean(0).abs().max()) < 1e-5


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_rescaling_gradients(activation):
    net = chain(10, 64, activation)
    batch = draw(64, 64)
    found = rescale_(net, batch, "gradient", seed=3)
    measured = propagate(net, batch, seed=3)
    last = measured.layers[-1].gradient
    for layer, row in zip(found.layers, measured.layers, strict=True):
        assert abs(row.gradient / last - 1) < 0.06
        assert layer.gradient == pytest.approx(row.gradient, rel=1e-3)


def test_rescaling_both_is_between_the_two():
    """Layers that widen and narrow cannot keep both; the worst ratio is then the smallest."""
    sizes = [64, 256, 64, 256, 64]
    parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    net, batch = nn.Sequential(*parts), draw(64, 64)

    def misfit(target):
        own = copy.deepcopy(net)
        rescale_(own, batch, target, seed=0)
        rows = propagate(own, batch, seed=0).layers
        forward = [math.log(row.deviation) for row in rows]
        backward = [math.log(row.gradient / rows[-1].gradient) for row in rows[:-1]]
        return sum(value**2 for value in forward + backward)

    both = misfit("both")
    assert both < misfit("activation") and both < misfit("gradient")


def test_rescaling_with_a_loss_and_refusals():
    net, batch = chain(4, 32, nn.ReLU), draw(32, 32)
    found = rescale_(net, batch, "gradient", loss=lambda output, batch: output.square().mean())
    gradients = [layer.gradient for layer in found.layers]
    assert max(gradients) / min(gradients) < 1.11
    with pytest.raises(ValueError, match="target must be one of activation, gradient, both"):
        rescale_(net, batch, "weights")
    with pytest.raises(ValueError, match="center must be False for the target 'both', got True"):
        rescale_(net, batch, "both", center=True)
    dead = chain(2, 32, nn.ReLU)
    with torch.no_grad():
        dead[2].bias.fill_(-1e6)
    before = state(dead)
    with pytest.raises(
        ValueError, match="layer '0' cannot be scaled: the deviation of its gradient"
    ):
        rescale_(dead, batch, "gradient")
    assert same(dead, before)


# --------------------------------------------------------------------------------- DynamicInit


def two_layers():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    return winit_fast.torch.init_(net, {"*.weight": "he_normal", "*.bias": "zeros"}, seed=0)


RULES = {"*.weight": "he_normal", "*.bias": wf.Constant(0.5)}


def test_every_entry_that_changes_is_known():
    net = two_layers()
    optimizer = torch.optim.Adam(net.parameters(), 0.0)  # moments, but no change of weights
    watch = DynamicInit(net, optimizer, seed=3, every=1, rules=RULES)
    with torch.no_grad():
        net[0].bias[1] = -100.0
        net[0].weight[[0, 2, 3]] = 1.0
    net(torch.ones(8, 3)).sum().backward()
    optimizer.step()
    before, moments = state(net), copy.deepcopy(optimizer.state_dict()["state"])
    (reset,) = watch.step()
    assert (reset.layer, reset.units, reset.generation, reset.share) == ("0", (1,), 1, 0.25)
    fresh = wf.HeNormal(in_axis=1, out_axis=0)((4, 3), seed=3, name="0.weight\0generation 1")
    expected = dict(before)
    expected["0.weight"][1] = torch.from_numpy(fresh[1])
    expected["0.bias"][1] = 0.5
    expected["2.weight"][:, 1] = 0.0
    assert same(net, expected)
    for place, (index, changed) in enumerate(
        [(np.s_[1], True), (np.s_[1], True), (np.s_[:, 1], True), (None, False)]
    ):
        for key in ("exp_avg", "exp_avg_sq"):
            held, old = optimizer.state_dict()["state"][place][key], moments[place][key]
            if changed:
                assert (held[index] == 0).all()
                old[index] = 0
            assert (held == old).all()
    assert watch.history == [reset] and watch.steps == 1


def test_without_dormancy_nothing_changes():
    net, other = two_layers(), two_layers()
    runs = []
    for one in (net, other):
        with torch.no_grad():
            one[0].weight.abs_()
        optimizer = torch.optim.AdamW(one.parameters(), 1e-3)
        watch = DynamicInit(one, optimizer, seed=3, every=2) if one is net else None
        for step in range(6):
            loss = one(draw(8, 3, seed=step).abs()).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if watch is not None:
                assert watch.step() == []
        runs.append(optimizer.state_dict()["state"])
    assert same(net, state(other))
    assert all((runs[0][i]["exp_avg"] == runs[1][i]["exp_avg"]).all() for i in range(4))


class Block(nn.Module):
    """The MLP of a transformer block, gated or not."""

    def __init__(self, gated):
        super().__init__()
        if gated:
            self.gate_proj = nn.Linear(8, 12, bias=False)
        self.up_proj = nn.Linear(8, 12, bias=False)
        self.down_proj = nn.Linear(12, 8, bias=False)

    def forward(self, x):
        up = self.up_proj(x)
        h = F.silu(self.gate_proj(x)) * up if hasattr(self, "gate_proj") else F.relu(up)
        return x + self.down_proj(h)


@pytest.mark.parametrize("gated", [False, True])
def test_the_units_of_a_transformers_mlp(gated):
    net = nn.Sequential(Block(gated), nn.LayerNorm(8))
    watch = DynamicInit(net, seed=0, every=1)
    name = "0.gate_proj" if gated else "0.up_proj"
    with torch.no_grad():
        net[0].up_proj.weight[5] = 0
    before = state(net)
    net(draw(4, 6, 8)).sum().backward()
    (reset,) = watch.step()
    seen = watch.seen[name]
    assert seen.dormant == reset.share >= 1 / 12 and seen.dead == 1 / 12 and seen.gradient > 0
    assert reset.layer == name and 5 in reset.units
    assert (net[0].down_proj.weight[:, 5] == 0).all() and net[0].up_proj.weight[5].any()
    if gated:
        assert (net[0].gate_proj.weight[5] != before["0.gate_proj.weight"][5]).any()
        assert "0.gate_proj, 0.up_proj" in watch.describe()


def test_convolutions_with_normalisation_and_a_flat_end():
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(6 * 4, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    watch = DynamicInit(net, seed=0, every=1)
    assert "(4 inputs each)" in watch.describe()
    with torch.no_grad():
        net[1].bias[2] = -100.0
        net[1].running_mean[2] = 7.0
    net(draw(8, 2, 4, 4))
    reset = watch.step()[0]
    assert reset.layer == "0" and 2 in reset.units
    assert net[1].bias[2] == 0 and net[1].running_mean[2] == 0 and net[1].running_var[2] == 1
    assert (net[5].weight[:, 8:12] == 0).all() and (net[5].weight[:, :8] != 0).all()


def test_the_state_goes_on_where_it_stopped():
    def run(stop):
        net = two_layers()
        optimizer = torch.optim.Adam(net.parameters(), 0.3)
        watch = DynamicInit(net, optimizer, seed=9, every=3, tau=0.3)
        for step in range(12):
            if step == stop:
                saved = copy.deepcopy(watch.state_dict())
                watch.close()
                watch = DynamicInit(net, optimizer, seed=1, every=3, tau=0.3)
                watch.load_state_dict(saved)
            loss = (net(draw(8, 3, seed=step)) - 1).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step()
        return net, watch

    whole, watch = run(None)
    assert watch._generations["0"] > 0
    resumed, _ = run(8)
    assert same(resumed, state(whole))


def test_forced_dormancy_is_held_down():
    """Labels that change and a high rate make units dormant; the loss is then the better for it.

    In each of five seeds, by chance once in 32 for either of the two comparisons.
    """
    from digits import batches

    pictures, labels = (torch.from_numpy(one) for one in batches(240, 32))

    def run(seed, reset):
        net = nn.Sequential(nn.Flatten(), *chain(2, 64, nn.ReLU), nn.Linear(64, 10))
        winit_fast.torch.init_(net, {"*.weight": "he_normal", "*.bias": "zeros"}, seed=seed)
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        watch = DynamicInit(net, optimizer, seed=seed, every=10, reset=reset)
        losses, shares = [], []
        for step in range(240):
            if step % 60 == 0:
                order = torch.from_numpy(np.random.default_rng(10 * seed + step).permutation(10))
            loss = F.cross_entropy(net(pictures[step]), order[labels[step].long()])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step()
            losses.append(float(loss.detach()))
            shares += [one.dormant for one in watch.seen.values()]
        return np.mean(losses[-50:]), np.mean(shares[len(shares) // 2 :])

    for seed in range(5):
        (loss, share), (loss_without, share_without) = run(seed, True), run(seed, False)
        assert loss < loss_without and share < 0.8 * share_without, seed


def test_what_dynamic_init_refuses():
    net = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match="no layer whose units can be watched .*units={'a': ...}"):
        DynamicInit(net, seed=0)
    watch = DynamicInit(net, seed=0, units={"a": "b"})
    assert "a          4  a         b" in watch.describe()
    with pytest.raises(ValueError, match="units of layer 'b' cannot be watched: what uses its"):
        DynamicInit(net, seed=0, units={"a": "b"}, layers=["b"])
    with pytest.raises(ValueError, match="units must name linear layers .* got 'c'"):
        DynamicInit(net, seed=0, units={"a": "c"})
    wide = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(5, 4)})
    with pytest.raises(ValueError, match="it has 4 units, and 'b' has 5 inputs"):
        DynamicInit(wide, seed=0, units={"a": "b"})
    with pytest.raises(TypeError, match="optimizer must be one of SGD, .* got torch.optim.*LBFGS"):
        DynamicInit(two_layers(), torch.optim.LBFGS(two_layers().parameters()))
    with pytest.raises(ValueError, match="tau must be >= 0, got -1"):
        DynamicInit(two_layers(), tau=-1)
    other = DynamicInit(two_layers(), seed=0)
    with pytest.raises(ValueError, match=r"state must be for the layers \['0'\], got \['a'\]"):
        other.load_state_dict(watch.state_dict())


def test_ranks_agree_and_do_what_one_process_does(tmp_path):
    program = Path(__file__).with_name("dynamic_ranks.py")
    ranks = [
        subprocess.Popen([sys.executable, program, str(rank), tmp_path / "store"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), outputs
    first, second = (output.splitlines() for output, _ in outputs)
    assert first == second and len(first) == 14, outputs
    assert first[2] != "units []"  # something was re-initialised


# ------------------------------------------------------------------- shrinking and schedules


def test_shrink_and_perturb_keeps_frozen_parameters_and_buffers():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    net[0].bias.requires_grad_(False)
    before = state(net)
    shrink_and_perturb_(net, 0.5, 0.0)
    assert (net[0].weight == before["0.weight"] / 2).all()
    assert (net[0].bias == before["0.bias"]).all()
    assert (net[1].running_var == before["1.running_var"]).all()
    first, second = copy.deepcopy(net), copy.deepcopy(net)
    shrink_and_perturb_(first, 1.0, 1.0, generation=1)
    shrink_and_perturb_(second, 1.0, 1.0, generation=2)
    assert (first[0].weight != second[0].weight).any()
    with pytest.raises(ValueError, match="shrink must be finite, got nan"):
        shrink_and_perturb_(net, math.nan)


def test_schedules():
    net = chain(2, 4, nn.ReLU)
    before = state(net)
    schedule = ScaleSchedule(net, {"*.weight": 0.1, "0.bias": 0.5}, 8, shape="cosine")
    assert torch.allclose(net[0].weight, 0.1 * before["0.weight"])
    for _ in range(3):
        schedule.step()
    saved = schedule.state_dict()
    resumed = copy.deepcopy(net)
    with torch.no_grad():  # as if its weights had been loaded
        again = ScaleSchedule(resumed, {"*.weight": 0.1, "0.bias": 0.5}, 8, shape="cosine")
        resumed.load_state_dict(net.state_dict())
    again.load_state_dict(saved)
    for one in (schedule, again):
        for _ in range(9):
            one.step()
    assert set(schedule.scales.values()) == {1.0}
    for one in (net, resumed):
        assert all(torch.allclose(v, before[k], rtol=1e-5) for k, v in one.state_dict().items())


def test_schedules_of_outputs():
    net, batch = chain(2, 4, nn.Tanh), draw(3, 4)
    whole = net(batch)
    schedule = ScaleSchedule(net, {"3": 0.25}, 2, of="outputs")
    assert torch.allclose(net(batch), whole / 4)
    schedule.step()
    assert torch.allclose(net(batch), whole * 0.625)
    schedule.step()
    assert torch.equal(net(batch), whole)
    schedule.close()
    with pytest.raises(ValueError, match="scales must match a name, got 'x'"):
        ScaleSchedule(net, {"x": 0.5}, 2)
    with pytest.raises(ValueError, match=r"scales\['0.weight'\] must be more than 0, got 0"):
        ScaleSchedule(net, {"0.weight": 0}, 2)
    with pytest.raises(ValueError, match="'0.*' repeats '0.weight'"):
        ScaleSchedule(net, {"0.weight": 0.5, "0.*": 0.5}, 2)


# -------------------------------------------------------------------------------------- growth


def convolutional():
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    net(draw(16, 2, 4, 4))  # running statistics of its own
    return net


GROWN = {
    "mlp": (lambda: chain(3, 8, nn.Tanh), "0", (5, 8)),
    "convolution": (convolutional, "0", (5, 2, 4, 4)),
    "flattened": (convolutional, "3", (5, 2, 4, 4)),
    "transformer": (lambda: Block(False), "up_proj", (2, 5, 8)),
    "gated": (lambda: Block(True), "gate_proj", (2, 5, 8)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", GROWN)
def test_a_wider_network_computes_the_same(case, training):
    make, name, shape = GROWN[case]
    net, batch = make().train(training), draw(*shape)
    expected = net(batch)
    layer = net.get_submodule(name)
    count = layer.weight.shape[0]
    widen_(net, name, 2 * count + 3, seed=1)
    assert layer.weight.shape[0] == 2 * count + 3
    torch.testing.assert_close(net(batch), expected, rtol=1e-5, atol=1e-5)
    net(batch).sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape
    assert str(2 * count + 3) in repr(layer)


def test_noise_tells_copies_apart():
    net = chain(2, 8, nn.ReLU)
    widen_(net, "0", 16, noise=0.1)
    assert torch.unique(net[0].weight, dim=0).shape[0] == 16
    net = chain(2, 8, nn.ReLU)
    widen_(net, "0", 16)
    assert torch.unique(net[0].weight, dim=0).shape[0] == 8


def test_a_deeper_network_computes_the_same():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    batch = draw(5, 4)
    expected = net(batch)
    deepen_(net, "0")
    deepen_(net, "4")  # the last one has no activation
    assert [type(one).__name__ for one in net] == [
        "Linear",
        "ReLU",
        "Linear",
        "ReLU",
        "Linear",
        "Linear",
    ]
    torch.testing.assert_close(net(batch), expected)
    net = convolutional().eval()
    batch = draw(5, 2, 4, 4)
    expected = net(batch)
    deepen_(net, "0")
    torch.testing.assert_close(net(batch), expected)
    deepen_(net, "0", noise=0.1)
    assert not torch.allclose(net(batch), expected)


def test_what_growth_refuses():
    net = chain(2, 8, nn.Tanh)
    before = state(net)
    with pytest.raises(ValueError, match="width must be more than the 8 units of '0', got 8"):
        widen_(net, "0", 8)
    with pytest.raises(ValueError, match="layer '2' cannot be widened: what uses its units"):
        widen_(net, "2", 16)
    with pytest.raises(ValueError, match="name must be that of a layer, got '7'"):
        widen_(net, "7", 16)
    with pytest.raises(ValueError, match="Tanh changes its own output"):
        deepen_(net, "0")
    with pytest.raises(ValueError, match="must be a linear layer .* got a Linear of a Block"):
        deepen_(Block(False), "up_proj")
    even = nn.Sequential(nn.Conv1d(2, 2, 4), nn.ReLU())
    with pytest.raises(ValueError, match=r"kernel of '0' must have a middle .* got sizes \(4,\)"):
        deepen_(even, "0")
    assert same(net, before) and len(net) == 4
