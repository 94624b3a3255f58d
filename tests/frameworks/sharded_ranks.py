"""The ranks of test_torch_sharded.py: a program that forks real process groups for its cases.

``python sharded_ranks.py REPORT WORLD...`` writes, as JSON, what every rank of every world says of
every case: null, or why it failed. All ranks share one import of torch. By hand, the variable CASES
selects cases by a regular expression.
"""

import itertools
import json
import logging
import math
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # imported once here; otherwise DTensor would import it in every rank
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.numpy import save_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import _StridedShard

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.models import TensorSpec, from_checkpoint
from winit_fast.torch.placements import parts

SILENT = 0
"""The world of eight ranks that cannot communicate."""

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
    """Compare bits, because torch cannot compare float8 tensors."""
    kind = BITS[first.itemsize]
    return first.shape == second.shape and bool((first.view(kind) == second.view(kind)).all())


def refuses(kind, text, call):
    try:
        call()
    except kind as error:
        assert re.search(text, str(error)), f"{text!r} is not in {error}"
    else:
        raise AssertionError(f"no {kind.__name__} of {text!r}")


@cache
def positions(shape, mesh, placements):
    """Return the indices of the elements that this rank holds under torch; no communication."""
    numbers = torch.arange(math.prod(shape)).reshape(shape)
    return distribute_tensor(numbers, mesh, placements, src_data_rank=None).to_local()


def sharded(shape, dtype, mesh, placements):
    """A DTensor filled with 7; each rank makes its own part."""
    local = torch.full(positions(shape, mesh, placements).shape, 7.0).to(dtype)
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )


def local_of(whole, mesh, placements):
    """Return the part of a whole tensor that torch gives to this rank."""
    return whole.flatten()[positions(tuple(whole.shape), mesh, placements)]


def gathered(tensor):
    """Gather all ranks' parts with torch; as integers of a width that gloo can send."""
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
        # the axis along which orthogonal matrices can be cut without loss
        columns = int(shape[0] < math.prod(shape[1:]))
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


# ---------------------------------------------------------------------------------------- models


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
        )
    )  # fmt: skip


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=61, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, num_local_experts=4,
        )
    )  # fmt: skip


COLUMNS, ROWS = ("q_proj", "k_proj", "v_proj"), ("o_proj",)


def cut_by_tensor(model, mesh):
    """Apply torch's tensor parallelism; expert parameters are cut along the experts' axis."""
    plan = {f"model.layers.*.self_attn.{name}": ColwiseParallel() for name in COLUMNS}
    plan |= {f"model.layers.*.self_attn.{name}": RowwiseParallel() for name in ROWS}
    plan |= {"model.layers.*.mlp.gate_proj": ColwiseParallel(),
             "model.layers.*.mlp.up_proj": ColwiseParallel(),
             "model.layers.*.mlp.down_proj": RowwiseParallel()}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some modules of the plan exist only in the other model
        parallelize_module(model, mesh, plan)
    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            for name, parameter in list(module._parameters.items()):
                cut = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
                module._parameters[name] = nn.Parameter(cut)


def cut_by_layers(model, mesh, **options):
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)


def fsdp(model):
    cut_by_layers(model, init_device_mesh("cpu", (dist.get_world_size(),)))


def offload(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    cut_by_layers(model, mesh, offload_policy=CPUOffloadPolicy(pin_memory=False))


def tensor_parallel(model):
    cut_by_tensor(model, init_device_mesh("cpu", (dist.get_world_size(),)))


def hsdp(model):
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("many", "cut"))
    cut_by_layers(model, mesh)


def fsdp_and_tensor_parallel(model):
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("fsdp", "tp"))
    cut_by_tensor(model, mesh["tp"])
    cut_by_layers(model, mesh["fsdp"])


def all_of_them(model):
    names = "many", "fsdp", "tp"
    mesh = init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=names)
    cut_by_tensor(model, mesh["tp"])
    cut_by_layers(model, mesh["many", "fsdp"])


LAYOUTS = {
    2: (fsdp, offload, tensor_parallel),
    3: (fsdp,),
    4: (fsdp, hsdp, fsdp_and_tensor_parallel),
    8: (all_of_them,),
}


def laid_out(make, layout):
    with torch.device("meta"):
        model = make()
    layout(model)
    model.to_empty(device="cpu")
    if layout is tensor_parallel:
        model.tie_weights()  # to_empty gives each use of a plain tied tensor its own copy
    return model


