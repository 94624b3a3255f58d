"""What is measured of modules at work: the numbers, and that nothing else changes."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import winit_fast as wf
import winit_fast.torch
from winit_fast.diagnosis import (
    compare,
    coordinate_check,
    extreme_singular_values,
    predicted,
    propagate,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(*shape, seed=0, name="batch"):
    return winit_fast.torch.normal_(torch.empty(shape), seed=seed, name=name)


def chain(depth, width, activation=nn.ReLU, rules=None):
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    rules = rules or {"*.weight": "he_normal", "*.bias": "zeros"}
    return winit_fast.torch.init_(nn.Sequential(*layers), rules, seed=0)


class Functional(nn.Module):
    """Activations are called as functions, also in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu_(self.norm(self.conv(x)))
        x = self.dropout(x).mean((2, 3))
        return {"logits": torch.tanh(self.fc(x)), "length": 3}


def test_rows_have_the_numbers_of_the_tensors():
    net = chain(2, 64)
    batch = draw(128, 64)
    found = propagate(net, batch)
    x = batch
    for row, part in zip(found.rows, net, strict=True):
        x = part(x)
        assert row.mean == pytest.approx(float(x.detach().mean()), abs=1e-6)
        assert row.deviation == pytest.approx(float(x.detach().std(unbiased=False)), rel=1e-5)
        assert sum(row.histogram) <= x.numel()
    assert [row.kind for row in found.rows] == ["layer", "activation"] * 2
    assert found.rows[0].weight == pytest.approx(math.sqrt(2 / 64), rel=0.1)
    assert found.loss is None


def test_gradients_are_those_of_the_loss():
    net, batch = chain(3, 32), draw(16, 32)
    found = propagate(net, batch, lambda output, batch: (output * batch).sum())
    x, kept = batch, []
    for part in net:
        x = part(x)
        x.retain_grad()
        kept.append(x)
    loss = (x * batch).sum()
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for row, output in zip(found.rows, kept, strict=True):
        assert row.gradient == pytest.approx(float(output.grad.std(unbiased=False)), rel=1e-4)


def test_dead_and_saturated_units_are_counted():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh())
    with torch.no_grad():
        net[0].bias[:3] = -1e6
        net[2].weight.zero_()
        net[2].bias.copy_(torch.tensor([9.0, -9, 9, 9, 0, 0, 0, 0]))
    found = propagate(net, draw(64, 4))
    assert found["1"].dead == 3 / 8
    assert found["3"].saturated == 0.5 and found["1"].saturated is None
    assert found["0"].dead is None


def test_functions_are_seen_after_their_layer():
    net = Functional()
    found = propagate(net, draw(4, 3, 6, 6))
    assert [row.name for row in found.rows] == [
        "conv", "norm", "norm > relu", "fc", "fc > tanh"]  # fmt: skip
    assert found["norm > relu"].activation == "relu"
    assert all(row.gradient > 0 for row in found.rows)
    with torch.no_grad():
        net.norm.bias[:2] = -1e6  # channels, not columns, are the units after a convolution
    assert propagate(net, draw(4, 3, 6, 6))["norm > relu"].dead == 0.25


