"""init_ records what the author's code does to a tensor, however it is reached."""

import copy
import functools
import math
import random
import types

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper
from torch.nn.utils import parametrizations

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.initializers.parts import Parts
from winit_fast.torch import init_
from winit_fast.torch.function_mode import truncated
from winit_fast.torch.names import tensors
from winit_fast.torch.rules import matches


class Own(nn.Module):
    """A weight and a bias that a function resets."""

    def __init__(self, reset, shape=(6, 4)):
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, math.nan))
        self.bias = nn.Parameter(torch.full((5,), math.nan))
        self.reset = reset

    def reset_parameters(self):
        with torch.no_grad():
            self.reset(self)


def normal(name="weight", shape=(6, 4), std=1.0, seed=3):
    return torch.from_numpy(wf.RandomNormal(0.0, std)(shape, seed=seed, name=name))


def test_reading_is_not_writing():
    """Reading any attribute, or writing to tensors that only look alike, fills nothing."""

    def reads(module):
        weight = module.weight
        assert (weight.shape, weight.dtype, weight.device.type) == ((6, 4), torch.float32, "cpu")
        assert weight.grad is None and weight.data.shape == weight.detach().shape
        torch.empty_like(weight).fill_(1)
        weight.data_ptr(), weight.requires_grad, weight.numel(), weight.new_zeros(3).add_(1)
        nn.init.zeros_(module.bias)

    module = Own(reads)
    with pytest.raises(ValueError, match="only its constructor fills parameter 'weight'"):
        init_(module, seed=3)
    assert torch.isnan(module.weight).all() and torch.isnan(module.bias).all()


