"""The catalogue compared with the frameworks': names, gains, and schemes without random numbers."""

import inspect
import math

import jax
import keras
import numpy as np
import pytest
import torch

import winit_fast as wf
from winit_fast.initializers import activations

# Public names of the frameworks that are not schemes.
NO_SCHEMES = {
    "torch": {"calculate_gain", "Tensor", "Callable", "TypeVar", "ParamSpec", "Literal"},
    "keras": {"Initializer", "RandomInitializer", "deserialize", "serialize", "get"},
    "jax": {"Initializer"},
}
NEEDED = {"sparse": {"sparsity": 0.1}}


def _names():
    for name, value in vars(torch.nn.init).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            yield "torch", name
    for name in dir(keras.initializers):
        if callable(getattr(keras.initializers, name)):
            yield "keras", name
    for name in dir(jax.nn.initializers):
        if callable(getattr(jax.nn.initializers, name)):
            yield "jax", name


NAMES = [(peer, name) for peer, name in _names() if name not in NO_SCHEMES[peer]]


def test_enough_names_are_found():
    assert {peer for peer, _ in NAMES} == {"torch", "keras", "jax"} and len(NAMES) > 70


@pytest.mark.parametrize(("peer", "name"), NAMES)
def test_every_name_is_known(peer, name):
    assert isinstance(wf.get(name, **NEEDED.get(name.strip("_"), {})), wf.Initializer)


@pytest.mark.parametrize(
    "name", ["linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu"]
)
def test_gains_of_torch(name):
    assert wf.gain(name) == torch.nn.init.calculate_gain(name)


@pytest.mark.parametrize("slope", [None, 0, 1, 0.01, 0.2, math.sqrt(5), -0.3])
def test_leaky_gains_of_torch(slope):
    assert wf.gain("leaky_relu", slope) == torch.nn.init.calculate_gain("leaky_relu", slope)
    assert wf.gain("selu") == torch.nn.init.calculate_gain("selu")


TORCH = {
    "elu": torch.nn.functional.elu,
    "celu": torch.nn.functional.celu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "hard_shrink": torch.nn.functional.hardshrink,
    "hard_sigmoid": torch.nn.functional.hardsigmoid,
    "hard_swish": torch.nn.functional.hardswish,
    "hard_tanh": torch.nn.functional.hardtanh,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "log_sigmoid": torch.nn.functional.logsigmoid,
    "mish": torch.nn.functional.mish,
    "relu": torch.nn.functional.relu,
    "relu6": torch.nn.functional.relu6,
    "selu": torch.nn.functional.selu,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "soft_shrink": torch.nn.functional.softshrink,
    "softplus": torch.nn.functional.softplus,
    "softsign": torch.nn.functional.softsign,
    "tanh": torch.tanh,
    "tanh_shrink": torch.nn.functional.tanhshrink,
}
JAX = ["celu", "elu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "identity"]
JAX += ["leaky_relu", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus"]
JAX += ["sparse_plus", "sparse_sigmoid", "squareplus", "swish"]
KERAS = ["celu", "elu", "exponential", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish"]
KERAS += ["hard_tanh", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu"]
KERAS += ["soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus"]
KERAS += ["swish", "tanh", "tanh_shrink"]
Z = np.linspace(-8, 8, 4001)


def _activation(name):
    function, default = activations.TABLE[name]
    return function(Z) if default is None else function(Z, default)


@pytest.mark.parametrize("name", TORCH)
def test_activations_are_those_of_torch(name):
    expected = TORCH[name](torch.from_numpy(Z)).numpy()
    np.testing.assert_allclose(_activation(name), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", JAX)
def test_activations_are_those_of_jax(name):
    expected = np.asarray(getattr(jax.nn, name)(Z.astype(np.float32)))
    np.testing.assert_allclose(_activation(name), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KERAS)
def test_activations_are_those_of_keras(name):
    expected = np.asarray(getattr(keras.activations, name)(Z.astype(np.float32)))
    np.testing.assert_allclose(_activation(name), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "groups"), [((8, 3, 3), 1), ((3, 8, 4), 1), ((8, 3, 4, 3), 2), ((6, 2, 1, 2, 3), 3)]
)
def test_dirac_is_that_of_torch(shape, groups):
    expected = torch.nn.init.dirac_(torch.empty(shape), groups)
    assert (wf.Dirac(groups, in_axis=1, out_axis=0)(shape) == expected.numpy()).all()


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_identity_is_that_of_the_peers(shape):
    made = wf.Identity(0.1)(shape)
    assert (made == np.asarray(keras.initializers.Identity(0.1)(shape))).all()
    assert (wf.Identity()(shape) == torch.nn.init.eye_(torch.empty(shape)).numpy()).all()


@pytest.mark.parametrize("rows", [1, 10, 37])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 1.0])
def test_sparse_has_as_many_zeros_as_that_of_torch(rows, sparsity):
    theirs = torch.nn.init.sparse_(torch.empty(rows, 20), sparsity).numpy()
    ours = wf.Sparse(sparsity)((rows, 20), seed=0)
    assert ((ours == 0).sum(axis=0) == (theirs == 0).sum(axis=0)).all()


@pytest.mark.parametrize("side", ["real", "imag"])
@pytest.mark.parametrize("window", ["hann", "taylor", "tukey", None, list(range(1, 65))])
@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
@pytest.mark.parametrize("periodic", [False, True])
def test_stft_is_that_of_keras(side, window, scaling, periodic):
    """Up to the rounding of Keras's float32 angles, as large as 64 pi, and of its result."""
    arguments = side, window, scaling, periodic
    for bins in (5, 33, 100):
        made = wf.STFT(*arguments)((64, 1, bins))
        expected = np.asarray(keras.initializers.STFT(*arguments)((64, 1, bins)))
        largest = abs(wf.STFT("real", *arguments[1:])((64, 1, 2))).max()
        np.testing.assert_allclose(made, expected, rtol=0, atol=2**-23 * math.pi * 64 * largest)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_pretrained_from_tensors_of_the_peers(dtype):
    source = torch.arange(6.0, dtype=getattr(torch, dtype)).reshape(2, 3).requires_grad_()
    expected = np.arange(6.0).reshape(2, 3)
    for tensor in (source, source.detach().T.contiguous().T, torch.nn.Parameter(source)):
        assert (wf.Pretrained(tensor)((2, 3), dtype="bfloat16") == expected).all()
    with jax.enable_x64(True):
        assert (wf.Pretrained(jax.numpy.asarray(expected, dtype))((2, 3)) == expected).all()