def test_nothing_changes():
    net = Functional()
    net.fc.weight.requires_grad_(False)
    net.fc.bias.grad = torch.full_like(net.fc.bias, 7.0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    first = propagate(net, draw(4, 3, 6, 6), seed=5)
    with torch.no_grad():
        second = propagate(net, draw(4, 3, 6, 6), seed=5)
    assert first == second  # with dropout
    assert first != propagate(net, draw(4, 3, 6, 6), seed=6)
    assert (generator == torch.get_rng_state()).all()
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    assert net.training and not net.fc.weight.requires_grad and net.conv.weight.requires_grad
    assert (net.fc.bias.grad == 7).all() and net.conv.weight.grad is None
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_several_inputs_attention_and_shared_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.fc = nn.Linear(16, 16)

        def forward(self, query, key):
            x, _ = self.attention(query, key, key)
            return self.fc(self.fc(x))

    net = Net().eval()
    one = propagate(net, (draw(2, 5, 16), draw(2, 7, 16, seed=1)))
    other = propagate(net, {"query": draw(2, 5, 16), "key": draw(2, 7, 16, seed=1)})
    assert one == other
    assert [row.name for row in one.rows] == ["attention", "fc", "fc #2"]


def test_a_transformer_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=100, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).eval()
    found = propagate(model, {"input_ids": torch.arange(12).reshape(2, 6)})
    row = found["transformer.h.0.mlp.act"]
    assert row.activation == "gelu_new"
    assert found["transformer.h.0.mlp.c_fc"].fan_in == 32
    assert found["transformer.h.1.attn.c_proj"].gradient > 0


def test_the_prediction_is_close_to_what_is_measured():
    """A rectifier's mean square deviates by 28 % after 8 layers of 512 (5 / n a layer)."""
    found = propagate(chain(8, 512), draw(64, 512))
    forward, backward = predicted(found.rows)
    assert forward[0] == pytest.approx(found.layers[0].mean_square ** 0.5)
    np.testing.assert_allclose(forward, math.sqrt(2), rtol=0.1)
    for number, row in enumerate(found.layers):
        assert row.mean_square**0.5 == pytest.approx(forward[number], rel=0.5)
        assert row.gradient == pytest.approx(backward[number], rel=0.5)


def test_singular_values():
    for shape in ((40, 300), (300, 200), (200, 300)):
        w = wf.RandomNormal(0, 1.0)(shape, seed=1)
        exact = np.linalg.svd(w, compute_uv=False)
        largest, smallest = extreme_singular_values(w, 6)
        assert exact[-1] * (1 - 1e-4) <= smallest <= largest <= exact[0] * (1 + 1e-4)
        assert largest > 0.9 * exact[0]
    assert extreme_singular_values(np.zeros((100, 90), np.float32)) == (0.0, 0.0)
    rank_1 = np.outer(np.ones(90), np.arange(90.0))
    assert extreme_singular_values(rank_1)[0] == pytest.approx(np.linalg.norm(rank_1))
    assert np.isnan(extreme_singular_values(np.full((90, 90), np.nan))).all()


@pytest.mark.parametrize(
    ("module", "batch", "error", "message"),
    [
        (nn.ReLU(), torch.zeros(2), ValueError, "module must have parameters"),
        (
            nn.Linear(3, 2),
            torch.zeros(2, 4),
            ValueError,
            "batch does not fit the module, .* shapes",
        ),
        (nn.Linear(3, 2), "text", TypeError, "batch must be a tensor, a tuple or a dict, got str"),
        (nn.Linear(3, 2), torch.full((2, 3), math.inf), ValueError, "layer '' .* not finite"),
    ],
)
def test_refusals(module, batch, error, message):
    with pytest.raises(error, match=message):
        propagate(module, batch)


def test_a_loss_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"loss must return one number, got .* shape \(2, 2\)"):
        propagate(nn.Linear(3, 2), torch.zeros(2, 3), lambda output, batch: output)


def test_files(tmp_path):
    found = propagate(chain(3, 16), draw(8, 16))
    for kind, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype")):
        path = tmp_path / f"net{kind}"
        found.save(path, title="<net>")
        assert path.read_bytes().startswith(start)
    text = path.read_text()
    assert "&lt;net&gt;" in text and "<svg" in text and "<td>ReLU</td>" in text
    with pytest.raises(ValueError, match=r"path must end in one of .png, .svg, .html, got .*pdf"):
        found.save(tmp_path / "net.pdf")