WAYS = {
    "in place": lambda m: m.weight.normal_(),
    "data": lambda m: m.weight.data.normal_(),
    "temporary": lambda m: m.weight.copy_(torch.empty(6, 4).normal_()),
    "randn": lambda m: m.weight.copy_(torch.randn(6, 4)),
    "transposed": lambda m: m.weight.copy_(torch.randn(4, 6).t()),
    "out": lambda m: torch.randn(6, 4, out=torch.empty(6, 4)) is None or m.weight.normal_(),
    "set data": lambda m: setattr(m.weight, "data", torch.randn(6, 4)),
    "new parameter": lambda m: setattr(m, "weight", nn.Parameter(torch.randn(6, 4))),
    "flat": lambda m: m.weight.view(-1).normal_(),
    "by rows": lambda m: [nn.init.normal_(row) for row in m.weight],
    "by chunks": lambda m: [nn.init.normal_(part) for part in m.weight.chunk(3, dim=1)],
    "twice": lambda m: (nn.init.uniform_(m.weight), m.weight.zero_(), m.weight.normal_()),
    "zeros first": lambda m: m.weight.copy_(torch.zeros(6, 4).normal_(generator=None)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_draw_is_the_tensors_own_whatever_the_way(way):
    module = Own(lambda m: (WAYS[way](m), m.bias.zero_()))
    parameter = module.weight
    assert torch.equal(init_(module, seed=3).weight, normal())
    assert module.weight is parameter and (module.bias == 0).all()


@pytest.mark.parametrize(
    ("change", "scheme"),
    [
        (lambda w: w.normal_().mul_(0.5), wf.RandomNormal(0.0, 0.5)),
        (lambda w: w.normal_().div_(4).add_(1), wf.RandomNormal(1.0, 0.25)),
        (lambda w: w.normal_(2, 1).mul_(0.5), wf.RandomNormal(1.0, 0.5)),
        (lambda w: w.uniform_(1, 2).div_(4), wf.RandomUniform(0.25, 0.5)),
        (lambda w: nn.init.trunc_normal_(w, 1, 0.5).mul_(2), wf.TruncatedNormal(2, 1, -6, 2)),
        (lambda w: w.copy_(2 * torch.rand(6, 4) - 1), wf.RandomUniform(-1.0, 1.0)),
        (lambda w: w.copy_(torch.randn(6, 4) * 0.02), wf.RandomNormal(0.0, 0.02)),
        (lambda w: nn.init.trunc_normal_(w, std=0.5), wf.TruncatedNormal(0.0, 0.5, -4.0, 4.0)),
        (lambda w: nn.init.orthogonal_(w, 2.0), wf.Orthogonal(2.0, column_axis=0)),
        (lambda w: nn.init.sparse_(w, 0.5), wf.Sparse(0.5, 0.01)),
        (nn.init.eye_, wf.Identity()),
        (lambda w: w.fill_(3).sub_(1), wf.Constant(2.0)),
    ],
)  # fmt: skip
def test_schemes(change, scheme):
    module = init_(Own(lambda m: (change(m.weight), m.bias.zero_())), seed=3)
    expected = scheme((6, 4), seed=3, name="weight")
    np.testing.assert_allclose(module.weight.detach(), expected, rtol=3e-7, atol=1e-9)


def test_quotients_are_rounded_once():
    """0.3 / 7 differs from 0.3 times 1 / 7, which float64 numbers show."""
    module = Own(lambda m: (m.weight.normal_(0, 0.3).div_(7), m.bias.zero_())).double()
    assert 0.3 / 7 != 0.3 * (1 / 7)
    expected = wf.RandomNormal(0.0, 0.3 / 7)((6, 4), seed=3, name="weight", dtype="float64")
    np.testing.assert_array_equal(init_(module, seed=3).weight.detach(), expected)


@pytest.mark.parametrize("change", [lambda w: w.mul_(-2), lambda w: w.neg_().mul_(2)])
def test_negative_factors_turn_the_numbers_over(change):
    """No scheme has a negative scale: the drawn numbers are multiplied by the factor."""
    module = Own(lambda m: (change(m.weight.normal_()), m.bias.zero_()))
    assert torch.equal(init_(module, seed=3).weight, -2 * normal())


def test_bounds_that_rounding_would_pass():
    """(b - mean) / std * std + mean may exceed b after rounding, and likewise a; no number does."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        mean, std, distance = generator.uniform(0.1, 1, 3)
        a, b = mean - distance, mean - distance * (1 - 1e-9)
        scheme = truncated(mean, std, a, b)
        weight = scheme(50, seed=1, dtype="float64")
        assert a <= weight.min() and weight.max() <= b
        assert a <= mean + scheme.low * std and mean + scheme.high * std <= b


def test_truncated_normals_by_erfinv():
    """The way of timm: uniform_, erfinv_, mul_, add_, clamp_."""
    timm = pytest.importorskip("timm")

    def reset(module):
        timm.layers.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        timm.layers.trunc_normal_tf_(module.bias, std=0.02)

    module = init_(Own(reset, (64, 64)), seed=3)
    expected = ours.trunc_normal_(torch.empty(64, 64), 0, 0.02, -0.04, 0.04, seed=3, name="weight")
    torch.testing.assert_close(module.weight.detach(), expected, rtol=1e-6, atol=1e-9)
    assert module.bias.unique().numel() == 5


def test_what_is_computed():
    """Deterministic values equal the author's; expressions of draws are computed in float64."""

    def reset(module):
        module.weight.copy_(torch.arange(24.0).view(6, 4).log1p())
        module.bias.copy_(torch.log(torch.rand(5) + 1))

    module = init_(Own(reset), seed=3)
    assert torch.equal(module.weight, torch.arange(24.0).view(6, 4).log1p())
    uniform = wf.RandomUniform(0.0, 1.0)(5, seed=3, name="bias").astype(np.float64)
    np.testing.assert_array_equal(module.bias.detach(), np.log(uniform + 1).astype(np.float32))


def test_draws_that_meet_are_numbered_in_the_order_of_use():
    """Draw k of an expression, counted from 1, uses the tensor's stream with the suffix k."""

    def reset(module):
        first, second = torch.randn(6, 4), torch.rand(6, 4)
        module.weight.copy_(second * first)
        module.bias.zero_()

    weight = init_(Own(reset), seed=3).weight.detach()
    uniform = wf.RandomUniform(0.0, 1.0)((6, 4), seed=3, name=f"weight\0{1}")
    drawn = wf.RandomNormal(0.0, 1.0)((6, 4), seed=3, name=f"weight\0{2}")
    np.testing.assert_array_equal(
        weight, (uniform.astype(np.float64) * drawn.astype(np.float64)).astype(np.float32)
    )


@pytest.mark.parametrize("bound", [0.5, 1.9])
def test_clamping_inside_of_the_bounds_moves_numbers_to_the_ends(bound):
    """It does not become a narrower truncated normal."""
    module = Own(lambda m: (nn.init.trunc_normal_(m.weight).clamp_(-bound, bound), m.bias.zero_()))
    module.weight = nn.Parameter(torch.full((60, 40), math.nan))
    weight = init_(module, seed=3).weight.detach()
    drawn = wf.TruncatedNormal(0.0, 1.0, -2.0, 2.0)((60, 40), seed=3, name="weight")
    assert torch.equal(weight, torch.from_numpy(drawn).clamp(-bound, bound))
    assert (abs(weight) == bound).any()


def test_parameters_of_the_same_memory_are_tied():
    """Two parameter objects in one memory are filled once, with the first name's stream."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data)
    assert model[1].weight is not model[0].weight
    init_(model, seed=3, by=lambda m: [nn.init.normal_(one.weight) for one in m])
    assert torch.equal(model[0].weight, normal("0.weight", (4, 4)))
    assert torch.equal(model[1].weight, model[0].weight)


def test_a_seed_of_the_calls_own_counts():
    module = Own(lambda m: (ours.normal_(m.weight, seed=7, name="own"), nn.init.normal_(m.bias)))
    init_(module, seed=3)
    assert torch.equal(module.weight, normal("own", seed=7))
    assert torch.equal(module.bias, normal("bias", (5,)))


@pytest.mark.parametrize("first", ["*.weight", "1.weight", "Linear"])
def test_a_tensors_own_name_goes_before_every_pattern(first):
    rules = {first: "zeros"} | {"*.weight": "zeros", "*.bias": "zeros", "1.weight": "ones"}
    model = init_(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), rules, seed=3)
    assert (model[0].weight == 0).all() and (model[1].weight == 1).all()


def test_a_box_drawn_from_a_stream_of_its_own_counts_from_0():
    def reset(module):
        module.weight.zero_()
        ours.normal_(module.weight[2:], seed=7, name="rows")
        module.bias.zero_()

    weight = init_(Own(reset), seed=3).weight
    assert (weight[:2] == 0).all()
    assert torch.equal(weight[2:], normal("rows", (4, 4), seed=7))


def test_an_interval_of_one_number_is_that_number():
    module = Own(lambda m: (m.weight.uniform_(2, 2), m.bias.zero_()))
    assert (init_(module, seed=3).weight == 2).all()


def test_a_view_sees_what_was_written_to_a_part_of_it():
    def reset(module):
        module.weight.zero_()
        module.weight[:3].fill_(1)
        module.bias.copy_(module.weight[1:, 0])

    assert init_(Own(reset), seed=3).bias.tolist() == [1, 1, 0, 0, 0]


def test_parts_of_a_tensor():
    def reset(module):
        module.weight.normal_()
        module.weight[2].zero_()
        module.weight[3:, :2].uniform_(2, 3)
        module.bias.zero_()

    weight = init_(Own(reset), seed=3).weight.detach()
    rest = normal()
    rest[2] = 0
    uniform = wf.RandomUniform(2.0, 3.0)((6, 4), seed=3, name="weight")
    rest[3:, :2] = torch.from_numpy(uniform)[3:, :2]
    assert torch.equal(weight, rest)


class Assembled(nn.Module):
    """A weight that is assembled from temporaries, each drawn by itself."""

    def __init__(self, shape, drawn, assemble):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.drawn, self.assemble = drawn, assemble
        self.reset_parameters()

    def reset_parameters(self):
        drawn = [nn.init.trunc_normal_(self.weight.new_empty(shape)) for shape in self.drawn]
        with torch.no_grad():
            self.weight.copy_(self.assemble(drawn))


def interleaved(drawn, groups=2, size=4):
    """Of every group the queries, the key and the value: the layout of torchtitan's fused heads."""
    return torch.cat([one.view(groups, -1, size, 5) for one in drawn], dim=1).view(-1, 5)


@pytest.mark.parametrize(
    ("shape", "drawn", "assemble"),
    [
        ((40, 5), [(24, 5), (8, 5), (8, 5)], interleaved),
        ((9, 4), [(2, 4), (7, 4)], torch.cat),
        ((3, 9), [(3, 2), (3, 7)], lambda drawn: torch.cat(drawn, -1)),
        ((2, 3, 4), [(3, 4), (3, 4)], torch.stack),
        ((3, 2, 4), [(3, 4), (3, 4)], lambda drawn: torch.stack(drawn, dim=1)),
        ((8,), [(6,), (2,)], torch.cat),
        ((5, 4), [(2, 4), (9, 4)], lambda drawn: torch.cat([drawn[0], drawn[1][6:]])),
    ],
)
def test_what_is_assembled_from_draws(shape, drawn, assemble):
    """The k-th draw has the stream k of the tensor, and indices of its own; files can hold it."""
    plan = ours.record(lambda: Assembled(shape, drawn, assemble))
    assert isinstance(plan["weight"].initializer, Parts)
    assert wf.Plan.from_json(plan.to_json()) == plan
    scheme = wf.TruncatedNormal(0.0, 1.0, -2.0, 2.0)
    own = [
        torch.from_numpy(scheme(one, seed=3, name=f"weight\0{k}")) for k, one in enumerate(drawn, 1)
    ]
    expected = assemble(own)
    weight = ours.fill_(Assembled(shape, drawn, assemble), plan, seed=3).weight
    assert torch.equal(weight, expected)
    tensor = plan["weight"]
    np.testing.assert_array_equal(tensor.array(seed=3), expected.numpy())
    for axis, extent in enumerate(shape):  # any box
        cut = tuple(
            slice(extent // 3, -1) if at == axis else slice(None) for at in range(len(shape))
        )
        part = tensor.array(seed=3, index=cut)
        np.testing.assert_array_equal(part, expected[cut].numpy())
    again = plan.of_generation(1)["weight"].array(seed=3)
    first = scheme(drawn[0], seed=3, name="weight\0generation 1\x001")
    assert again.flat[0] == first.flat[0] != expected.flatten()[0]


def test_what_cannot_be_said_as_parts_is_refused_by_a_file():
    """Columns of two draws in turn."""
    turned = Assembled((3, 4), [(2, 3), (2, 3)], lambda drawn: torch.cat(drawn).t())
    plan = ours.record(turned)
    with pytest.raises(ValueError, match="tensor 'weight'"):
        plan.to_json()


def test_boxes_of_parts():
    rows = wf.RandomNormal(0.0, 0.02)
    scheme = Parts(
        [
            ((0, 0), (9, 4), rows),
            ((2, 0), (3, 4), wf.Zeros()),
            ((4, 0), (6, 4), wf.HeNormal()),
            ((6, 1), (9, 4), wf.Sparse(0.5)),
            ((0, 0), (1, 4), wf.RandomUniform(), "other"),
        ]
    )
    whole = scheme((9, 4), seed=1, name="n")
    for index in (np.s_[1:8, 1:3], np.s_[0:9, 3], np.s_[4:4, :], np.s_[8:9, 0:1]):
        np.testing.assert_array_equal(scheme((9, 4), seed=1, name="n", index=index), whole[index])
    he = wf.HeNormal().stddev((2, 4)) * wf.Stream(1, "n").normal(shape=(9, 4))
    np.testing.assert_allclose(whole[4:6], he[4:6], rtol=1e-6)
    np.testing.assert_array_equal(whole[0], wf.RandomUniform()((1, 4), seed=1, name="other")[0])
    sparse = wf.Sparse(0.5)((3, 3), seed=1, name="n\0[6:9,1:4]")
    np.testing.assert_array_equal(whole[6:, 1:], sparse)
    assert wf.get({"class_name": "parts", "config": scheme.get_config()}) == scheme
    with pytest.raises(ValueError, match="must cover"):
        Parts([((0, 0), (8, 4), rows)])((9, 4))
    with pytest.raises(ValueError, match="must lie in"):
        scheme((8, 4))


def test_parts_of_other_tensors():
    """Their fans and indices are the other tensor's."""
    he = wf.HeNormal(in_axis=1, out_axis=0)
    scheme = Parts([((0, 0), (2, 4), he, "v", ((7, 9), (5, 3))), ((2, 0), (3, 4), "ones")])
    whole = scheme((3, 4), seed=1, name="n")
    np.testing.assert_array_equal(whole[:2], he((7, 9), seed=1, name="v")[5:, 3:7])
    np.testing.assert_array_equal(scheme((3, 4), seed=1, index=np.s_[1:, 2:]), whole[1:, 2:])
    assert wf.get({"class_name": "parts", "config": scheme.get_config()}) == scheme


@pytest.mark.parametrize(
    ("stream", "of", "error", "message"),
    [
        (None, ((4,), (0,)), ValueError, r"with of=.* must have a stream, got None"),
        ("v", ((4,), (2,)), ValueError, r"hold a box of shape \(3,\), got shape \(4,\) and start"),
        ("v", ((4, 1), (0, 0)), ValueError, "must hold a box of shape"),
        ("v", ((4,), (-1,)), ValueError, "must hold a box of shape"),
        ("v", 4, TypeError, "must be a shape and the start of a box, got 4"),
        ("v", ((4,),), TypeError, "must be a shape and the start of a box, got"),
        ("v", ("4", (0,)), TypeError, "must be a shape and the start of a box, got"),
    ],
)
def test_boxes_outside_of_other_tensors_are_refused(stream, of, error, message):
    with pytest.raises(error, match=message):
        Parts([((0,), (3,), wf.RandomNormal(), stream, of)])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("make", [
    lambda: nn.Conv2d(8, 16, 3), lambda: nn.ConvTranspose2d(8, 16, 3),
    lambda: nn.Conv2d(8, 8, 3, groups=8),
])  # fmt: skip
def test_the_memory_layout_changes_no_number(make, layout):
    """Tensors in channels_last or transposed memory get the same numbers."""
    expected = init_(make(), seed=3).weight
    module = make().to(memory_format=layout)
    assert torch.equal(init_(module, seed=3).weight, expected)
    rule = {"weight": wf.HeNormal()}
    assert torch.equal(init_(module, rule, seed=3).weight, init_(make(), rule, seed=3).weight)


@pytest.mark.parametrize(
    ("shape", "rule", "stddev"),
    [
        ((64, 4096), wf.HeNormal(in_axis=-2, out_axis=-1), math.sqrt(2 / 64)),
        ((64, 4096), wf.HeNormal(), math.sqrt(2 / 4096)),
        ((3, 3, 8, 64), wf.HeNormal(in_axis=-2, out_axis=-1), math.sqrt(2 / 72)),
        ((8, 64, 256), wf.HeNormal(batch_axis=0), math.sqrt(2 / 256)),
    ],
)
def test_axes_that_are_said_count(shape, rule, stddev):
    """Within 5 standard errors: a false alarm in 10^6 seeds; the seed is fixed."""
    weight = init_(Own(None, shape), {"weight": rule, "bias": "zeros"}, seed=3).weight.detach()
    assert abs(float(weight.std()) / stddev - 1) < 5 / math.sqrt(2 * weight.numel())


def test_no_twins():
    """Without a seed torch's generator is used; a prefix gives the whole model's numbers."""
    torch.manual_seed(0)
    first, second = init_(nn.Linear(4, 4)), init_(nn.Linear(4, 4))
    assert not torch.equal(first.weight, second.weight)
    torch.manual_seed(0)
    assert torch.equal(init_(nn.Linear(4, 4)).weight, first.weight)
    whole = init_(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), seed=5)
    assert torch.equal(init_(nn.Linear(4, 4), seed=5, prefix="1").weight, whole[1].weight)
    renamed = init_(nn.Linear(4, 4), seed=5, names={"weight": "1.weight"})
    assert torch.equal(renamed.weight, whole[1].weight)
    renamed = init_(nn.Linear(4, 4), seed=5, names="1.{}".format)
    assert torch.equal(renamed.bias, whole[1].bias)
    for names, error in (({"w": "x"}, "'w'"), (lambda name: "x", "of its own"), (3, "names must")):
        with pytest.raises((TypeError, ValueError), match=error):
            init_(nn.Linear(4, 4), names=names)


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        nn.DataParallel,
        checkpoint_wrapper.checkpoint_wrapper,
        lambda module: nn.DataParallel(torch.compile(module)),
    ],
)
def test_wrappers_change_neither_numbers_nor_patterns(wrap):
    """Wrappers' prefixes are removed; a module that only has a wrapper's name keeps it."""
    rules = {"0.weight": wf.HeNormal(), "module.*": "ones"}

    def make():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model.add_module("module", nn.Linear(3, 3))
        return model

    model = make()
    expected = init_(make(), rules, seed=3).state_dict()
    init_(wrap(model), rules, seed=3)
    assert all(torch.equal(model.state_dict()[name], expected[name]) for name in expected)
    inside = make()
    inside[1] = wrap(inside[1])
    init_(inside, rules, seed=3)
    assert [named.name for named in tensors(inside)] == list(expected)
    values = [named.tensor for named in tensors(inside)]
    assert all(map(torch.equal, values, expected.values()))


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (lambda t: torch.randn(t.shape), "writes nothing to parameter 'weight'; it returns a new"),
        (lambda t: t.clone().normal_(), "writes nothing to parameter 'weight'"),
        (lambda t: t.double().normal_(), "writes nothing to parameter 'weight'"),
        (lambda t: None, "writes nothing to parameter 'weight'"),
        (lambda t: t[1:].normal_(), "fills parameter 'weight' in part"),
        (lambda t: t.mul_(0.5), "from what it held before"),
        (lambda t: t.detach().numpy().fill(1), "numpy.. reaches the memory"),
        (lambda t: wf.HeNormal().fill(t, seed=1), "."),
    ],
)
def test_rules_that_fill_nothing(rule, error):
    """An error, and nothing has been written."""
    module = nn.Linear(4, 4)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises((ValueError, RuntimeError, TypeError), match=error):
        init_(module, {"weight": rule, "bias": "ones"}, seed=3)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_frozen_and_padding():
    """Fault 12."""
    table = torch.arange(12.0).view(4, 3)
    model = nn.ModuleDict(
        {"fixed": nn.Embedding.from_pretrained(table.clone()), "free": nn.Embedding(5, 3, 2)}
    )
    init_(model, {"*.weight": "he_normal"}, seed=3)
    assert torch.equal(model["fixed"].weight, table)
    assert (model["free"].weight[2] == 0).all() and model["free"].weight.unique().numel() > 12
    init_(model, {"free.weight": nn.init.ones_}, seed=3)
    assert model["free"].weight.sum() == 12
    init_(model, {"fixed.weight": "ones"}, seed=3)
    assert (model["fixed"].weight == 1).all()
    init_(model, seed=3, frozen="fill")
    assert model["fixed"].weight.unique().numel() == 12
    model["fixed"].weight.data.fill_(math.nan)
    before = model["free"].weight.clone()
    for rules in (None, {"fixed.weight": "keep"}):
        with pytest.raises(ValueError, match="'fixed.weight' is kept as it is, but is not finite"):
            init_(model, rules, seed=4)
    assert torch.equal(model["free"].weight, before)


