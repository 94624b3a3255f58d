"""A user's own initializers (those of docs/guides/own.md) in every adapter, bit for bit."""

import os
import subprocess
import sys
from functools import partial

import jax
import keras
import numpy as np
import pages
import pytest
import torch
from jax.sharding import SingleDeviceSharding

import winit_fast.dask
import winit_fast.jax
import winit_fast.torch as wt

PAGE = pages.DOCS / "guides" / "own.md"
SHAPE = (24, 16)
OWN = {"DepthScaled": {"depth": 12}, "SignedConstant": {}}
BOXES = [np.s_[3:9], np.s_[:, 5:], np.s_[4:20, 7], np.s_[-1], np.s_[7:7]]


@pytest.fixture(scope="module")
def page():
    return pages.run(PAGE, frameworks=False)


@pytest.fixture(params=OWN)
def own(request, page):
    """One elementwise initializer, and one that is not."""
    return page[request.param](**OWN[request.param])


@pytest.fixture
def whole(own):
    return own(SHAPE, seed=3, name="w")


def same(made, expected):
    made = np.asarray(made)
    assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(made.view(np.uint32), expected.view(np.uint32))


def test_torch_tensors_and_their_parts(own, whole):
    for tensor in (torch.zeros(SHAPE), torch.zeros(SHAPE[::-1]).T):
        assert own.fill(tensor, seed=3, name="w") is tensor
        same(tensor, whole)
    for index in BOXES:
        part = torch.zeros(SHAPE)[index]
        own.fill(part, seed=3, name="w", shape=SHAPE, index=index)
        same(part, whole[index])


def module_of_one():
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.zeros(SHAPE))
    return module


def test_a_rule_of_torch(own, whole):
    module = module_of_one()
    assert wt.init_(module, {"w": own}, seed=3) is module
    same(module.w.detach(), whole)
    wt.init_(module, lambda name, parameter: own, seed=4)
    same(module.w.detach(), own(SHAPE, seed=4, name="w"))


def test_a_function_that_fills_by_itself_is_no_rule(own):
    """A function that does not call torch cannot be recorded: an error, and nothing is written."""
    module = module_of_one()
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        wt.init_(module, {"w": lambda tensor: own.fill(tensor, seed=3, name="w")}, seed=3)
    assert (module.w == 0).all()


def test_jax(own, whole):
    sharding = SingleDeviceSharding(jax.devices()[0])
    same(winit_fast.jax.from_initializer(own, SHAPE, sharding, seed=3, name="w"), whole)


DEVICES = """
import jax, numpy as np, pages
from jax.sharding import NamedSharding, PartitionSpec as P
from winit_fast.jax import from_initializer

page = pages.run(pages.DOCS / "guides" / "own.md", frameworks=False)
mesh = jax.make_mesh((2, 2), ("x", "y"))
for own in (page["DepthScaled"](depth=12), page["SignedConstant"]()):
    whole = own((24, 16), seed=3, name="w")
    for spec in (P("x"), P(None, "y"), P("x", "y"), P(("y", "x"))):
        made = from_initializer(own, (24, 16), NamedSharding(mesh, spec), seed=3, name="w")
        np.testing.assert_array_equal(np.asarray(made), whole)
        for shard in made.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), whole[shard.index])
print("equal")
"""


def test_shards_of_jax():
    run = subprocess.run(
        [sys.executable, "-c", DEVICES],
        env=os.environ
        | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "PYTHONPATH": str(pages.ROOT / "tests"),
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "equal\n"


@pytest.mark.parametrize("chunks", [-1, 5, (7, 4), {0: 24, 1: 3}], ids=repr)
def test_dask(own, whole, chunks):
    made = winit_fast.dask.from_initializer(own, SHAPE, chunks, seed=3, name="w")
    same(made.compute(scheduler="synchronous"), whole)
    for index in BOXES:
        same(made[index].compute(scheduler="synchronous"), whole[index])


def test_keras_takes_a_call(own, whole):
    layer = keras.layers.Dense(SHAPE[1], kernel_initializer=partial(own, seed=3, name="w"))
    layer.build((None, SHAPE[0]))
    same(keras.ops.convert_to_numpy(layer.kernel.value), whole)