@case(2, 3, 4, 8)
def models_equal_the_unsharded_ones():
    """The parameters and buffers that transformers' own initialisation gives."""
    for make in (llama, mixtral):
        whole = ours.init_(make(), seed=5)
        for layout in LAYOUTS[dist.get_world_size()]:
            model = ours.init_(laid_out(make, layout), seed=5)
            cuts = set()
            for (name, tensor), (same_name, expected) in zip(
                model.state_dict().items(), whole.state_dict().items(), strict=True
            ):
                assert name == same_name
                assert isinstance(tensor, DTensor) or layout is tensor_parallel, name
                if isinstance(tensor, DTensor):
                    cuts.add(tensor.placements)
                    tensor = gathered(tensor)
                assert same(tensor, expected), (make, layout, name)
            assert len(cuts) >= (2 if "tensor" in layout.__name__ else 1)
            for buffer, expected in zip(model.buffers(), whole.buffers(), strict=True):
                assert same(buffer, expected)


@case(2)
def rules_of_every_kind():
    """Rules instead of the author's code: schemes and functions that need more than their part."""
    schemes = {
        "a": wf.HeNormal(), "b": wf.TruncatedNormal(0.02), "c": wf.Orthogonal(), "d": "ones",
        "e": wf.Sparse(0.5), "f": wf.Constant(0.25), "g": wf.Identity(), "h": wf.Zeros(),
        "i": lambda tensor: tensor.copy_(torch.arange(96.0).view(8, 12)),
        "j": lambda tensor: tensor.uniform_(1, 16).log_(),
        "k": lambda tensor: tensor.copy_(torch.empty(8, 12, dtype=torch.float64).normal_()),
        "l": "keep", "m": wf.RandomNormal(),
    }  # fmt: skip
    types = {"m": torch.complex64}

    def filled(make):
        module = nn.Module()
        for name in schemes:
            tensor = make((8, 12), types.get(name, torch.float32))
            module.register_parameter(name, nn.Parameter(tensor))
        return ours.init_(module, schemes, seed=9, frozen="fill")

    whole = filled(lambda shape, dtype: torch.full(shape, 7, dtype=dtype))
    sums = {complex(one.detach().sum()) for one in whole.parameters()}
    assert len(sums) == len(schemes)
    mesh = meshes()[0]
    strided = _StridedShard(1, split_factor=3)
    for placements in ((Shard(0),), (Shard(1),), (Replicate(),), (strided,)):
        got = filled(partial(sharded, mesh=mesh, placements=placements))
        for name, tensor in got.named_parameters():
            expected = local_of(whole.get_parameter(name).detach(), mesh, placements)
            if name == "c":
                assert torch.allclose(tensor.to_local(), expected, atol=1e-5)
            else:
                assert same(tensor.to_local().detach(), expected), (name, placements)


@case(2)
def plans_fill_what_each_rank_holds():
    """A plan of the whole model, including buffers; without a seed it is an error."""
    plan = ours.record(mixtral)
    whole = ours.fill_(mixtral(), plan, seed=5).state_dict()
    for layout in LAYOUTS[2]:
        model = laid_out(mixtral, layout)
        refuses(
            ValueError, "seed must be given, got None: parameter", partial(ours.fill_, model, plan)
        )
        ours.fill_(model, plan, seed=5)
        for name, tensor in model.state_dict().items():
            got = gathered(tensor) if isinstance(tensor, DTensor) else tensor
            assert same(got, whole[name]), (layout, name)


@case(2)
def a_vocabulary_grows_alike_on_every_rank():
    """The weights of 50 words in a Llama of 61: every rank reads and draws its own part."""
    plan = ours.record(llama)
    old = {tensor.name: tensor.array(seed=1) for tensor in plan if tensor.kind == "parameter"}
    (words,) = (name for name, array in old.items() if array.shape[0] == 61)
    old[words] = old[words][:50]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file(old, file)
        grown, report = from_checkpoint(plan, file, new_rows="mean")
        assert report.names("extended") == [words]
        whole = ours.fill_(llama(), grown, seed=5).state_dict()
        assert np.array_equal(whole[words][:50].numpy(), old[words])
        for layout in LAYOUTS[2]:
            model = ours.fill_(laid_out(llama, layout), grown, seed=5)
            for name, tensor in model.state_dict().items():
                got = gathered(tensor) if isinstance(tensor, DTensor) else tensor
                assert same(got, whole[name]), (layout, name)


