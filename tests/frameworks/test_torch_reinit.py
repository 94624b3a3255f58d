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


def test_groups_of_a_fused_optimizer():
    """The state of the chosen ones goes, in whichever group they are; their options stay."""
    module = model()
    groups = [
        {"params": list(module[0].parameters()), "lr": 0.1},
        {"params": [*module[1].parameters(), *module[2].parameters()], "weight_decay": 0.5},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, fused=True)
    step(module, optimizer)
    init.reinit_(module, ["0.bias", "2.weight"], seed=3, optimizer=optimizer)
    kept = {id(p) for p in module.parameters()} - {id(module[0].bias), id(module[2].weight)}
    assert {id(p) for p in optimizer.state} == kept
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    step(module, optimizer)
    assert optimizer.state[module[2].weight]["step"] == 1
    assert optimizer.state[module[2].bias]["step"] == 2


def test_tied_and_frozen_parameters():
    module = torch.nn.Sequential(torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False))
    module[1].weight = module[0].weight
    init.init_(module, seed=3)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    optimizer.zero_grad()
    module(torch.arange(6)).square().mean().backward()
    optimizer.step()
    before = module[0].weight.detach().clone()
    with pytest.raises(ValueError, match="'1.weight', which is tied to '0.weight': use that name"):
        init.reinit_(module, "1.weight", seed=3, optimizer=optimizer)
    assert torch.equal(module[0].weight, before) and optimizer.state
    module.requires_grad_(False)
    init.reinit_(module, "0.weight", seed=3, generation=0, optimizer=optimizer)
    own = init.init_(torch.nn.Embedding(6, 4), seed=3, prefix="0.")
    assert torch.equal(module[1].weight, own.weight) and module[1].weight is module[0].weight
    assert not optimizer.state and not module[0].weight.requires_grad


def test_adagrad_begins_as_its_constructor_made_it():
    """It takes the value that the optimizer was given, and reads none of a group's."""
    module = model()

    def made():
        groups = [
            {"params": list(module[0].parameters())},
            {"params": list(module[2].parameters()), "initial_accumulator_value": 9.0},
        ]
        return torch.optim.Adagrad(groups, 0.01, initial_accumulator_value=0.5)

    optimizer = made()
    step(module, optimizer)
    init.reinit_(module, "2.*", seed=3, optimizer=optimizer)
    new = made()
    for parameter in module[2].parameters():
        assert torch.equal(optimizer.state[parameter]["sum"], new.state[parameter]["sum"])
