"""The streaming writer: the contents of the files, and what is left after an error or a kill."""

import errno
import itertools
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from strategies import depth

import winit_fast as wf
from winit_fast.base import safetensors
from winit_fast.base.boxes import cuts
from winit_fast.base.dtypes import NAMES, find
from winit_fast.checkpoint import (
    DiskFull,
    TooLate,
    directory,
    segments,
    verify,
    write_checkpoint,
)
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.models import plan_json
from winit_fast.models.tensor_spec import TensorSpec

# Shapes for segments of 1 KiB, which the tests set: many rows, one row or only a part of a row fit
# into a segment; extents with no common factor; tensors with no axis, no element, one element.
TENSORS = (
    TensorSpec("table", (37, 19), wf.RandomNormal(0.0, 0.02)),
    TensorSpec("bias", (5,), wf.Zeros()),
    TensorSpec("scalar", (), wf.RandomNormal()),
    TensorSpec("norm", (1601,), wf.Ones()),
    TensorSpec("empty", (0, 4), wf.RandomUniform()),
    TensorSpec("wide", (3, 2, 1030), wf.GlorotUniform()),
    TensorSpec("empty.rows", (4, 0), wf.RandomUniform()),
    TensorSpec("ünïcode", (64, 64), wf.TruncatedNormal()),
    TensorSpec("eye", (40, 50), wf.Identity()),
)
SIZE = sum(tensor.size for tensor in TENSORS)


def read(path: Path) -> tuple[dict, dict[str, bytes]]:
    """Read a safetensors file by hand: its header, and each tensor's bytes."""
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
    """All files below a folder, including hidden ones."""
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)


@pytest.mark.parametrize("dtype", NAMES)
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
        metadata = file.metadata()
        assert {key: metadata[key] for key in ("format", "note")} == {"format": "pt", "note": "x"}


@pytest.mark.parametrize("segment", [8, 1000, 1 << 20])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_neither_threads_nor_segments_change_a_byte(tmp_path, monkeypatch, segment, num_threads):
    write_checkpoint(tmp_path / "a", TENSORS, seed=1, dtype="float32", num_threads=1)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", segment)
    write_checkpoint(tmp_path / "b", TENSORS, seed=1, dtype="float32", num_threads=num_threads)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


def test_cuts_cover_a_shape_once_and_in_order():
    for shape in [(), (1,), (0,), (7, 3), (7, 0), (2, 3, 5), (4, 1, 9)]:
        for limit in (1, 2, 4, 15, 100):
            indices = np.arange(math.prod(shape)).reshape(shape)
            parts = [indices[cut] for cut in cuts(shape, limit)]
            assert all(part.size <= limit for part in parts)
            found = [number for part in parts for number in np.ravel(part)]
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
    # "norm" is larger than max_shard_size, so it has a file of its own.
    alone = index["weight_map"]["norm"]
    assert [name for name, file in index["weight_map"].items() if file == alone] == ["norm"]


