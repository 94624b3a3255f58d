"""Models with winit_fast.keras learn as they do with Keras's own initializers."""

import digits
import keras
import numpy as np
import pytest
from scipy import stats

import winit_fast.keras as ours

peer = keras.initializers
STEPS, BATCH, SEEDS = 50, 64, 4


def convolutional(initializers):
    layers = [keras.layers.Input((8, 8)), keras.layers.Reshape((8, 8, 1))]
    for filters, strides in (16, 1), (32, 2), (32, 2):
        layers.append(
            keras.layers.Conv2D(
                filters,
                3,
                strides,
                padding="same",
                activation="relu",
                kernel_initializer=initializers.HeNormal(),
            )
        )
    layers.append(keras.layers.Flatten())
    layers.append(keras.layers.Dense(10, kernel_initializer=initializers.LecunNormal()))
    return keras.Sequential(layers)


class Positions(keras.layers.Layer):
    def __init__(self, initializer):
        super().__init__()
        self.initializer = initializer

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=self.initializer)

    def call(self, x):
        return x + self.table


def transformer(initializers):
    """Each row of the picture is a token."""
    dense, norm = keras.layers.Dense, keras.layers.LayerNormalization
    pictures = keras.layers.Input((8, 8))
    x = dense(32, kernel_initializer=initializers.LecunUniform())(pictures)
    x = Positions(initializers.TruncatedNormal(stddev=0.02))(x)
    for _ in range(2):
        y = norm()(x)
        x += keras.layers.MultiHeadAttention(4, 8, kernel_initializer=initializers.GlorotUniform())(
            y, y
        )
        hidden = dense(64, "gelu", kernel_initializer=initializers.GlorotNormal())(norm()(x))
        x += dense(32, kernel_initializer=initializers.Orthogonal(0.5))(hidden)
    x = keras.layers.GlobalAveragePooling1D()(norm()(x))
    return keras.Model(pictures, dense(10, kernel_initializer=initializers.VarianceScaling())(x))


def _losses(build):
    """Train one compiled model with several seeds; return the losses of each contestant."""
    pictures, labels = digits.batches(STEPS, BATCH)
    pictures, labels = np.concatenate(pictures), np.concatenate(labels)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = build(peer)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.optimizer.build(model.trainable_variables)
    fresh = [np.array(variable) for variable in model.optimizer.variables]

    def train(weights):
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        model.fit(pictures, labels, BATCH, shuffle=False, verbose=0)
        return float(loss(labels[-512:], model.predict_on_batch(pictures[-512:])))

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)  # small models are slower with several threads
    results = {"ours": [], "peer": [], "wrong": []}
    for seed in range(SEEDS):
        for name, module in ("ours", ours), ("peer", peer):
            keras.utils.set_random_seed(seed)
            results[name].append(train(build(module).get_weights()))
        weights = build(peer).get_weights()
        results["wrong"].append(train([6 * w if w.ndim > 1 else w for w in weights]))
    return results


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
@pytest.mark.parametrize("build", [convolutional, transformer])
def test_models_learn_as_with_keras_own(build):
    """Welch's t-test: p < 1e-3 by chance in one of 1,000 choices of seeds; they are fixed."""
    losses = _losses(build)
    # log(10) = 2.3 before training
    assert max(np.mean(losses["ours"]), np.mean(losses["peer"])) < 1.2
    logs = {name: np.log(values) for name, values in losses.items()}
    assert stats.ttest_ind(logs["ours"], logs["peer"], equal_var=False).pvalue > 1e-3, losses
    # The test can fail: it notices weights that are six times too large.
    assert stats.ttest_ind(logs["wrong"], logs["peer"], equal_var=False).pvalue < 1e-3
