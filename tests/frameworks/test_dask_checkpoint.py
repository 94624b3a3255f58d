"""Checkpoints that a Dask cluster writes: the bytes of a single process, whatever workers do."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import dask_cluster
import distributed
import numpy as np
import pytest

import winit_fast as wf
import winit_fast.dask
from winit_fast.checkpoint import one_file, write_checkpoint
from winit_fast.checkpoint.one_file import Stopped, write_file
from winit_fast.dask.checkpoint import connected
from winit_fast.models import TensorSpec
from winit_fast.streams.identity import STREAM_VERSION

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

PLAN = wf.Plan([TensorSpec(f"w{i}", (64, 32), wf.RandomNormal()) for i in range(6)])
OPTIONS = {"seed": 3, "dtype": "float32", "max_shard_size": 10_000}


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def client():
    with distributed.Client(processes=False, n_workers=2, dashboard_address=None) as client:
        yield client


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Checkpoints written by a cluster of three processes, and what happened."""
    folder = tmp_path_factory.mktemp("cluster")
    run = subprocess.run(
        [sys.executable, dask_cluster.__file__, str(folder), "3"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, json.loads(run.stdout)


def test_processes_write_the_same_bytes(cluster, tmp_path):
    folder, said = cluster
    assert said["files"] == 24 and said["threads"] == 3
    write_checkpoint(
        tmp_path / "here", dask_cluster.PLAN, seed=17, max_shard_size=dask_cluster.SIZE,
        dtype="float32",
    )  # fmt: skip
    assert content(folder / "whole") == content(tmp_path / "here")


def test_a_worker_that_is_killed_changes_nothing(cluster):
    """It was killed when it had a file to write and others were complete."""
    folder, said = cluster
    ((tasks, unfinished),) = said["killed"]
    assert tasks > 0 and unfinished
    assert content(folder / "killed") == content(folder / "whole")


def test_the_command_writes_the_same_bytes(cluster, tmp_path):
    folder, said = cluster
    code, errors = said["command"]
    assert code == 0, errors
    command = [*dask_cluster.COMMAND, "init", "gpt2", "--seed", "5"]
    run = subprocess.run(
        [*command, "--out", tmp_path / "here", "--max-shard-size", "40MB"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert content(folder / "command") == content(tmp_path / "here")
    code, errors = said["refused"]
    assert code != 0 and "threads are the workers' own at a scheduler, got 3" in errors


def test_a_local_cluster_of_the_command(tmp_path):
    plan = [*dask_cluster.COMMAND, "init", "gpt2", "--json"]
    run = subprocess.run(
        [*plan, "--out", tmp_path / "out", "--dask", "local", "--threads", "2"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["threads"] == 2


def test_force_and_resume(client, tmp_path):
    write_checkpoint(tmp_path / "here", PLAN, **OPTIONS)
    winit_fast.dask.write_checkpoint(tmp_path / "out", PLAN, client=client, **OPTIONS)
    with pytest.raises(FileExistsError, match="is not empty"):
        winit_fast.dask.write_checkpoint(tmp_path / "out", PLAN, client=client, **OPTIONS)
    for option in "force", "resume":
        winit_fast.dask.write_checkpoint(
            tmp_path / "out", PLAN, client=client, **OPTIONS, **{option: True}
        )
        assert content(tmp_path / "out") == content(tmp_path / "here")


@dataclass(frozen=True, repr=False)
class Failing(wf.Initializer):
    """Fails in the tasks, or waits there until it is let go."""

    error: str = ""
    gate: threading.Event = field(default_factory=threading.Event, compare=False)
    waits: threading.Event = field(default_factory=threading.Event, compare=False)

    def __reduce__(self):
        return _known, (self.error,)

    def fill_box(self, out, box, stream, num_threads):
        if self.error:
            raise ZeroDivisionError(self.error)
        self.waits.set()
        self.gate.wait(30)
        np.copyto(out, 1.0)


WAITING = Failing()


def _known(error):
    return Failing(error) if error else WAITING


@pytest.mark.filterwarnings("ignore")
def test_a_task_that_fails_leaves_the_directory_as_it_was(client, tmp_path):
    plan = [*PLAN, TensorSpec("bad", (64, 32), Failing("on purpose"))]
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        winit_fast.dask.write_checkpoint(tmp_path / "out", plan, client=client, **OPTIONS)
    assert not content(tmp_path / "out")


def test_an_interrupt_ends_the_tasks_and_leaves_the_directory_as_it_was(client, tmp_path):
    """The tasks that have begun end before their folder is removed."""
    plan = [*PLAN, *(TensorSpec(f"late{i}", (64, 32), WAITING) for i in range(8))]
    (tmp_path / "out").mkdir()

    def interrupt(done, total):
        if done:
            assert WAITING.waits.wait(30)  # a task has begun, and ends only with the gate
            threading.Timer(0.5, WAITING.gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        winit_fast.dask.write_checkpoint(
            tmp_path / "out", plan, client=client, **OPTIONS, progress=interrupt
        )
    assert WAITING.gate.is_set()
    assert not content(tmp_path / "out")


def test_one_file_may_be_written_by_several_at_once(tmp_path):
    shards = []

    def delegate(stage, files, report):
        shards.extend(files)
        for file in files:
            threads = [
                threading.Thread(target=write_file, args=(str(stage), file, 3, STREAM_VERSION))
                for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return 1

    write_checkpoint(tmp_path / "out", PLAN, delegate=delegate, **OPTIONS)
    write_checkpoint(tmp_path / "here", PLAN, **OPTIONS)
    assert content(tmp_path / "out") == content(tmp_path / "here")

    with pytest.raises(RuntimeError, match="has version 1 of the numbers, the checkpoint 2"):
        write_file(str(tmp_path), shards[0], 3, 2)
    with pytest.raises(RuntimeError, match="sees no folder .* all workers share"):
        write_file(str(tmp_path / "nowhere"), shards[0], 3, STREAM_VERSION)
    (tmp_path / "stage").mkdir()
    one_file.stop(tmp_path / "stage")
    with pytest.raises(Stopped, match="is no longer wanted"):
        write_file(str(tmp_path / "stage"), shards[0], 3, STREAM_VERSION)
    assert len(content(tmp_path / "stage")) == 1
    one_file.start(tmp_path / "stage")
    write_file(str(tmp_path / "stage"), shards[0], 3, STREAM_VERSION)
    assert list(content(tmp_path / "stage")) == [shards[0].filename]


def test_files_that_are_not_here_are_missed(client, tmp_path, monkeypatch):
    monkeypatch.setattr(winit_fast.dask.checkpoint, "write_file", _elsewhere)
    with pytest.raises(RuntimeError, match="which is not here: .* all workers share"):
        winit_fast.dask.write_checkpoint(tmp_path / "out", PLAN, client=client, **OPTIONS)
    assert not (tmp_path / "out").exists()


def _elsewhere(folder, shard, seed, version):
    return shard.size


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"client": "tcp://x"}, TypeError, "client must be a distributed.Client, got 'tcp://x'"),
        ({"num_threads": 2}, TypeError, "num_threads is not for a cluster, .* got 2"),
        ({"directory": "memory://x"}, ValueError, "one that all workers share, got 'memory://x'"),
    ],
)
def test_refused(client, arguments, error, message, tmp_path):
    given = {"directory": tmp_path / "out", "client": client, **OPTIONS} | arguments
    with pytest.raises(error, match=message):
        winit_fast.dask.write_checkpoint(given.pop("directory"), PLAN, **given)
    assert not (tmp_path / "out").exists()


def test_threads_are_not_for_a_scheduler():
    with (
        pytest.raises(ValueError, match="threads are the workers' own at a scheduler, got 2"),
        connected("tcp://nowhere:1", 2),
    ):
        pass


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("dask.array", "Error: winit_fast.dask needs Dask's arrays, which are not installed"),
        ("distributed", "Error: init needs distributed, which this system does not have"),
    ],
)
def test_without_dask(module, message, tmp_path):
    program = f"import sys; sys.modules[{module!r}] = None; {dask_cluster.COMMAND[-1]}"
    run = subprocess.run(
        [sys.executable, "-c", program, "init", "gpt2", "--out", tmp_path / "x", "--dask", "local"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and run.stderr.startswith(message)
    assert not (tmp_path / "x").exists()