def test_a_model_as_large_as_the_limit_is_one_file(tmp_path):
    write_checkpoint(tmp_path / "a", TENSORS, seed=0, dtype="float32", max_shard_size=4 * SIZE)
    assert sorted(files_below(tmp_path / "a")) == ["model.safetensors", PLAN]
    write_checkpoint(tmp_path / "b", TENSORS, seed=0, dtype="float32", max_shard_size=4 * SIZE - 1)
    assert len(files_below(tmp_path / "b")) == 4  # two files of tensors, the index and the plan


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
        ({"directory": ""}, ValueError, "directory must have a name"),
        ({"seed": -1}, ValueError, "seed.*-1"),
        ({"seed": 2**64}, ValueError, "seed.*18446744073709551616"),
        ({"dtype": "int8"}, TypeError, "dtype.*int8"),
        ({"max_shard_size": 0}, ValueError, "max_shard_size.*0"),
        ({"num_threads": 0}, ValueError, "num_threads.*0"),
        ({"tensors": ()}, ValueError, "tensors is empty"),
        ({"tensors": TENSORS[:1] * 2}, ValueError, "'table' is used twice"),
        ({"tensors": [TensorSpec("__metadata__", (1,), wf.Ones())]}, ValueError, "reserved"),
        ({"tensors": ["table"]}, TypeError, "tensors must hold TensorSpec objects, got 'table'"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        ({"max_shard_size": "5GB"}, TypeError, "max_shard_size must be an integer, got '5GB'"),
        ({"metadata": {"step": 3}}, TypeError, "metadata must map str to str, got 3 for 'step'"),
        ({"texts": {"../config.json": ""}}, ValueError, "texts must .* '../config.json'"),
        ({"texts": {"..": ""}}, ValueError, r"texts must .* '\.\.'"),
        ({"texts": {"model.safetensors": ""}}, ValueError, "texts must .* 'model.safetensors'"),
        ({"texts": {PLAN: ""}}, ValueError, "texts must .* 'winit_fast.plan.json'"),
        ({"texts": {".winit-fast-old": ""}}, ValueError, "texts must .* '.winit-fast-old'"),
        (
            {"metadata": {"winit_fast.seed": "1"}},
            ValueError,
            r"winit_fast.seed'\] must be '0', got",
        ),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        write_checkpoint(
            **{"directory": tmp_path / "out", "tensors": TENSORS, "seed": 0} | arguments
        )
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
        TensorSpec(*arguments)


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(FileExistsError, match=r"not empty \(it holds thesis.tex\)"):
        write_checkpoint(tmp_path, TENSORS, seed=0)
    with pytest.raises(FileExistsError, match="not a directory"):
        write_checkpoint(tmp_path / "thesis.tex", TENSORS, seed=0)
    assert files_below(tmp_path) == {"thesis.tex": b"all of it"}


def test_force_replaces_the_checkpoint_and_nothing_else(tmp_path):
    kept = ["tokenizer.json", "model.fp16.safetensors", "model_backup.safetensors"]
    kept += ["model-1-of-2.safetensors", "model-00001-of-00002.safetensors.bak"]
    for name in kept:
        (tmp_path / name).write_text("kept")
    (tmp_path / "model-00001-of-00099.safetensors").mkdir()
    (tmp_path / "model-00001-of-00099.safetensors" / "notes").write_text("kept")
    kept += ["model-00001-of-00099.safetensors/notes"]
    options = {"seed": 0, "dtype": "float32", "texts": {"config.json": "{}"}, "force": True}
    for limit in (5000, 9000, 10**9, 5000):
        write_checkpoint(tmp_path, TENSORS, max_shard_size=limit, **options)
        fresh = tmp_path.with_name(f"fresh{limit}")
        write_checkpoint(fresh, TENSORS, max_shard_size=limit, **options)
        assert files_below(tmp_path) == files_below(fresh) | dict.fromkeys(kept, b"kept")


def test_a_folder_under_the_name_of_a_file_stays(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "model.safetensors" / "thesis.tex").write_text("all of it")
    with pytest.raises(IsADirectoryError):
        write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    assert files_below(tmp_path) == {"model.safetensors/thesis.tex": b"all of it"}


def killed(path: Path, nbytes: int) -> None:
    """Leave a folder as a killed run would leave it."""
    (path / ".winit-fast-killed").mkdir()
    (path / ".winit-fast-killed" / ".winit-fast-stage").touch()
    (path / ".winit-fast-killed" / "model.safetensors").write_bytes(bytes(nbytes))


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_was_killed_can_be_repeated(tmp_path, monkeypatch, force):
    killed(tmp_path, 100_000)
    real = os.statvfs(tmp_path)

    def statvfs(path):
        """A disk with 110,000 bytes."""
        taken = sum(map(len, files_below(tmp_path).values()))
        return os.statvfs_result((1, 1, *real[2:4], 110_000 - taken, *real[5:]))

    monkeypatch.setattr(os, "statvfs", statvfs)
    write_checkpoint(tmp_path, TENSORS, seed=0, dtype="float32", force=force)
    assert sorted(files_below(tmp_path)) == ["model.safetensors", PLAN]


def test_a_refusal_does_not_touch_what_a_killed_run_left(tmp_path):
    killed(tmp_path, 8)
    (tmp_path / "thesis.tex").write_text("all of it")
    before = files_below(tmp_path)
    with pytest.raises(FileExistsError, match=r"\(it holds thesis.tex\)"):
        write_checkpoint(tmp_path, TENSORS, seed=0)
    assert files_below(tmp_path) == before


def test_two_writers_in_one_directory(tmp_path):
    with (
        directory.Directory(tmp_path, {"model.safetensors": 8}, force=False) as first,
        pytest.raises(BlockingIOError, match="another process is writing"),
    ):
        write_checkpoint(tmp_path, TENSORS, seed=0)
    assert not first.stage.exists()
    write_checkpoint(tmp_path, TENSORS, seed=0)


def test_a_file_system_that_does_not_tell_its_size(tmp_path, monkeypatch):
    nothing = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: nothing)
    write_checkpoint(tmp_path / "out", TENSORS, seed=0)
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_file_system_that_cannot_reserve(tmp_path):
    read, write = os.pipe()  # fallocate rejects pipes, as some file systems reject it
    directory.reserve(write, 100)
    os.close(read)
    os.close(write)


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

    tensor = TensorSpec("w", (1 << 16,), wf.Ones())
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