@case(1, 2, 4)
def each_rank_compares_with_the_plan():
    """One element is changed on the last rank: all ranks name it, and no tensor is written."""
    rank, world = dist.get_rank(), dist.get_world_size()
    plan = ours.record(mixtral)
    for layout in LAYOUTS.get(world, (fsdp,)):
        model = ours.fill_(laid_out(mixtral, layout), plan, seed=5)
        before = [tensor.clone() for tensor in model.parameters()]
        found = ours.verify_(model, plan, 5)
        assert found.fresh and not found.problems, found
        assert [one.rank for one in found.ranks] == list(range(world))
        assert all(map(torch.equal, before, model.parameters()))
        name = "model.layers.1.self_attn.k_proj.weight"
        with torch.no_grad():
            local = model.get_parameter(name).to_local()
            if rank == world - 1:
                local[-1, 2] = -local[-1, 2]
        found = ours.verify_(model, plan, 5)
        assert len(found.differences) == (rank == world - 1)
        assert [one.rank for one in found.ranks if one.differing] == [world - 1]
        first = found.ranks[-1].first
        held = positions((32, 32), model.get_parameter(name).device_mesh,
                         model.get_parameter(name).placements)  # fmt: skip
        if rank == world - 1:
            assert first.index == divmod(int(held[-1, 2]), 32)
        assert (first.name, first.rank, first.differing) == (name, world - 1, 1)
        assert float(first.found) == -float(first.expected)
        assert f"rank {world - 1}: {name!r} differs from the plan in 1 elements" in str(found)


def computed_in_torch(factor):
    """A module whose values no scheme has, and a plan's file cannot hold."""

    def make():
        module = nn.Module()
        drawn = torch.empty(5, 4).uniform_(1, 2).log_().add_(torch.randn(4) * factor)
        module.weight = nn.Parameter(drawn)
        return module

    return make


@case(2)
def ranks_that_disagree_are_found():
    """Other seeds, plans, versions; and no rank waits for one that refuses."""
    from winit_fast.torch import verification

    rank, mesh = dist.get_rank(), meshes()[0]
    plan = wf.Plan([
        TensorSpec("a", (6, 5), wf.HeNormal(in_axis=1, out_axis=0)),
        TensorSpec("b", (9, 4), wf.Orthogonal(), dtype="bfloat16", drawn_in="float32"),
        TensorSpec("c", (8, 4), wf.Sparse(0.5)), TensorSpec("d", (3,), wf.Computed(np.arange(3)),
                                                            dtype="int64"),
        TensorSpec("e", (4, 2), wf.RandomNormal(), dtype="complex64"),
    ])  # fmt: skip
    module = nn.Module()
    for tensor in plan:
        dtype = getattr(torch, tensor.dtype)
        made = sharded(tensor.shape, dtype, mesh, (Shard(0),))
        module.register_parameter(tensor.name, nn.Parameter(made, requires_grad=False))
    for seed in (3, 3 + rank):  # every rank has what its own seed gives
        ours.fill_(module, plan, seed=seed)
        found = ours.verify_(module, plan, seed)
        assert not found.differences
        assert found.fresh == (found.ranks[1].seed == 3)
    assert found.problems == ("rank 1 has seed 4, rank 0 3",)
    ours.fill_(module, plan, seed=3)
    assert {one.name for one in ours.verify_(module, plan, 4).differences} == set("abce")
    other = plan.with_rules({"c": wf.Sparse(0.25)}) if rank else plan
    ours.fill_(module, other, seed=3)
    found = ours.verify_(module, other, 3)
    assert not found.differences
    assert re.search("^rank 1 has plan sha256:.*, rank 0 sha256:", str(found))
    logs = ours.record(computed_in_torch(1 + rank))
    found = ours.verify_(ours.fill_(computed_in_torch(1 + rank)(), logs, seed=3), logs, 3)
    assert re.search("^rank 1 has plan sha256:.*, rank 0 sha256:", str(found))
    version = verification.__version__
    verification.__version__ = f"{version}.{rank}"
    try:
        ours.fill_(module, plan, seed=3)
        assert "rank 1 has version" in str(ours.verify_(module, plan, 3))
    finally:
        verification.__version__ = version
    if rank:
        refuses(ValueError, "the plan has no 'e'", lambda: ours.verify_(module, plan[:4], 3))
    else:
        refuses(
            RuntimeError, "rank 1 could not compare: the plan has no 'e'",
            lambda: ours.verify_(module, plan, 3),
        )  # fmt: skip
    refuses(ValueError, "seed must be given, got None", lambda: ours.verify_(module, plan, None))


