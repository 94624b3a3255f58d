"""Draw the figures of docs/look.md and docs/reinitialise.md: networks at work.

    python docs/draw_networks.py [NAME...]

Needs matplotlib, PyTorch and scikit-learn; takes about two minutes on one core.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import winit_fast as wf
import winit_fast.torch
from winit_fast.diagnosis import compare, coordinate_check, propagate
from winit_fast.dynamic import DynamicInit, lsuv_

FIGURES = Path(__file__).parent / "figures"
BLUE, ORANGE = "#3b6ea5", "#c05a1c"


def write(figure, name):
    with rc_context({"svg.hashsalt": "winit_fast"}):  # the same figure gives the same file
        figure.savefig(FIGURES / f"{name}.svg", format="svg", metadata={"Date": None})


def draw(*shape, name="batch"):
    return winit_fast.torch.normal_(torch.empty(shape), seed=0, name=name)


def chain(depth, width, activation, outputs=None):
    parts = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(*parts, *([nn.Linear(width, outputs)] if outputs else []))


def digits():
    found = load_digits()
    pictures = torch.from_numpy(found.data.astype(np.float32))
    return (pictures - pictures.mean()) / pictures.std(), torch.from_numpy(found.target)


def propagation():
    net = chain(12, 256, nn.ReLU, 10)
    winit_fast.torch.init_(net, {"*.weight": "he_normal", "*.bias": "zeros"}, seed=0)
    propagate(net, draw(256, 256)).save(FIGURES / "propagation.svg")


def schemes():
    net = chain(40, 256, nn.ReLU)
    zero = {"*.bias": "zeros"}
    found = compare(
        {
            "He": {"*.weight": wf.HeNormal(), **zero},
            "Glorot": {"*.weight": wf.GlorotNormal(), **zero},
            "orthogonal, gain √2": {"*.weight": wf.Orthogonal(2**0.5), **zero},
            "U(-0.3, 0.3)": {"*.weight": wf.RandomUniform(-0.3, 0.3), **zero},
        },
        net,
        draw(256, 256),
    )
    found.save(FIGURES / "schemes.svg")


class Readout(nn.Module):
    def __init__(self, width, factor):
        super().__init__()
        self.embed, self.hidden = nn.Linear(64, width), nn.Linear(width, width)
        self.readout, self.factor = nn.Linear(width, 10), factor

    def forward(self, x):
        return self.readout(self.factor * F.relu(self.hidden(F.relu(self.embed(x)))))


def coordinates():
    """Table 8 of Tensor programs V, for Adam: hidden rate / width, readout multiplier / width."""
    pictures, labels = digits()
    batch, base, widths = pictures[:256], 64, [64, 128, 256, 512, 1024]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for panel, is_mup in zip(axes, (False, True), strict=True):

        def make(width, is_mup=is_mup):
            net = Readout(width, base / width if is_mup else 1.0)
            readout = wf.RandomNormal(0, base**-0.5) if is_mup else wf.LecunNormal()
            rules = {"readout.weight": readout, "*.weight": wf.HeNormal(), "*.bias": "zeros"}
            return winit_fast.torch.init_(net, rules, seed=width)

        def optimizer(net, is_mup=is_mup):
            part = base / net.hidden.in_features if is_mup else 1.0
            rest = [p for name, p in net.named_parameters() if name != "hidden.weight"]
            hidden = {"params": [net.hidden.weight], "lr": 0.01 * part}
            return torch.optim.Adam([{"params": rest, "lr": 0.01}, hidden])

        found = coordinate_check(
            make, widths, 4, batch=batch, optimizer=optimizer,
            loss=lambda output, batch: F.cross_entropy(output, labels[:256]),
        )  # fmt: skip
        for step, line in enumerate(found.sizes["readout"].T):
            panel.plot(widths, line, color=f"{0.8 - 0.2 * step:.1f}", marker="o", markersize=3,
                       label=f"step {step}")  # fmt: skip
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("width")
        panel.set_title("muP" if is_mup else "standard rules", fontsize=10)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("mean size of the output")
    axes[0].legend(fontsize=8)
    write(figure, "coordinates")


def lsuv():
    pictures, labels = digits()
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    panel = figure.subplots()
    for name, color in (("torch's default", ORANGE), ("lsuv_", BLUE)):
        for seed in range(5):
            torch.manual_seed(seed)
            net = chain(50, 64, nn.Tanh, 10)
            if name == "lsuv_":
                lsuv_(net, pictures[:256], seed=seed)
            optimizer = torch.optim.Adam(net.parameters(), 1e-3)
            generator, losses = np.random.default_rng(seed), []
            for _ in range(100):
                chosen = torch.from_numpy(generator.integers(1500, size=64))
                loss = F.cross_entropy(net(pictures[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            panel.plot(losses, color=color, linewidth=0.8, label=None if seed else name)
    panel.set_xlabel("step")
    panel.set_ylabel("loss")
    panel.set_title("50 layers with tanh, digits", fontsize=10)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    write(figure, "lsuv")


def forced(seed, is_watched, steps=1200, every=200):
    """Train on labels that are permuted again and again; return losses and dormant shares."""
    pictures, labels = digits()
    torch.manual_seed(seed)
    net = chain(3, 64, nn.ReLU, 10)
    winit_fast.torch.init_(net, {"*.weight": "he_normal", "*.bias": "zeros"}, seed=seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    watch = DynamicInit(net, optimizer, seed=seed, every=20, reset=is_watched)
    generator, losses, shares = np.random.default_rng(seed), [], []
    for step in range(steps):
        if step % every == 0:
            target = torch.from_numpy(generator.permutation(10))[labels]
        chosen = torch.from_numpy(generator.integers(1500, size=64))
        loss = F.cross_entropy(net(pictures[chosen]), target[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        watch.step()
        if watch.steps % watch.every == 0:
            shares.append(np.mean([one.dormant for one in watch.seen.values()]))
    return losses, shares


def dormant():
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for is_watched, color in ((False, ORANGE), (True, BLUE)):
        found = [forced(seed, is_watched) for seed in range(5)]
        name = "with DynamicInit" if is_watched else "without"
        for number, (losses, shares) in enumerate(found):
            smooth = np.convolve(losses, np.ones(20) / 20, "valid")
            label = None if number else name
            left.plot(20 * np.arange(1, len(shares) + 1), shares, color=color, linewidth=0.8,
                      label=label)  # fmt: skip
            right.plot(np.arange(20, len(losses) + 1), smooth, color=color, linewidth=0.8,
                       label=label)  # fmt: skip
    left.set_title("share of dormant units", fontsize=10)
    right.set_title("loss, mean of 20 steps", fontsize=10)
    right.set_yscale("log")
    for panel in (left, right):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    left.legend(fontsize=8)
    write(figure, "dormant")


if __name__ == "__main__":
    torch.set_num_threads(1)  # such small models are slower with more
    known = [propagation, schemes, coordinates, lsuv, dormant]
    for one in known:
        if not sys.argv[1:] or one.__name__ in sys.argv[1:]:
            one()