@pytest.mark.parametrize(
    ("function", "calls", "message"),
    [
        ("mkdir", 0, r"out/model-00001-of-.*: ([\d,]+) of its \1 bytes are missing"),
        ("mkdir", 1, r"out/model-00001-of-.*: ([\d,]+) of its \1 bytes are missing"),
        ("open", 3, r"out/model-00002-of-.*: ([\d,]+) of its \1 bytes are missing"),
        ("mkdir", 2, r"out: its files are complete, but cannot be moved to their final names"),
        ("rename", 3, r"out: its files are complete, but cannot be moved to their final names"),
    ],
)
def test_no_room_for_a_name(tmp_path, monkeypatch, function, calls, message):
    real = getattr(os, function)

    def full(*args, **options):
        nonlocal calls
        calls -= 1
        if calls == -1:
            raise OSError(errno.ENOSPC, "full", "/.winit-fast-x/file")
        return real(*args, **options)

    monkeypatch.setattr(os, function, full)
    with pytest.raises(DiskFull, match=message) as caught:
        write_checkpoint(
            tmp_path / "out", TENSORS, seed=0, dtype="float32", max_shard_size=9000, num_threads=1
        )
    assert ".winit-fast" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moves", range(16))
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


SINGLE, SEVERAL = 10**9, 25000
"""Limits of a file's size at which TENSORS are one file, and several with an index."""


def child(function) -> int:
    """Call a function in a child process; return how the process ended."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(number: int, function) -> bool:
    """Call a function in a child process, which is killed instead of making its n-th renaming.

    Returns whether it came so far.
    """

    def run():
        rename, calls = os.rename, 0

        def kill(source, target):
            nonlocal calls
            calls += 1
            if calls == number:
                os._exit(9)
            rename(source, target)

        os.rename = kill
        function()

    code = child(run)
    assert code in (0, 9)
    return code == 9


def found_by_a_loader(path: Path) -> dict[str, bytes] | None:
    """All tensors, as the Hugging Face libraries find them; None if there is no checkpoint."""
    names = [path / "model.safetensors"]
    index = path / "model.safetensors.index.json"
    if not names[0].exists():
        if not index.exists():
            return None
        names = [path / name for name in {*json.loads(index.read_text())["weight_map"].values()}]
    return {name: data for file in names for name, data in read(file)[1].items()}


@pytest.mark.parametrize("before", [SINGLE, SEVERAL])
@pytest.mark.parametrize("after", [SINGLE, SEVERAL])
def test_a_kill_at_any_renaming_loses_nothing(tmp_path, monkeypatch, before, after):
    """The old or the new one can be loaded after the next run, even if that run fails.

    A kill at every renaming, in `make test` at some of them.
    """
    options = {"dtype": "float32", "num_threads": 1}
    expected = [
        {t.name: t.initializer(t.shape, seed=seed, name=t.name).tobytes() for t in TENSORS}
        for seed in (0, 1)
    ]
    write_checkpoint(tmp_path / "old", TENSORS, seed=0, max_shard_size=before, **options)
    (tmp_path / "old" / "tokenizer.json").write_text("kept")
    write_checkpoint(tmp_path / "new", TENSORS, seed=1, max_shard_size=after, **options)
    count = len(files_below(tmp_path / "old")) - 1 + len(files_below(tmp_path / "new"))
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((1, 1, *real[2:4], 0, *real[5:]))
    numbers = random.Random(0).sample(range(2, count), depth(count - 2))
    for number in {1, *numbers, count, count + 1}:
        out = tmp_path / f"out{number}"
        shutil.copytree(tmp_path / "old", out)

        def replace(out=out):
            write_checkpoint(out, TENSORS, seed=1, max_shard_size=after, force=True, **options)

        assert killed_at(number, replace) == (number <= count)
        assert found_by_a_loader(out) in (None, *expected)

        def again(out=out, force=False):
            with pytest.raises(DiskFull if force else FileExistsError):
                write_checkpoint(out, TENSORS, seed=2, force=force, **options)

        # The run that cleans up may be killed too, and the next one as well.
        for _ in range(2):
            killed_at(1 + number % 3, again)
            assert found_by_a_loader(out) in (None, *expected)
        monkeypatch.setattr(os, "statvfs", lambda path: full)
        again(force=bool(number % 2))
        monkeypatch.undo()
        assert found_by_a_loader(out) == expected[1]
        write_checkpoint(out, TENSORS, seed=1, max_shard_size=after, force=True, **options)
        new = files_below(tmp_path / "new")
        assert files_below(out) == new | {"tokenizer.json": b"kept"}


def test_what_was_moved_stays_where_it_cannot_be_moved_back(tmp_path, monkeypatch):
    """No file of the old checkpoint is removed, and the next run completes the moves."""
    write_checkpoint(tmp_path, TENSORS, seed=1, dtype="float32")
    rename, calls = os.rename, 0

    def fail(source, target):
        nonlocal calls
        calls += 1
        if calls > 1:
            raise PermissionError("moved enough")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="holds files .* could not be moved back .*enough"):
        write_checkpoint(tmp_path, TENSORS, seed=0, dtype="float32", force=True)
    monkeypatch.undo()
    assert len(files_below(tmp_path)) == 6  # two checkpoints, the marker and the list of moves
    with pytest.raises(FileExistsError, match="not empty"):
        write_checkpoint(tmp_path, TENSORS, seed=0)
    loaded = found_by_a_loader(tmp_path)
    assert loaded["table"] == TENSORS[0].initializer((37, 19), seed=0, name="table").tobytes()
    write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    assert sorted(files_below(tmp_path)) == ["model.safetensors", PLAN]


@pytest.mark.parametrize("force", [False, True])
def test_folders_with_the_name_of_a_stage(tmp_path, force):
    """A folder of the user's is kept, even an empty one, and counts as content of the directory."""
    (tmp_path / ".winit-fast-abcdefgh").mkdir()
    (tmp_path / ".winit-fast-thesis12").mkdir()
    (tmp_path / ".winit-fast-thesis12" / "model.safetensors").write_text("all of it")
    before = files_below(tmp_path)
    if not force:
        with pytest.raises(FileExistsError, match=r"\(it holds .winit-fast-thesis12\)"):
            write_checkpoint(tmp_path, TENSORS, seed=0)
        assert files_below(tmp_path) == before
        return
    write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    assert files_below(tmp_path).items() >= before.items()
    assert (tmp_path / ".winit-fast-abcdefgh").is_dir()


