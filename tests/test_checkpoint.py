"""The streaming writer: what is in the files, and what is left when something goes wrong."""

import errno
import json
import math
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import winit_fast as wf
from winit_fast.checkpoint import DiskFull, directory, write_checkpoint, writer
from winit_fast.dtypes import find
from winit_fast.tensor import Tensor

DTYPES = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]

# Shapes around the segments of 1 KiB that the tests set: rows that fit many, one or no time, sizes
# that are no multiple of anything, tensors of no axis, of no element and of one.
TENSORS = (
    Tensor("table", (37, 19), wf.RandomNormal(0.0, 0.02)),
    Tensor("bias", (5,), wf.Zeros()),
    Tensor("scalar", (), wf.RandomNormal()),
    Tensor("norm", (1601,), wf.Ones()),
    Tensor("empty", (0, 4), wf.RandomUniform()),
    Tensor("wide", (3, 2, 1030), wf.GlorotUniform()),
    Tensor("empty.rows", (4, 0), wf.RandomUniform()),
    Tensor("ünïcode", (64, 64), wf.TruncatedNormal()),
    Tensor("eye", (40, 50), wf.Identity()),
)
SIZE = sum(tensor.size for tensor in TENSORS)


def read(path: Path) -> tuple[dict, dict[str, bytes]]:
    """A safetensors file, read by the letter of the format: its header and each tensor's bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    assert length % 8 == 0
    end = 0
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] == end, "a gap"
            end = entry["data_offsets"][1]
    assert end == len(body)
    return header, {
        name: body[slice(*entry["data_offsets"])]
        for name, entry in header.items()
        if name != "__metadata__"
    }


def files_below(path: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones included."""
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 1024)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("short_segments")
def test_every_tensor_is_what_its_initializer_makes(tmp_path, dtype):
    summary = write_checkpoint(tmp_path, TENSORS, seed=7, dtype=dtype, num_threads=2)
    _, found = read(tmp_path / "model.safetensors")
    assert list(found) == [tensor.name for tensor in TENSORS]
    for tensor in TENSORS:
        expected = tensor.initializer(tensor.shape, seed=7, name=tensor.name, dtype=dtype)
        assert found[tensor.name] == expected.tobytes(), tensor.name
    assert summary.parameters == SIZE
    assert summary.nbytes == (tmp_path / "model.safetensors").stat().st_size
    assert summary.files == (tmp_path / "model.safetensors",)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_safetensors_library_reads_it(tmp_path, dtype):
    write_checkpoint(tmp_path, TENSORS, seed=7, dtype=dtype, metadata={"format": "pt", "note": "x"})
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == {tensor.name for tensor in TENSORS}
    for tensor in TENSORS:
        assert found[tensor.name].shape == tensor.shape
        assert found[tensor.name].dtype == find(dtype).dtype
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "note": "x"}


@pytest.mark.parametrize("segment", [8, 1000, 1 << 20])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_neither_threads_nor_segments_change_a_byte(tmp_path, monkeypatch, segment, num_threads):
    write_checkpoint(tmp_path / "a", TENSORS, seed=1, dtype="float32", num_threads=1)
    monkeypatch.setattr(writer, "SEGMENT_BYTES", segment)
    write_checkpoint(tmp_path / "b", TENSORS, seed=1, dtype="float32", num_threads=num_threads)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


def test_boxes_cover_a_shape_once_and_in_order():
    for shape in [(), (1,), (0,), (7, 3), (7, 0), (2, 3, 5), (4, 1, 9)]:
        for limit in (1, 2, 4, 15, 100):
            indices = np.arange(math.prod(shape)).reshape(shape)
            cuts = list(writer.boxes(shape, limit))
            assert all(indices[box].shape == box_shape for box, box_shape in cuts)
            assert all(math.prod(box_shape) <= limit for _, box_shape in cuts)
            found = [number for box, _ in cuts for number in np.ravel(indices[box])]
            assert found == list(range(indices.size))


