"""init_ of many equal modules: it records only one of them, unless anything distinguishes them."""

import functools
import gc
import sys
import types

import pytest
import torch
from torch import nn
from torch._dynamo import mutation_guard
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.models import TensorSpec
from winit_fast.torch import fast_init, init_
from winit_fast.torch.alike import Alike
from winit_fast.torch.recorder import Recorder


@pytest.fixture
def draws(monkeypatch):
    """Count the recorded draws: draws[0] is their number."""
    count, draw = [0], Recorder.draw

    def counted(*args):
        count[0] += 1
        return draw(*args)

    monkeypatch.setattr(Recorder, "draw", counted)
    return count


def one_by_one(module, *args, **kwargs):
    """Call init_ without the shortcut for equal modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Alike, "reset", lambda self, method: method())
        return init_(module, *args, **kwargs)


def block():
    return nn.Sequential(
        nn.Linear(3, 4), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(3), nn.Embedding(4, 2),
        nn.ConvTranspose1d(4, 2, 3, groups=2, bias=False), nn.GroupNorm(2, 4), nn.PReLU(),
        nn.Bilinear(2, 3, 4),
    )  # fmt: skip


def blocks(count):
    return nn.Sequential(*[block() for _ in range(count)])


def same(first, second):
    """Tell whether two modules hold the same bits, where they hold any."""
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) for k in first if not first[k].is_meta
    )


@pytest.mark.parametrize("rules", [None, {"*.0.weight": wf.HeNormal()}])
def test_as_one_by_one(draws, rules):
    """The same bits; a hundred blocks need no more recordings than one."""
    expected = one_by_one(blocks(3), rules, seed=3)
    assert draws.pop() == 3 * 8
    counts = []
    for count in (1, 3, 100):
        draws[:] = [0]
        module = init_(blocks(count), rules, seed=3)
        counts.append(draws[0])
        if count == 3:
            assert same(module, expected)
    assert counts == [8, 8, 8]
    assert not torch.equal(module[0][0].weight, module[1][0].weight)


@pytest.mark.parametrize("count", [100, 1000])
def test_the_author_is_asked_once(monkeypatch, count):
    """torch's method is called once, however many equal modules there are."""
    calls, reset = [], Alike._outcome
    monkeypatch.setattr(Alike, "_outcome", lambda *args: calls.append(args) or reset(*args))
    init_(nn.Sequential(*[nn.Linear(2, 2) for _ in range(count)]), seed=3)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["smart_apply", "added"])
def test_what_others_add_to_modules_changes_nothing(monkeypatch, name):
    """Transformers adds smart_apply to nn.Module when it initialises its first model."""
    monkeypatch.setattr(nn.Module, name, lambda *_: None, raising=False)
    test_the_author_is_asked_once(monkeypatch, 100)


def test_what_the_first_compilation_replaces_changes_nothing(monkeypatch):
    """torch.compile replaces two functions of nn.Module for the rest of the process."""
    for name in ("__init__", "__setstate__"):
        monkeypatch.setattr(nn.Module, name, getattr(nn.Module, name))
    flag = "___needs_generation_tag_patch"
    monkeypatch.setattr(nn.Module, flag, True, raising=False)
    before = nn.Module.__init__
    mutation_guard.install_generation_tagging_init()
    assert nn.Module.__init__ is not before
    test_the_author_is_asked_once(monkeypatch, 100)


@pytest.mark.parametrize("name", ["parameters", "extra_repr", "__setattr__"])
def test_what_others_replace_in_modules_counts(monkeypatch, name):
    """A replaced method disables the shortcut, even if it does the same."""
    own, outcome, calls = getattr(nn.Module, name), Alike._outcome, []
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    monkeypatch.setattr(nn.Module, name, lambda self, *args: own(self, *args))
    monkeypatch.setattr(Alike, "_outcome", lambda *args: calls.append(args) or outcome(*args))
    init_(module, seed=3)
    assert not calls


