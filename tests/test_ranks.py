"""Several processes write one checkpoint: its bytes are those of a single process."""

import fcntl
import itertools
import os
import signal
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

import winit_fast as wf
from winit_fast.checkpoint import segment_writer, segments, write_checkpoint
from winit_fast.checkpoint.ranks import SharedDirectory
from winit_fast.checkpoint.stage import Stage
from winit_fast.cli import main
from winit_fast.cli.launchers import LAUNCHERS, launched
from winit_fast.models import TensorSpec

TENSORS = [
    TensorSpec(f"layer.{number}", (40 + number, 30), wf.HeNormal(in_axis=1, out_axis=0))
    for number in range(7)
]
GIVEN = {"seed": 3, "dtype": "float32", "max_shard_size": 9000, "texts": {"config.json": "{}"}}


def write(folder, **more):
    return write_checkpoint(folder, TENSORS, **{**GIVEN, **more})


def content(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The files of a single process: seven of weights, index, plan, configuration."""
    folder = tmp_path_factory.mktemp("single")
    write(folder)
    files = content(folder)
    assert sum(name.endswith(".safetensors") for name in files) == 7
    assert len(files) == 10
    return files


def forked(*calls):
    """Run each call in a process of its own, all at once, and return their statuses."""
    children = []
    for call in calls:
        child = os.fork()
        if not child:
            status = 1
            try:
                call()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 9])
def test_one_after_another(world, single, tmp_path):
    """In any order; nothing is seen before the last one has ended."""
    order = [*range(1, world), 0]
    for rank in order[:-1]:
        summary = write(tmp_path, rank=rank, world=world)
        assert not summary.published
        assert [file.name for file in summary.files] == sorted(
            name for name in single if name.endswith(".safetensors")
        )[rank::world]
        assert all(file.name.startswith(".winit-fast-") for file in tmp_path.iterdir())
    assert write(tmp_path, rank=0, world=world).published
    assert content(tmp_path) == single
    assert write(tmp_path, rank=world - 1, world=world).published  # started once more
    assert content(tmp_path) == single


def test_a_stage_that_another_rank_makes_meanwhile(single, tmp_path, monkeypatch):
    """Between a rank's search for stages and its look at what else is in the directory."""
    real = SharedDirectory._refuse_others

    def late(self, stages):
        Stage.make(self.path, self._sizes, self._shared_run)
        real(self, stages)

    monkeypatch.setattr(SharedDirectory, "_refuse_others", late)
    for rank in (0, 1):
        write(tmp_path, rank=rank, world=2)
    assert content(tmp_path) == single


def test_all_at_once(single, tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        calls = [partial(write, folder, rank=rank, world=4) for rank in range(4)]
        assert forked(*calls) == [0] * 4
        assert content(folder) == single


def test_worlds_may_change(single, tmp_path):
    write(tmp_path, rank=1, world=2)
    for rank in range(4):
        write(tmp_path, rank=rank, world=4)
    assert content(tmp_path) == single


def killed_at(function, owner, name, number):
    """Run a function in a process that is killed at one of its calls of another function."""
    inner, calls = getattr(owner, name), itertools.count()

    def counted(*arguments, **more):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **more)

    def run():
        setattr(owner, name, counted)
        function()

    (status,) = forked(run)
    return status


def test_a_rank_that_is_killed_while_it_writes(single, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1 << 10)
    for number in range(0, 18, 4):
        folder = tmp_path / str(number)
        status = killed_at(
            partial(write, folder, rank=1, world=2), segment_writer.os, "pwrite", number
        )
        assert status == -signal.SIGKILL
        write(folder, rank=0, world=2)
        unfinished = list(folder.glob(".winit-fast-*/unfinished/model-*"))
        assert unfinished
        unfinished[0].write_bytes(b"\1" * 100)  # what it left is compared
        assert write(folder, rank=1, world=2).published
        assert content(folder) == single


@pytest.mark.parametrize("how", ["rank", "finalize", "single"])
def test_a_rank_that_is_killed_while_it_publishes(how, single, tmp_path):
    """Whoever comes next ends it: the rank itself, finalize, or a single process that resumes."""
    more = {
        "rank": {"rank": 1, "world": 2}, "finalize": {"finalize": True}, "single": {"resume": True}
    }[how]  # fmt: skip
    ended = 0
    for number in itertools.count():
        folder = tmp_path / str(number)
        write(folder, rank=0, world=2)
        (stage,) = folder.iterdir()
        status = killed_at(partial(write, folder, rank=1, world=2), Path, "rename", number)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        is_whole = (stage / "model-00002-of-00007.safetensors").exists() or number > 3
        if how == "finalize" and number < 3:  # its own files were not complete
            with pytest.raises(FileNotFoundError, match="lacks . of 7 files, the first is model-0"):
                write(folder, **more)
            assert write(folder, rank=1, world=2).published
        elif how == "single" and is_whole and (stage / ".winit-fast-moves").exists():
            assert write(folder, **more).published
        elif how == "single":
            continue
        else:
            assert write(folder, **more).published
        assert content(folder) == single, number
        ended += 1
    assert number > 12 and ended > 5


def test_published_by_another_rank_meanwhile(single, tmp_path, monkeypatch):
    """A rank that was started twice finds the checkpoint in place when it has written its files."""
    inner = SharedDirectory.to_write

    def to_write(self, names):
        found = inner(self, names)
        for name, data in single.items():
            (tmp_path / name).write_bytes(data)
        return found

    monkeypatch.setattr(SharedDirectory, "to_write", to_write)
    assert write(tmp_path, rank=1, world=2).published
    assert content(tmp_path) == single


def test_force_replaces_a_checkpoint(single, tmp_path):
    write(tmp_path, seed=4, max_shard_size=10**6)
    (tmp_path / "notes.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match="is not empty"):
        write(tmp_path, rank=0, world=2)
    write(tmp_path, rank=0, world=2, force=True)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    write(tmp_path, rank=1, world=2, force=True)
    assert content(tmp_path) == {**single, "notes.txt": b"mine"}


def test_another_run_is_not_mixed_in(single, tmp_path):
    write(tmp_path, rank=0, world=2, seed=4)
    with pytest.raises(FileExistsError, match="another unfinished checkpoint, of seed 4"):
        write(tmp_path, rank=0, world=2)
    with pytest.raises(FileExistsError, match="an unfinished checkpoint, of seed 4"):
        write(tmp_path)
    for rank in range(2):
        write(tmp_path, rank=rank, world=2, force=True)
    assert content(tmp_path) == single


def test_nobody_writes_twice(tmp_path):
    """A single process and ranks exclude each other, and so do two processes of one rank."""
    write(tmp_path, rank=0, world=3)
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)  # as a rank at work has it
    with pytest.raises(BlockingIOError, match="another process is writing"):
        write(tmp_path, resume=True)
    os.close(lock)
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError, match="another process is writing"):
        write(tmp_path, rank=1, world=3)
    os.close(lock)
    (stage,) = tmp_path.iterdir()
    with (stage / "unfinished" / ".rank-1-of-3").open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_SH)  # even this excludes it
        with pytest.raises(BlockingIOError, match="rank 1 of 3 is already writing"):
            write(tmp_path, rank=1, world=3)