@pytest.mark.usefixtures("short_segments")
def test_several_files_and_their_index(tmp_path):
    limit = 5000
    write_checkpoint(tmp_path, TENSORS, seed=7, dtype="float32", max_shard_size=limit)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    count = len(names)
    assert names == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    assert sorted({*index["weight_map"].values()}) == names
    assert index["metadata"] == {"total_size": 4 * SIZE}
    found = {}
    for name in names:
        _, tensors = read(tmp_path / name)
        assert len(tensors) == 1 or sum(map(len, tensors.values())) <= limit
        assert all(index["weight_map"][tensor] == name for tensor in tensors)
        found |= tensors
    for tensor in TENSORS:
        expected = tensor.initializer(tensor.shape, seed=7, name=tensor.name)
        assert found[tensor.name] == expected.tobytes()
    # "norm" is larger than a file may be and has one to itself.
    alone = index["weight_map"]["norm"]
    assert [name for name, file in index["weight_map"].items() if file == alone] == ["norm"]


def test_a_model_as_large_as_the_limit_is_one_file(tmp_path):
    write_checkpoint(tmp_path / "a", TENSORS, seed=0, dtype="float32", max_shard_size=4 * SIZE)
    assert sorted(files_below(tmp_path / "a")) == ["model.safetensors"]
    write_checkpoint(tmp_path / "b", TENSORS, seed=0, dtype="float32", max_shard_size=4 * SIZE - 1)
    assert len(files_below(tmp_path / "b")) == 3


def test_texts_and_parents_are_written_and_progress_is_told(tmp_path):
    calls = []
    summary = write_checkpoint(
        tmp_path / "new" / "place",
        TENSORS,
        seed=0,
        texts={"config.json": "{}"},
        progress=lambda done, total: calls.append((done, total)),
    )
    assert (tmp_path / "new" / "place" / "config.json").read_text() == "{}"
    assert calls[-1] == (summary.nbytes, summary.nbytes)
    assert sorted(calls) == calls


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed.*-1"),
        ({"seed": 2**64}, ValueError, "seed.*18446744073709551616"),
        ({"dtype": "int8"}, TypeError, "dtype.*int8"),
        ({"max_shard_size": 0}, ValueError, "max_shard_size.*0"),
        ({"num_threads": 0}, ValueError, "num_threads.*0"),
        ({"tensors": ()}, ValueError, "tensors is empty"),
        ({"tensors": TENSORS[:1] * 2}, ValueError, "'table' is used twice"),
        ({"tensors": [Tensor("__metadata__", (1,), wf.Ones())]}, ValueError, "reserved"),
        ({"tensors": ["table"]}, TypeError, "tensors must hold Tensor objects, got 'table'"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        ({"max_shard_size": "5GB"}, TypeError, "max_shard_size must be an integer, got '5GB'"),
        ({"metadata": {"step": 3}}, TypeError, "metadata must map str to str, got 3 for 'step'"),
        ({"texts": {"../config.json": ""}}, ValueError, "texts must .* '../config.json'"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        write_checkpoint(tmp_path / "out", **({"tensors": TENSORS, "seed": 0} | arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, (2,), wf.Ones()), TypeError, "name must be a str, got 3"),
        (("\ud800", (2,), wf.Ones()), ValueError, "name must be text"),
        (("w", (2, -1), wf.Ones()), ValueError, r"negative extents, got \(2, -1\)"),
        (("w", (2.5,), wf.Ones()), TypeError, "shape must be an integer, got 2.5"),
        (("w", (1 << 40, 1 << 40), wf.Ones()), ValueError, "at most 2\\^63 elements"),
        (("w", (2,), "ones"), TypeError, "initializer must be an Initializer, got 'ones'"),
    ],
)
def test_what_is_no_tensor(arguments, error, message):
    with pytest.raises(error, match=message):
        Tensor(*arguments)


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(FileExistsError, match=r"not empty \(it holds thesis.tex\)"):
        write_checkpoint(tmp_path, TENSORS, seed=0)
    with pytest.raises(FileExistsError, match="not a directory"):
        write_checkpoint(tmp_path / "thesis.tex", TENSORS, seed=0)
    assert files_below(tmp_path) == {"thesis.tex": b"all of it"}


def test_force_replaces_the_checkpoint_and_nothing_else(tmp_path):
    (tmp_path / "tokenizer.json").write_text("kept")
    options = {"seed": 0, "dtype": "float32", "texts": {"config.json": "{}"}, "force": True}
    for limit in (5000, 9000, 10**9, 5000):
        write_checkpoint(tmp_path, TENSORS, max_shard_size=limit, **options)
        fresh = tmp_path.with_name(f"fresh{limit}")
        write_checkpoint(fresh, TENSORS, max_shard_size=limit, **options)
        assert files_below(tmp_path) == files_below(fresh) | {"tokenizer.json": b"kept"}