def test_a_symbolic_link_with_the_name_of_a_stage(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / ".winit-fast-stage").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / ".winit-fast-abcdefgh").symlink_to(tmp_path / "thesis")
    for force in (False, True):
        with pytest.raises(FileExistsError, match=r"out/\.winit-fast-abcdefgh is a symbolic link"):
            write_checkpoint(out, TENSORS, seed=0, force=force)
    assert files_below(tmp_path) == {"thesis/.winit-fast-stage": b""}


@pytest.mark.parametrize(
    "moves", ["", "[]", '{"new": ["../x"], "old": []}', '{"new": [], "old": [".."]}', '{"new": 3}']
)
def test_a_list_of_moves_that_is_none(tmp_path, moves):
    killed(tmp_path, 8)
    (tmp_path / ".winit-fast-killed" / ".winit-fast-moves").write_text(moves)
    before = files_below(tmp_path)
    with pytest.raises(FileExistsError, match="killed/.winit-fast-moves cannot be read"):
        write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    assert files_below(tmp_path) == before


def test_a_moved_file_that_is_nowhere(tmp_path):
    killed(tmp_path, 8)
    moves = {"new": ["model.safetensors", "gone.json"], "old": []}
    (tmp_path / ".winit-fast-killed" / ".winit-fast-moves").write_text(json.dumps(moves))
    before = files_below(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"killed holds .* but gone\.json is in neither"):
        write_checkpoint(tmp_path, TENSORS, seed=0, force=True)
    assert files_below(tmp_path) == before


def test_every_file_is_on_the_disk_before_it_is_moved(tmp_path, monkeypatch):
    """Each file is flushed before the first renaming, the directory after the last one."""
    write_checkpoint(tmp_path / "a" / "out", TENSORS, seed=0, dtype="float32")
    events = []

    def recorded(name, path_of):
        real = getattr(os, name)

        def call(*args):
            events.append((name, path_of(*args)))
            return real(*args)

        monkeypatch.setattr(os, name, call)

    def path_of(descriptor, *_):
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    recorded("pwrite", path_of)
    recorded("fsync", path_of)
    recorded("rename", lambda source, target: Path(target).name)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)
    out = tmp_path / "b" / "out"
    texts = {"model.safetensors.txt": "x", "config.json": "{}", "zzz.json": "{}"}
    options = {"seed": 0, "dtype": "float32", "texts": texts}
    write_checkpoint(out, TENSORS, max_shard_size=9000, **options)
    names = {path.name for path in out.iterdir()}
    renamed = [name for event, name in events if event == "rename"]
    assert renamed[-1] == "model.safetensors.index.json"
    assert {*renamed} == names
    first = events.index(("rename", renamed[0]))
    last = len(events) - events[::-1].index(("rename", renamed[-1]))
    for name in names:
        flushed = [at for at, event in enumerate(events) if event == ("fsync", name)]
        written = [at for at, event in enumerate(events) if event == ("pwrite", name)]
        assert max(written, default=-1) < max(flushed) < first, name
    after = [name for event, name in events[last:] if event == "fsync"]
    assert after[0] == "out"
    assert {"b", tmp_path.name} <= {*after}  # the names of the new directories were flushed too


