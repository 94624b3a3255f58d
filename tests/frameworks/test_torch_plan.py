"""Plans of torch modules: recorded from factories or modules, and used to fill modules."""

import random
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from tiny_models import TIMM, TRANSFORMERS, inputs, of_timm, of_transformers
from torch import nn
from torch.nn.utils import parametrizations

import winit_fast as wf
import winit_fast.torch as init
from winit_fast.models import TensorSpec
from winit_fast.torch.expressions import TorchExpression


def tensors_of(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def assert_filled(model, plan, seed):
    """Every tensor has the bits of the plan's array."""
    arrays = dict(plan.arrays(seed))
    found = tensors_of(model)
    assert found.keys() == arrays.keys()
    for name, tensor in found.items():
        array, tensor = arrays[name], tensor.detach().contiguous()
        assert str(tensor.dtype) == f"torch.{array.dtype.name}"
        assert tensor.view(-1).view(torch.uint8).numpy().tobytes() == array.tobytes(), name


# ---------------------------------------------------------------------------------- real models

SAMPLE = {
    "LlamaForCausalLM", "Qwen3NextForCausalLM", "DeepseekV3ForCausalLM", "Mamba2ForCausalLM",
    "T5ForConditionalGeneration", "MarianMTModel", "BertForMaskedLM", "CLIPModel", "Wav2Vec2Model",
    "PoolFormerModel", "test_efficientnet",
}  # fmt: skip
"""Those of CI: `make test-models` has all."""

MODELS = [
    pytest.param(make(name), id=name, marks=() if name in SAMPLE else pytest.mark.models)
    for names, make in ((TRANSFORMERS, of_transformers), (TIMM, of_timm))
    for name in names
]
FOLLOWS_NO_METHOD = {
    *("test_efficientnet", "test_byobnet", "test_nfnet", "test_mambaout"),
    *("mobilenetv3_small_050", "mobilevit_xxs"),
}
"""Models whose constructor calls functions that initialise them: no method of theirs does."""


@pytest.mark.parametrize("make", MODELS)
def test_a_model_is_recorded_and_filled(make, request):
    """The distributions are the author's: constants are equal, others by Kolmogorov-Smirnov.

    About 4000 tensors, each at 2.5e-8: all together a false alarm in 10^4.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plan = init.record(make)
    assert plan == init.record(make)
    torch.manual_seed(0)
    first, other = tensors_of(make()), tensors_of(make())
    model = init.fill_(make(), plan, seed=3)
    assert_filled(model, plan, 3)
    for name, tensor in tensors_of(model).items():
        if torch.equal(first[name], other[name]):
            assert torch.equal(first[name], tensor), name
        else:
            some = (one.detach().flatten()[:20000].double() for one in (first[name], tensor))
            assert stats.ks_2samp(*some).pvalue > 2.5e-8, name
    model.eval()
    with torch.no_grad():
        given = inputs(model)
        result = model(**given) if hasattr(model, "config") else model(*given.values())
    result = result if isinstance(result, torch.Tensor) else result[0]
    assert torch.isfinite(result).all()
    kind = request.node.callspec.id
    if kind not in FOLLOWS_NO_METHOD:
        again = make()
        try:
            init.init_(again, seed=3)
        except ValueError as error:
            assert "only its constructor fills parameter" in str(error)
        else:
            assert_filled(again, plan, 3)


def test_a_bare_model_has_the_numbers_of_one_with_a_head():
    import transformers

    settings = TRANSFORMERS["GPT2LMHeadModel"]
    config = transformers.GPT2Config(**settings)
    head = init.record(lambda: transformers.GPT2LMHeadModel(config))
    bare = init.record(lambda: transformers.GPT2Model(config))
    assert {tensor.stream for tensor in bare} == set(head.names)
    assert head["lm_head.weight"].name == "transformer.wte.weight"  # a tied tensor
    with torch.device("meta"):
        meta = transformers.GPT2LMHeadModel(config)
    assert init.record(meta) == head
    assert (
        init.record(lambda: transformers.GPT2LMHeadModel(config).bfloat16())
        .cast("float32")
        .diff(head)
        == []
    )


def test_streams_of_a_model_whose_generating_class_has_no_base_model():
    """T5 declares a prefix that only its classes for classification use."""
    import transformers

    config = transformers.T5Config(**TRANSFORMERS["T5ForConditionalGeneration"])
    whole = init.record(lambda: transformers.T5ForConditionalGeneration(config))
    bare = init.record(lambda: transformers.T5Model(config))
    assert {tensor.stream for tensor in bare} <= {tensor.stream for tensor in whole}
    assert all(tensor.stream == tensor.name for tensor in whole)  # the keys of save_pretrained
    assert whole["shared.weight"].stream == "shared.weight"


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "DeepseekV3ForCausalLM"])
def test_streams_are_the_keys_that_save_pretrained_writes(name, tmp_path):
    """The model fuses its experts, its checkpoint does not: both have the same bits."""
    make = of_transformers(name)
    plan = init.record(make)
    model = init.fill_(make(), plan, seed=6)
    assert_filled(init.init_(make(), seed=6), plan, 6)
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    experts = [key for key in written if ".experts." in key]
    assert len(experts) >= 12
    for key in experts:
        alone = wf.RandomNormal(0, 0.02)(tuple(written[key].shape), seed=6, name=key)
        assert torch.equal(written[key], torch.from_numpy(alone)), key
    streams = {tensor.stream for tensor in plan if "experts." not in tensor.name}
    assert streams - {tensor.stream for tensor in plan if tensor.kind != "parameter"} <= set(
        written
    )


def test_many_experts_are_covered():
    parts = [((e, h, 0), (e + 1, h + 1, 4), wf.RandomNormal(), f"{e}.{h}")
             for e in range(600) for h in range(2)]  # fmt: skip
    tensor = TensorSpec("w", (600, 2, 4), wf.Parts(parts))
    assert (tensor.array(1)[7, 1] == wf.RandomNormal()((1, 1, 4), seed=1, name="7.1")).all()
    with pytest.raises(ValueError, match="parts must cover"):
        TensorSpec("w", (600, 2, 4), wf.Parts(parts[:77] + parts[78:])).check()


# ------------------------------------------------------------------------------------ constructors


class Made(nn.Module):
    """Makes tensors in every way that a constructor can."""

    def __init__(self):
        super().__init__()
        self.scaled = nn.Parameter(torch.randn(3, 4) * 0.02)
        self.moved = nn.Parameter(1.0 + 0.5 * torch.rand(3, 4))
        self.zeros = nn.Parameter(torch.zeros(5))
        self.full = nn.Parameter(torch.full((5,), 0.25))
        self.ones = nn.Parameter(torch.ones(5, dtype=torch.float64) * 3)
        self.listed = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.number = nn.Parameter(torch.tensor(2.5))
        self.filled = nn.Parameter(torch.empty(4, 2))
        nn.init.trunc_normal_(self.filled, std=0.02)
        self.data = nn.Parameter(torch.empty(2, 6))
        self.data.data = torch.empty(2, 6).uniform_(-1, 1)
        self.parts = nn.Parameter(torch.empty(4, 3))
        with torch.no_grad():
            self.parts[:2].normal_(std=0.1)
            self.parts[2:].zero_()
        self.cast = nn.Parameter(torch.rand(64, dtype=torch.float64).half())
        self.reshaped = nn.Parameter(torch.randn(12).view(3, 4))
        self.log = nn.Parameter(torch.log(1 + torch.rand(8) * 15))
        self.unit = nn.Parameter(nn.functional.normalize(torch.randn(4, 3)))
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(4, 3)
        self.second.load_state_dict(self.first.state_dict())
        self.register_buffer("positions", torch.arange(6)[None], persistent=False)
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool())
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("table", torch.zeros(3, 4))
        self.table[:, 0::2] = torch.sin(torch.arange(6.0).view(3, 2))
        self.table[:, 1::2] = torch.cos(torch.arange(6.0).view(3, 2))


def test_what_constructors_make(tmp_path):
    plan = init.record(Made)
    schemes = {tensor.name: tensor.initializer for tensor in plan}
    assert schemes["scaled"] == wf.RandomNormal(0.0, 0.02)
    assert schemes["moved"] == wf.RandomUniform(1.0, 1.5)
    assert schemes["zeros"] == wf.Zeros() and schemes["full"] == wf.Constant(0.25)
    assert schemes["ones"] == wf.Constant(3.0) and plan["ones"].dtype == "float64"
    assert schemes["listed"] == wf.Computed(np.array([1, 2], "f4"))
    assert schemes["number"] == wf.Constant(2.5)
    assert schemes["filled"] == wf.TruncatedNormal(0.0, 0.02, -100.0, 100.0)
    assert schemes["data"] == wf.RandomUniform(-1.0, 1.0)
    assert isinstance(schemes["parts"], wf.Parts)
    assert (schemes["cast"], plan["cast"].drawn_in) == (wf.RandomUniform(0.0, 1.0), "float64")
    assert schemes["reshaped"] == wf.RandomNormal(0.0, 1.0)
    x = wf.RandomUniform(0.0, 1.0)
    assert schemes["log"] == wf.Expression("log(x1 * 15.0 + 1.0)", {"x1": x})
    assert isinstance(schemes["unit"], TorchExpression)
    assert plan["second.weight"].stream == "first.weight"
    assert plan["positions"].kind == "non-persistent buffer" and plan["mask"].kind == "buffer"
    assert schemes["count"] == wf.Zeros() and plan["count"].dtype == "int64"
    assert_filled(init.fill_(Made(), plan, seed=5), plan, 5)
    exact = np.log(1 + 15.0 * wf.RandomUniform(0, 1)(8, seed=5, name="log").astype("f8"))
    np.testing.assert_allclose(plan["log"].array(5), exact, rtol=1e-6)
    with torch.device("meta"):
        assert init.record(Made) == plan  # the same call outside of the class
    assert init.record(lambda: on_meta(Made)) == plan
    with pytest.raises(ValueError, match="tensor 'unit' cannot be written"):
        plan.save(tmp_path / "plan.json")
    assert not [*tmp_path.iterdir()]
    rest = wf.Plan(tensor for tensor in plan if tensor.name != "unit")
    rest.save(tmp_path / "plan.json")
    assert wf.Plan.load(tmp_path / "plan.json") == rest


def on_meta(make):
    with torch.device("meta"):
        return make()


def test_nothing_moves_while_a_factory_is_recorded():
    torch.manual_seed(7)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    init.record(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), Made()))
    assert torch.equal(states[0], torch.get_rng_state()) and random.getstate() == states[1]
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_memory_is_not_touched():
    """64 GiB of weights, more than the machine has."""
    plan = init.record(lambda: nn.ModuleList(nn.Linear(1 << 16, 1 << 12) for _ in range(64)))
    assert plan.size == 64 * ((1 << 28) + (1 << 12))


def test_a_parametrised_layer_is_drawn_for_its_whole():
    def make():
        return nn.Sequential(nn.Conv1d(4, 4, 3), parametrizations.weight_norm(nn.Linear(6, 4)))

    plan = init.record(make)
    model = init.fill_(make(), plan, seed=2)
    whole = wf.RandomUniform(-(6**-0.5), 6**-0.5)((4, 6), seed=2, name="1.weight")
    np.testing.assert_allclose(model[1].weight.detach(), whole, rtol=1e-6)
    assert_filled(init.init_(make(), seed=2), plan, 2)


class OnlyDrawn(nn.Module):
    def __init__(self):
        super().__init__()
        torch.randn(3)
        self.w = nn.Parameter(torch.ones(3))


class Unfilled(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.empty(3))


class PartlyFilled(Unfilled):
    def __init__(self):
        super().__init__()
        self.w.data[:2].normal_()


class OfNumpy(Unfilled):
    def __init__(self):
        super().__init__()
        self.w.data.copy_(torch.from_numpy(np.random.rand(3).astype("f4")))  # noqa: NPY002


class OfElements(Unfilled):
    def __init__(self):
        super().__init__()
        self.w.data.normal_()
        if self.w.max() > 0:
            self.w.data.zero_()


class Permuted(Unfilled):
    def __init__(self):
        super().__init__()
        self.w.data.copy_(torch.randperm(3))


class Clamped(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(300).clamp(-1, 1))


def test_a_draw_that_lands_nowhere_is_a_warning():
    with pytest.warns(
        UserWarning,
        match=r"no tensor receives these random numbers: aten::randn of shape \(3,\)",
    ):
        init.record(OnlyDrawn)


@pytest.mark.parametrize("call", [init.record, init.init_])
def test_a_draw_of_a_method_that_lands_nowhere_is_a_warning(call):
    def by(module):
        torch.rand(2, 3)
        module.reset_parameters()
        module.bias.copy_(torch.randn(6)[:3])

    message = r"no tensor receives these random numbers: aten::rand of shape \(2, 3\)"
    with pytest.warns(UserWarning, match=message) as warned:
        call(nn.Linear(4, 3), by=by)
    assert len(warned) == 1 and warned[0].filename == __file__


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Unfilled, ValueError, "no code fills parameter 'w'"),
        (PartlyFilled, ValueError, "'w' is filled from memory that nobody has written"),
        (OfNumpy, ValueError, "Python's or NumPy's generator"),
        (OfElements, ValueError, "reads an element"),
        (Permuted, ValueError, "'w' is drawn by aten::randperm, which has no scheme"),
        (Made(), ValueError, "only its constructor fills parameter 'scaled'"),
        (nn.BatchNorm1d(3, affine=False), None, None),
        (3, TypeError, "source must be a module or a function that makes one, got 3"),
        (lambda: 3, TypeError, "source must make a module, it makes 3"),
        (lambda: nn.LazyLinear(3), ValueError, "run the lazy module once"),
    ],
)
def test_what_cannot_be_recorded_is_refused_by_name(source, error, message):
    if error is None:
        assert init.record(source).names == ("running_mean", "running_var", "num_batches_tracked")
        return
    with pytest.raises(error, match=message):
        init.record(source)


def test_by_goes_before_the_authors_method():
    def ones(module):
        for parameter in module.parameters():
            nn.init.ones_(parameter)

    plan = init.record(lambda: nn.Linear(3, 2), by=ones)
    assert {tensor.initializer for tensor in plan} == {wf.Ones()}
    plan = init.record(lambda: nn.Linear(3, 2), prefix="a.b", names={"weight": "w"})
    assert [tensor.stream for tensor in plan] == ["a.b.w", "a.b.bias"]


def test_clamping_is_no_truncation():
    plan = init.record(Clamped)
    w = plan["w"].array(1)
    z = wf.RandomNormal(0, 1)(300, seed=1, name="w")
    assert (w == z.clip(-1, 1)).all() and (w == 1).any()


# ------------------------------------------------------------------------------------------ fill_


def linear():
    return nn.Linear(4, 3)


PLAN = init.record(linear)


def test_fill_moves_versions_and_leaves_gradients():
    layer = linear()
    layer.weight.grad = torch.ones(3, 4)
    layer.bias.requires_grad_(False)
    versions = layer.weight._version, layer.bias._version
    assert init.fill_(layer, PLAN, seed=0) is layer
    assert (layer.weight.grad == 1).all() and not layer.bias.requires_grad
    assert layer.weight._version > versions[0] and layer.bias._version > versions[1]
    assert layer.weight.is_leaf and layer.weight.requires_grad


def test_fill_without_a_seed_follows_torchs_generator():
    torch.manual_seed(3)
    first, other = init.fill_(linear(), PLAN), init.fill_(linear(), PLAN)
    torch.manual_seed(3)
    again = init.fill_(linear(), PLAN)
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)


def test_fill_of_layouts_and_ties():
    plan = init.record(lambda: nn.Conv2d(3, 8, 3))
    conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    assert_filled(init.fill_(conv, plan, seed=1), plan, 1)

    def tied():
        pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        pair[1].weight = pair[0].weight
        return pair

    plan = init.record(tied)
    assert plan["0.weight"].tied == ("1.weight",) and len(plan) == 3
    apart = init.fill_(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), plan, seed=1)
    assert torch.equal(apart[0].weight, apart[1].weight)
    both = init.fill_(tied(), plan, seed=1)
    assert torch.equal(both[1].weight, apart[1].weight)
    with pytest.raises(ValueError, match=r"the module has no '1\.weight', which the plan has"):
        init.fill_(tied(), init.record(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))))


def test_fill_of_complex_tensors():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.empty(3, dtype=torch.complex64))

    plan = wf.Plan([TensorSpec("w", (3,), wf.RandomNormal(), dtype="complex64")])
    assert_filled(init.fill_(Complex(), plan, seed=1), plan, 1)


@pytest.mark.parametrize(
    ("module", "plan", "error", "message"),
    [
        (nn.Linear(4, 3), PLAN[:1], ValueError, "the plan has no 'bias', which the module has"),
        (nn.Linear(4, 3, bias=False), PLAN, ValueError, "the module has no 'bias'"),
        (nn.Linear(5, 3), PLAN, ValueError, r"'weight' has shape \(3, 5\), in the plan \(3, 4\)"),
        (nn.Linear(4, 3).half(), PLAN, TypeError, "'weight' is float16, in the plan float32"),
        (nn.Linear(4, 3, device="meta"), PLAN, ValueError, "'weight' is on the meta device"),
        (nn.Linear(4, 3), [], TypeError, r"plan must be a Plan, got \[\]"),
        (
            nn.Linear(4, 3),
            wf.Plan([PLAN[0], TensorSpec("bias", (3,), wf.Orthogonal())]),
            ValueError,
            "tensor 'bias': ",
        ),
    ],
)
def test_fill_refuses_before_anything_is_written(module, plan, error, message):
    before = [tensor.clone() for tensor in module.parameters()]
    with pytest.raises(error, match=message):
        init.fill_(module, plan, seed=0)
    assert all(
        one.is_meta or torch.equal(one, other)
        for one, other in zip(module.parameters(), before, strict=True)
    )


def test_a_plan_goes_by_way_of_a_file(tmp_path):
    def make():
        return nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Embedding(5, 6, padding_idx=1))

    plan = init.record(make).with_rules({"0.weight": "orthogonal"}, axes="torch")
    plan.save(tmp_path / "plan.json")
    read = wf.Plan.load(tmp_path / "plan.json")
    assert read == plan
    rules = {"0.weight": wf.Orthogonal()}
    by_rules, by_plan = init.init_(make(), rules, seed=4), init.fill_(make(), read, seed=4)
    for one, other in zip(by_rules.parameters(), by_plan.parameters(), strict=True):
        assert torch.equal(one, other)


def test_generations():
    plan = init.record(Made)
    model = init.fill_(Made(), plan, seed=5, generation=2)
    assert_filled(model, plan.of_generation(2), 5)
    first = init.fill_(Made(), plan, seed=5)
    assert not torch.equal(first.unit, model.unit) and not torch.equal(first.log, model.log)
    assert torch.equal(model.second.weight, model.first.weight)
    layer = init.init_(nn.Linear(4, 3), seed=5, prefix="first", generation=2)
    assert torch.equal(layer.weight, model.first.weight)
    with pytest.raises(ValueError, match="generation must be >= 0, got -1"):
        init.init_(layer, seed=5, generation=-1)
    own = {"weight": lambda weight: init.normal_(weight, seed=1, name="own")}
    with pytest.raises(ValueError, match="'weight': the code itself gives the stream 'own'"):
        init.init_(layer, own, seed=5, generation=2)
    assert torch.equal(layer.weight, model.first.weight)


def test_a_seed_that_the_code_gives_is_recorded_but_not_written():
    by = {"by": lambda layer: [init.normal_(one, seed=1, name="own") for one in layer.parameters()]}
    plan = init.record(lambda: nn.Linear(4, 3), **by)
    expected = wf.RandomNormal(0.0, 1.0)((3, 4), seed=1, name="own")
    assert (plan["weight"].array(9) == expected).all()
    assert_filled(init.fill_(nn.Linear(4, 3), plan, seed=9), plan, 9)
    with pytest.raises(ValueError, match="tensor 'weight' cannot be written"):
        plan.to_json()
