"""A cluster of test_dask_checkpoint.py: ``python dask_cluster.py FOLDER WORKERS``.

Writes a checkpoint three times and prints, as JSON, what happened: with all workers; with one that
is killed while it writes; and with the command, at the cluster's address.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed

import winit_fast as wf
import winit_fast.dask
from winit_fast.checkpoint import one_file
from winit_fast.models import TensorSpec

PLAN = wf.Plan(
    [TensorSpec(f"h.{i}.w", (512, 1024), wf.TruncatedNormal(), dtype="float32") for i in range(24)]
)
SIZE = 2_200_000
"""Bytes of a file: one tensor each."""


COMMAND = [sys.executable, "-c", "from winit_fast_command import main; main()"]


def slow_down():
    """Make a worker take a while for a file, so that there is time to kill it."""
    write = one_file._write

    def slowly(*arguments):
        time.sleep(0.1)
        return write(*arguments)

    one_file._write = slowly


def kill_one(client):
    """Kill a worker that is writing a file, and return how many it had."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for address, tasks in client.processing().items():
            if tasks and (pid := client.run(os.getpid, workers=[address]).get(address)):
                os.kill(pid, signal.SIGKILL)
                return len(tasks)
        time.sleep(0.001)
    raise TimeoutError("no worker had a file to write")


def main(folder, workers):
    killed = []
    with (
        distributed.LocalCluster(
            n_workers=int(workers), threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def progress(done, total):
            if done and not killed:
                killed.append((kill_one(client), done < total))

        options = {"client": client, "seed": 17, "max_shard_size": SIZE, "dtype": "float32"}
        whole = winit_fast.dask.write_checkpoint(f"{folder}/whole", PLAN, **options)
        client.run(slow_down)
        winit_fast.dask.write_checkpoint(f"{folder}/killed", PLAN, **options, progress=progress)
        command = [
            *(*COMMAND, "init", "gpt2"),
            *("--out", f"{folder}/command", "--seed", "5", "--max-shard-size", "40MB"),
            *("--dask", cluster.scheduler_address),
        ]
        run = subprocess.run(command, capture_output=True, text=True)
        refused = subprocess.run([*command, "--threads", "3"], capture_output=True, text=True)
    print(
        json.dumps(
            {
                "files": len(whole.files),
                "threads": whole.num_threads,
                "killed": killed,
                "command": [run.returncode, run.stderr],
                "refused": [refused.returncode, refused.stderr],
            }
        )
    )


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    main(*sys.argv[1:])
