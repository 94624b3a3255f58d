"""Writing a checkpoint through fsspec, here to its in-memory file system."""

import re
import sys

import pytest
from click.testing import CliRunner

import winit_fast as wf
from winit_fast.checkpoint import segments, write_checkpoint
from winit_fast.cli import main
from winit_fast.models.tensor_spec import TensorSpec

fsspec = pytest.importorskip("fsspec")

TENSORS = (
    TensorSpec("table", (97, 19), wf.RandomNormal(0.0, 0.02)),
    TensorSpec("empty", (0, 4), wf.RandomUniform()),
    TensorSpec("norm", (1601,), wf.Ones()),
    TensorSpec("wide", (3, 2, 1030), wf.GlorotUniform()),
    TensorSpec("ortho", (40, 30), wf.Orthogonal()),
)
OPTIONS = {"seed": 7, "dtype": "float32", "texts": {"config.json": "{}"}}


@pytest.fixture
def memory():
    """An empty in-memory file system."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


def files(system, root="/m"):
    return {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}


@pytest.mark.parametrize("limit", [10**9, 9000])
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("address", ["memory://m", "memory:///m/"])
def test_the_bytes_are_those_of_a_local_one(
    tmp_path, memory, monkeypatch, limit, num_threads, address
):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)
    options = OPTIONS | {"max_shard_size": limit}
    local = write_checkpoint(tmp_path, TENSORS, **options)
    begun, opened = [], memory.open

    def noting(place, mode):
        begun.append(place.rpartition("/")[2])
        return opened(place, mode)

    monkeypatch.setattr(type(memory), "open", lambda self, place, mode: noting(place, mode))
    calls = []
    summary = write_checkpoint(
        address, TENSORS, **options, num_threads=num_threads, progress=lambda *c: calls.append(c)
    )
    found = files(memory)
    assert found == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    last = "model.safetensors" if limit == 10**9 else "model.safetensors.index.json"
    assert begun[-1] == last and {*begun} == {*found}
    assert summary.files == tuple(f"{address.rstrip('/')}/{path.name}" for path in local.files)
    assert (summary.parameters, summary.nbytes) == (local.parameters, local.nbytes)
    total = sum(map(len, found.values()))
    assert calls[-1] == (total, total) and calls == sorted(calls)


def test_what_is_there_already_stays(memory):
    memory.pipe_file("/m/thesis.tex", b"all of it")
    for address in ("memory://m", "memory://m/thesis.tex"):
        with pytest.raises(FileExistsError, match=f"{address} exists and is not empty"):
            write_checkpoint(address, TENSORS, **OPTIONS)
    for option in ("force", "resume"):
        with pytest.raises(
            ValueError, match="force, resume and ranks are for local directories, got 'me"
        ):
            write_checkpoint("memory://m", TENSORS, **OPTIONS, **{option: True})
    assert files(memory) == {"thesis.tex": b"all of it"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("call", [1, 4, 9])
def test_a_failure_leaves_nothing(memory, monkeypatch, error, call):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)
    calls = 0

    def fail(done, total):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error

    with pytest.raises(error):
        write_checkpoint("memory://m", TENSORS, **OPTIONS, max_shard_size=9000, progress=fail)
    assert files(memory) == {}


def test_without_fsspec(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ModuleNotFoundError, match="fsspec"):
        write_checkpoint("memory://m", TENSORS, **OPTIONS)
    with pytest.raises(ValueError, match="tower"):
        monkeypatch.undo()
        write_checkpoint("tower://m", TENSORS, **OPTIONS)


def test_the_command(memory):
    result = CliRunner().invoke(main, ["init", "pythia-14m", "--out", "memory://m"])
    assert result.exit_code == 0, result.output
    assert re.search(r"bytes\) in memory://m *$", result.stdout, re.M)
    assert {*files(memory)} == {"config.json", "model.safetensors", "winit_fast.plan.json"}
    memory.rm("/m", recursive=True)
