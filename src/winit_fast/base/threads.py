"""The number of threads, and the distribution of pieces of work among them."""

import math
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from winit_fast.base.arguments import positive

if TYPE_CHECKING:  # importing pathlib is slow: see cgroup_quota
    from pathlib import Path


MAX_THREADS = 4096
"""More than any machine has processors, so a larger number is a mistake."""


def count(argument: str, value: Any) -> int:
    """Read a number of threads.

    Examples
    --------
    >>> count("num_threads", 10**6)
    Traceback (most recent call last):
    ValueError: num_threads must be at most 4096, got 1000000
    """
    number = positive(argument, value)
    if number > MAX_THREADS:
        raise ValueError(f"{argument} must be at most {MAX_THREADS}, got {number}")
    return number


def _from_environment() -> int | None:
    value = os.environ.get("WINIT_FAST_NUM_THREADS", "").strip()
    if not value:
        return None
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError(f"WINIT_FAST_NUM_THREADS must be a positive integer, got {value!r}")
    return count("WINIT_FAST_NUM_THREADS", int(value))


def _quota(folder: "Path") -> float:
    """Read the CPU quota of one control group (version 1 or 2), in processors."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max", which is no limit
        return math.inf


@cache
def cgroup_quota(
    memberships: str | os.PathLike[str] = "/proc/self/cgroup",
    cgroups: str | os.PathLike[str] = "/sys/fs/cgroup",
) -> float:
    """Read the CPU quota of this process's control groups, in processors.

    The limit of a group holds for all groups below it, so the result is the least limit of the
    group and its ancestors. In a container the listed path may be a path of the host, which is not
    visible; the root of the mount is visible, and is always read too.

    Parameters
    ----------
    memberships, cgroups : str or os.PathLike
        The file that lists this process's groups, and the folder where they are mounted.

    Returns
    -------
    float
        ``inf`` without a limit.
    """
    from pathlib import Path  # slow to import, and needed only at the first fill of a process

    try:
        lines = Path(memberships).read_text(errors="replace").splitlines()
    except OSError:
        return math.inf
    root = Path(cgroups)
    quotas = [math.inf]
    for line in lines:
        if line.count(":") < 2:  # not the format of /proc/self/cgroup
            continue
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.strip("/"))
        for mount in (root / controllers, root / "cpu") if controllers else (root,):
            quotas += [_quota(mount / part) for part in (group, *group.parents)]
    return min(quotas)


def available() -> int:
    """Count the processors that this process may use: its CPU affinity, limited by its CPU quota.

    Returns
    -------
    int
        At least 1.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no sched_getaffinity
        count = os.cpu_count() or 1
    return max(1, min(count, math.ceil(min(cgroup_quota(), count))))


_default = _from_environment()
_num_threads: int | None = None


def set_num_threads(num_threads: int | None) -> None:
    """Set how many threads a fill uses from now on, in the whole process.

    Parameters
    ----------
    num_threads : int or None
        At least 1. None restores the default: the environment variable ``WINIT_FAST_NUM_THREADS``
        as it was when winit_fast was imported, or else as many as the process may use.

    Raises
    ------
    ValueError
        If ``num_threads`` is less than 1 or more than 4096.

    Examples
    --------
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(None)
    """
    global _num_threads
    _num_threads = checked(num_threads)


def get_num_threads() -> int:
    """Return the number of threads that a fill uses at most.

    Returns
    -------
    int
        The number set by `set_num_threads`, or else by the environment variable
        ``WINIT_FAST_NUM_THREADS``; without either, the number of processors that the process may
        use by its CPU affinity and its CPU quota.
    """
    return _num_threads or _default or available()


def resolve(num_threads: int | None) -> int:
    """Check a ``num_threads`` argument; None becomes the value of `get_num_threads`.

    Examples
    --------
    >>> resolve(3)
    3
    >>> resolve(0)
    Traceback (most recent call last):
    ValueError: num_threads must be at least 1, got 0
    """
    return get_num_threads() if num_threads is None else count("num_threads", num_threads)


