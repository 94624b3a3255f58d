"""Models that this package initialises train as well as those that torch initialises.

The data are the digits of scikit-learn, 8 x 8 pixels, with the same batches and the same number of
steps. Welch's t-test compares the logarithms of the losses for several seeds, ours with torch's: a
false alarm in 1000; the seeds are fixed. Both must have learnt, and the test must notice weights
that are six times too large.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn

from winit_fast.torch import fast_init, init_

SEEDS = range(4)


class Transformer(nn.Module):
    """Each row of the picture is a token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.positions = nn.Parameter(torch.empty(8, 32))
        nn.init.trunc_normal_(self.positions, std=0.02)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(32, 10)
        for parameter in self.encoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, pictures):
        return self.head(self.encoder(self.embed(pictures) + self.positions).mean(1))


class Convolutional(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip
        for part in self:
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    pictures, labels = load_digits(return_X_y=True)
    pictures = torch.from_numpy(pictures.reshape(-1, 8, 8).astype(np.float32) / 8 - 1)
    order = np.random.default_rng(0).permutation(len(labels))
    return pictures[order], torch.from_numpy(labels[order])


def loss_after_training(model, digits, steps):
    pictures, labels = digits
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(steps):
        batch = slice(step * 64 % 1472, step * 64 % 1472 + 64)
        loss = nn.functional.cross_entropy(model(pictures[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # the last 261 pictures were not used for training
        return nn.functional.cross_entropy(model(pictures[1536:]), labels[1536:]).item()


def by_torch(make, seed):
    torch.manual_seed(seed)
    return make()


def by_fast_init(make, seed):
    torch.manual_seed(100 + seed)
    with fast_init():
        return make()


def by_name(make, seed):
    model = make()
    rules = {name: nn.init.xavier_uniform_ for name, p in model.named_parameters()
             if name.startswith("encoder") and p.ndim > 1}  # fmt: skip
    if isinstance(model, Transformer):
        rules["positions"] = lambda tensor: nn.init.trunc_normal_(tensor, std=0.02)
    else:
        for name in ("1.weight", "3.weight"):
            rules[name] = lambda tensor: nn.init.kaiming_normal_(tensor, nonlinearity="relu")
        rules |= {"1.bias": "zeros", "3.bias": "zeros"}
    return init_(model, rules, seed=seed)


def too_large(make, seed):
    model = by_torch(make, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    return model


@pytest.mark.parametrize(("make", "steps"), [(Convolutional, 80), (Transformer, 120)])
def test_the_same_loss(make, steps, digits):
    losses = {
        way: np.log([loss_after_training(way(make, seed), digits, steps) for seed in SEEDS])
        for way in (by_torch, by_fast_init, by_name, too_large)
    }

    def chance(way):
        return stats.ttest_ind(losses[way], losses[by_torch], equal_var=False).pvalue

    for way in (by_fast_init, by_name):
        assert max(losses[way]) < 0  # below ln ln 10 = 0.83, the loss of guessing
        assert chance(way) > 1e-3, losses
    assert chance(too_large) < 1e-3, losses
