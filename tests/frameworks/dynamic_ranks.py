"""One of two ranks, each with its own batch: compares with modules that are not cut.

python dynamic_ranks.py RANK FILE

Prints the name of every check that has passed, with a hash of the weights where all ranks must have
the same.
"""

import copy
import hashlib
import re
import sys

import torch
import torch.distributed as distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import winit_fast.torch
from winit_fast.diagnosis import propagate
from winit_fast.dynamic import DynamicInit, ScaleSchedule, lsuv_, rescale_, shrink_and_perturb_

RULES = {"*.weight": "he_normal", "*.bias": "zeros"}


def whole(tensor):
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def show(what, net):
    parts = [whole(one).clone().numpy().tobytes() for one in net.parameters()]
    print(what, hashlib.sha256(b"".join(parts)).hexdigest())


def refuses(kind, text, call):
    try:
        call()
    except kind as error:
        assert re.search(text, str(error)), error
    else:
        raise AssertionError(f"no {kind.__name__} of {text!r}")


def make(width=17, is_dead=True):
    """Widths that two ranks cannot share evenly; some units are dead."""
    parts = [part for _ in range(3) for part in (nn.Linear(width, width), nn.ReLU())]
    net = nn.Sequential(*parts, nn.Linear(width, 4))
    winit_fast.torch.init_(net, RULES, seed=0)
    if is_dead:
        with torch.no_grad():
            net[0].bias[[2, 9, 16]] = -100.0
            net[2].bias[[0, 8]] = -100.0
    return net


def sharded(net):
    for part in (net[0], net[2]):
        fully_shard(part)
    return fully_shard(net)


def own_batch(rank, width=17):
    return (1 + rank) * winit_fast.torch.normal_(torch.empty(32, width), seed=rank)


def step(net, optimizer, batch):
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    optimizer.step()


def each_with_its_batch(rank, group):
    net, batch = make(is_dead=False), own_batch(rank)
    show("lsuv_", (lsuv_(net, batch, group=group), net)[1])
    show("rescale_", (rescale_(net, batch, "gradient", group=group), net)[1])
    with torch.no_grad():
        net[2].bias[[0, 8]] = -1000.0
    watch = DynamicInit(net, seed=3, every=1, tau=0.3, group=group)
    net(batch)
    print("units", [reset.units for reset in watch.step()])
    show("DynamicInit", net)
    refuses(ValueError, "seed must be given", lambda: DynamicInit(net, group=group))


def compared(wrapped, alone, rank, group=None):
    """Train both, re-initialise their dormant units, and compare what has been drawn anew."""
    nets = wrapped, alone
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3) for net in nets]
    watches = [
        DynamicInit(wrapped, optimizers[0], seed=5, every=2, rules=RULES, group=group),
        DynamicInit(alone, optimizers[1], seed=5, every=2, rules=RULES),
    ]
    both = torch.cat([own_batch(0), own_batch(1)])
    for _ in range(2):
        for net, optimizer, watch, batch in zip(
            nets, optimizers, watches, (own_batch(rank), both), strict=True
        ):
            step(net, optimizer, batch)
            watch.step()
    first, second = (watch.history for watch in watches)
    assert first == second and {"0", "2"} <= {one.layer for one in first}, (first, second)
    pairs = list(zip(wrapped.parameters(), alone.parameters(), strict=True))
    for reset in first:
        place, units = int(reset.layer) // 2, list(reset.units)
        for one, other in pairs[2 * place : 2 * place + 2]:
            assert (whole(one)[units] == other.detach()[units]).all()  # the same bits
        outgoing, other = pairs[2 * place + 2]
        assert (whole(outgoing)[:, units] == 0).all() and (other.detach()[:, units] == 0).all()
        for parameter, index in ((pairs[2 * place][0], units), (outgoing, (slice(None), units))):
            for key in ("exp_avg", "exp_avg_sq"):
                assert (whole(optimizers[0].state[parameter][key])[index] == 0).all()
    for one, other in pairs:
        torch.testing.assert_close(whole(one), other.detach(), rtol=1e-4, atol=1e-5)
    for key in ("exp_avg", "exp_avg_sq"):
        kept = [whole(optimizer.state[next(iter(net.parameters()))][key])
                for net, optimizer in zip(nets, optimizers, strict=True)]  # fmt: skip
        torch.testing.assert_close(*kept, rtol=1e-3, atol=1e-6)
        assert kept[0].any()


