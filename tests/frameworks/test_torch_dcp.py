"""Checkpoints for torch.distributed.checkpoint; several ranks load them in sharded_ranks.py."""

import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from click.testing import CliRunner
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.checkpoint import Summary, write_checkpoint
from winit_fast.cli import main
from winit_fast.models import Architecture, Rules, TensorSpec
from winit_fast.torch import dcp as written

PLAN = wf.Plan(
    [
        TensorSpec("deep.weight", (3, 50, 21), wf.HeNormal(in_axis=1, out_axis=0)),
        TensorSpec("deep.half", (33, 7), wf.TruncatedNormal(0.02), dtype="bfloat16"),
        TensorSpec("deep.rounded", (9, 5), wf.RandomUniform(), dtype="float16", drawn_in="float64"),
        TensorSpec("deep.byte", (5, 3), wf.RandomNormal(), dtype="float8_e4m3fn"),
        TensorSpec("square", (16, 16), wf.Orthogonal(), dtype="float64", tied=("head",)),
        TensorSpec("steps", (), wf.Computed(np.int64(7)), dtype="int64", kind="buffer"),
        TensorSpec("mask", (4,), wf.Computed(np.arange(4) > 1), dtype="bool", kind="buffer"),
        TensorSpec("spin", (4, 3), wf.RandomNormal(), dtype="complex64"),
        TensorSpec("empty", (0, 4), wf.Zeros()),
        TensorSpec("not_saved", (4,), wf.Zeros(), kind="non-persistent buffer"),
    ]
)


def load(state, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is alone
        dcp.load(state, checkpoint_id=folder)
    return state


def sevens(plan, names=lambda name: name):
    return {
        names(name): torch.full(tensor.shape, 7).to(getattr(torch, tensor.dtype))
        for tensor in plan if tensor.kind != "non-persistent buffer"
        for name in (tensor.name, *tensor.tied)
    }  # fmt: skip


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)


def equal(state, plan, seed, names=lambda name: name):
    made = ours.state_dict(plan, mesh=Alone, placements=None, seed=seed)
    assert {names(name) for name in made} == set(state)
    return all(torch.equal(bits(one), bits(state[names(name)])) for name, one in made.items())


class Alone:
    """A mesh for plain tensors."""

    device_type = "cpu"
    get_coordinate = None


def test_any_type_and_shape_is_loaded(tmp_path):
    summary = ours.write_dcp(tmp_path / "new", PLAN, seed=3)
    assert isinstance(summary, Summary)
    assert summary.files == (tmp_path / "new" / "__0_0.distcp",)
    assert summary.nbytes == summary.files[0].stat().st_size
    assert summary.parameters == sum(one.size for one in PLAN[:-1])
    assert equal(load(sevens(PLAN), tmp_path / "new"), PLAN, 3)
    assert not equal(load(sevens(PLAN), tmp_path / "new"), PLAN, 4)
    assert wf.Plan.load(tmp_path / "new" / "winit_fast.plan.json") == PLAN[:-1]


def test_other_tools_of_torch_read_it(tmp_path):
    ours.write_dcp(tmp_path / "new", PLAN, seed=3)
    dcp_to_torch_save(tmp_path / "new", tmp_path / "whole.pt")
    assert equal(torch.load(tmp_path / "whole.pt"), PLAN, 3)


def test_metadata_is_that_of_torchs_own_writer(tmp_path):
    """The same tensors saved by torch: equal descriptions, and equal bytes around the elements."""
    plan = PLAN[:4]
    ours.write_dcp(tmp_path / "ours", plan, seed=3)
    state = load(sevens(plan), tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=tmp_path / "torch")
    one, other = (
        pickle.loads((tmp_path / folder / ".metadata").read_bytes()) for folder in ("ours", "torch")
    )
    assert one.state_dict_metadata == other.state_dict_metadata
    assert one.planner_data == other.planner_data and one.version == other.version
    assert one.storage_data.keys() == other.storage_data.keys()
    assert re.fullmatch(
        r"winit_fast stream 1, seed 3, plan sha256:[0-9a-f]{64}", one.storage_meta.save_id
    )
    for key in one.storage_data:
        archives = []
        for metadata, folder in ((one, "ours"), (other, "torch")):
            place = metadata.storage_data[key]
            content = (tmp_path / folder / place.relative_path).read_bytes()
            archives.append(content[place.offset : place.offset + place.length])
        assert len(archives[0]) == len(archives[1])
        values = state[key.fqn].contiguous().view(torch.uint8).numpy().tobytes()
        assert all(archive.count(values) == 1 for archive in archives)


