"""init_: every parameter of a module from the stream of its own name."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.utils import parametrizations

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.streams import distributions
from winit_fast.torch import init_


class Tied(nn.Module):
    """The two ends of a language model; they share one weight."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.body = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.words.weight


def values(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


MODELS = [
    Tied,
    lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose1d(4, 4, 3)),
    lambda: nn.LSTM(8, 8, 2),
    lambda: nn.MultiheadAttention(16, 4, kdim=8, vdim=8),
    lambda: nn.Transformer(16, 4, 1, 1, 32, batch_first=True),
    lambda: nn.Bilinear(4, 5, 6, dtype=torch.float64),
    lambda: nn.Linear(5, 6, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("make", MODELS)
def test_a_seed_decides(make):
    module = make()
    state = torch.random.get_rng_state()
    assert init_(module, seed=1) is module
    first = values(module)
    assert torch.equal(state, torch.random.get_rng_state())
    assert equal(first, values(init_(make(), seed=1)))
    second = values(init_(make(), seed=2))
    assert all(
        torch.equal(first[name], second[name]) == (first[name].unique().numel() <= 1)
        for name in first
    )  # fmt: skip
    assert not any(torch.isnan(tensor).any() for tensor in first.values())


@pytest.mark.parametrize("make", MODELS)
def test_the_default_is_what_torch_does(make):
    """Two-sample Kolmogorov-Smirnov: a false alarm in 10^5 seeds a tensor; the seed is fixed."""
    torch.manual_seed(0)
    module = make()
    own = values(module)
    for name, tensor in values(init_(module)).items():
        if own[name].unique().numel() <= 2:
            assert torch.equal(tensor, own[name])
        else:
            sample = tensor.flatten().float(), own[name].flatten().float()
            assert stats.ks_2samp(*sample).pvalue > 1e-5, name


def test_every_name_is_a_stream():
    model = init_(Tied(), seed=3)
    expected = wf.Stream(3, "words.weight").normal(shape=(50, 16))
    np.testing.assert_array_equal(model.words.weight.detach(), expected)
    bound = math.sqrt(3) * math.sqrt(2 / (1 + math.sqrt(5) ** 2)) / math.sqrt(16)
    expected = wf.Stream(3, "body.weight").uniform(-bound, bound, (16, 16))
    np.testing.assert_array_equal(model.body.weight.detach(), expected)
    alone = init_(nn.ModuleDict({"body": nn.Linear(16, 16)}), seed=3)
    # the same, whatever else the model contains
    assert torch.equal(alone["body"].weight, model.body.weight)


def test_tied_parameters_are_filled_once_by_their_first_name():
    model = Tied()
    init_(model, {"words.weight": wf.RandomNormal(0.0, 0.02)}, seed=3)
    expected = wf.Stream(3, "words.weight").normal(0.0, 0.02, (50, 16))
    np.testing.assert_array_equal(model.head.weight.detach(), expected)
    assert model.head.weight is model.words.weight
    seen = []
    init_(model, lambda name, parameter: seen.append(name), seed=3)
    assert seen == ["words.weight", "body.weight", "body.bias", "norm.weight", "norm.bias"]


def test_padding_stays_zero():
    assert (init_(nn.Embedding(9, 4, padding_idx=2)).weight[2] == 0).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (wf.HeNormal(), wf.HeNormal(in_axis=1, out_axis=0)),
        ("glorot_uniform", wf.GlorotUniform(in_axis=1, out_axis=0)),
        (wf.LecunNormal(in_axis=0, out_axis=1), wf.LecunNormal(in_axis=0, out_axis=1)),
        (wf.Orthogonal(), wf.Orthogonal(column_axis=0)),
        (wf.Constant(0.5), wf.Constant(0.5)),
        (nn.init.ones_, wf.Ones()),
        (functools.partial(ours.normal_, std=0.5), wf.RandomNormal(0.0, 0.5)),
        (functools.partial(nn.init.normal_, std=0.5), wf.RandomNormal(0.0, 0.5)),
        (lambda t: t.data.uniform_(-1, 1), wf.RandomUniform(-1.0, 1.0)),
        (functools.partial(ours.normal_, std=0.5, seed=3, name="w"), wf.RandomNormal(0.0, 0.5)),
    ],
    ids=str,
)
def test_rules(rule, expected):
    model = init_(nn.ModuleDict({"w": nn.Linear(8, 24)}), {"w.w*": rule, "*": "zeros"}, seed=3)
    name = "w" if getattr(rule, "keywords", {}).get("name") else "w.weight"
    array = expected((24, 8), seed=3, name=name)
    np.testing.assert_array_equal(model["w"].weight.detach(), array)
    assert (model["w"].bias == 0).all()


