"""Flax modules accept winit_fast.jax, and learn with it as with JAX's own initializers."""

import digits
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.nn import initializers as peer
from scipy import stats

import winit_fast as wf
import winit_fast.jax as ours

KEY = jax.random.key(1)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Layers(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(50, 16, embedding_init=ours.normal(0.02))(tokens)
        x = nn.MultiHeadDotProductAttention(4, kernel_init=ours.xavier_uniform())(x)
        x = nn.Conv(8, (3,), kernel_init=ours.delta_orthogonal())(x[..., :8])
        x = nn.Dense(12, kernel_init=ours.orthogonal(), bias_init=ours.zeros)(x)
        return nn.OptimizedLSTMCell(8, recurrent_kernel_init=ours.orthogonal())(
            (jnp.zeros((2, 8)), jnp.zeros((2, 8))), x[:, 0]
        )


def test_linen():
    tokens = jnp.zeros((2, 5), jnp.int32)
    variables = Layers().init(KEY, tokens)
    assert_same(jax.jit(Layers().init)(KEY, tokens), variables)
    shapes = jax.eval_shape(Layers().init, KEY, tokens)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    parameters = variables["params"]
    np.testing.assert_allclose(np.std(parameters["Embed_0"]["embedding"]), 0.02, rtol=0.15)
    kernel = parameters["Dense_0"]["kernel"]
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(8), atol=1e-5)
    query = parameters["MultiHeadDotProductAttention_0"]["query"]["kernel"]
    assert query.shape == (16, 4, 4)
    limit = np.sqrt(6 / 32)
    assert stats.kstest(np.ravel(query), stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-6


def test_linen_keys_are_seeds():
    """The key that Flax gives to a Dense layer acts as the seed of the native scheme."""
    seen = []

    def watched(key, shape, dtype):
        seen.append(key)
        return ours.lecun_normal()(key, shape, dtype)

    variables = nn.Dense(7, kernel_init=watched).init(KEY, jnp.zeros((1, 5)))
    high, low = (int(word) for word in jax.random.key_data(seen[0]))
    scheme = wf.LecunNormal(distribution="truncated_normal")
    expected = scheme((5, 7), seed=high << 32 | low)
    np.testing.assert_array_equal(variables["params"]["kernel"], expected)


def test_linen_scan_and_vmap():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(6, kernel_init=ours.he_normal())(x), None

    stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
    kernel = stack().init(KEY, jnp.zeros((2, 6)), None)["params"]["Dense_0"]["kernel"]
    assert kernel.shape == (4, 6, 6) and len(np.unique(kernel)) > 140
    experts = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=0)
    kernel = experts(5, kernel_init=ours.he_normal()).init(KEY, jnp.zeros((3, 2, 6)))["params"]
    assert kernel["kernel"].shape == (3, 6, 5) and len(np.unique(kernel["kernel"])) == 90


class Model(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 8, kernel_init=ours.he_normal(), rngs=rngs)
        self.conv = nnx.Conv(8, 8, (3, 3), kernel_init=ours.lecun_uniform(), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            2, 8, kernel_init=ours.glorot_normal(), decode=False, rngs=rngs
        )
        self.table = nnx.Embed(10, 8, embedding_init=ours.normal(0.02), rngs=rngs)


def test_nnx():
    state = nnx.to_pure_dict(nnx.state(Model(nnx.Rngs(3)), nnx.Param))
    jitted = nnx.jit(lambda: Model(nnx.Rngs(3)))()
    assert_same(nnx.to_pure_dict(nnx.state(jitted, nnx.Param)), state)
    abstract = nnx.eval_shape(lambda: Model(nnx.Rngs(3)))
    assert abstract.first.kernel.shape == (6, 8)

    @nnx.vmap(in_axes=0, out_axes=0)
    def several(key):
        return nnx.Linear(6, 8, kernel_init=ours.he_normal(), rngs=nnx.Rngs(key))

    keys = jax.random.split(KEY, 3)
    loop = [nnx.Linear(6, 8, kernel_init=ours.he_normal(), rngs=nnx.Rngs(key)) for key in keys]
    np.testing.assert_array_equal(
        several(keys).kernel[...], np.stack([layer.kernel[...] for layer in loop])
    )


# Models are trained with several seeds; their final losses must be those of JAX's initializers.


class Convolutional(nn.Module):
    initializers: object

    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        for features, stride in (8, 1), (16, 2), (32, 2):
            x = nn.relu(
                nn.Conv(features, (3, 3), stride, kernel_init=self.initializers.he_normal())(x)
            )
        x = x.reshape(len(x), -1)
        return nn.Dense(10, kernel_init=self.initializers.lecun_normal())(x)


class Transformer(nn.Module):
    """Each row of the picture is a token."""

    initializers: object

    @nn.compact
    def __call__(self, x):
        xavier, lecun = self.initializers.xavier_uniform(), self.initializers.lecun_normal()
        x = nn.Dense(32, kernel_init=lecun)(x)
        x += self.param("positions", self.initializers.normal(0.02), x.shape[1:])
        for _ in range(2):
            x += nn.MultiHeadDotProductAttention(4, kernel_init=xavier)(nn.LayerNorm()(x))
            hidden = nn.gelu(nn.Dense(64, kernel_init=xavier)(nn.LayerNorm()(x)))
            x += nn.Dense(32, kernel_init=self.initializers.orthogonal(0.5))(hidden)
        return nn.Dense(10, kernel_init=lecun)(nn.LayerNorm()(x).mean(1))


STEPS, BATCH, SEEDS = 80, 64, 6


class Wrong:
    """JAX's own initializer, with every weight six times too large."""

    def __getattr__(self, name):
        def build(*arguments):
            init = getattr(peer, name)(*arguments)
            return lambda key, shape, dtype=None: 6 * init(key, shape, dtype)

        return build


def _losses(model, wrong=Wrong()):  # noqa: B008
    """Train with several seeds; return the logarithms of the mean losses of the last ten steps."""
    pictures, labels = digits.batches(STEPS, BATCH)
    optimizer = optax.adam(3e-3)

    def loss(parameters, batch):
        logits = model(peer).apply(parameters, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    @jax.jit  # only one step is compiled: XLA's convolutions are slow inside its loops
    def step(parameters, state, batch):
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    def train(parameters):
        state, values = optimizer.init(parameters), []
        for batch in zip(pictures, labels, strict=True):
            parameters, state, value = step(parameters, state, batch)
            values.append(float(value))
        return np.mean(values[-10:])

    keys = [jax.random.key(seed) for seed in range(SEEDS)]
    return (
        np.log([train(model(module).init(key, pictures[0])) for key in keys[:seeds]])
        for module, seeds in ((ours, SEEDS), (peer, SEEDS), (wrong, 3))
    )


@pytest.mark.parametrize("model", [Convolutional, Transformer])
def test_models_learn_as_with_jaxs_own(model):
    """Student's t-test: p < 1e-3 by chance in one of 1,000 seeds; the seeds are fixed."""
    own, theirs, wrong = _losses(model)
    assert max(own.mean(), theirs.mean()) < np.log(0.5)  # log(10) = 2.3 before training
    assert stats.ttest_ind(own, theirs).pvalue > 1e-3
    # the test can fail: a wrong scale is noticed
    assert stats.ttest_ind(wrong, theirs).pvalue < 1e-3