def test_keys(tmp_path):
    def key(name):
        return f"model.{name}"

    ours.write_dcp(tmp_path / "function", PLAN, seed=3, names=key)
    assert equal(load(sevens(PLAN, key), tmp_path / "function"), PLAN, 3, key)
    inner = {"model": sevens(PLAN)}  # as torch flattens it
    assert equal(load(inner, tmp_path / "function")["model"], PLAN, 3)
    mapping = {"head": "lm_head", "mask": "0"}
    ours.write_dcp(tmp_path / "mapping", PLAN, seed=3, names=mapping)
    get = {**{name: name for name in sevens(PLAN)}, **mapping}.get
    assert equal(load(sevens(PLAN, get), tmp_path / "mapping"), PLAN, 3, get)


def test_a_type_for_all(tmp_path):
    plan = wf.Plan(tensor for tensor in PLAN if tensor.drawn_in is None)
    more = {"*.half": "float32"}
    ours.write_dcp(tmp_path / "new", plan, seed=3, dtype="bfloat16", dtypes=more)
    plan = wf.Plan(
        replace(tensor, dtype="float32") if tensor.name == "deep.half" else tensor
        for tensor in plan.cast("bfloat16")
    )
    assert equal(load(sevens(plan), tmp_path / "new"), plan, 3)


