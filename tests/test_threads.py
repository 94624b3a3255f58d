"""Threads change no bit, stop on Ctrl-C and errors, and survive fork and other threads' work."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import winit_fast as wf
from winit_fast.base import threads
from winit_fast.streams import fill

STREAM = wf.Stream(3, "threads")
SIZE = 3 * (1 << 21) + 5  # several pieces, the last one shorter


@pytest.fixture(autouse=True)
def _default_number():
    yield
    wf.set_num_threads(None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_number_of_threads_changes_no_bit(isa, dtype):
    size = 3 * fill.MAX_PIECE_SCALAR + 5 if isa == "scalar" else SIZE
    expected = STREAM.normal(shape=size, dtype=dtype, num_threads=1)
    for num_threads in (2, 3, 8):
        out = STREAM.normal(shape=size, dtype=dtype, num_threads=num_threads)
        assert out.tobytes() == expected.tobytes()


def test_setting():
    wf.set_num_threads(5)
    assert wf.get_num_threads() == 5
    wf.set_num_threads(None)
    assert wf.get_num_threads() == threads.available() >= 1
    for refused in (0, -2):
        with pytest.raises(ValueError, match=f"num_threads must be at least 1, got {refused}"):
            wf.set_num_threads(refused)
        for size in (3, SIZE):
            out = np.zeros(size, np.float32)
            with pytest.raises(ValueError, match=f"got {refused}"):
                STREAM.normal(out=out, num_threads=refused)
            assert not out.any()


def _python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_environment_variable():
    tell = "import winit_fast as wf; print(wf.get_num_threads())"
    assert _python(tell, WINIT_FAST_NUM_THREADS="3").stdout == "3\n"
    back = "import winit_fast as wf; wf.set_num_threads(5); wf.set_num_threads(None)\n" + tell
    assert _python(back, WINIT_FAST_NUM_THREADS="3").stdout == "3\n"
    for wrong in ("0", "-1", "many"):
        run = _python(tell, WINIT_FAST_NUM_THREADS=wrong)
        assert run.returncode != 0
        assert "WINIT_FAST_NUM_THREADS must be" in run.stderr and wrong in run.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity():
    run = _python("""
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import winit_fast as wf
        print(wf.get_num_threads())
    """)
    assert run.stdout == "1\n", run.stderr


@pytest.mark.parametrize(
    ("memberships", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        (  # a container that sees its own cgroup as the root, but lists the host's path
            "3:cpu,cpuacct:/docker/1f\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1.5,
        ),
        (
            "3:cpu:/a\n1:cpuset:/\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("", {}, math.inf),
    ],
)
def test_quota(tmp_path, memberships, files, quota):
    (tmp_path / "memberships").write_text(memberships)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.cgroup_quota(tmp_path / "memberships", tmp_path) == quota
    assert threads.cgroup_quota(tmp_path / "absent", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "count"), [(0.5, 1), (1.5, 2), (math.inf, 8)])
def test_quota_limits_the_count(monkeypatch, quota, count):
    monkeypatch.setattr(threads, "cgroup_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.available() == count


def test_fills_from_several_threads_at_once():
    names = [f"layer.{i}" for i in range(8)]
    expected = {name: wf.Stream(0, name).normal(shape=SIZE).tobytes() for name in names}
    made = {}

    def make(name):
        made[name] = wf.Stream(0, name).normal(shape=SIZE, num_threads=3).tobytes()

    workers = [threading.Thread(target=make, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert made == expected


def test_a_run_inside_a_run():
    """The pool is small and busy: an inner run must not wait for a free helper thread."""
    done = []

    def outer(i):
        threads.run(lambda j: done.append((i, j)), range(10), 3)

    threads.run(outer, range(10), 3)
    assert sorted(done) == [(i, j) for i in range(10) for j in range(10)]


def test_an_exception_of_the_caller_is_raised_after_the_helpers_stopped():
    caller = threading.current_thread()
    working = threading.Semaphore(0)
    inside = []

    def work(_):
        if threading.current_thread() is caller:
            working.acquire()  # wait until a helper is working
            raise RuntimeError("the caller's")
        inside.append(1)
        working.release()
        inside.pop()

    with pytest.raises(RuntimeError, match="the caller's"):
        threads.run(work, iter(int, 1), 3)  # endless work
    assert not inside


def test_an_exception_of_a_helper_is_raised_by_the_caller():
    caller = threading.current_thread()
    failed = threading.Event()

    def work(_):
        if threading.current_thread() is caller:
            failed.wait(60)
        else:
            failed.set()
            raise RuntimeError("a helper's")

    with pytest.raises(RuntimeError, match="a helper's"):
        threads.run(work, iter(int, 1), 2)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
@pytest.mark.parametrize("times", [1, 3])
def test_interrupts_while_helpers_work(times):
    """Even after several Ctrl-C, no helper is still working when the call has returned."""
    caller = threading.current_thread()
    working, release, inside = threading.Event(), threading.Event(), []

    def work(_):
        if threading.current_thread() is caller:
            working.wait(60)
        else:
            inside.append(1)
            working.set()
            release.wait(60)
            inside.pop()

    def press():
        working.wait(60)
        for _ in range(times):
            time.sleep(0.05)  # usually enough for the caller to be waiting for the helper
            signal.pthread_kill(caller.ident, signal.SIGINT)
        time.sleep(0.05)
        release.set()

    other = threading.Thread(target=press)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        threads.run(work, range(2), 2)
    left = list(inside)
    release.set()
    other.join()
    assert not left


def test_a_late_helper_keeps_no_memory_alive(monkeypatch):
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    pool_is_busy, go_on = threading.Barrier(3), threading.Event()

    def hold(_):
        pool_is_busy.wait(10)
        go_on.wait(10)

    # This job occupies two threads: the pool's only helper, and the leader itself.
    leader = threading.Thread(target=threads.run, args=(hold, [1, 2], 2))
    leader.start()
    pool_is_busy.wait(10)
    try:
        memory = np.zeros(10)
        freed = weakref.ref(memory)
        threads.run(lambda piece, memory=memory: memory.sum(), [1], 2)
        del memory
        assert freed() is None
    finally:
        go_on.set()
        leader.join()


def test_no_thread_to_be_had(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    expected = STREAM.normal(shape=SIZE, num_threads=1)
    assert (STREAM.normal(shape=SIZE, num_threads=4) == expected).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork():
    """A child process that was forked while another thread fills can fill too."""
    expected = STREAM.normal(shape=SIZE, num_threads=2).tobytes()
    stop = threading.Event()

    def keep_filling():
        out = np.empty(SIZE, np.float32)
        while not stop.is_set():
            STREAM.normal(out=out, num_threads=2)

    other = threading.Thread(target=keep_filling)
    other.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # kills the child in case of a deadlock, which fails the test
                same = STREAM.normal(shape=SIZE, num_threads=2).tobytes() == expected
                os._exit(0 if same else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        other.join()


def test_interrupt():
    """Ctrl-C ends a fill between two pieces, and nothing is written after it has returned."""
    run = _python(
        """
        import os, signal, threading, time
        import numpy as np
        import winit_fast as wf

        out = np.zeros(1 << 26, np.float32)  # over 30 pieces

        def interrupt():
            while not out[0]:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            wf.Stream(0).truncated_normal(1.0, 0.1, out=out, num_threads=2)
        except KeyboardInterrupt:
            after = out.copy()
            time.sleep(0.1)
            assert (out == after).all()
            assert not out[-1], "the fill went on to the end"
            print("interrupted")
        again = wf.Stream(0).normal(shape=1 << 22, num_threads=2)
        assert (again == wf.Stream(0).normal(shape=1 << 22, num_threads=1)).all()
        """,
        WINIT_FAST_ISA="scalar",
    )
    assert run.stdout == "interrupted\n", run.stderr


@pytest.mark.parametrize(
    "scheme", [wf.RandomNormal(), wf.Sparse(0.5), wf.Scaled(wf.STFT(), 0.5), wf.Orthogonal()]
)
def test_no_more_threads_than_pieces(scheme):
    shape = (3, 1, 4) if isinstance(scheme, wf.Scaled) else (3, 4)
    before = threading.active_count()
    scheme(shape, num_threads=3000)
    assert threading.active_count() == before


@pytest.mark.parametrize("number", [4097, 10**8])
def test_numbers_of_threads_are_bounded(number):
    for refused in (
        lambda: wf.set_num_threads(number),
        lambda: wf.RandomNormal()(3, num_threads=number),
        lambda: wf.Stream(0).normal(shape=3, num_threads=number),
    ):
        with pytest.raises(ValueError, match=f"num_threads must be at most 4096, got {number}"):
            refused()
    environment = os.environ | {"WINIT_FAST_NUM_THREADS": str(number)}
    run = subprocess.run(
        [sys.executable, "-c", "import winit_fast"], env=environment, capture_output=True, text=True
    )
    assert f"WINIT_FAST_NUM_THREADS must be at most 4096, got {number}" in run.stderr