@case(1, 2, 3, 4)
def tensors_without_a_module():
    """A plan's tensors on a mesh: equal to arrays of the plan, tied names and plain tensors too."""
    rank, mesh = dist.get_rank(), meshes()[-1]
    plan = ours.record(llama)
    several = mesh.ndim > 1
    strided = (_StridedShard(0, split_factor=mesh.shape[-1]), *[Shard(0)] * (mesh.ndim - 1))
    rules = {
        "*norm.weight": None, "*.q_proj.*": strided if several else [Shard(1)],
        "*": [*[Replicate()] * (mesh.ndim - 1), Shard(-1)],
    }  # fmt: skip
    own = ours.state_dict(plan, mesh, rules, seed=6)
    names = [name for one in plan if one.kind != "non-persistent buffer"
             for name in (one.name, *one.tied)]  # fmt: skip
    assert list(own) == names and "lm_head.weight" in names
    assert own["lm_head.weight"] is own["model.embed_tokens.weight"]
    for tensor in plan:
        if tensor.name not in own:
            continue
        got, whole = own[tensor.name], torch.from_numpy(tensor.array(seed=6))
        assert isinstance(got, DTensor) != tensor.name.endswith("norm.weight")
        if isinstance(got, DTensor):
            assert got.shape == whole.shape and got.stride() == whole.stride()
            placements = tuple(Shard(1) if one == Shard(-1) else one for one in got.placements)
            assert same(got.to_local(), local_of(whole, mesh, placements)), tensor.name
        else:
            assert same(got, whole)
    cut = plan.matching("*up_proj*")
    by_function = ours.state_dict(cut, mesh, lambda one: [Shard(0)] * mesh.ndim, seed=6)
    assert [one.placements for one in by_function.values()] == [(Shard(0),) * mesh.ndim] * 2
    fill = partial(ours.state_dict, cut, mesh)
    refuses(ValueError, "seed must be given, got None", lambda: fill([Shard(0)], seed=None))
    refuses(ValueError, "no pattern of placements matches tensor 'model.layers.0.mlp.up_proj.w",
            lambda: fill({"*.1.*": None}, seed=1))  # fmt: skip
    refuses(ValueError, "pattern in placements", lambda: fill({"*": None, "x": None}, seed=1))
    placements = [Partial()] * mesh.ndim
    refuses(TypeError, "tensor 'model.layers.0.mlp.up_proj.weight' of.*Partial",
            lambda: fill(placements, seed=1))  # fmt: skip
    refuses(ValueError, "outside of shape", lambda: fill([Shard(2)] * mesh.ndim, seed=1))
    refuses(ValueError, "axes of the mesh", lambda: fill([Shard(0)] * (mesh.ndim + 1), seed=1))
    refuses(TypeError, "torch's placements, got 'Shard", lambda: fill("Shard(0)", seed=1))
    refuses(TypeError, "mesh must be a DeviceMesh", lambda: ours.state_dict(cut, 3, None, seed=1))
    if dist.get_world_size() == 3:
        own = ours.state_dict(cut, DeviceMesh("cpu", [0, 1]), [Shard(0)], seed=6)
        assert {one.to_local().numel() for one in own.values()} == {0 if rank == 2 else 768}