def counted(then=None):
    """Make a function that fills a tensor with the number of the call, or calls `then` with it."""
    count = 0

    def call(tensor, *args, **kwargs):
        nonlocal count
        count += 1
        with torch.no_grad():
            return tensor.fill_(count) if then is None else then(count, tensor)

    return call


class Sub(nn.Linear):
    """A user's own class; the number that it fills with grows with every reset."""

    fill = None

    def reset_parameters(self):
        if Sub.fill is not None:  # not while it is constructed
            Sub.fill(self.weight)
            Sub.fill(self.bias)


def two():
    return nn.Linear(2, 2), nn.Linear(2, 2)


def subclass(patch):
    made = Sub(2, 2), Sub(2, 2)
    patch.setattr(Sub, "fill", staticmethod(counted()))
    return made


def instance_attribute(patch):
    first, second = two()
    second.reset_parameters = lambda: [nn.init.ones_(one) for one in second.parameters()]
    return nn.Linear(2, 2), first, second


def method_of_another(patch):
    first, second = two()
    first.reset_parameters = second.reset_parameters
    return first.requires_grad_(False), second, nn.Linear(2, 2)


def entry(patch):
    made = two()
    patch.setattr(nn.init, "kaiming_uniform_", counted())
    return made


def helper(patch):
    made, fans = two(), counted(lambda count, tensor: (count, count))
    patch.setattr(nn.init, "_calculate_fan_in_and_fan_out", fans)
    return made


def import_of_a_class(patch):
    """The name under which the class's file imported torch.nn.init."""
    made, fake = two(), types.ModuleType("init")
    vars(fake).update(vars(nn.init), kaiming_uniform_=counted())
    patch.setattr(nn.modules.linear, "init", fake)
    return made


def method_of_tensors(patch):
    made = two()
    patch.setattr(torch.Tensor, "uniform_", counted(), raising=False)
    return made


def method_of_the_class(patch):
    made, fill = two(), counted()
    patch.setattr(nn.Linear, "reset_parameters", lambda self: (fill(self.weight), fill(self.bias)))
    return made


def method_that_is_an_object(patch):
    made, fill = (nn.BatchNorm1d(2), nn.BatchNorm1d(2)), counted()
    method = functools.partialmethod(lambda self: fill(self.running_mean))
    patch.setattr(nn.BatchNorm1d, "reset_running_stats", method)
    return made


def replaced_meanwhile(patch):
    """A reset replaces a function after some equal modules were reset and before the others."""

    class Replaces(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def reset_parameters(self):
            nn.init.ones_(self.scale)
            patch.setattr(nn.init, "kaiming_uniform_", counted())

    return nn.Linear(2, 2), nn.Linear(2, 2), Replaces(), nn.Linear(2, 2)


def plain_differences(patch):
    frozen, marked, extra = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    frozen.weight.requires_grad_(False)
    marked.weight.mark = object()
    extra.extra = object()
    return (
        nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 2, dtype=torch.float64),
        nn.Linear(2, 2, bias=False), nn.Linear(2, 2).to(torch.bfloat16), frozen, marked, extra,
        nn.Conv2d(2, 2, 2), nn.Conv2d(2, 2, 2).to(memory_format=torch.channels_last),
        nn.Conv2d(2, 4, 2, groups=2), nn.Embedding(3, 2), nn.Embedding(3, 2, padding_idx=1),
        nn.Embedding(3, 2, padding_idx=2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False),
        nn.Linear(2, 2, device="meta"), nn.LSTM(2, 2), nn.LSTM(2, 2),
        nn.MultiheadAttention(2, 1), nn.MultiheadAttention(2, 1),
        nn.Embedding(3, 2, padding_idx=1), nn.Embedding(3, 2),  # the last one is reset first
    )  # fmt: skip


def parametrised(patch):
    return nn.Linear(2, 2), parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2)


def tied(patch):
    first, second, third = *two(), nn.Linear(2, 2)
    second.weight = first.weight
    # another parameter object in the same memory
    third.weight = nn.Parameter(first.weight.detach()[:])
    return first, second, third, nn.Linear(2, 2)