def test_force_clears_up_after_a_run_that_was_killed(tmp_path):
    (tmp_path / ".winit-fast-killed").mkdir()
    (tmp_path / ".winit-fast-killed" / "model.safetensors").write_bytes(b"half")
    write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    assert sorted(files_below(tmp_path)) == ["model.safetensors"]


def test_two_writers_in_one_directory(tmp_path):
    with (
        directory.Directory(tmp_path, force=True),
        pytest.raises(BlockingIOError, match="another process is writing"),
    ):
        write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    write_checkpoint(tmp_path, TENSORS, seed=0, force=True)


def test_no_room_is_found_out_before_the_first_byte(tmp_path, monkeypatch):
    options = {"seed": 0, "dtype": "float32", "max_shard_size": 9000}
    write_checkpoint(tmp_path / "roomy", TENSORS, **options)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "roomy").iterdir()}
    first, second = (size for name, size in sorted(sizes.items()) if name < "model-00003")
    free = first + second - 1
    real = os.statvfs(tmp_path)
    tight = os.statvfs_result((1, 1, *real[2:4], free, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: tight)
    missing = f"{free:,} are free, {sum(sizes.values()) - free:,} are missing"
    with pytest.raises(DiskFull, match=f"/tight/model-00002-of-.*{missing}"):
        write_checkpoint(tmp_path / "tight", TENSORS, **options)
    assert not (tmp_path / "tight").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.usefixtures("short_segments")
def test_a_disk_that_fills_up_on_the_way(tmp_path, monkeypatch, number, old):
    out = tmp_path / "out"
    if old:
        write_checkpoint(out, TENSORS, seed=1, dtype="float32", max_shard_size=9000)
    before = files_below(tmp_path)
    room = 20_000
    pwrite = os.pwrite

    def full(file, data, offset):
        nonlocal room
        if room == 0:
            raise OSError(number, os.strerror(number))
        count = pwrite(file, data[:room], offset)
        room -= count
        return count

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match=r"out/model.safetensors: [\d,]+ of its [\d,]+ bytes"):
        write_checkpoint(out, TENSORS, seed=0, dtype="float32", force=old, num_threads=1)
    assert files_below(tmp_path) == before
    assert out.exists() == old


def test_the_bytes_that_a_full_disk_lacks_are_right(tmp_path, monkeypatch):
    calls = []

    def full(file, data, offset):
        calls.append(offset)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "full")
        return min(40, len(data))

    tensor = Tensor("w", (1 << 16,), wf.Ones())
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull) as caught:
        write_checkpoint(tmp_path / "out", [tensor], seed=0, dtype="float32")
    found = re.search(r"([\d,]+) of its ([\d,]+) bytes are missing", str(caught.value))
    missing, total = (int(number.replace(",", "")) for number in found.groups())
    assert total - missing == 80
    assert total > 4 << 16


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_no_trace(tmp_path, error):
    def interrupt(done, total):
        raise error

    with pytest.raises(error):
        write_checkpoint(tmp_path / "a" / "b", TENSORS, seed=0, progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moves", range(8))
def test_a_failure_while_files_are_moved_brings_the_old_ones_back(tmp_path, monkeypatch, moves):
    write_checkpoint(tmp_path, TENSORS, seed=1, dtype="float32", max_shard_size=9000)
    before = files_below(tmp_path)
    rename = os.rename
    calls = 0

    def fail(source, target):
        nonlocal calls
        calls += 1
        if calls == moves + 1:
            raise PermissionError("moved enough")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(PermissionError):
        write_checkpoint(
            tmp_path, TENSORS, seed=0, dtype="float32", max_shard_size=9000, force=True
        )
    assert files_below(tmp_path) == before


def test_an_initializer_that_fails_is_reported_and_leaves_no_trace(tmp_path):
    # bounds that hold no float8 value: known only once the type is
    tensor = Tensor("w", (64, 64), wf.RandomUniform(0.03, 0.0301))
    with pytest.raises(ValueError, match=r"0\.03"):
        write_checkpoint(tmp_path / "out", [*TENSORS, tensor], seed=0, dtype="float8_e5m2")
    assert not list(tmp_path.iterdir())
