"""torchtitan's Llama: recorded, filled, written, and loaded by torchtitan's own checkpoint code."""

import dataclasses

import pytest
import torch
from torchtitan.models import llama3

import winit_fast as wf
import winit_fast.torch as init
from winit_fast.initializers.parts import Parts
from winit_fast.models import TensorSpec


def make():
    """A small model, with fused queries, keys and values."""
    config = llama3._debugmodel(attn_backend="flex")
    return dataclasses.replace(config, layers=config.layers[:2]).build()


def separate(plan):
    """The plan of the state dict, in which torchtitan separates what it has fused."""
    tensors = []
    for tensor in plan:
        if not isinstance(tensor.initializer, Parts):
            tensors.append(tensor)
            continue
        parts = {part.stream: part for part in tensor.initializer.parts}  # of each draw, one
        for name, (stream, part) in zip(("wq", "wk", "wv"), parts.items(), strict=True):
            own = tensor.name.replace("wqkv", name)
            tensors.append(TensorSpec(own, part.of[0], part.initializer, stream=stream))
    return wf.Plan(tensors)


def test_its_llama(tmp_path):
    plan = init.record(make)
    fused = [tensor for tensor in plan if tensor.name.endswith("wqkv.weight")]
    assert len(fused) == 2 and all(isinstance(one.initializer, Parts) for one in fused)
    model = init.fill_(make(), plan, seed=3)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    assert tensors.keys() == set(plan.names)
    for name, array in plan.arrays(3):
        assert tensors[name].detach().numpy().tobytes() == array.tobytes(), name
    again = init.init_(make(), seed=3).state_dict()
    state = model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    plan.save(tmp_path / "plan.json")
    assert wf.Plan.load(tmp_path / "plan.json") == plan
    for name, array in separate(plan).arrays(3):
        if name in state:
            assert state[name].numpy().tobytes() == array.tobytes(), name


def test_its_checkpoint_code_loads_our_dcp(tmp_path):
    from torchtitan.components.checkpoint import CheckpointManager

    plan = separate(init.record(make))
    init.write_dcp(tmp_path / "seed", plan, seed=3)
    model = init.init_(make(), seed=4)
    manager = CheckpointManager(
        CheckpointManager.Config(
            enable=True,
            initial_load_path=str(tmp_path / "seed"),
            initial_load_model_only=True,
        ),
        dataloader=None, model_parts=[model], optimizers=None, lr_schedulers=None, states={},
        sd_adapter=None, base_folder=str(tmp_path),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="assuming the intent is to load in a single process"):
        assert manager.load()
    expected = init.init_(make(), seed=3).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
