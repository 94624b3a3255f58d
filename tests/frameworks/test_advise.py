"""What advise() finds in modules, and that its rules mend it."""

import json
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import winit_fast as wf
import winit_fast.checkpoint as checkpoint
import winit_fast.torch
from winit_fast.advice import advise, examine
from winit_fast.advice.weight_facts import configuration_of, of_checkpoint, of_plan
from winit_fast.diagnosis import propagate
from winit_fast.dynamic import lsuv_

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(*shape, seed=0):
    return winit_fast.torch.normal_(torch.empty(shape), seed=seed, name="batch")


def chain(depth, width, scheme="he_normal", activation=nn.ReLU):
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    rules = {"*.weight": scheme, "*.bias": "zeros"}
    return winit_fast.torch.init_(nn.Sequential(*layers), rules, seed=0)


class Functional(nn.Module):
    def __init__(self, depth, width):
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for one in self.fc:
            x = F.relu(one(x))
        return x


def test_glorot_in_a_deep_relu_network_is_found_and_mended():
    net, batch = chain(60, 128, "glorot_normal"), draw(64, 128)
    assert propagate(net, batch).layers[-1].deviation < 1e-6
    advice = advise(net)
    # The first layer has no activation before it, so Glorot is right there.
    assert {one.name for one in advice.findings} == {f"{i}.weight" for i in range(2, 120, 2)}
    assert advice.then.startswith("winit_fast.dynamic.lsuv_")
    assert len(str(advice).splitlines()) == 2 and "(and 58 more, to 118.weight)" in str(advice)
    winit_fast.torch.init_(net, advice.rules, seed=1)
    assert advise(net).findings == ()
    lsuv_(net, batch, orthonormal=False)
    variances = [row.deviation**2 for row in propagate(net, batch).layers]
    assert all(abs(variance - 1) < 0.2 for variance in variances)


def test_functions_are_seen_with_a_batch():
    net = winit_fast.torch.init_(
        Functional(30, 64), {"*.weight": "glorot_normal", "*.bias": "zeros"}, seed=0
    )
    blind = advise(net)
    assert blind.findings == () and "only with a batch" in blind.notes[0]
    seen = advise(net, draw(32, 64))
    assert len(seen.findings) == 29 and seen.notes == () and seen.measured is not None
    assert seen.findings[0].remedy == wf.HeNormal()


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(500, 64)
        self.fc, self.norm = nn.Linear(64, 64), nn.LayerNorm(64)
        self.head = nn.Linear(64, 500, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.norm(F.gelu(self.fc(self.words(ids)))))


@pytest.mark.parametrize("with_batch", [False, True])
def test_a_tied_head_is_found_and_mended(with_batch):
    net, ids = Language(), torch.arange(200).reshape(8, 25)
    batch = ids if with_batch else None
    (finding,) = advise(net, batch).findings
    assert finding.name == "words.weight" and "logits have a deviation of" in finding.consequence
    winit_fast.torch.init_(net, advise(net, batch).rules, seed=1)
    assert advise(net, batch).findings == ()
    logits = propagate(net, ids)["head"].deviation
    assert 0.8 < logits**2 < 1.2
    loss = F.cross_entropy(net(ids).flatten(0, 1), ids.flatten())
    assert abs(float(loss.detach()) - math.log(500)) < 1


def keeps_variance(net, batch):
    """Every layer has the variance of the one before within 20 %: 4 deviations at width 1,024."""
    variances = [row.deviation**2 for row in propagate(net, batch).layers]
    return all(0.8 < after / before < 1.2 for before, after in pairwise(variances))


def test_a_forgotten_zero_layer_is_found_and_mended():
    net, batch = chain(6, 1024), draw(64, 1024)
    assert keeps_variance(net, batch)
    nn.init.zeros_(net[4].weight)
    for advice in (advise(net), advise(net, batch)):
        assert advice.findings[0].name == "4.weight"
        assert advice.findings[0].problem == "all elements are 0"
    # Behind it nothing is active: that is found with the batch, and has no scheme as a remedy.
    assert advise(net, batch).findings[-1].remedy is None
    winit_fast.torch.init_(net, advise(net).rules, seed=5)
    assert advise(net, batch).findings == ()
    assert keeps_variance(net, batch)


def test_zero_last_layers_of_branches_are_meant():
    blocks = nn.ModuleList(
        nn.ModuleDict({"one": nn.Linear(32, 32), "two": nn.Linear(32, 32)}) for _ in range(3)
    )
    for block in blocks:
        nn.init.zeros_(block["two"].weight)
    assert advise(blocks).findings == ()
    nn.init.ones_(blocks[1]["one"].weight)
    (finding,) = advise(blocks).findings
    assert finding.name == "1.one.weight" and finding.problem == "all elements are 1"


