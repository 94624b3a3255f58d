"""A seed and a name give the same bits in every framework, however a scheme uses the name.

`test_keras.py` does the same for Keras, which runs once for each backend.
"""

import inspect

import jax
import numpy as np
import pytest
import torch
from jax.sharding import SingleDeviceSharding
from test_catalogue import EXAMPLES, files  # noqa: F401  # the files of two of them

import winit_fast as wf
import winit_fast.dask
import winit_fast.jax
import winit_fast.torch as wt
from winit_fast.initializers.fans import TORCH
from winit_fast.torch.seeding import draw_word

MATRIX = (24, 16)
AXES = {"in_axis": 1, "out_axis": 0}
# Functions of winit_fast.torch, with the same schemes of the catalogue.
FUNCTIONS = {
    "uniform_": ({"a": -1.0, "b": 2.0}, wf.RandomUniform(-1.0, 2.0)),
    "normal_": ({"mean": 1.0, "std": 0.5}, wf.RandomNormal(1.0, 0.5)),
    "trunc_normal_": ({"std": 0.5, "a": -1.0, "b": 1.5}, wf.TruncatedNormal(0.0, 0.5, -2.0, 3.0)),
    "xavier_uniform_": ({}, wf.GlorotUniform(**AXES)),
    "xavier_normal_": ({}, wf.GlorotNormal(**AXES)),
    "kaiming_uniform_": ({}, wf.HeUniform(**AXES)),
    "kaiming_normal_": ({}, wf.HeNormal(**AXES)),
    "orthogonal_": ({"gain": 2.0}, wf.Orthogonal(2.0, column_axis=0)),
    "sparse_": ({"sparsity": 0.4, "std": 0.5}, wf.Sparse(0.4, 0.5)),
}
NAMES = ["block.0.weight", "größe", "", 7, None]

each_scheme = pytest.mark.parametrize(("scheme", "shape"), EXAMPLES, ids=lambda value: repr(value))
each_function = pytest.mark.parametrize("function", FUNCTIONS)
each_name = pytest.mark.parametrize("name", NAMES, ids=repr)


def same(made, expected):
    """Compare bits, so that the sign of a zero counts."""
    made = np.asarray(made.detach() if isinstance(made, torch.Tensor) else made)
    assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(made.view(np.uint32), expected.view(np.uint32))


def filled(function, **options):
    tensor = torch.empty(MATRIX)
    assert getattr(wt, function)(tensor, **FUNCTIONS[function][0], **options) is tensor
    return tensor


def test_nothing_is_left_out():
    functions = {name for name in wt.__all__ if name.endswith("_") and name != "init_"}
    parameters = {name: inspect.signature(getattr(wt, name)).parameters for name in functions}
    assert set(FUNCTIONS) == {name for name in functions if "name" in parameters[name]}


@pytest.mark.usefixtures("files")
@each_name
@each_scheme
def test_dask(scheme, shape, name):
    # Boxes of an orthogonal matrix agree only up to rounding.
    chunks = -1 if "Orthogonal" in repr(scheme) else 5
    made = winit_fast.dask.from_initializer(scheme, shape, chunks, seed=3, name=name)
    same(made.compute(scheduler="synchronous"), scheme(shape, seed=3, name=name))


@pytest.mark.usefixtures("files")
@each_name
@each_scheme
def test_jax(scheme, shape, name):
    sharding = SingleDeviceSharding(jax.devices()[0])
    made = winit_fast.jax.from_initializer(scheme, shape, sharding, seed=3, name=name)
    same(made, scheme(shape, seed=3, name=name))


@pytest.mark.usefixtures("files")
@each_scheme
def test_parameters_of_torch(scheme, shape):
    module = torch.nn.Module()
    module.block = torch.nn.ParameterList([torch.empty(shape), torch.empty(shape)])
    wt.init_(module, {"*": scheme}, seed=3)
    for name, parameter in module.named_parameters():
        same(parameter, scheme.with_axes(TORCH, len(shape))(shape, seed=3, name=name))


@each_name
@each_function
def test_functions_of_torch(function, name):
    scheme = FUNCTIONS[function][1]
    same(filled(function, seed=3, name=name), scheme(MATRIX, seed=3, name=name))
    # The next 64-bit word of a generator is used as the seed.
    key = draw_word(torch.Generator().manual_seed(5))
    made = filled(function, generator=torch.Generator().manual_seed(5), name=name)
    same(made, scheme(MATRIX, seed=key, name=name))


@each_function
def test_functions_of_torch_inside_of_contexts(function):
    arguments, scheme = FUNCTIONS[function]
    with wt.fast_init(seed=3):
        first, second = filled(function), filled(function)
        named = filled(function, seed=3, name="w")
    same(first, scheme(MATRIX, seed=3, name=0))
    same(second, scheme(MATRIX, seed=3, name=1))
    same(named, scheme(MATRIX, seed=3, name="w"))
    module = torch.nn.ModuleDict({"head": torch.nn.Linear(16, 24, bias=False)})
    wt.init_(module, {"*": lambda tensor: getattr(wt, function)(tensor, **arguments)}, seed=3)
    same(module["head"].weight, scheme(MATRIX, seed=3, name="head.weight"))