def test_large_tensors_are_several_chunks(tmp_path, monkeypatch):
    """Of bounded size, in several files; the elements are those of a safetensors file."""
    monkeypatch.setattr(written, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr("winit_fast.checkpoint.segments.SEGMENT_BYTES", 1 << 12)
    plan = wf.Plan(
        [
            TensorSpec("rows", (300, 40), wf.RandomNormal()),
            TensorSpec("q", (100, 60), wf.Orthogonal()),
            TensorSpec("experts", (3, 9, 700), wf.RandomUniform()),
            TensorSpec("long", (20_001,), wf.TruncatedNormal()),
        ]
    )
    summary = ours.write_dcp(tmp_path / "new", plan, seed=3, max_shard_size=40_000)
    assert [file.name for file in summary.files] == [f"__0_{n}.distcp" for n in range(7)]
    metadata = pickle.loads((tmp_path / "new" / ".metadata").read_bytes())
    for name, tensor in metadata.state_dict_metadata.items():
        assert len(tensor.chunks) > 1, name
        sizes = [chunk.sizes.numel() * tensor.properties.dtype.itemsize for chunk in tensor.chunks]
        assert max(sizes) <= 1 << 14 and sum(sizes) == plan[name].array(seed=0).nbytes
    for place in metadata.storage_data.values():
        assert place.offset % 64 == 0
    loaded = load(sevens(plan), tmp_path / "new")
    write_checkpoint(tmp_path / "other", plan, seed=3, dtype="float32")
    for name, expected in load_file(tmp_path / "other" / "model.safetensors").items():
        assert torch.equal(loaded.pop(name), expected), name
    assert not loaded


def test_boxes_of_chunks_are_a_tensor():
    for shape, itemsize in (((5, 3 << 20), 8), ((40, 1000, 1000), 4), ((70 << 20,), 1), ((), 2)):
        boxes = written.boxes(shape, itemsize)
        sizes = [np.prod(box.sizes, dtype=int) for box in boxes]
        assert sum(sizes) == np.prod(shape, dtype=int)
        assert max(sizes) * itemsize <= written.CHUNK_BYTES
        firsts = [box.first for box in boxes]
        assert [0, *np.cumsum(sizes)[:-1]] == firsts  # in C order, without gaps
        assert all(
            one.sizes[1:] == shape[1:] or one.sizes[:1] == (1,) for one, _ in pairwise(boxes)
        )


def test_a_directory_changes_as_a_whole(tmp_path, monkeypatch):
    ours.write_dcp(tmp_path, PLAN, seed=3)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {".metadata", "__0_0.distcp", "winit_fast.plan.json"}
    with pytest.raises(FileExistsError, match="is not empty"):
        ours.write_dcp(tmp_path, PLAN, seed=4)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("winit_fast.checkpoint.segment_writer.os.pwrite", full)
        with pytest.raises(OSError, match="__0_0.distcp"):
            ours.write_dcp(tmp_path, PLAN, seed=4, force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    summary = ours.write_dcp(tmp_path, PLAN, seed=4, force=True, max_shard_size=1000)
    assert len(summary.files) > 3
    assert equal(load(sevens(PLAN), tmp_path), PLAN, 4)
    ours.write_dcp(tmp_path, PLAN, seed=3, force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    ours.write_dcp(tmp_path, PLAN, seed=3, resume=True)  # is in place
    with pytest.raises(FileExistsError, match="is not empty"):
        ours.write_dcp(tmp_path, PLAN, seed=5, resume=True)


def test_threads_change_no_byte(tmp_path):
    for count in (1, 3):
        ours.write_dcp(tmp_path / str(count), PLAN, seed=3, num_threads=count)
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "3" / file.name).read_bytes()


def test_ranks_change_no_byte(tmp_path):
    given = {"seed": 3, "max_shard_size": 1000}
    files = ours.write_dcp(tmp_path / "single", PLAN, **given).files
    assert len(files) > 3
    for rank in (1, 0, 2):
        summary = ours.write_dcp(tmp_path / "ranks", PLAN, rank=rank, world=3, **given)
        assert [file.name for file in summary.files] == [file.name for file in files[rank::3]]
        assert summary.published == (rank == 2)
    for file in (tmp_path / "single").iterdir():
        assert file.read_bytes() == (tmp_path / "ranks" / file.name).read_bytes()


def test_torchrun(tmp_path):
    """Four processes that torchrun starts."""
    arguments = ["-m", "winit_fast", "init", "gpt2", "--max-shard-size", "60MB", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    for folder, launcher, more in (("1", [], []), ("4", torchrun, ["--distributed"])):
        run = subprocess.run(
            [sys.executable, *launcher, *arguments, tmp_path / folder, *more],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
    files = list((tmp_path / "1").iterdir())
    assert len(files) > 5 and len(list((tmp_path / "4").iterdir())) == len(files)
    for file in files:
        assert file.read_bytes() == (tmp_path / "4" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "text", "arguments"),
    [
        (TypeError, "plan must be a Plan", {"plan": list(PLAN)}),
        (ValueError, "plan has no tensor to write", {"plan": PLAN[-1:]}),
        (ValueError, "'x', which the plan has not", {"names": {"x": "y"}}),
        (TypeError, "names must give a str, got None for 'deep.weight'", {"names": {}.get}),
        (ValueError, "to both 'deep.weight' and 'deep.half'", {"names": lambda name: name[:4]}),
        (TypeError, "names must be a mapping or a function", {"names": "model."}),
        (ValueError, "seed", {"seed": -1}),
        (ValueError, "max_shard_size", {"max_shard_size": 0}),
        (TypeError, "dtype", {"dtype": "int64"}),
        (ValueError, "'x', which applies to no tensor", {"dtypes": {"x": "float32"}}),
        (TypeError, "progress must be a function", {"progress": 1}),
        (ValueError, "directory must have a name", {"directory": ""}),
        (ValueError, "texts must not name a file of the checkpoint", {"texts": {".metadata": ""}}),
    ],
)
def test_refusals(kind, text, arguments, tmp_path):
    given = {"directory": tmp_path / "new", "plan": PLAN, "seed": 1, **arguments}
    with pytest.raises(kind, match=re.escape(text)):
        ours.write_dcp(given.pop("directory"), given.pop("plan"), **given)
    assert not list(tmp_path.iterdir())


def test_a_torch_that_leaves_out_other_bytes(monkeypatch):
    monkeypatch.setattr(torch, "save", lambda tensor, file: file.seek(3, 1))
    with pytest.raises(RuntimeError, match="leaves out other bytes"):
        written.archive((17, 23), "float32")


def test_the_command(tmp_path):
    arguments = ["init", "gpt2", "--out", str(tmp_path / "new"), "--seed", "5", "--format", "dcp"]
    run = CliRunner().invoke(main, [*arguments, "--prefix", "model.", "--dtype", "float16"])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "new" / "config.json").exists()
    name = "h.3.mlp.c_fc.weight"
    state = load({"model": {name: torch.zeros(768, 3072).half()}}, tmp_path / "new")
    plan = Rules.load("gpt2").tensors(Architecture.load("gpt2"))
    expected = plan.cast("float16")[name].array(seed=5)
    assert torch.equal(state["model"][name], torch.from_numpy(expected))
    refused = CliRunner().invoke(main, [*arguments[:-2], "--prefix", "model."])
    assert refused.exit_code and "--prefix is for --format dcp" in refused.output