def test_compare_puts_the_weights_back(tmp_path):
    net = chain(8, 64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    schemes = {"He": "he_normal", "small": wf.RandomNormal(0, 0.01), "rules": {"0.weight": "zeros"}}
    found = compare(schemes, net, draw(32, 64))
    assert found["He"].layers[-1].deviation > 0.5 > 1e-3 > found["small"].layers[-1].deviation
    assert found["rules"].layers[0].deviation == 0
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="got '9.weight'"):
        compare({"good": "he_normal", "bad": {"9.weight": "zeros"}}, net, draw(32, 64))
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    found.save(tmp_path / "compared.html")
    assert (tmp_path / "compared.html").read_text().count("<table>") == 3
    with pytest.raises(TypeError, match="schemes must be a mapping that is not empty"):
        compare({}, net, draw(32, 64))


class Readout(nn.Module):
    def __init__(self, width, factor):
        super().__init__()
        self.embed, self.hidden = nn.Linear(16, width), nn.Linear(width, width)
        self.readout, self.factor = nn.Linear(width, 4), factor

    def forward(self, x):
        return self.readout(self.factor * F.relu(self.hidden(F.relu(self.embed(x)))))


def test_coordinates_stay_with_mup_and_grow_without(tmp_path):
    """Tensor programs V, table 8, for Adam: hidden and readout rates / width, readout / width."""
    base, target = 64, draw(64, 4, name="target")

    def make(width, is_mup):
        net = Readout(width, base / width if is_mup else 1.0)
        he = wf.HeNormal()
        rules = {"embed.weight": he, "hidden.weight": he, "readout.weight": "lecun_normal",
                 "*.bias": "zeros"}  # fmt: skip
        if is_mup:
            rules["readout.weight"] = wf.RandomNormal(0, base**-0.5)
        return winit_fast.torch.init_(net, rules, seed=width)

    def optimizer(net, is_mup):
        part = base / net.hidden.in_features if is_mup else 1.0
        rest = [p for name, p in net.named_parameters() if name != "hidden.weight"]
        return torch.optim.Adam(
            [{"params": rest, "lr": 0.001}, {"params": [net.hidden.weight], "lr": 0.001 * part}]
        )

    def loss(output, batch):
        return (output * target).mean()  # its gradient does not change while training

    slopes = {}
    for is_mup in (True, False):
        found = coordinate_check(
            lambda width, is_mup=is_mup: make(width, is_mup), [64, 128, 256, 512], 4,
            optimizer=lambda net, is_mup=is_mup: optimizer(net, is_mup),
            batch=draw(64, 16), loss=loss,
        )  # fmt: skip
        slopes[is_mup] = found.slopes()
        assert found.sizes["hidden"].shape == (4, 5)
    assert all(abs(slope) < 0.25 for slope in slopes[True].values()), slopes
    assert slopes[False]["hidden"] > 0.5 and slopes[False]["readout"] > 0.5
    found.save(tmp_path / "check.svg")
    assert "slope" in str(found)


def test_refused_coordinate_checks():
    arguments = {"batch": draw(4, 8), "loss": lambda output, batch: output.mean()}

    def sgd(net):
        return torch.optim.SGD(net.parameters(), 0.1)

    def make(width):
        return nn.Sequential(nn.Linear(8, width))

    with pytest.raises(ValueError, match=r"widths must be .* increasing numbers, got \[8, 8\]"):
        coordinate_check(make, [8, 8], 1, optimizer=sgd, **arguments)
    with pytest.raises(TypeError, match="make_model must make a module, it makes 8"):
        coordinate_check(lambda width: width, [8, 9], 1, optimizer=sgd, **arguments)
    with pytest.raises(TypeError, match="optimizer must make an optimizer, it makes None"):
        coordinate_check(make, [8, 9], 1, optimizer=lambda net: None, **arguments)

    def other(width):
        return nn.Sequential(*[nn.Linear(8, 8) for _ in range(width)])

    with pytest.raises(ValueError, match="make_model must make the same layers for every width"):
        coordinate_check(other, [1, 2], 1, optimizer=sgd, **arguments)