def test_a_short_write_is_gone_on_with(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "whole", TENSORS, seed=0, dtype="float32")
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:1000], at))
    write_checkpoint(tmp_path / "short", TENSORS, seed=0, dtype="float32")
    assert files_below(tmp_path / "short") == files_below(tmp_path / "whole")


def test_a_directory_that_is_a_link_to_nowhere(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    for path in (tmp_path / "out", tmp_path / "out" / "inside"):
        with pytest.raises(FileExistsError, match="out is a symbolic link to .*gone, which does"):
            write_checkpoint(path, TENSORS, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("call", ["mkdir", "unlink", "rmdir", "open"])
def test_an_interrupt_right_after_any_call_leaves_no_trace(tmp_path, monkeypatch, call):
    """For example between making a folder and recording that it was made."""
    real = getattr(os, call)
    for number in itertools.count():
        calls = 0

        def interrupted(*args, number=number, **options):
            nonlocal calls
            result = real(*args, **options)
            calls += 1
            if calls == number:
                signal.raise_signal(signal.SIGINT)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(os, call, interrupted)
            out = tmp_path / "a" / "b"
            try:
                write_checkpoint(out, TENSORS, seed=0, num_threads=1)
            except TooLate:
                assert sorted(files_below(out)) == ["model.safetensors", PLAN]
            except KeyboardInterrupt:
                assert not list(tmp_path.iterdir())
            else:
                assert calls < number or number == 0
                if number:
                    return
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("function", ["shutil.rmtree", "os.rename"])
def test_an_interruption_at_the_end_waits_for_it(tmp_path, monkeypatch, function, number):
    options = {"seed": 1, "dtype": "float32", "max_shard_size": 9000}
    write_checkpoint(tmp_path / "out", TENSORS, **options | {"seed": 0})
    write_checkpoint(tmp_path / "expected", TENSORS, **options)
    module, name = function.split(".")
    module = {"shutil": shutil, "os": os}[module]
    real = getattr(module, name)

    def interrupted(*args, **options):
        signal.raise_signal(number)
        return real(*args, **options)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupted)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(TooLate, match="in place"):
            write_checkpoint(tmp_path / "out", TENSORS, force=True, **options)
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    assert files_below(tmp_path / "out") == files_below(tmp_path / "expected")
    assert not list((tmp_path / "out").glob(".*"))


def test_a_system_that_gives_few_threads(tmp_path, monkeypatch):
    start, pwrite = threading.Thread.start, os.pwrite
    refused = threading.Event()
    allowed = 3

    def few(thread):
        nonlocal allowed
        if allowed == 0:
            refused.set()
            raise RuntimeError("can't start new thread")
        allowed -= 1
        start(thread)

    def late(*args):
        """Write; a writing thread first waits until no more threads can be started."""
        if threading.current_thread() is not threading.main_thread():
            assert refused.wait(60)
        return pwrite(*args)

    monkeypatch.setattr(threading.Thread, "start", few)
    monkeypatch.setattr(os, "pwrite", late)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 64)
    summary = write_checkpoint(tmp_path / "out", TENSORS, seed=0, num_threads=3000)
    assert summary.num_threads == 2  # the third thread flushes
    allowed = 1
    with pytest.raises(RuntimeError, match="can't start"):
        write_checkpoint(tmp_path / "none", TENSORS, seed=0, num_threads=2)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_more_files_than_can_be_open(tmp_path):
    """200 files with one tensor each, where only 64 files may be open."""
    tensors = [TensorSpec(f"w{i}", (8,), wf.RandomNormal()) for i in range(200)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        summary = write_checkpoint(tmp_path, tensors, seed=0, max_shard_size=1, num_threads=3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(summary.files) == 200
    for tensor, path in zip(tensors, summary.files, strict=True):
        expected = tensor.initializer(tensor.shape, seed=0, name=tensor.name, dtype="float32")
        assert read(path)[1][tensor.name] == expected.tobytes()


def test_a_system_that_is_not_posix(tmp_path, monkeypatch):
    """The command can be imported there; writing raises an error that says what is missing."""
    program = (
        "import sys; sys.modules['fcntl'] = None; import winit_fast.checkpoint, winit_fast.cli"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    monkeypatch.delattr(os, "pwrite")
    with pytest.raises(OSError, match="write_checkpoint needs a POSIX system"):
        write_checkpoint(tmp_path / "out", TENSORS, seed=0)
    assert not list(tmp_path.iterdir())


def test_where_the_numbers_come_from_stands_in_the_files(tmp_path):
    """The metadata is enough to make the numbers again; schemes that JSON cannot hold are named."""

    @dataclass(frozen=True, repr=False)
    class Own(wf.Initializer):
        value: float = 2.0

        def fill_box(self, out, box, stream, num_threads):
            out[...] = self.value

    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "w.npy", array)
    large = np.random.default_rng(0).random(1 << 21)  # 16 MiB that cannot be compressed
    kept = [
        *TENSORS,
        TensorSpec("sparse", (7, 5), wf.Sparse(0.5)),
        TensorSpec("half", (7, 5), wf.TruncatedNormal(0, 0.02, -np.inf, np.float32(2))),
        TensorSpec("conv", (3, 2, 5, 5), wf.HeNormal(in_axis=[1], out_axis=0)),
        TensorSpec("scaled", (4, 4), wf.Scaled("he_normal", "1 / L", {"L": 3})),
        TensorSpec("file", (3, 3), wf.Pretrained(tmp_path / "w.npy", fallback=wf.Ones())),
        TensorSpec("array", (2, 3), wf.Pretrained(array)),
        TensorSpec("same", (2, 3), wf.Computed(array)),
    ]
    lost = [
        TensorSpec("large", (1 << 21,), wf.Pretrained(large)),
        TensorSpec("own", (2, 3), Own()),
        TensorSpec("fallback", (3, 3), wf.Pretrained(tmp_path / "w.npy", fallback=Own())),
        TensorSpec("scaled.own", (3, 3), wf.Scaled(Own(), 2.0)),
    ]
    options = {"seed": 2**64 - 1, "dtype": "float32", "max_shard_size": 5000}
    write_checkpoint(tmp_path / "out", [*kept, *lost], **options)
    text = (tmp_path / "out" / PLAN).read_bytes()
    for path in (tmp_path / "out").glob("*.safetensors"):
        assert read(path)[0]["__metadata__"] == {
            "winit_fast.stream": "1",
            "winit_fast.seed": str(2**64 - 1),
            "winit_fast.plan": f"sha256:{sha256(text).hexdigest()}",
        }
    plan = json.loads(text, parse_constant=pytest.fail)
    assert plan["format"] == 1
    entries = plan["tensors"]
    assert [entry["name"] for entry in entries] == [tensor.name for tensor in kept + lost]
    again = plan_json.read(text, "a plan")
    for tensor, entry, read_again in zip(kept, entries, again, strict=False):
        assert entry.keys() == {"name", "shape", "dtype", "initializer"}
        assert (tuple(entry["shape"]), entry["dtype"]) == (tensor.shape, "float32")
        assert read_again.initializer == tensor.initializer
    shown = [entry["not_written"] for entry in entries[len(kept) :]]
    assert shown == [repr(tensor.initializer) for tensor in lost]
    assert shown[:2] == ["Pretrained(source=<float64 array of shape (2097152,)>)", "Own()"]
    assert len(plan["arrays"]) == 1 and len(text) < 10_000


def test_an_initializer_that_fails_is_reported_and_leaves_no_trace(tmp_path):
    # No float8 value lies between these bounds; the error depends on the type that is written.
    tensor = TensorSpec("w", (64, 64), wf.RandomUniform(0.03, 0.0301))
    with pytest.raises(ValueError, match=r"0\.03"):
        write_checkpoint(tmp_path / "out", [*TENSORS, tensor], seed=0, dtype="float8_e5m2")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("short_segments")
def test_writes_that_take_only_some_bytes(tmp_path, monkeypatch):
    """If pwrite writes only a part, the next call writes the rest, at the right offset."""
    options = {"seed": 1, "dtype": "float32", "max_shard_size": 9000}
    write_checkpoint(tmp_path / "a", TENSORS, **options)
    pwrite = os.pwrite
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 5000)
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:1000], at))
    write_checkpoint(tmp_path / "b", TENSORS, **options, num_threads=2)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