def test_errors_are_short():
    """Fault 19."""
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(1000)])
    with pytest.raises(ValueError, match="did you mean '5.weight'") as error:
        init_(model, {"5.wieght": "ones"})
    assert len(str(error.value)) < 200
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    with pytest.raises(ValueError, match="'b.weight', which is tied to 'a.weight'"):
        init_(model, {"b.weight": "ones"})
    strange = nn.Module()
    strange.register_parameter("w[0]?", nn.Parameter(torch.zeros(2)))
    assert (init_(strange, {"w[0]?": "ones"}).state_dict()["w[0]?"] == 1).all()
    assert not matches("w0", "w[0]") and not matches("a" * 3000, "*a" * 300 + "b")


def test_inference_mode():
    """Fault 20."""
    expected = init_(nn.Linear(3, 3), seed=1).weight
    module = nn.Linear(3, 3)
    with torch.inference_mode():
        assert torch.equal(init_(module, seed=1).weight, expected)
        assert torch.equal(init_(nn.Linear(3, 3), seed=1).weight, expected)


@pytest.mark.parametrize(
    ("module", "mode", "fan"),
    [
        (nn.Conv2d(8, 16, 3), "fan_out", 144),
        (nn.Conv2d(8, 16, 3, groups=4), "fan_in", 18),
        (nn.Conv2d(8, 16, 3, groups=4), "fan_out", 36),
        (nn.Conv2d(8, 8, 3, groups=8), "fan_out", 9),
        (nn.ConvTranspose2d(8, 16, 3), "fan_in", 72),
        (nn.ConvTranspose2d(8, 16, 3, groups=4), "fan_in", 18),
        (nn.ConvTranspose2d(8, 16, 3, groups=4), "fan_out", 36),
    ],
)
def test_fans_of_convolutions(module, mode, fan):
    """Fault 22."""
    init_(module, {"weight": wf.HeNormal(mode=mode), "bias": "zeros"}, seed=3)
    normal = wf.RandomNormal(0.0, math.sqrt(2 / fan))(module.weight.shape, seed=3, name="weight")
    torch.testing.assert_close(module.weight.detach(), torch.from_numpy(normal))