def test_rules_by_a_function():
    def rules(name, parameter):
        return wf.RandomNormal(0.0, 0.02) if parameter.ndim > 1 else None

    model = init_(Tied(), rules, seed=1)
    expected = wf.Stream(1, "body.weight").normal(0.0, 0.02, (16, 16))
    np.testing.assert_array_equal(model.body.weight.detach(), expected)
    assert (model.norm.weight == 1).all() and model.body.bias.unique().numel() == 16


def test_what_no_rule_reaches_is_an_error():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.scale = nn.Parameter(torch.ones(3))

    model = Raw()
    before = values(model)
    with pytest.raises(
        ValueError, match="only its constructor fills parameter 'scale': give a rule"
    ):
        init_(model)
    assert equal(values(model), before)
    assert (init_(model, {"scale": "ones"}).scale == 1).all()
    with pytest.raises(ValueError, match="rules.*'linear.wieght'.*'linear.weight'"):
        init_(model, {"linear.wieght": "ones"})
    with pytest.raises(ValueError, match="did you mean 'he_normal'"):
        init_(model, {"*": "he_norml"})
    with pytest.raises(TypeError, match="a rule must be an initializer"):
        init_(model, {"*": 3})
    normed = parametrizations.spectral_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="'weight', parametrised by SpectralNorm"):
        init_(normed)
    with pytest.raises(ValueError, match="'0.weight' has no shape yet"):
        init_(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="seed must be at least 0"):
        init_(model, {"scale": "ones"}, seed=-1)


def test_the_modules_own_draws():
    """Parts of a parameter, two draws, another function of torch: all depend on seed and module."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(9))
            self.c = nn.Parameter(torch.zeros(5))

        def reset_parameters(self):
            with torch.no_grad():
                for part in self.a.chunk(3):
                    nn.init.normal_(part)
                self.b.copy_(torch.randn(9))
            self.c.data.fill_(2)

    first, second = values(init_(Own(), seed=1)), values(init_(Own(), seed=1))
    assert equal(first, second) and not equal(first, values(init_(Own(), seed=2)))
    assert first["a"].unique().numel() == 24 and first["b"].unique().numel() == 9
    assert (first["c"] == 2).all()


def test_meta_first():
    with torch.device("meta"):
        model = Tied()
    init_(model)
    assert all(parameter.is_meta for parameter in model.parameters())
    model = model.to_empty(device="cpu")
    model.head.weight = model.words.weight
    assert equal(values(init_(model, seed=4)), values(init_(Tied(), seed=4)))


def test_statistics_of_normalisation_are_reset():
    norm = nn.BatchNorm1d(3)
    norm(torch.ones(2, 3))
    assert (init_(norm).running_mean == 0).all() and norm.num_batches_tracked == 0


def test_other_devices(monkeypatch, request):
    """CPU tensors are filled through a buffer, as for another device, with the same bits."""
    expected = values(init_(Tied(), seed=4))
    request.getfixturevalue("elsewhere")
    monkeypatch.setattr(ours.memory, "HOST_BYTES", 512)
    assert equal(values(init_(Tied(), seed=4)), expected)


class Changes(wf.Elementwise):
    """A user's own scheme that is mutable and has no hash."""

    stddev = 1.0
    __hash__ = None

    def draws_from(self, shape, dtype):
        return distributions.normal(dtype, 0.0, self.stddev)


class KeepsItsHash(Changes):
    __hash__ = object.__hash__


@pytest.mark.parametrize("cls", [Changes, KeepsItsHash])
def test_rules_of_ones_own_that_change(cls):
    rule, layer = cls(), nn.Linear(3, 4, bias=False)
    first = init_(layer, {"weight": rule}, seed=4).weight.detach().clone()
    rule.stddev = 2.0
    assert torch.equal(init_(layer, {"weight": rule}, seed=4).weight, 2 * first)
