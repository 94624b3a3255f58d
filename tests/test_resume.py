"""Resuming a checkpoint that a killed run left unfinished."""

import errno
import json
import os
import random
import re
import signal
import time

import pytest
from click.testing import CliRunner
from strategies import depth

import winit_fast as wf
from winit_fast.checkpoint import DiskFull, segment_writer, segments, verify, write_checkpoint
from winit_fast.checkpoint.stage import STAGE
from winit_fast.cli import main
from winit_fast.models.tensor_spec import TensorSpec

TENSORS = (
    TensorSpec("table", (97, 19), wf.RandomNormal(0.0, 0.02)),
    TensorSpec("bias", (5,), wf.Zeros()),
    TensorSpec("norm", (1601,), wf.Ones()),
    TensorSpec("empty", (0, 4), wf.RandomUniform()),
    TensorSpec("wide", (3, 2, 1030), wf.GlorotUniform()),
    TensorSpec("ortho", (40, 30), wf.Orthogonal()),
)
OPTIONS = {
    "seed": 7,
    "dtype": "float32",
    "max_shard_size": 9000,
    "texts": {"config.json": "{}"},
    "num_threads": 2,
}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)
    monkeypatch.setattr(segment_writer, "FLUSH_BYTES", 4096)


def files_below(path):
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


@pytest.fixture
def whole(tmp_path):
    """The files of an undisturbed run."""
    write_checkpoint(tmp_path / "whole", TENSORS, **OPTIONS)
    return files_below(tmp_path / "whole")


CALLS = ("pwrite", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


def killed(out, moment, **options):
    """Write in a child process, which is killed at its n-th system call, perhaps in the middle.

    Returns whether the process made so many calls.
    """
    pid = os.fork()
    if pid == 0:
        left = moment

        def killing(name):
            real = getattr(os, name)

            def call(*arguments, **more):
                nonlocal left
                left -= 1
                if left == 0:
                    if name == "pwrite":
                        file, data, offset = arguments
                        real(file, data[: len(data) // 3], offset)
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)

            setattr(os, name, call)

        for name in CALLS:
            killing(name)
        try:
            write_checkpoint(out, TENSORS, **OPTIONS | options)
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def stages(out):
    return list(out.glob(STAGE + "*"))


def count_of_calls(out):
    """Count the system calls of a run, by bisection; the count varies a little between runs."""
    low, high = 1, 4096
    while high - low > 1:
        middle = (low + high) // 2
        if killed(out / str(middle), middle):
            low = middle
        else:
            high = middle
    return low


def test_a_kill_at_any_moment(tmp_path, whole):
    """Kill at up to 50 moments of a run; every second resuming run is killed too."""
    count = count_of_calls(tmp_path / "count")
    rng = random.Random(0)
    moments = sorted({1, 2, count - 1, count, *rng.sample(range(1, count), depth(46))})
    unfinished = 0
    for moment in moments:
        out = tmp_path / f"out{moment}"
        killed(out, moment)
        unfinished += bool(stages(out)) and not (out / "config.json").exists()
        if moment % 2:
            killed(out, rng.randrange(1, count), resume=True)
        write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
        assert files_below(out) == whole, moment
        # A kill before the very last step leaves an empty folder. It stays, as it may be the
        # user's.
        assert not [stage for stage in stages(out) if any(stage.iterdir())]
    assert unfinished > 0.6 * len(moments)


@pytest.mark.parametrize("force", [False, True])
def test_an_old_checkpoint_stays_until_the_resumed_one_is_whole(tmp_path, whole, force):
    out = tmp_path / "out"
    write_checkpoint(out, TENSORS, **OPTIONS | {"seed": 1})
    (out / "thesis.tex").write_text("all of it")
    old = files_below(out)
    assert killed(out, 12, force=True)
    assert stages(out) and files_below(out).items() > old.items()
    if force:
        write_checkpoint(out, TENSORS, **OPTIONS, force=True, resume=True)
        assert files_below(out) == whole | {"thesis.tex": b"all of it"}
    else:
        before = files_below(out)
        with pytest.raises(FileExistsError, match="is not empty"):
            write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
        assert files_below(out) == before


def test_only_what_differs_is_written(tmp_path, monkeypatch, whole):
    out = tmp_path / "out"
    assert killed(out, count_of_calls(tmp_path / "count") // 3)
    (stage,) = stages(out)
    file = stage / "model-00002-of-00004.safetensors"
    with file.open("r+b") as opened:
        opened.seek(5000)
        opened.write(b"\xff")  # as after a power cut
    with (stage / "model-00001-of-00004.safetensors").open("ab") as opened:
        opened.write(b"more than it should have")
    written, pwrite = [], os.pwrite

    def counting(file, data, offset):
        written.append(len(data))
        return pwrite(file, data, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    calls = []
    write_checkpoint(
        out, TENSORS, **OPTIONS, resume=True, progress=lambda *call: calls.append(call)
    )
    assert files_below(out) == whole
    total = sum(len(data) for name, data in whole.items() if name.endswith(".safetensors"))
    assert 0 < sum(written) < total
    assert calls[-1] == (total, total)


def unfinished(tmp_path):
    out = tmp_path / "out"
    assert killed(out, 15)
    (stage,) = stages(out)
    return out, stage


def test_a_plain_run_says_what_it_finds_and_stops(tmp_path, whole):
    out, stage = unfinished(tmp_path)
    before = files_below(out)
    said = re.escape(f"{stage} holds an unfinished checkpoint, of seed 7, plan sha256:")
    with pytest.raises(
        FileExistsError, match=f"{said}.*: use resume to continue .* force to delete it"
    ):
        write_checkpoint(out, TENSORS, **OPTIONS)
    assert files_below(out) == before
    run = json.loads((stage / ".winit-fast-stage").read_text())
    assert run["seed"] == 7 and run["plan"].startswith("sha256:")
    write_checkpoint(out, TENSORS, **OPTIONS, force=True)
    assert files_below(out) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"dtype": "bfloat16"},
        {"max_shard_size": 10**6},
        {"texts": {"config.json": "[]"}},
        {"metadata": {"note": "x"}},
        {"tensors": TENSORS[:-1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_is_not_gone_on_with(tmp_path, change):
    out, _ = unfinished(tmp_path)
    before = files_below(out)
    arguments = {"tensors": TENSORS} | OPTIONS | change
    with pytest.raises(FileExistsError, match="holds another unfinished checkpoint, of seed 7"):
        write_checkpoint(out, **arguments, resume=True)
    assert files_below(out) == before
    write_checkpoint(tmp_path / "fresh", **arguments)
    write_checkpoint(out, **arguments, resume=True, force=True)
    assert files_below(out) == files_below(tmp_path / "fresh")


def test_without_an_unfinished_run_it_is_begun_and_then_in_place(tmp_path, monkeypatch, whole):
    out = tmp_path / "out"
    write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    assert files_below(out) == whole
    monkeypatch.setattr(os, "pwrite", None)  # calling it would fail
    summary = write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    assert len(summary.files) == 4 and files_below(out) == whole
    (out / "config.json").write_text("[]")
    with pytest.raises(FileExistsError, match="is not empty"):
        write_checkpoint(out, TENSORS, **OPTIONS, resume=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_clears_up_and_an_error_keeps_what_was_there(tmp_path, error, whole):
    out, stage = unfinished(tmp_path)

    def interrupt(done, total):
        raise error

    with pytest.raises(error):
        write_checkpoint(out, TENSORS, **OPTIONS, resume=True, progress=interrupt)
    assert stage.exists() == (error is RuntimeError)
    write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    assert files_below(out) == whole


def test_a_disk_that_fills_up_after_something_is_on_it(tmp_path, monkeypatch, whole):
    out, room, pwrite = tmp_path / "out", 20_000, os.pwrite

    def full(file, data, offset):
        nonlocal room
        if room == 0:
            while len(flushed) < 3:  # the marker file and two tensor files
                time.sleep(0.001)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = pwrite(file, data[:room], offset)
        room -= count
        return count

    fsync, flushed = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), flushed.append(file)))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="are missing .*keeps what is written: resume goes on"):
        # With one thread, because `room` is not updated atomically.
        write_checkpoint(out, TENSORS, **OPTIONS | {"num_threads": 1})
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "")))
    with pytest.raises(DiskFull, match="resume goes on with it"):
        write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    monkeypatch.setattr(os, "pwrite", pwrite)
    write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    assert files_below(out) == whole