def checked(num_threads: int | None) -> int | None:
    """Check a ``num_threads`` argument; None stays None, because resolving it takes time."""
    return None if num_threads is None else count("num_threads", num_threads)


class _Job:
    """The pieces of one call of `run`: each thread takes the next piece until none is left."""

    def __init__(self, work: Callable[[Any], object], pieces: Iterable[Any]) -> None:
        self._work = work
        self._pieces: Iterator[Any] = iter(pieces)
        self._lock = threading.Lock()  # guards the fields; a generator may have only one caller
        self._open = True
        self._helping = 0
        self._left: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.error: BaseException | None = None  # raised in a helper thread

    def take_part(self) -> None:
        while (piece := self._next()) is not None:
            self._work(piece)

    def _next(self) -> Any:
        with self._lock:
            return next(self._pieces, None) if self._open else None

    def help(self) -> None:
        """Work as a helper thread: an exception ends the job, and the calling thread raises it."""
        with self._lock:
            if not self._open:
                return
            self._helping += 1
        error = None
        try:
            self.take_part()
        except BaseException as caught:
            error = caught
        with self._lock:
            if error is not None:
                self._open = False
                self.error = self.error or error
            self._helping -= 1
        self._left.put(None)

    def close(self) -> BaseException | None:
        """Stop handing out pieces, wait for all helpers, and return what interrupted the wait.

        Whether all helpers have left is known from their count. If an interrupt loses a wake-up
        message, nothing is lost: while the count is not 0, another message will come.
        """
        interrupt = None
        while self._open or self._helping:
            try:
                with self._lock:
                    self._open = False
                while self._helping:
                    self._left.get()
            except BaseException as caught:  # raised later, since helpers are still writing
                interrupt = caught
        # A helper may take this job from the queue much later; it must not keep memory alive.
        self._work, self._pieces = lambda piece: None, iter(())
        return interrupt


class _Pool:
    """Daemon threads that wait for jobs. They are started on demand and kept."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._size = 0

    def ask(self, job: _Job, helpers: int) -> None:
        """Queue a job for helpers. Nobody waits for them: one that is too late finds it closed."""
        with self._lock:
            while self._size < helpers:
                try:
                    threading.Thread(target=self._serve, name="winit_fast", daemon=True).start()
                except RuntimeError:  # cannot start one: a limit, or the interpreter is exiting
                    break
                self._size += 1
            helpers = min(helpers, self._size)
        for _ in range(helpers):
            self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            self._jobs.get().help()


_pool = _Pool()


def _forget_pool() -> None:
    """Make a new pool in a forked child: threads do not survive a fork, and a lock may be held."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run(work: Callable[[Any], object], pieces: Iterable[Any], num_threads: int) -> None:
    """Do ``work(piece)`` for every piece, in this thread and up to ``num_threads - 1`` others.

    Returns or raises (on an interrupt too) only when no thread works on a piece any more; each
    thread finishes its current piece. Calls from several threads share the helpers. A call never
    waits for a helper to become free, since its own thread does the work.

    Parameters
    ----------
    work : callable
        Takes one piece. It should release the GIL.
    pieces : iterable
        Iterated over lazily, by one thread at a time. None is not a piece.
    num_threads : int
        At least 1, the calling thread included.

    Raises
    ------
    BaseException
        The first exception of ``work`` or ``pieces``, in whichever thread.

    Examples
    --------
    >>> done = []
    >>> run(done.append, range(100), num_threads=4)
    >>> sorted(done) == list(range(100))
    True
    """
    pieces = iter(pieces)
    first = list(islice(pieces, num_threads))  # no more threads than pieces
    num_threads = min(num_threads, len(first))
    pieces = chain(first, pieces)
    if num_threads <= 1:
        for piece in pieces:
            work(piece)
        return
    job = _Job(work, pieces)
    error: BaseException | None = None
    try:
        _pool.ask(job, num_threads - 1)
        job.take_part()
    finally:
        while True:
            try:
                error = job.close() or error
                break
            except BaseException as interrupt:  # a second one, while close() handled the first
                error = interrupt
    if error := error or job.error:
        raise error