@case(1, 2, 4)
def checkpoints_are_loaded_by_torch(folder):
    """Our DCP, which the first rank writes alone, by dcp.load into shards and into a module."""
    plan, mesh = ours.record(llama), meshes()[-1]
    if dist.get_rank() == 0:
        ours.write_dcp(folder, plan, seed=5, names=lambda name: f"model.{name}")
    dist.barrier()
    cut = (_StridedShard(0, split_factor=mesh.shape[-1]),) if mesh.ndim == 3 else (Shard(0),)
    rules = {"*norm.weight": None, "*": (*cut, *[Shard(0)] * (mesh.ndim - 1))}
    if mesh.ndim > 1:
        rules = {"*.q_proj.*": [Shard(1), *[Replicate()] * (mesh.ndim - 1)], **rules}
    expected, state = (ours.state_dict(plan, mesh, rules, seed=seed) for seed in (5, 6))
    dcp.load({"model": state}, checkpoint_id=folder)
    for name, tensor in expected.items():
        one, other = (
            each.to_local() if isinstance(each, DTensor) else each for each in (tensor, state[name])
        )
        assert same(one, other), name
    for layout in LAYOUTS.get(dist.get_world_size(), (fsdp,)):
        model = ours.init_(laid_out(llama, layout), seed=6)
        dcp.load({"model": model.state_dict()}, checkpoint_id=folder)
        assert ours.verify_(model, plan, 5).fresh


@case(2)
def stages_of_a_pipeline():
    """Each rank has one layer, by prefix, and renamed in a module of another shape, by names."""
    rank, plan = dist.get_rank(), ours.record(llama)
    whole = ours.fill_(llama(), plan, seed=5)
    expected = whole.model.layers[rank].state_dict()
    start = f"model.layers.{rank}"

    def stage():
        with torch.device("meta"):
            layer = llama().model.layers[rank]
        fully_shard(layer, mesh=DeviceMesh("cpu", [rank]))  # a mesh without the other stage
        return layer.to_empty(device="cpu")

    def rename(name):
        return name.replace("block.", f"{start}.")

    for model, more in (
        (stage(), {"prefix": start}), (nn.ModuleDict({"block": stage()}), {"names": rename})
    ):  # fmt: skip
        ours.fill_(model, plan, seed=5, **more)
        for (name, tensor), other in zip(
            model.state_dict().items(), expected.values(), strict=True
        ):
            assert same(tensor.to_local(), other), name
        assert ours.verify_(model, plan, 5, **more).fresh
        with torch.no_grad():
            next(model.parameters()).to_local()[0, 3] = 2.0
        assert [one.first.index for one in ours.verify_(model, plan, 5, **more).ranks] == [
            (0, 3)
        ] * 2
    refuses(ValueError, "the plan has no 'x.self_attn.q_proj.weight', which the module has as",
            lambda: ours.fill_(stage(), plan, seed=5, prefix="x"))  # fmt: skip
    refuses(ValueError, "the plan has no", lambda: ours.fill_(stage(), plan, seed=5))
    refuses(ValueError, r"give a rule, or record\(\)", lambda: ours.init_(stage(), seed=5))
    pruned = llama()  # as torchtitan makes stages: the rest keeps its names
    pruned.model.layers = nn.ModuleDict({str(rank): pruned.model.layers[rank]})
    for fill in (ours.init_, partial(ours.fill_, plan=plan, names=str)):
        fill(pruned, seed=6)
        fill(pruned, seed=5)
        for name, tensor in pruned.state_dict().items():
            assert same(tensor, whole.state_dict()[name]), name


@case(2)
def modules_that_cannot_be_filled():
    model = laid_out(llama, fsdp)
    before = [tensor.to_local().detach().clone() for tensor in model.parameters()]
    refuses(ValueError, "seed must be given, got None: parameter", lambda: ours.init_(model))
    model.unshard()
    refuses(TypeError, r"call its reshard\(\) first", lambda: ours.init_(model, seed=1))
    model.reshard()
    now = [tensor.to_local().detach() for tensor in model.parameters()]
    assert all(same(one, other) for one, other in zip(before, now, strict=True))
    mesh = meshes()[0]
    part = nn.Module()
    part.weight = nn.Parameter(DTensor.from_local(torch.zeros(2, 2), mesh, [Partial()]))
    rules = {"weight": "he_normal"}
    refuses(TypeError, "parameter 'weight'.*Partial", lambda: ours.init_(part, rules, seed=1))
    part.weight = nn.Parameter(sharded((4, 4), torch.float32, mesh, (Shard(0),)))
    with torch.no_grad():
        part.weight.to_local().fill_(torch.nan)
    refuses(ValueError, "is kept as it is", lambda: ours.init_(part, {"weight": "keep"}, seed=1))


