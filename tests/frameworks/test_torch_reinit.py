"""reinit_: chosen tensors anew, as init_ makes them, and the optimizer's state of these."""

import pytest
import torch

import winit_fast as wf
import winit_fast.torch as init


def model():
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4)
    return init.init_(torch.nn.Sequential(*layers), seed=3)


def step(module, optimizer):
    optimizer.zero_grad()
    module(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()


def copies(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def test_chosen_tensors_are_those_of_init_():
    module = model()
    fresh = copies(module)
    step(module, torch.optim.SGD(module.parameters(), 0.1))
    trained = copies(module)
    init.reinit_(module, ["2.*", "1.running_mean"], seed=3, generation=0)
    for name, tensor in module.state_dict().items():
        anew = name.startswith("2.") or name == "1.running_mean"
        assert torch.equal(tensor, (fresh if anew else trained)[name]), name
    again = init.init_(model(), seed=3, generation=2)
    init.reinit_(module, "{i}.weight", seed=3, generation=2)
    for name in "0.weight", "2.weight":
        assert torch.equal(module.state_dict()[name], again.state_dict()[name])
        assert not torch.equal(module.state_dict()[name], fresh[name])


def test_rules_are_those_of_init_():
    module = init.reinit_(model(), "2.weight", seed=3, rules={"2.weight": wf.HeNormal()})
    own = init.init_(model(), {"2.weight": wf.HeNormal()}, seed=3, generation=1)
    assert torch.equal(module[2].weight, own[2].weight)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop", "NAdam", "Rprop"])
def test_the_optimizers_state_is_that_before_the_first_step(kind):
    """A reset parameter takes the step that it takes with a new optimizer."""
    options = {"momentum": 0.9} if kind == "SGD" else {}
    module = model()
    optimizer = getattr(torch.optim, kind)(module.parameters(), 0.01, **options)
    for _ in range(3):
        step(module, optimizer)
    before = {id(p): dict(state) for p, state in optimizer.state.items()}
    init.reinit_(module, "2.*", seed=3, optimizer=optimizer)
    chosen = {id(p) for p in module[2].parameters()}
    for parameter, state in optimizer.state.items():
        if id(parameter) in chosen:
            assert kind == "Adagrad" and state["step"] == 0 and not state["sum"].any()
        else:
            old = before[id(parameter)]
            assert state.keys() == old.keys()
            assert all(state[key] is old[key] for key in state)
    twin = model()
    twin.load_state_dict(module.state_dict())
    new = getattr(torch.optim, kind)(twin.parameters(), 0.01, **options)
    torch.manual_seed(1)
    step(module, optimizer)
    torch.manual_seed(1)
    step(twin, new)
    assert torch.equal(module[2].weight, twin[2].weight)
    assert torch.equal(module[2].bias, twin[2].bias)


@pytest.mark.parametrize(
    ("patterns", "options", "error", "message"),
    [
        ("3.*", {}, ValueError, "a pattern in patterns must be one of"),
        ([], {}, TypeError, "patterns must be a name or several"),
        ([3], {}, TypeError, "patterns must be a name or several"),
        ("*", {"generation": -1}, ValueError, "generation must be >= 0"),
        ("*", {"optimizer": 3}, TypeError, "optimizer must be a torch.optim.Optimizer, got 3"),
    ],
)
def test_refusals(patterns, options, error, message):
    module = model()
    before = copies(module)
    with pytest.raises(error, match=message):
        init.reinit_(module, patterns, seed=3, **options)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_optimizer_that_does_not_fit():
    module = model()
    before = copies(module)
    with pytest.raises(ValueError, match="optimizer must keep a state for each parameter"):
        init.reinit_(module, "2.*", seed=3, optimizer=torch.optim.LBFGS(module.parameters()))
    other = torch.optim.SGD(module[0].parameters(), 0.1)
    with pytest.raises(ValueError, match="optimizer must have the chosen parameters, but not"):
        init.reinit_(module, "2.*", seed=3, optimizer=other)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