@pytest.mark.usefixtures("short_segments")
def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """After a power cut there is the complete checkpoint or none."""
    happened = []

    def watch(name, what, before):
        real = getattr(os, name)

        def call(*args, **options):
            if before:
                happened.append((name, what(*args)))
            result = real(*args, **options)
            if not before:
                happened.append((name, what(*args)))
            return result

        monkeypatch.setattr(os, name, call)

    watch("pwrite", lambda file, *_: os.fstat(file).st_ino, before=False)
    watch("fsync", lambda file: os.fstat(file).st_ino, before=True)
    watch("rename", lambda _, target: Path(target).name, before=False)
    texts = {"config.json": "{}", "zoo.json": "[]"}
    write_checkpoint(tmp_path, TENSORS, seed=0, dtype="float32", max_shard_size=9000, texts=texts)

    last = {event: at for at, event in enumerate(happened)}
    renames = [at for at, (name, _) in enumerate(happened) if name == "rename"]
    paths = list(tmp_path.iterdir())
    assert len(paths) == len(renames) > len(texts) + 2
    for path in paths:
        number = path.stat().st_ino
        assert last.get(("pwrite", number), -1) < last["fsync", number] < renames[0], path
    # The index, which loaders look for first, is moved last; then the directory is flushed.
    assert happened[renames[-1]] == ("rename", "model.safetensors.index.json")
    assert happened[-1] == ("fsync", tmp_path.stat().st_ino) and renames[-1] == len(happened) - 2