def test_rules_by_type():
    model = nn.Sequential(nn.Linear(4, 4), nn.Embedding(4, 4), nn.Sequential(nn.Linear(4, 4)))
    rules = {"0.weight": "ones", nn.Linear: {"weight": wf.HeNormal(), "b*": "zeros"}}
    init_(model, {**rules, "Embedding": "zeros"}, seed=3)
    assert (model[0].weight == 1).all() and (model[0].bias == 0).all()
    assert (model[1].weight == 0).all() and (model[2][0].bias == 0).all()
    assert torch.equal(model[2][0].weight, normal("2.0.weight", (4, 4), math.sqrt(0.5)))
    with pytest.raises(ValueError, match="types of modules that there are, got Conv1d"):
        init_(model, {nn.Conv1d: "ones"})
    with pytest.raises(ValueError, match="no Linear has a tensor 'scale'"):
        init_(model, {nn.Linear: {"scale": "ones"}})
    before = model[0].weight.clone()
    init_(model, {"0.weight": "keep"}, seed=4)
    assert torch.equal(model[0].weight, before) and model[0].bias.unique().numel() == 4


def test_parametrised_modules():
    """Weight normalisation: the effective weight has the scheme. Others are refused by name."""
    plain = init_(nn.Linear(64, 32), seed=3)
    module = parametrizations.weight_norm(nn.Linear(64, 32))
    init_(module, seed=3)
    torch.testing.assert_close(module.weight, plain.weight)
    init_(module, {"weight": wf.HeNormal()}, seed=3)
    expected = normal("weight", (32, 64), math.sqrt(2 / 64))
    torch.testing.assert_close(module.weight.detach(), expected)
    for wrap in (parametrizations.spectral_norm, parametrizations.orthogonal):
        module = wrap(nn.Linear(4, 4))
        before = copy.deepcopy(module.state_dict())
        with pytest.raises(ValueError, match="weight"):
            init_(module, seed=3)
        after = module.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


