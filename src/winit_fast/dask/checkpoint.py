"""Writing a checkpoint with the workers of a Dask cluster: a file a task."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from winit_fast.base.arguments import positive
from winit_fast.checkpoint import Summary
from winit_fast.checkpoint import write_checkpoint as write_here
from winit_fast.checkpoint.layout import Shard
from winit_fast.checkpoint.one_file import start, stop, write_file
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import STREAM_VERSION

_RETRIES = 3
"""How often Dask tries a file again. It also tries again after the death of a worker."""

_PATIENCE = 60.0
"""Seconds to wait, after a failure, for the tasks that are still writing."""


def write_checkpoint(
    directory: str | os.PathLike[str],
    tensors: Sequence[TensorSpec],
    *,
    client: Any,
    seed: int,
    **options: Any,
) -> Summary:
    """Write a checkpoint with a Dask cluster; the bytes are those of a single process.

    Each file is a task of one thread. A task may be tried again, on any worker, also while a lost
    worker still writes the same file. The files get their names in the directory when all of them
    are complete and flushed.

    Parameters
    ----------
    directory : path
        On a file system that all workers see under the same path.
    tensors : Plan or sequence of TensorSpec
    client : distributed.Client
        Connected to the scheduler. All workers need the same version of winit_fast.
    seed : int
    **options
        The other arguments of `winit_fast.checkpoint.write_checkpoint` except ``num_threads``. Give
        a ``max_shard_size`` with which there are more files than workers.

    Returns
    -------
    winit_fast.checkpoint.Summary
        Its ``num_threads`` are those of all workers.

    Raises
    ------
    RuntimeError
        If a worker has another version or does not see the directory, or Dask gives a file up.
    TypeError, ValueError, OSError
        As `winit_fast.checkpoint.write_checkpoint`.

    Examples
    --------
    >>> import tempfile
    >>> import winit_fast as wf
    >>> from distributed import Client
    >>> from winit_fast.models import TensorSpec
    >>> plan = wf.Plan([TensorSpec(f"w{i}", (64, 64), wf.RandomNormal()) for i in range(4)])
    >>> with Client(processes=False, n_workers=2, dashboard_address=None) as client:
    ...     summary = write_checkpoint(
    ...         tempfile.mkdtemp(), plan, client=client, seed=0, max_shard_size=10_000
    ...     )
    >>> len(summary.files)
    4
    """
    import distributed

    if not isinstance(client, distributed.Client):
        raise TypeError(f"client must be a distributed.Client, got {client!r}")
    if "num_threads" in options:
        raise TypeError(
            "num_threads is not for a cluster, where a file is written by one thread of a worker, "
            f"got {options['num_threads']!r}"
        )

    def delegate(stage: Path, shards: Sequence[Shard], report: Callable[[int], None]) -> int:
        return _write_files(client, stage.absolute(), shards, seed, report)

    return write_here(directory, tensors, seed=seed, delegate=delegate, **options)


@contextmanager
def connected(address: str, num_threads: int | None = None) -> Iterator[Any]:
    """Connect to a scheduler, or start a cluster of this machine's processes.

    Parameters
    ----------
    address : str
        Of the scheduler, such as "tcp://10.0.0.1:8786", or "local".
    num_threads : int, optional
        Processes of a local cluster, of one thread each; by default one a processor.

    Yields
    ------
    distributed.Client
    """
    import distributed

    if address != "local":
        if num_threads is not None:
            raise ValueError(f"threads are the workers' own at a scheduler, got {num_threads}")
        with distributed.Client(address) as client:
            yield client
        return
    workers = None if num_threads is None else positive("num_threads", num_threads)
    with (
        distributed.LocalCluster(
            n_workers=workers or os.cpu_count(),
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # errors of tasks are raised; the rest is Dask's own
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _write_files(
    client: Any, stage: Path, shards: Sequence[Shard], seed: int, report: Callable[[int], None]
) -> int:
    """Write all files into the stage, and return the number of the workers' threads."""
    import distributed

    start(stage)
    pending = {}
    for shard in shards:
        task = client.submit(
            write_file, str(stage), shard, seed, STREAM_VERSION, pure=False, retries=_RETRIES
        )
        pending[task] = shard
    done = 0
    try:
        while pending:
            for task in [task for task in pending if task.done()]:
                try:
                    done += task.result()
                except distributed.KilledWorker as error:
                    raise RuntimeError(
                        f"Dask gives {pending[task].filename} up: {error}"
                    ) from error
                del pending[task]
            report(done)
            if pending:
                time.sleep(0.05)
    except BaseException:
        stop(stage)  # so that nothing is written to the stage when it is removed
        with suppress(Exception):  # such as a timeout, or that the scheduler is gone
            distributed.wait(list(pending), timeout=_PATIENCE)
        raise
    for shard in shards:
        path = stage / shard.filename
        if not path.is_file() or path.stat().st_size != shard.size:
            raise RuntimeError(
                f"a worker has written {path}, which is not here: the checkpoint must be on a "
                "file system that all workers share"
            )
    return sum(client.nthreads().values())