def test_the_fans_of_a_shard_are_found_and_mended():
    net, batch = chain(8, 1024), draw(64, 1024)
    wf_he = wf.HeNormal(fan_in=256)
    winit_fast.torch.init_(net, {"6.weight": wf_he, "*": "keep"}, seed=3)
    (finding,) = advise(net).findings
    assert finding.name == "6.weight" and "fan_in / 4, 1024 // 4 = 256" in finding.problem
    assert not keeps_variance(net, batch)
    winit_fast.torch.init_(net, advise(net).rules, seed=3)
    assert advise(net).findings == ()
    assert float(net[6].weight.detach().std()) == pytest.approx(math.sqrt(2 / 1024), rel=0.02)
    assert keeps_variance(net, batch)


def test_dead_units_and_saturation_are_seen_with_a_batch():
    net = chain(2, 32)
    with torch.no_grad():
        net[2].bias[:20] = -1e6
    (finding,) = advise(net, draw(16, 32)).findings
    assert finding.name == "3" and finding.problem.startswith("62.5 % of its units are 0")
    net = chain(2, 32, wf.RandomNormal(0, 2.0), nn.Tanh)
    names = {one.name for one in advise(net, draw(16, 32)).findings}
    assert {"1", "3"} <= names


def test_weights_that_are_not_finite_are_found_before_the_network_runs():
    net = chain(3, 8)
    with torch.no_grad():
        net[2].weight[0, 0] = math.nan
    (finding,) = advise(net, draw(4, 8)).findings
    assert finding.problem == "1 of 64 elements are not finite"


def test_refusals():
    with pytest.raises(ValueError, match="module must have a weight of at least two axes"):
        advise(nn.LayerNorm(4))
    with pytest.raises(ValueError, match="batch does not fit the module"):
        advise(chain(1, 8), torch.zeros(2, 9))


class Normalised(nn.Module):
    """Two residual branches after normalisation, with small weights as transformers have them."""

    def __init__(self, deviation):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(64), "one": nn.Linear(64, 256),
                           "two": nn.Linear(256, 64)})
            for _ in range(6)
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)
        for block in self.blocks:
            nn.init.normal_(block["one"].weight, 0, deviation)
            nn.init.normal_(block["two"].weight, 0, deviation)

    def forward(self, x):
        for block in self.blocks:
            x = x + block["two"](F.gelu(block["one"](block["norm"](x))))
        return self.head(self.norm(x))


def test_small_branches_do_no_harm_and_large_ones_do():
    assert advise(Normalised(0.02), draw(32, 64)).findings == ()
    found = advise(Normalised(1.0), draw(32, 64)).findings
    assert {one.name for one in found} == {f"blocks.{i}.two.weight" for i in range(6)}
    assert "in a layer" in found[0].consequence


def test_rows_name_what_their_input_comes_from():
    rows = propagate(Normalised(0.02), draw(4, 64)).rows
    assert [row.before for row in rows[:6]] == [
        "", "blocks.0.norm", "blocks.0.one", "blocks.0.one > gelu", None, "blocks.1.norm",
    ]  # fmt: skip
    assert rows[2].samples == 4


FAMILIES = ["LlamaForCausalLM", "Qwen2MoeForCausalLM", "DeepseekV3ForCausalLM", "GPT2LMHeadModel",
            "T5ForConditionalGeneration", "PegasusForConditionalGeneration", "BertForMaskedLM",
            "SwinModel", "ConvNextV2Model", "ResNetModel", "SegformerModel",
            "GraniteForCausalLM"]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_models_of_well_known_authors_have_no_findings(name, tmp_path):
    """By their plan, their module, a batch, and the checkpoint that is written of them."""
    import tiny_models

    torch.manual_seed(0)
    model = tiny_models.of_transformers(name)().eval()
    configuration = json.loads(model.config.to_json_string(use_diff=False))
    plan = winit_fast.torch.record(tiny_models.of_transformers(name))
    model.save_pretrained(tmp_path)
    written = checkpoint.inspect(tmp_path).tensors
    assert examine(of_plan(plan, configuration)) == []
    assert advise(model).findings == ()
    assert advise(model, tiny_models.inputs(model)).findings == ()
    assert examine(of_checkpoint(written, configuration_of(str(tmp_path)))) == []


@pytest.mark.parametrize("name", ["test_vit2", "test_efficientnet", "test_nfnet", "test_byobnet"])
def test_models_of_timm_have_no_findings(name):
    import tiny_models

    torch.manual_seed(0)
    model = tiny_models.of_timm(name)().eval()
    assert advise(model).findings == ()
    assert advise(model, draw(2, *model.default_cfg["input_size"])).findings == ()