class Whole(nn.Module):
    """A model with a method for the whole of it, and a flag."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.last = nn.Linear(4, 4, bias=False)
        self.fixed = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("table", torch.zeros(3, dtype=torch.int64), persistent=False)

    def init_weights(self, scale=0.5):
        if getattr(self, "done", False):
            raise AssertionError("the flag of an earlier recording")
        self.done = True
        torch.manual_seed(0)
        nn.init.normal_(self.first.weight, std=scale)
        self.last.weight.data.normal_().mul_(scale)
        self.table.copy_(torch.arange(3))
        self.fixed.fill_(2)


def test_whole_model_methods():
    model = Whole()
    model.first.weight.requires_grad_(False)
    hook = model.first.register_forward_hook(lambda *args: None)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    before = {name: (value, value.requires_grad) for name, value in model.named_parameters()}
    init_(model.eval(), seed=3)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert not hasattr(model, "done") and not model.training
    assert list(model.first._forward_hooks) == [hook.id]
    assert all(before[name] == (value, value.requires_grad)
               for name, value in model.named_parameters())  # fmt: skip
    assert torch.equal(model.first.weight, normal("first.weight", (4, 4), 0.5))
    assert torch.equal(model.last.weight, normal("last.weight", (4, 4), 0.5))
    assert (model.norm.weight == 1).all() and (model.fixed == 2).all()
    assert model.table.tolist() == [0, 1, 2] and model.first.bias.unique().numel() == 4
    inside = init_(nn.ModuleDict({"part": Whole()}), seed=3)["part"]
    assert torch.equal(inside.last.weight, normal("part.last.weight", (4, 4), 0.5))
    init_(
        model, seed=3, by=lambda m: m.apply(lambda one: [p.data.zero_() for p in one.parameters()])
    )
    assert all((value == 0).all() for value in model.parameters())


@pytest.mark.parametrize("order", [("query", "key"), ("key", "query")])
def test_momentum_encoders_share_a_stream(order):
    """The copy uses the stream of the tensor that was drawn, whichever comes first."""
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in order})

    def by(model):
        for one, other in zip(model["query"].parameters(), model["key"].parameters(), strict=True):
            nn.init.normal_(one)
            other.data.copy_(one.data)

    init_(model, seed=3, by=by)
    assert torch.equal(model["query"].weight, normal("query.weight", (4, 4)))
    assert torch.equal(model["key"].weight, model["query"].weight)


@pytest.mark.parametrize(
    ("reset", "error"),
    [
        (lambda m: m.weight.fill_(torch.randn(3).max().item()), "reads an element"),
        (lambda m: m.weight.normal_().div_(m.weight.norm().item()), "reads an element"),
        (lambda m: m.weight.copy_(torch.randperm(24).view(6, 4)), "randperm, which has no scheme"),
        (lambda m: m.weight.mul_(2), "from what it held before"),
        (lambda m: m.weight[1:].normal_(), "in part"),
        (lambda m: m.weight.fill_(random.random()), "Python's or NumPy's generator"),
    ],
)
def test_what_cannot_be_recorded_is_refused(reset, error):
    module = Own(lambda m: (m.bias.zero_(), reset(m)))
    with pytest.raises(ValueError, match=error):
        init_(module, seed=3)
    assert torch.isnan(module.weight).all() and torch.isnan(module.bias).all()


@pytest.mark.parametrize(
    ("method", "read"),
    [
        ("numpy", lambda w: w.numpy()),
        ("tolist", lambda w: w.tolist()),
        ("__array__", np.asarray),
        ("__dlpack__", lambda w: w.__dlpack__()),
        ("share_memory_", lambda w: w.share_memory_()),
    ],
)
def test_memory_that_is_reached_without_an_operation_is_refused(method, read):
    module = Own(lambda m: (read(m.weight.normal_()), m.bias.zero_()))
    with pytest.raises(ValueError, match=rf"{method}\(\) reaches the memory of tensor 'weight'"):
        init_(module, seed=3)


def marked(**marks):
    def make():
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        vars(module[1].weight).update(marks)
        return module

    return make


class FullyShardedDataParallel(nn.Module):
    """Stands for torch's, which needs an accelerator: `init_` goes by the name and the state."""

    def __init__(self, state="IDLE"):
        super().__init__()
        self.training_state = types.SimpleNamespace(name=state)
        self._fsdp_wrapped_module = marked(_fsdp_flattened=True)()