def test_each_step_of_moving_is_on_the_disk_before_the_next(tmp_path, monkeypatch):
    """The list of moves is on the disk before the first move, and removals before additions.

    Otherwise a power cut may leave moved files without a list of them, or files of both
    checkpoints.
    """
    out = tmp_path / "out"
    options = {"dtype": "float32", "max_shard_size": 9000}
    write_checkpoint(out, TENSORS, seed=0, **options)
    steps = []

    def watch(name, path_of):
        real = getattr(os, name)

        def call(*args):
            real(*args)
            steps.append((name, path_of(*args)))

        monkeypatch.setattr(os, name, call)

    watch("fsync", lambda file: Path(f"/proc/self/fd/{file}").readlink())
    watch("rename", lambda _, target: Path(target))
    watch("replace", lambda _, target: Path(target))
    write_checkpoint(out, TENSORS, seed=1, force=True, **options)
    (listed,) = (at for at, (name, _) in enumerate(steps) if name == "replace")
    stage = steps[listed][1].parent
    assert steps[listed + 1 : listed + 3] == [("fsync", stage), ("fsync", out)]
    moves = [(at, path) for at, (name, path) in enumerate(steps) if name == "rename"]
    left = [at for at, path in moves if path.parent.parent == stage]
    came = [at for at, path in moves if path.parent == out]
    assert len(left) == len(came) == len(list(out.iterdir()))
    assert listed + 2 < left[0] and left[-1] < came[0]
    assert ("fsync", out) in steps[left[-1] : came[0]]