def test_finalize_without_locks(single, tmp_path, monkeypatch):
    """The last rank cannot know that it is the last."""

    def no_locks(file, kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for rank in range(2):
        with pytest.raises(OSError, match="without locks.*finalize publishes"):
            write(tmp_path, rank=rank, world=2)
    assert write(tmp_path, finalize=True).published
    assert content(tmp_path) == single


@pytest.mark.parametrize(
    ("kind", "text", "arguments"),
    [
        (ValueError, "below world, got 2 of 2", {"rank": 2, "world": 2}),
        (ValueError, "below world, got -1 of 2", {"rank": -1, "world": 2}),
        (ValueError, "must both be given, got 0 and None", {"rank": 0}),
        (ValueError, "must both be given, got None and 2", {"world": 2}),
        (TypeError, "rank must be an integer, got 0.5", {"rank": 0.5, "world": 2}),
        (TypeError, "finalize must be a bool, got 1", {"finalize": 1}),
        (ValueError, "finalize is for no rank", {"rank": 0, "world": 2, "finalize": True}),
        (FileNotFoundError, "no rank has written", {"finalize": True}),
        (
            ValueError, "must not be given with a delegate, got Process",
            {"rank": 0, "world": 2, "delegate": print},
        ),
        (
            ValueError, "must not be given with a delegate, got Process",
            {"finalize": True, "delegate": print},
        ),
        (ValueError, "ranks are for local", {"directory": "memory://x", "rank": 0, "world": 1}),
    ],
)  # fmt: skip
def test_refusals(kind, text, arguments, tmp_path):
    with pytest.raises(kind, match=text):
        write(arguments.pop("directory", tmp_path), **arguments)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("names", LAUNCHERS, ids="-".join)
def test_launchers(names):
    rank, world = names
    assert launched({rank: "2", world: "3", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"})[:2] in (
        (2, 3), (0, 1),
    )  # fmt: skip
    assert launched({rank: "2", world: "3"})[:2] == (2, 3)
    assert launched({rank: "2"}) is None
    for wrong in ("", "x", "-1", "1e3", "9" * 10):
        with pytest.raises(ValueError, match=f"{rank} must be a number, got '{wrong}'"):
            launched({rank: wrong, world: "3"})
    with pytest.raises(ValueError, match=f"{rank} must be below {world}, got 3 of 3"):
        launched({rank: "3", world: "3"})


def command(folder, *more, **environment):
    plain = dict.fromkeys(itertools.chain(*LAUNCHERS))
    arguments = ["init", "gpt2", "--out", str(folder), "--max-shard-size", "60MB", *more]
    return CliRunner().invoke(main, arguments, env={**plain, **environment})


def test_the_command(tmp_path):
    run = command(tmp_path / "single", RANK="1", WORLD_SIZE="2")
    assert run.exit_code == 0, run.output
    notice = "RANK and WORLD_SIZE are set, but all files are written here: see --distributed"
    assert run.stderr.splitlines()[0] == notice
    run = command(tmp_path / "ranks", "--distributed", OMPI_COMM_WORLD_RANK="1",
                  OMPI_COMM_WORLD_SIZE="2")  # fmt: skip
    assert run.exit_code == 0 and "no, other ranks" in run.output, run.output
    run = command(tmp_path / "ranks", "--rank", "0", "--world", "2")
    assert run.exit_code == 0 and "published" not in run.output, run.output
    assert content(tmp_path / "ranks") == content(tmp_path / "single")
    run = command(tmp_path / "ranks", "--finalize", "--json")
    assert run.exit_code == 0 and '"published": true' in run.output, run.output


@pytest.mark.parametrize(
    ("text", "arguments", "environment"),
    [
        ("below world, got 2 of 2", ["--rank", "2", "--world", "2"], {}),
        ("--distributed needs RANK and WORLD_SIZE", ["--distributed"], {}),
        ("RANK must be below", ["--distributed"], {"RANK": "2", "WORLD_SIZE": "2"}),
        ("--distributed is for no --rank", ["--distributed", "--rank", "0"],
         {"RANK": "0", "WORLD_SIZE": "2"}),
        ("must both be given", ["--rank", "0"], {}),
        ("--dask is for no --rank", ["--dask", "local", "--rank", "0", "--world", "2"], {}),
        ("--dask is for no --rank", ["--dask", "local", "--finalize"], {}),
        ("--dask is for --format safetensors", ["--dask", "local", "--format", "dcp"], {}),
        ("--prefix is for --format dcp, got 'model.'", ["--prefix", "model."], {}),
    ],
)  # fmt: skip
def test_refusals_of_the_command(text, arguments, environment, tmp_path):
    run = command(tmp_path / "new", *arguments, **environment)
    assert run.exit_code != 0 and text in run.stderr
    assert not list(tmp_path.iterdir())
