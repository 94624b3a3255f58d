"""`inspect` on trained checkpoints that transformers wrote, with planted faults."""

import math

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from winit_fast.checkpoint import inspect, verify
from winit_fast.cli.inspect import by_layer, stands_out


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Write a small GPT-2 as several files, after three steps of training."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=320, n_positions=32, n_embd=64, n_layer=4, n_head=4, use_cache=False
    )
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(320, (2, 32))
    for _ in range(3):
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("saved")
    model.save_pretrained(path, max_shard_size="300KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    return path, model.state_dict()


def test_what_is_in_it(saved):
    path, state = saved
    found = inspect(path)
    assert found.repeats == () and stands_out(by_layer(found.tensors)) == []
    for tensor in found.tensors:
        exact = state[tensor.name].double()
        assert math.isclose(tensor.deviation, exact.std(correction=0), rel_tol=1e-5)
        assert math.isclose(tensor.mean, exact.mean(), rel_tol=1e-4, abs_tol=1e-8)
        assert tensor.minimum == exact.min() and tensor.maximum == exact.max()
    with pytest.raises(ValueError, match="do not say the seed: seed must be given"):
        verify(path)


def test_planted_faults_are_shown(saved, tmp_path):
    path, _ = saved
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    mlp, attention = "transformer.h.{}.mlp.c_fc.weight", "transformer.h.{}.attn.c_attn.weight"

    def change(name, function):
        for file in tmp_path.glob("*.safetensors"):
            arrays = load_file(file)
            if name in arrays:
                arrays[name] = function(arrays[name])
                save_file(arrays, file, {"format": "pt"})
                return
        raise AssertionError(name)

    def with_nan(array):
        array[5, 6] = np.nan
        return array

    change(mlp.format(1), np.zeros_like)
    change(mlp.format(2), with_nan)
    change(attention.format(3), lambda array: np.tile(array[:, :48], (1, 4)))
    # as if fan_in were a quarter of what it is
    change(attention.format(0), lambda array: array * 2)
    found = inspect(tmp_path)
    told = dict(stands_out(by_layer(found.tensors)))
    assert told == {
        mlp.format(1): "all elements are 0",
        mlp.format(2): f"not finite: 1 of {64 * 256:,} elements",
    }
    (repeat,) = found.repeats
    assert (repeat.kind, repeat.names) == ("pieces", (attention.format(3),))
    assert repeat.detail == "axis 1 cut into 4: 1 different piece"
    deviations = {tensor.name: tensor.deviation for tensor in found.tensors}
    ratio = deviations[attention.format(0)] / deviations[attention.format(1)]
    assert math.isclose(ratio, 2, rel_tol=0.1)