@pytest.mark.parametrize("length", range(9))
def test_headers_are_padded_to_eight_bytes_and_no_more(tmp_path, length):
    write_checkpoint(tmp_path, [TensorSpec("w" * (length + 1), (1,), wf.Ones())], seed=0)
    data = (tmp_path / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    assert size % 8 == 0 and size - len(data[8 : 8 + size].rstrip(b" ")) < 8


@pytest.mark.parametrize("limit", [10**9, 9000])
@pytest.mark.parametrize("segment", [1024, 1 << 20])
def test_other_types_for_some_tensors(tmp_path, monkeypatch, limit, segment):
    """The widest types come first in a file, so that every tensor is aligned."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", segment)
    patterns = {"norm": "float64", "*a*": "float32", "wide": np.float32, "e*": "float8_e5m2"}
    chosen = {"norm": "float64", "table": "float32", "bias": "float32", "scalar": "float32"}
    chosen |= {"wide": "float32", "empty": "float8_e5m2", "empty.rows": "float8_e5m2"}
    chosen |= {"eye": "float8_e5m2", "ünïcode": "bfloat16"}
    options = {"seed": 7, "dtype": "bf16", "dtypes": patterns, "max_shard_size": limit}
    write_checkpoint(tmp_path, TENSORS, **options)
    found, names = {}, []
    for path in sorted(tmp_path.glob("*.safetensors")):
        header, tensors = read(path)
        found |= tensors
        names += tensors
        for name in tensors:
            begin = header[name]["data_offsets"][0]
            assert begin % find(chosen[name]).dtype.itemsize == 0
    assert {*names} == {tensor.name for tensor in TENSORS}
    if limit == 10**9:
        wide_first = "norm table bias scalar wide ünïcode empty empty.rows eye"
        assert names == wide_first.split()
    for tensor in TENSORS:
        dtype = chosen[tensor.name]
        expected = tensor.initializer(tensor.shape, seed=7, name=tensor.name, dtype=dtype)
        assert found[tensor.name] == expected.tobytes(), tensor.name
    plan = json.loads((tmp_path / PLAN).read_text())
    assert {entry["name"]: entry["dtype"] for entry in plan["tensors"]} == chosen
    assert verify(tmp_path).fresh


ALL_KINDS = [
    *(TensorSpec(name, (9, 4), wf.RandomNormal(), dtype=name, kind="buffer") for name in NAMES),
    *(
        TensorSpec(name, (300,), wf.Computed((np.arange(300) % 2 * 100).astype(name)), dtype=name)
        for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
    ),
    TensorSpec("mask", (2, 3), wf.Computed(np.tri(2, 3, dtype=bool)), dtype="bool", kind="buffer"),
    TensorSpec("steps", (), wf.Zeros(), dtype="int64", kind="buffer"),
    TensorSpec("slopes", (300,), wf.Computed(np.arange(300) / 7), dtype="float16"),
    TensorSpec(
        "hidden", (2,), wf.Computed(np.ones(2, "c8")), dtype="c8", kind="non-persistent buffer"
    ),
]


@pytest.mark.parametrize("limit", [10**9, 1000])
@pytest.mark.usefixtures("short_segments")
def test_every_tensor_has_a_type_of_its_own(tmp_path, limit):
    """Integers and bool keep theirs when the others are cast; the plan has the stored values."""
    plan = wf.Plan(ALL_KINDS)
    for folder, changes in (("own", {}), ("cast", {"dtype": "bf16", "dtypes": {"*1*": "float32"}})):
        out = tmp_path / folder
        write_checkpoint(out, plan, seed=5, max_shard_size=limit, **changes)
        found = {}
        for path in out.glob("*.safetensors"):
            header, tensors = read(path)
            found |= {name: (header[name]["dtype"], tensors[name]) for name in tensors}
        assert found.keys() == {tensor.name for tensor in plan[:-1]}
        planned = {tensor.name: tensor for tensor in wf.Plan.load(out / PLAN)}
        for tensor in plan[:-1]:
            kind = tensor.dtype
            if changes and kind in NAMES:
                kind = "float32" if "1" in tensor.name else "bfloat16"
            array = replace(tensor, dtype=kind).array(5)
            assert found[tensor.name] == (safetensors.ALL_TAGS[array.dtype], array.tobytes())
            assert planned[tensor.name] == replace(tensor, dtype=kind)
        assert verify(out).fresh and verify(out, tensors=ALL_KINDS, seed=5).fresh


@pytest.mark.parametrize(
    ("name", "value", "status", "detail"),
    [
        ("mask", ~np.tri(2, 3, dtype=bool), "changed", "(0, 0) is 0.0, should be 1.0; 6 of 6"),
        ("steps", np.int64(7), "changed", "element () is 7.0, should be 0.0"),
        ("int8", np.zeros(300, "i1"), "zero", "(1,) is 0.0, should be 100.0; 150 of 300"),
        ("int64", np.full(300, 1 << 60), "constant", "300 of 300"),
        ("uint8", np.zeros(299, "u1"), "other", "it is U8 (299,), should be U8 (300,)"),
        ("int32", np.zeros(300, "u4"), "other", "it is U32 (300,), should be I32 (300,)"),
    ],
)
def test_a_changed_integer_is_found(tmp_path, name, value, status, detail):
    from safetensors.numpy import save_file

    tensors = [tensor for tensor in ALL_KINDS[len(NAMES) :] if tensor.name != "hidden"]
    write_checkpoint(tmp_path, tensors, seed=5)
    path = tmp_path / "model.safetensors"
    with safe_open(path, "np") as opened:
        metadata = opened.metadata()
    save_file(load_file(path) | {name: np.asarray(value)}, path, metadata)
    (found,) = (finding for finding in verify(tmp_path).tensors if finding.status != "fresh")
    assert (found.name, found.status) == (name, status) and detail in found.detail


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "int8"}, TypeError, "dtype must be one of float64, .*, got 'int8'"),
        ({"dtypes": {"mask": "float32"}}, ValueError, "'mask', which applies to no tensor"),
        ({"dtypes": {"float16": "int8"}}, TypeError, "tensor 'float16': RandomNormal.*int8"),
        ({"dtypes": {"int8": "int16"}}, TypeError, "tensor 'int8': values must have the tensor's"),
        ({"tensors": [replace(ALL_KINDS[-1], kind="buffer")]}, TypeError, "'hidden' is complex64"),
    ],
)
def test_types_that_a_tensor_cannot_have(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        write_checkpoint(
            **{"directory": tmp_path / "out", "tensors": ALL_KINDS, "seed": 0} | options
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtypes", "error", "message"),
    [
        (["norm"], TypeError, "dtypes must map patterns of names to types, got \\['norm'\\]"),
        ({"norm": "int7"}, TypeError, "dtype must be one of .*'int7'"),
        ({3: "float32"}, TypeError, "pattern must be a str, got 3"),
        ({"norms": "float32"}, ValueError, "dtypes has the pattern 'norms', which applies"),
        (
            {"*": "float32", "norm": "float64"},
            ValueError,
            "dtypes has the pattern 'norm', which applies",
        ),
    ],
)
def test_types_that_are_refused(tmp_path, dtypes, error, message):
    with pytest.raises(error, match=message):
        write_checkpoint(tmp_path / "out", TENSORS, seed=0, dtypes=dtypes)
    assert not list(tmp_path.iterdir())