def test_room_that_the_unfinished_files_take_already(tmp_path, monkeypatch, whole):
    out, stage = unfinished(tmp_path)
    taken = sum(file.stat().st_blocks * 512 for file in stage.glob("*.safetensors"))
    total = sum(map(len, whole.values()))
    real = os.statvfs(tmp_path)
    free = max(1, total - taken) + 8192
    monkeypatch.setattr(
        os, "statvfs", lambda path: os.statvfs_result((1, 1, *real[2:4], free, *real[5:]))
    )
    assert free < total
    write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    assert files_below(out) == whole


def test_a_mark_that_cannot_be_read_is_cleared_away(tmp_path, whole):
    """As if the run was killed before it had written the marker; there is nothing to resume."""
    out, stage = unfinished(tmp_path)
    (stage / ".winit-fast-stage").write_text('{"seed": 7')
    write_checkpoint(out, TENSORS, **OPTIONS)
    assert files_below(out) == whole


def test_links_in_the_stage_are_not_followed(tmp_path, whole):
    out, stage = unfinished(tmp_path)
    (tmp_path / "thesis.tex").write_text("all of it")
    for name in ("model-00002-of-00004.safetensors", "config.json"):
        (stage / name).unlink(missing_ok=True)
        (stage / name).symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="symbolic links"):
        write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    (stage / "model-00002-of-00004.safetensors").unlink()
    write_checkpoint(out, TENSORS, **OPTIONS, resume=True)
    assert (tmp_path / "thesis.tex").read_text() == "all of it"
    assert files_below(out) == whole and not (out / "config.json").is_symlink()


def test_the_command(tmp_path):
    out = tmp_path / "out"

    def run(*arguments):
        return CliRunner().invoke(main, [*map(str, arguments)])

    pid = os.fork()
    if pid == 0:
        pwrite, left = os.pwrite, 10

        def kill(*arguments):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return pwrite(*arguments)

        os.pwrite, segments.SEGMENT_BYTES = kill, 1 << 20
        run("init", "pythia-14m", "--out", out, "--seed", 5)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    segments.SEGMENT_BYTES = 1 << 20
    result = run("init", "pythia-14m", "--out", out, "--seed", 5)
    assert result.exit_code == 1 and "holds an unfinished checkpoint, of seed 5" in result.stderr
    result = run("init", "pythia-14m", "--out", out, "--seed", 6, "--resume")
    assert result.exit_code == 1 and "holds another unfinished checkpoint" in result.stderr
    result = run("init", "pythia-14m", "--out", out, "--seed", 5, "--resume")
    assert result.exit_code == 0, result.output
    assert verify(out).fresh and not stages(out)
