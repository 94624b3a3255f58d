"""The ranks of test_torch_sharded.py: a program that forks real process groups for its cases.

``python sharded_ranks.py REPORT WORLD...`` writes, as JSON, what every rank of every world says of
every case: null, or why it failed. All ranks share one import of torch.
"""

import itertools
import json
import logging
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # DTensors import it in every rank, else
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.torch.placements import parts

CASES: dict[str, tuple[tuple[int, ...], Callable[[], None]]] = {}
"""By name, the worlds in which a case runs, and the case."""

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

TYPES = torch.float32, torch.bfloat16, torch.float8_e4m3fn


def case(*worlds):
    def add(function):
        CASES[function.__name__] = worlds, function
        return function

    return add


def same(first, second):
    """Bit for bit; float8 has no comparison of its own."""
    kind = BITS[first.itemsize]
    return first.shape == second.shape and bool((first.view(kind) == second.view(kind)).all())


@cache
def positions(shape, mesh, placements):
    """Which elements of the whole this rank holds, as torch cuts it: nothing is communicated."""
    numbers = torch.arange(math.prod(shape)).reshape(shape)
    return distribute_tensor(numbers, mesh, placements, src_data_rank=None).to_local()


def sharded(shape, dtype, mesh, placements):
    """A DTensor of sevens, of which every rank makes its own part."""
    local = torch.full(positions(shape, mesh, placements).shape, 7.0).to(dtype)
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )


def local_of(whole, mesh, placements):
    """What torch gives this rank of a whole tensor."""
    return whole.flatten()[positions(tuple(whole.shape), mesh, placements)]


def gathered(tensor):
    """What torch makes of all ranks' parts: by integers, of a size that gloo moves."""
    local = tensor.to_local().detach().contiguous()
    wide = local.view(BITS[local.itemsize]).int()
    bits = DTensor.from_local(
        wide, tensor.device_mesh, tensor.placements,
        shape=tensor.shape, stride=tensor.stride(), run_check=False,
    )  # fmt: skip
    return bits.full_tensor().to(BITS[local.itemsize]).view(local.dtype)


