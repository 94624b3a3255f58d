"""One of two ranks, each with its own batch: prints a hash of the weights after every adjustment.

python dynamic_ranks.py RANK FILE
"""

import hashlib
import sys

import torch
import torch.distributed as distributed
from torch import nn

import winit_fast.torch
from winit_fast.dynamic import DynamicInit, lsuv_, rescale_


def show(what, net):
    digest = hashlib.sha256(b"".join(one.detach().numpy().tobytes() for one in net.parameters()))
    print(what, digest.hexdigest())


def main(rank, file):
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    group = distributed.group.WORLD
    parts = [part for _ in range(4) for part in (nn.Linear(16, 16), nn.ReLU())]
    net = nn.Sequential(*parts, nn.Linear(16, 4))
    winit_fast.torch.init_(net, {"*.weight": "he_normal", "*.bias": "zeros"}, seed=0)
    batch = (1 + rank) * winit_fast.torch.normal_(torch.empty(32, 16), seed=rank)
    show("lsuv_", (lsuv_(net, batch, group=group), net)[1])
    show("rescale_", (rescale_(net, batch, "gradient", group=group), net)[1])
    watch = DynamicInit(net, seed=3, every=1, tau=0.3, group=group)
    net(batch)
    print("units", [reset.units for reset in watch.step()])
    show("DynamicInit", net)
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2])