def in_ddp(rank, group):
    wrapped = DistributedDataParallel(make())
    compared(wrapped, make(), rank)  # the group is that of the wrapper
    show("DDP", wrapped)
    with torch.no_grad():
        wrapped.module[0].bias.zero_()
        wrapped.module[2].bias.zero_()
    found = lsuv_(wrapped, own_batch(rank), seed=1)
    assert all(0.9 <= layer.after <= 1.1 for layer in found.layers)
    show("DDP lsuv_", wrapped)


def in_fsdp(rank, group):
    net = sharded(make())
    refuses(ValueError, "group must be given", lambda: DynamicInit(net, seed=0))
    refuses(ValueError, "group must be given", lambda: lsuv_(net, own_batch(rank)))
    refuses(
        ValueError,
        "optimizer must have the parameters that are re-initialised, but not '0.weight'",
        lambda: DynamicInit(net, torch.optim.SGD(make().parameters(), 0.1), seed=0, group=group),
    )
    compared(net, make(), rank, group)
    show("fully_shard", net)
    watch = DynamicInit(net, seed=0, every=1, group=group, tau=0.3, rules=RULES)
    net(own_batch(rank))  # the root keeps what it has gathered, which is no parameter to change
    assert watch.step()
    before = [whole(one) for one in net.parameters()]
    net(own_batch(rank)).sum().backward()
    assert all((whole(one) == old).all() for one, old in zip(net.parameters(), before, strict=True))
    print("fully_shard after a forward pass")


def adjusted_in_fsdp(rank, group):
    for what, adjust in {
        "lsuv_": lambda net: lsuv_(net, own_batch(rank), seed=1, group=group),
        "rescale_ center": lambda net: rescale_(net, own_batch(rank), center=True, group=group),
        "rescale_ gradient": lambda net: rescale_(net, own_batch(rank), "gradient", group=group),
    }.items():
        net, alone = sharded(make(is_dead=False)), make(is_dead=False)
        found, expected = adjust(net), adjust(alone)
        for one, other in zip(found.layers, expected.layers, strict=True):
            assert abs(one.factor / other.factor - 1) < 1e-4 and one.name == other.name
        for one, other in zip(net.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(whole(one), other.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net(own_batch(rank)), alone(own_batch(rank)))
        show(f"fully_shard {what}", net)
    net, alone = sharded(make()), make()
    shrink_and_perturb_(net, 0.5, 0.2, seed=3)
    shrink_and_perturb_(alone, 0.5, 0.2, seed=3)
    schedules = [ScaleSchedule(one, {"*.weight": 0.5}, 4) for one in (net, alone)]
    for one, schedule in zip((net, alone), schedules, strict=True):
        one(own_batch(rank))
        schedule.step()
    torch.testing.assert_close(net(own_batch(rank)), alone(own_batch(rank)))
    for one, other in zip(net.parameters(), alone.parameters(), strict=True):
        assert (whole(one) == other.detach()).all()
    show("fully_shard shrink_and_perturb_, ScaleSchedule", net)
    measured = [propagate(one, own_batch(rank)) for one in (net, alone)]
    for one, other in zip(measured[0].rows, measured[1].rows, strict=True):
        assert abs(one.deviation / other.deviation - 1) < 1e-4
        assert abs(one.gradient / other.gradient - 1) < 1e-4
        assert one.largest is None or abs(one.largest / other.largest - 1) < 1e-4
    print("fully_shard propagate")


def in_tensor_parallelism(rank, group):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up_proj, self.down_proj = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x):
            return self.down_proj(torch.relu(self.up_proj(x)))

    net = winit_fast.torch.init_(Block(), RULES, seed=0)
    with torch.no_grad():
        net.up_proj.bias[[1, 6]] = -100.0
    alone, batch = copy.deepcopy(net), own_batch(0, 6)
    plan = {"up_proj": ColwiseParallel(), "down_proj": RowwiseParallel()}
    net = parallelize_module(net, init_device_mesh("cpu", (2,)), plan)
    for one in (net, alone):
        watch = DynamicInit(one, seed=5, every=1, rules=RULES, group=group)
        one(batch)
        (reset,) = watch.step()
        assert reset.units == (1, 6)
    for one, other in zip(net.parameters(), alone.parameters(), strict=True):
        assert (whole(one) == other.detach()).all()
    refuses(TypeError, "'up_proj' must be whole or cut by fully_shard",
            lambda: lsuv_(net, batch, group=group))  # fmt: skip
    show("tensor parallelism", net)


def main(rank, file):
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    group = distributed.group.WORLD
    for check in (each_with_its_batch, in_ddp, in_fsdp, adjusted_in_fsdp, in_tensor_parallelism):
        check(rank, group)
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2])