def parts_of_one_memory(patch):
    memory = torch.zeros(2, 2, 2)
    first, second = two()
    first.weight, second.weight = nn.Parameter(memory[0]), nn.Parameter(memory[1])
    return first, second


APART = [
    subclass, instance_attribute, method_of_another, entry, helper, import_of_a_class,
    method_of_tensors, method_of_the_class, method_that_is_an_object, replaced_meanwhile,
    plain_differences, parametrised, tied, parts_of_one_memory,
]  # fmt: skip


@pytest.mark.parametrize("make", APART)
def test_what_tells_modules_apart(make):
    results = []
    for run in (init_, one_by_one):
        torch.manual_seed(0)  # for values that are kept
        with pytest.MonkeyPatch.context() as patch:
            module = nn.Sequential(*make(patch))
            results.append(run(module, seed=3))
    assert same(*results)


class Passes(TorchFunctionMode):
    """A mode that changes nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Passes, fast_init, lambda: torch.device("cpu")])
def test_under_other_modes_every_module_is_recorded(draws, mode):
    expected = init_(nn.Sequential(*two()), seed=3)
    assert draws == [2]
    with mode():
        assert same(init_(nn.Sequential(*two()), seed=3), expected)
    assert draws == [2 + 4]


def test_rules_and_by_that_count():
    """Functions given by the user are called for every tensor, even of equal modules."""
    module = nn.Sequential(*two())
    init_(module, {"*.weight": counted()}, seed=3)
    assert [one.weight[0, 0].item() for one in module] == [1.0, 2.0]
    fill = counted()
    init_(module, seed=3, by=lambda module: [fill(one) for one in module.parameters()])
    assert [one.weight[0, 0].item() for one in module] == [1.0, 3.0]
    fill = counted()
    init_(module, seed=3, by=lambda module: [fill(one.weight) for one in module])
    assert (module[1].weight - module[0].weight == 1).all()
    assert not torch.equal(module[0].bias, module[1].bias)


def test_the_collector_is_as_before():
    for switch in (gc.disable, gc.enable):
        switch()
        before = gc.isenabled()
        init_(nn.Linear(2, 2), seed=3)
        with pytest.raises(ValueError, match="pattern"):
            init_(nn.Linear(2, 2), {"no": "zeros"})
        assert gc.isenabled() == before


class Unlike(nn.Linear):
    """A class that is not torch's, of which every module is recorded."""


LINEAR = {
    "rules": lambda model: init_(model, {"*.weight": wf.HeNormal(), "*.bias": "zeros"}, seed=3),
    "rules that are recorded": lambda model: init_(model, {"*": nn.init.ones_}, seed=3),
    "recorded": lambda model: init_(model, seed=3),
    "record": ours.record,
    "plan": lambda model: ours.fill_(model, PLANS[len(model)], seed=3),
}
PLANS = {
    count: wf.Plan(
        TensorSpec(f"{k}.{name}", shape, wf.RandomNormal())
        for k in range(count) for name, shape in (("weight", (2, 3)), ("bias", (2,)))
    )
    for count in (100, 200)
}  # fmt: skip


@pytest.mark.parametrize("kind", [nn.Linear, Unlike])
@pytest.mark.parametrize("case", LINEAR)
def test_the_steps_are_linear_in_the_number_of_modules(case, kind):
    """Fault 15: calls are counted, of Python's functions and of others."""
    counts = []
    for count in (100, 200):
        model, calls = nn.Sequential(*[kind(3, 2) for _ in range(count)]), [0]

        def count_calls(frame, event, argument, calls=calls):
            calls[0] += event in ("call", "c_call")

        LINEAR[case](model)  # fills the caches
        sys.setprofile(count_calls)
        try:
            LINEAR[case](model)
        finally:
            sys.setprofile(None)
        counts.append(calls[0])
    assert 1.8 * counts[0] < counts[1] < 2.05 * counts[0]
