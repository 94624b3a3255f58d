"""Fuzz tests of the adapters: any argument gives a result or an error that names an argument.

An adapter passes what it does not support to the framework. So an error may also be the framework's
own, if its function raises that type for the same arguments. All other errors are ValueError,
TypeError or IndexError and name an argument. After either, nothing has been written.
"""

import inspect
from functools import partial

import jax
import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import REFUSED, anything, names, refused_or

import winit_fast as wf
import winit_fast.jax
import winit_fast.keras
import winit_fast.torch

# The frameworks' warnings are not tested here.
pytestmark = pytest.mark.filterwarnings("ignore")


def as_the_peer(ours, theirs, named=()):
    """Make a call; its error must name an argument or be what the framework raises."""
    try:
        return ours()
    except Exception as error:
        if type(error) in REFUSED and any(name in str(error) for name in named):
            return error
        with pytest.raises(Exception if type(error) in REFUSED else type(error)):
            theirs()
        return error


MODULES = "init_", "fill_", "reinit_", "verify_"
FUNCTIONS = [
    name for name in winit_fast.torch.__all__ if name.endswith("_") and name not in MODULES
]


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=60)
@given(data=st.data())
def test_torch_init(function, data):
    ours, peer = getattr(winit_fast.torch, function), getattr(torch.nn.init, function)
    parameters = [*inspect.signature(peer).parameters][1:]
    modes = st.sampled_from(["fan_in", "fan_out", "relu", "leaky_relu", 0.1, 2])
    strategies = dict.fromkeys(parameters, anything | modes)
    required = [name for name in parameters if name in ("val", "sparsity")]
    needed = {name: strategies.pop(name) for name in required}
    own = {"seed": anything, "name": anything | names}
    takes = set(inspect.signature(ours).parameters)
    extra = data.draw(st.fixed_dictionaries({}, optional=own)) if "seed" in takes else {}
    arguments = data.draw(st.fixed_dictionaries(needed, optional=strategies))
    shape = data.draw(st.sampled_from([(3, 4), (4, 2, 3), (), (5,), (0, 2)]))
    kind = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.int32]))
    tensor = torch.full(shape, 7, dtype=kind)
    made = as_the_peer(
        lambda: ours(tensor, **arguments, **extra),
        lambda: peer(torch.full(shape, 7, dtype=kind), **arguments),
        [*own, *parameters, "axes", "shape", "dim 0"],
    )
    if isinstance(made, Exception) and extra.get("seed") is not None:
        assert (tensor == 7).all()


rules = st.dictionaries(
    st.sampled_from(["*", "weight", "bias", "*.x"]) | anything.filter(lambda k: k.__hash__),
    st.sampled_from(["zeros", "he_normal", wf.Ones(), torch.nn.init.zeros_]) | anything,
    max_size=2,
)


@settings(max_examples=200)
@given(
    rules=rules | anything.filter(lambda rules: not callable(rules)),
    seed=st.integers(0, 9) | anything,
)
def test_torch_modules(rules, seed):
    module = torch.nn.Linear(4, 3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7)
    named = ["rules", "pattern", "parameter", "seed", "identifier", "rule"]
    made = refused_or(lambda: winit_fast.torch.init_(module, rules, seed=seed), named)
    if isinstance(made, Exception):
        assert all((parameter == 7).all() for parameter in module.parameters())


@given(anything)
def test_torch_fast_init(seed):
    refused_or(lambda: winit_fast.torch.fast_init(seed), ["seed"])


NO_MAKERS = {"Rearranged", "from_initializer", "ones", "sharded", "zeros"}
MAKERS = [name for name in winit_fast.jax.__all__ if name not in NO_MAKERS]
# Only a few shapes, because JAX compiles for each one that is passed on to it.
few = st.sampled_from([(3, 4), (2, 3, 3, 4), (5,), (-1, 2), (2.5,), (2**63, 2), None, "3", 1.5])
kinds = st.sampled_from([None, "float32", "bfloat16", "int32", float, "f4,,", 3, "float9"])
KEY = jax.random.key(0)


@pytest.mark.parametrize("maker", MAKERS)
@settings(max_examples=30)
@given(data=st.data())
def test_jax_initializers(maker, data):
    ours, peer = getattr(winit_fast.jax, maker), getattr(jax.nn.initializers, maker)
    parameters = [*inspect.signature(peer).parameters]
    words = st.sampled_from(["fan_in", "normal", "uniform", -1, 0, 1.0])
    needed = [name for name in parameters if name in ("value", "scale", "mode", "distribution")]
    strategies = {name: anything | words for name in parameters if name != "dtype"}
    needed = {name: strategies.pop(name) for name in needed}
    arguments = data.draw(st.fixed_dictionaries(needed, optional=strategies))
    key = data.draw(st.just(KEY) | st.just(jax.random.PRNGKey(0)) | anything)
    shape, kind = data.draw(few), data.draw(kinds)
    as_the_peer(
        lambda: ours(**arguments)(key, shape, kind),
        lambda: peer(**arguments)(key, shape, kind),
        [*parameters, "axis", "matrix", "minval", "key", "shape"],
    )


@settings(max_examples=100)
@given(data=st.data())
def test_jax_from_initializer(data):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    strategies = {"name": names | anything, "dtype": kinds, "num_threads": anything}
    arguments = data.draw(st.fixed_dictionaries({}, optional=strategies))
    scheme = data.draw(st.sampled_from(["he_normal", wf.Zeros(), wf.Orthogonal()]) | anything)
    sharding = data.draw(st.just(device) | anything)
    shape, seed = data.draw(few), data.draw(st.integers(0, 9) | anything)
    refused_or(
        lambda: winit_fast.jax.from_initializer(scheme, shape, sharding, seed=seed, **arguments),
        [*strategies, "initializer", "identifier", "shape", "sharding", "seed", "argument", "axes"],
    )


CLASSES = (
    "RandomNormal", "TruncatedNormal", "RandomUniform", "VarianceScaling", "GlorotUniform",
    "HeNormal", "Orthogonal", "XavierSimple", "DeltaOrthogonal", "Sparse", "Dirac", "Scaled",
    "Pretrained",
)  # fmt: skip
PEERS = {name: getattr(keras.initializers, name, None) for name in CLASSES}
PEERS["XavierSimple"] = partial(keras.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform")


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=40)
@given(data=st.data())
def test_keras_initializers(name, data):
    ours, peer = getattr(winit_fast.keras, name), PEERS[name]
    parameters = [*inspect.signature(peer or ours).parameters]
    words = st.sampled_from(["fan_in", "normal", "zeros", 0, 1, 0.5, np.ones((3, 4))])
    own = {parameter: anything | words for parameter in parameters if parameter != "name"}
    arguments = data.draw(st.fixed_dictionaries({}, optional=own))
    named = data.draw(st.fixed_dictionaries({}, optional={"name": names | anything}))
    if "name" not in inspect.signature(ours).parameters:
        named = {}
    shape, kind = data.draw(few), data.draw(kinds.filter(lambda kind: kind != "f4,,"))
    as_the_peer(
        lambda: ours(**arguments, **named)(shape, kind),
        lambda: peer and peer(**arguments)(shape, kind),
        [*own, "name", "shape", "dtype", "axes", "argument", "identifier"],
    )