def status(name):
    """A line of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s*(\d+) kB", text)[1]) << 10


@case(*[8] * Path("/proc/self/clear_refs").exists())  # where the peak of memory can be reset
def memory_of_a_rank():
    """Beside its shards a rank needs less than 64 MiB, although each tensor has 256 MiB.

    Filled in place, from a plan, and by way of a wider type; in one piece and in strided columns.
    """
    wide = {"*": lambda weight: weight.copy_(torch.empty(weight.shape).uniform_())}
    shape, columns, mesh = (16384, 8192), (_StridedShard(1, split_factor=16),), meshes()[0]
    for cut, rules in ((None, None), (None, wide), (columns, {"*": "normal"}), (columns, wide)):
        with torch.device("meta"):
            layers = [nn.Linear(*reversed(shape), False, dtype=TYPES[1]) for _ in range(2)]
        model = nn.ModuleList(layers)
        for layer in layers:
            if cut is None:
                fully_shard(layer, mesh=mesh)
                continue
            local = torch.empty(shape[0], shape[1] // 8, dtype=TYPES[1], device="meta")
            weight = DTensor.from_local(
                local, mesh, cut, run_check=False, shape=layer.weight.shape, stride=(shape[1], 1)
            )
            layer.weight = nn.Parameter(weight)
        plan = ours.record(model) if rules is None else None
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        model.to_empty(device="cpu")
        if plan is None:
            ours.init_(model, rules, seed=5)
        else:
            ours.fill_(model, plan, seed=5)
        shards = sum(layer.weight.to_local().nbytes for layer in layers)
        assert shards == 64 << 20
        used = status("VmHWM") - before
        assert shards <= used < 2 * shards, (cut, rules, used)


@case(2)
def a_step_of_training():
    """Loss and gradients are those of the unsharded model, up to the order of summation."""
    tokens = torch.arange(24).view(2, 12) * 7 % 61
    whole = ours.init_(llama(), seed=5)
    model = ours.init_(laid_out(llama, fsdp), seed=5)
    expected, loss = (one(input_ids=tokens, labels=tokens).loss for one in (whole, model))
    assert torch.allclose(loss, expected, rtol=1e-5)
    expected.backward()
    loss.backward()
    for one, other in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad.full_tensor(), rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------------------- what torch does


def up_projection(layout):
    return laid_out(llama, layout).model.layers[0].mlp.up_proj.weight


@case(2)
def torch_gives_every_rank_the_same_shard():
    """pytorch #138329: on a mesh of CPUs each rank draws its part from its own generator.

    So do FSDP2's shards, with and without CPUOffloadPolicy. Ours are parts of one tensor.
    """
    mesh = meshes()[0]
    drawings = [partial(up_projection, layout) for layout in (fsdp, offload)]
    for make in (partial(sharded, (8, 6), torch.float32, mesh, (Shard(0),)), *drawings):
        tensor = make().detach()
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.init.normal_(tensor)
        first, second = gathered(tensor).chunk(2)
        assert same(first, second)
        ours.normal_(tensor, seed=0, name="fc.weight")
        first, second = gathered(tensor).chunk(2)
        assert not (first == second).any()
        alone = ours.normal_(torch.empty(tensor.shape), seed=0, name="fc.weight")
        assert same(gathered(tensor), alone)


@case(2)
def what_torch_gets_wrong_on_gpus():
    """Our side of torchtitan #3106 and #4511 and pytorch #168058; torch's own needs a GPU.

    With CPUOffloadPolicy, torch gives all ranks the same shards and all tensors of one shape the
    same numbers, and its trunc_normal_ hangs; without it, a sharded model differs from the whole.
    """
    whole = ours.init_(llama(), seed=5)
    for layout in (fsdp, offload):
        model = ours.init_(laid_out(llama, layout), seed=5)
        weights = [layer.mlp.up_proj.weight.detach() for layer in model.model.layers]
        first, second = map(gathered, weights[:2])
        assert not (first == second).any()
        assert not torch.eq(*first.chunk(2)).any()
        for weight, layer in zip((first, second), whole.model.layers, strict=False):
            assert same(weight, layer.mlp.up_proj.weight.detach())
        ours.trunc_normal_(weights[0], std=0.5, seed=1, name="w")
        alone = ours.trunc_normal_(torch.empty(first.shape), std=0.5, seed=1, name="w")
        assert same(gathered(weights[0]), alone)


# ------------------------------------------------------------------------------ no communication


class Raising(dist.ProcessGroup):
    """A process group in which every communication raises an error."""

    def getBackendName(self):
        return "raising"

    @property
    def group_name(self):
        return dist.distributed_c10d._world.pg_names[self]


def _raise(self, *args, **kwargs):
    raise RuntimeError("a collective")


COLLECTIVES = (
    "_allgather_base", "_reduce_scatter_base", "allgather", "allgather_coalesced",
    "allgather_into_tensor_coalesced", "allreduce", "allreduce_coalesced", "alltoall",
    "alltoall_base", "barrier", "broadcast", "gather", "recv", "reduce", "reduce_scatter",
    "reduce_scatter_tensor_coalesced", "scatter", "send",
)  # fmt: skip

for _name in COLLECTIVES:
    setattr(Raising, _name, _raise)


@case(SILENT)
def without_communication():
    """Eight ranks of which each runs alone, where a collective raises: functions and models."""
    refuses(RuntimeError, "a collective", lambda: dist.all_reduce(torch.zeros(1)))
    mesh = init_device_mesh("cpu", (2, 4))
    placements = (_StridedShard(0, split_factor=4), Shard(0))
    tensor = sharded((24, 6), torch.float32, mesh, placements)
    refuses(RuntimeError, "a collective", tensor.full_tensor)
    for scheme in ("normal_", "trunc_normal_", "kaiming_uniform_", "orthogonal_"):
        whole = getattr(ours, scheme)(torch.empty(24, 6), seed=2, name="w")
        getattr(ours, scheme)(tensor, seed=2, name="w")
        assert torch.allclose(tensor.to_local(), local_of(whole, mesh, placements), atol=1e-5)
        with ours.fast_init(seed=4):
            getattr(nn.init, scheme)(tensor)
    plan = wf.Plan([TensorSpec("w", (24, 6), wf.RandomNormal())])
    own = ours.state_dict(plan, mesh, placements, seed=2)["w"]
    alone = torch.from_numpy(plan["w"].array(seed=2))
    assert same(own.to_local(), local_of(alone, mesh, placements))
    whole = ours.init_(mixtral(), seed=5).state_dict()
    for layout in (fsdp, hsdp, offload, fsdp_and_tensor_parallel, all_of_them):
        model = ours.init_(laid_out(mixtral, layout), seed=5)
        for name, tensor in model.state_dict().items():
            cut = local_of(whole[name], tensor.device_mesh, tensor.placements)
            assert same(tensor.to_local(), cut), (layout, name)


# ------------------------------------------------------------------------------------- the ranks


def join(rank, world, store):
    """Begin the process group of a world."""
    if world == SILENT:
        dist.Backend.register_backend(
            "raising", lambda store, rank, size, timeout: Raising(rank, size), devices=["cpu"]
        )
        dist.init_process_group("raising", store=dist.HashStore(), rank=rank, world_size=8)
    else:
        dist.init_process_group(
            "gloo", store=dist.FileStore(store, world), rank=rank, world_size=world,
            timeout=timedelta(seconds=60),
        )  # fmt: skip


def run(rank, world, store, report):
    """Run the cases of a world; a rank that fails in one goes on with the next.

    A case with an argument gets a folder that all ranks share.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    wf.set_num_threads(1)
    logging.disable(logging.WARNING)  # torch warns that another way of gathering would be faster
    join(rank, world, store)
    said = {}
    for name, (worlds, function) in CASES.items():
        if world in worlds and re.search(os.environ.get("CASES", ""), name):
            begun = time.process_time()
            try:
                function(*[f"{store}-{name}"] * function.__code__.co_argcount)
                said[name] = None
            except BaseException:
                said[name] = traceback.format_exc()
            if not rank:
                print(world, name, round(time.process_time() - begun, 2), file=sys.stderr)
            Path(report).write_text(json.dumps(said))
            if world != SILENT:
                dist.barrier()


def main(report, *worlds):
    import conftest  # noqa: F401  # as for any test: what a CPU build of torchvision lacks

    with torch.device("meta"):
        llama(), mixtral()  # imports what these models need before the fork
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for world in map(int, worlds):
            ranks = range(world or 8)
            reports = [f"{folder}/{world}-{rank}" for rank in ranks]
            children = []
            for rank in ranks:
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
            for child in children:
                os.waitpid(child, 0)
            found[world] = [
                json.loads(Path(one).read_text()) if Path(one).exists() else {} for one in reports
            ]
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