def quantised():
    module = torch.ao.quantization.quantize_dynamic(marked()(), {nn.Linear})
    assert module[1].weight().is_quantized
    return module


def quantised_buffer():
    module = marked()()
    module[1].register_buffer(
        "table", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    )
    return module


NOT_JUST_MEMORY = {
    "lazy": (lambda: nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(3)), ValueError,
             "parameter '1.weight' has no shape yet: run the lazy module once"),
    "ZeRO-3": (marked(ds_id=1), TypeError, "'1.weight' is partitioned by ZeRO-3"),
    "Megatron": (marked(tensor_model_parallel=True), TypeError,
                 "'1.weight' is a shard of a tensor-parallel layer of Megatron"),
    "bitsandbytes": (marked(quant_state=object()), TypeError, "'1.weight' is quantised"),
    "quantised": (quantised, TypeError, "module '0' is quantised"),
    "quantised buffer": (quantised_buffer, TypeError, "buffer '1.table' is quantised"),
    "FSDP": (FullyShardedDataParallel, TypeError, "use init_ inside summon_full_params"),
    "part of FSDP": (marked(_fsdp_flattened=True), TypeError,
                     "'1.weight' is a part of a flat parameter of FullyShardedDataParallel"),
}  # fmt: skip
PLAN = wf.Plan([])
ENTRANCES = {
    "init_": lambda module: init_(module, seed=3),
    "rules": lambda module: init_(module, {"*weight": "zeros"}, seed=3),
    "by": lambda module: init_(module, by=lambda module: None, seed=3),
    "record": ours.record,
    "factory": lambda module: ours.record(lambda: module),
    "fill_": lambda module: ours.fill_(module, PLAN, seed=3),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("kind", NOT_JUST_MEMORY)
def test_modules_that_are_not_just_memory(kind, entrance):
    make, error, message = NOT_JUST_MEMORY[kind]
    module = make()
    before = {
        name: tensor.clone()
        for name, tensor in module.named_parameters()
        if not nn.parameter.is_lazy(tensor)
    }
    with pytest.raises(error, match=message):
        ENTRANCES[entrance](module)
    for name, tensor in before.items():
        assert torch.equal(module.get_parameter(name), tensor)


def test_summoned_parameters_of_fsdp_are_filled():
    module = init_(FullyShardedDataParallel("SUMMON_FULL_PARAMS"), seed=3)
    plain = init_(marked()(), seed=3)
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_is_written_before_all_checks():
    """The type of the last tensor does not allow its rule: no tensor has been written."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.float16))
    before = copy.deepcopy(model.state_dict())
    for rule in (wf.Constant(1e6), wf.Dirac(), wf.HeNormal(batch_axis=5)):
        with pytest.raises(ValueError, match="parameter '1.weight' cannot be filled by"):
            init_(model, {"1.weight": rule}, seed=3)
        after = model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_numbers_that_are_drawn_cannot_be_read():
    """While the code is recorded, drawn tensors have no values yet."""

    def reset(module):
        temporary = torch.empty(4, 4).normal_()
        assert torch.isfinite(temporary).all()
        module.weight.copy_(torch.randn(6, 4))

    with pytest.raises(ValueError, match="reads an element"):
        init_(Own(reset), seed=3)


def ks_equal(own, new, alarm):
    """Constants must be equal; random tensors pass a two-sample Kolmogorov-Smirnov test."""
    if own.unique().numel() <= 3 or not own.is_floating_point() or torch.equal(own, new):
        return torch.equal(own, new)
    sample = own.detach().flatten().double(), new.detach().flatten().double()
    return stats.ks_2samp(*sample).pvalue > alarm


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "vocab_size": 101}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 64}
SEQ = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
       "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
       "vocab_size": 101}  # fmt: skip
IMAGE = {"image_size": 32, "patch_size": 8}
TRANSFORMERS = {
    "Llama": (GROUPED, "ForCausalLM"),
    "GPT2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 101}, "LMHeadModel"),
    "Bert": (SMALL, "ForMaskedLM"),
    "T5": ({"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
            "vocab_size": 101}, "ForConditionalGeneration"),
    "Whisper": ({**SEQ, "max_source_positions": 50, "num_mel_bins": 16, "pad_token_id": 0},
                "ForConditionalGeneration"),
    "ViT": ({**SMALL, **IMAGE}, "ForImageClassification"),
    "Mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 101}, "ForCausalLM"),
    "Mamba2": ({"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 101, "num_heads": 8,
                "head_dim": 8, "n_groups": 1}, "ForCausalLM"),
    "Qwen3Moe": ({**GROUPED, "moe_intermediate_size": 16, "num_experts": 4, "head_dim": 8},
                 "ForCausalLM"),
    "Mixtral": ({**GROUPED, "num_local_experts": 4}, "ForCausalLM"),
    "Falcon": (SMALL, "ForCausalLM"),
    "GPTNeoX": (SMALL, "ForCausalLM"),
    "OPT": ({"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "vocab_size": 101, "word_embed_proj_dim": 32}, "ForCausalLM"),
    "Wav2Vec2": ({**SMALL, "vocab_size": 32, "conv_dim": (16, 16), "conv_kernel": (3, 3),
                  "conv_stride": (2, 2), "num_conv_pos_embeddings": 16,
                  "num_conv_pos_embedding_groups": 4}, "ForCTC"),
    "Swin": ({"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32,
              "patch_size": 4, "window_size": 4}, "ForImageClassification"),
    "ConvNext": ({"hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4}, "ForImageClassification"),
}  # fmt: skip


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_transformers(family):
    """The author's own distributions; equal after to_empty; bare and with a head alike.

    Two-sample Kolmogorov-Smirnov: a false alarm in 10^7 a tensor; the seeds are fixed.
    """
    transformers = pytest.importorskip("transformers")
    numbers, head = TRANSFORMERS[family]
    config = getattr(transformers, f"{family}Config")(**numbers)
    make = functools.partial(getattr(transformers, family + head), config)
    torch.manual_seed(0)
    model = make()
    own = {n: t.clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    flags = {name: vars(one).get("_is_hf_initialized") for name, one in model.named_modules()}
    state = torch.get_rng_state()
    init_(model, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert flags == {n: vars(one).get("_is_hf_initialized") for n, one in model.named_modules()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert ks_equal(own[name], tensor, 1e-7), name

    again = make().to_empty(device="cpu")
    for parameter in again.parameters():
        parameter.data.fill_(math.nan)
    if any(parameter.ndim == 4 for parameter in again.parameters()):
        again = again.to(memory_format=torch.channels_last)
    init_(again, seed=3)
    expected = model.state_dict()
    assert all(torch.equal(expected[n], value) for n, value in again.state_dict().items())

    bare = init_(getattr(transformers, f"{family}Model")(config), seed=3)
    start = f"{model.base_model_prefix}."
    both = 0
    for name, value in bare.named_parameters():
        inside = expected.get(start + name, expected.get(name))
        if inside is not None:
            both += 1
            assert torch.equal(inside, value), name
    assert both > len(list(bare.parameters())) // 2


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "mixer_s32_224",
                                  "swin_tiny_patch4_window7_224"])  # fmt: skip
def test_timm(name):
    """As for transformers."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    make = functools.partial(timm.create_model, name, num_classes=10)
    model = make()
    own = {n: t.clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    init_(model, seed=3)
    for one, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert ks_equal(own[one], tensor, 1e-7), one
    twin = init_(make().to(memory_format=torch.channels_last), seed=3).state_dict()
    assert all(torch.equal(value, twin[one]) for one, value in model.state_dict().items())


def test_timms_scales_that_only_constructors_fill():
    timm = pytest.importorskip("timm")
    model = timm.create_model("convnext_atto", num_classes=10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="'stages.0.blocks.0.gamma': give a rule"):
        init_(model, seed=3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    gamma = wf.Constant(1e-6)
    assert init_(model, {"*.gamma": gamma}, seed=3).stages[0].blocks[0].gamma.unique().numel() == 1