@cache
def meshes():
    """Meshes of one to three axes of this world."""
    world = dist.get_world_size()
    shapes = [(world,)]
    if world in (4, 8):
        shapes += [(2, world // 2), (2, 1, 2) if world == 4 else (2, 2, 2)]
    return [init_device_mesh("cpu", shape) for shape in shapes]


def layouts(mesh, axes):
    """Placements on a mesh: every axis, nested in every order, strided, replicated, and mixed."""
    several, last = mesh.ndim > 1, axes - 1
    found = [(one,) * mesh.ndim for one in (Replicate(), *map(Shard, range(axes)))]
    found.append((Replicate(),) * (mesh.ndim - 1) + (_StridedShard(0, split_factor=3),))
    if several:
        inner = mesh.shape[-1]
        found += [
            (Replicate(), *[Shard(0)] * (mesh.ndim - 1)),
            (Shard(0), *[Replicate()] * (mesh.ndim - 1)),
            (Shard(last), *[Shard(0)] * (mesh.ndim - 1)),
            (*[Shard(0)] * (mesh.ndim - 1), Shard(last)),
            (_StridedShard(0, split_factor=inner), *[Shard(0)] * (mesh.ndim - 1)),
            (_StridedShard(last, split_factor=inner), *[Shard(last)] * (mesh.ndim - 1)),
        ]
    return list(dict.fromkeys(found))


SCHEMES = {
    "uniform_": ((6, 10), {"a": -1.0, "b": 2.0}),
    "normal_": ((7, 5), {"std": 0.02}),
    "trunc_normal_": ((8, 3), {"std": 0.5, "a": -1.0, "b": 0.7}),
    "xavier_uniform_": ((3, 4, 5), {}),
    "xavier_normal_": ((9, 2), {}),
    "kaiming_uniform_": ((2, 9), {"a": 5**0.5}),
    "kaiming_normal_": ((5, 3, 3), {"mode": "fan_out", "nonlinearity": "relu"}),
    "sparse_": ((16, 6), {"sparsity": 0.6}),
    "eye_": ((5, 8), {}),
    "dirac_": ((4, 5, 3), {"groups": 2}),
    "ones_": ((3, 3), {}),
}


@case(1, 2, 3, 4, 8)
def every_scheme_in_every_layout():
    for (scheme, (shape, arguments)), dtype in itertools.product(SCHEMES.items(), TYPES):
        if scheme not in ("eye_", "dirac_", "ones_"):
            arguments = arguments | {"seed": 7, "name": "fc.weight"}
        whole = getattr(ours, scheme)(torch.empty(shape, dtype=dtype), **arguments)
        for mesh in meshes():
            for placements in layouts(mesh, len(shape)):
                tensor = sharded(shape, dtype, mesh, placements)
                assert getattr(ours, scheme)(tensor, **arguments) is tensor
                said = scheme, dtype, placements, mesh.shape
                assert same(tensor.to_local(), local_of(whole, mesh, placements)), said


@case(2, 3, 4, 8)
def torch_gathers_the_whole():
    """From all ranks' parts, by torch's own collectives: even, uneven and empty shards."""
    for dtype, shape in ((TYPES[0], (24, 24)), (TYPES[1], (7, 5)), (TYPES[2], (1, 3))):
        whole = ours.normal_(torch.empty(shape, dtype=dtype), seed=3, name="fc.weight")
        for mesh in meshes():
            for placements in layouts(mesh, 2):
                tensor = sharded(shape, dtype, mesh, placements)
                ours.normal_(tensor, seed=3, name="fc.weight")
                assert same(gathered(tensor), whole), (dtype, shape, placements, mesh.shape)


@case(1, 2, 4)
def orthogonal_within_the_bound():
    """Whole columns have the bits of the whole; other boxes agree to rounding, as documented."""
    for mesh, shape in itertools.product(meshes(), ((12, 8), (8, 12), (6, 2, 4))):
        whole = ours.orthogonal_(torch.empty(shape), seed=5, name="q")
        columns = int(shape[0] < math.prod(shape[1:]))  # the axis whose cuts cost nothing
        bound = (8 + math.sqrt(max(shape[0], math.prod(shape[1:])))) * np.finfo(np.float32).eps
        for placements in layouts(mesh, len(shape)):
            tensor = sharded(shape, torch.float32, mesh, placements)
            ours.orthogonal_(tensor, seed=5, name="q")
            local, expected = tensor.to_local(), local_of(whole, mesh, placements)
            said = placements, mesh.shape, shape
            assert not local.numel() or (local - expected).abs().max() <= bound, said
            cut = {one.dim for one in placements if not isinstance(one, Replicate)}
            if len(shape) == 2 and cut <= {1 - columns}:
                assert same(local, expected), said


@case(2, 4)
def fast_init_numbers_by_order():
    """Every tensor is one logical stream, whatever the layout; empty shards count, too."""
    shapes = {"normal_": (6, 4), "trunc_normal_": (1, 4), "kaiming_uniform_": (5, 3),
              "xavier_normal_": (3, 5), "orthogonal_": (8, 8), "uniform_": (7,)}  # fmt: skip

    def fill(make, *layout):
        with ours.fast_init(seed=11):
            return {
                scheme: getattr(nn.init, scheme)(make(shape, torch.float32, *layout))
                for scheme, shape in shapes.items()
            }

    whole = fill(lambda shape, dtype: torch.empty(shape, dtype=dtype))
    for mesh in meshes():
        replicated = (Replicate(),) * (mesh.ndim - 1)
        for placements in ((Shard(0),) * mesh.ndim, (*replicated, Shard(0))):
            got = fill(sharded, mesh, placements)
            for scheme, tensor in got.items():
                expected = local_of(whole[scheme], mesh, placements)
                if scheme == "orthogonal_":
                    assert torch.allclose(tensor.to_local(), expected, atol=1e-5)
                else:
                    assert same(tensor.to_local(), expected), (scheme, placements)


@case(3)
def outside_of_the_mesh():
    mesh = DeviceMesh("cpu", [0, 1])
    tensor = sharded((5, 3), torch.float32, mesh, (Shard(0),))
    ours.normal_(tensor, seed=1, name="w")
    whole = ours.normal_(torch.empty(5, 3), seed=1, name="w")
    rank = dist.get_rank()
    assert len(parts(tensor)) == (rank < 2)
    if rank < 2:
        assert same(tensor.to_local(), whole[3 * rank : 3 * rank + 3])
    else:
        assert tensor.to_local().numel() == 0
        stray = torch.zeros(2, 3)
        held = DTensor(stray, tensor._spec, requires_grad=False)
        refuses(ValueError, "on a rank that is not in its", lambda: ours.normal_(held, seed=1))
        assert not stray.any()


@case(2, 4)
def what_is_no_part_is_refused():
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    local = torch.zeros(4, 4)
    summed = DTensor.from_local(local, mesh, [Partial()])
    refuses(TypeError, r"Partial.* cannot be filled", lambda: ours.normal_(summed, seed=1))
    refuses(TypeError, r"Partial.* cannot be filled", lambda: ours.eye_(summed))
    uneven = DTensor.from_local(
        local, mesh, [Shard(0)], run_check=False, shape=torch.Size((5, 4)), stride=(4, 1)
    )
    refuses(ValueError, "its placements give", lambda: ours.trunc_normal_(uneven, seed=1))
    for dtype in (torch.int32, torch.complex64):
        other = DTensor.from_local(torch.zeros(2, 2, dtype=dtype), mesh, [Shard(0)])
        refuses(TypeError, "float32", partial(ours.normal_, other, seed=1))
    tensor = DTensor.from_local(local, mesh, [Shard(0)])
    for arguments in ({}, {"name": "w"}, {"generator": torch.Generator()}):
        for scheme in ("normal_", "kaiming_normal_", "orthogonal_", "trunc_normal_"):
            fill = partial(getattr(ours, scheme), tensor, **arguments)
            refuses(ValueError, "seed must be given", fill)
    with ours.fast_init():
        refuses(ValueError, "seed must be given", lambda: nn.init.trunc_normal_(tensor))
        refuses(ValueError, "seed must be given", lambda: tensor.normal_())
    assert not local.any()


def refuses(kind, text, call):
    import re

    try:
        call()
    except kind as error:
        assert re.search(text, str(error)), f"{text!r} is not in {error}"
    else:
        raise AssertionError(f"no {kind.__name__} of {text!r}")


def run(rank, world, store, report):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of torch, that it might gather faster
    wf.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, world), rank=rank, world_size=world,
        timeout=timedelta(seconds=100),
    )  # fmt: skip
    said = {}
    for name, (worlds, function) in CASES.items():
        if world in worlds:
            begun = time.process_time()
            try:
                function()
                said[name] = None
            except BaseException:
                said[name] = traceback.format_exc()
            if not rank:
                print(world, name, round(time.process_time() - begun, 2), file=sys.stderr)
            Path(report).write_text(json.dumps(said))
            dist.barrier()


def main(report, *worlds):
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for world in map(int, worlds):
            reports = [f"{folder}/{world}-{rank}" for rank in range(world)]
            children = []
            for rank in range(world):
                child = os.fork()
                if not child:
                    status = 1
                    try:
                        run(rank, world, f"{folder}/{world}", reports[rank])
                        status = 0
                    finally:
                        sys.stderr.flush()
                        os._exit(status)
                children.append(child)
            codes = [os.waitpid(child, 0)[1] for child in children]
            found[world] = [
                json.loads(Path(one).read_text()) if Path(one).exists() else {} for one in reports
            ]
            print(world, codes, file=sys.stderr)
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
