"""A few seconds of the soak test, which must find planted faults. `make soak` runs longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soak
from strategies import depth

from winit_fast.base import threads

PROGRAM = Path(__file__).with_name("soak.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def run(*arguments):
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, timeout=600
    )


def test_soak():
    cases = depth(250)
    done = run("--cases", str(cases), "--calls", str(depth(50_000)), "--seed", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert (
        last.startswith(f"soak: passed: {cases} cases") and "interrupt" in last and "fork" in last
    )


def test_a_case_can_be_repeated():
    done = run("--seed", "3", "--case", "0")
    assert done.returncode == 0 and done.stdout.endswith("as it should be\n"), done.stderr


def first_failure(case, count):
    """Run cases of one kind until one fails."""
    for seed in range(count):
        try:
            case(soak.np.random.default_rng(seed))
        except AssertionError as error:
            return error
    return None


@pytest.fixture
def settings():
    before = soak._core.isa(), soak.fill.MIN_PIECE, soak.fill.STREAMING_BYTES
    yield
    soak._core.set_isa(before[0])
    soak.fill.MIN_PIECE, soak.fill.STREAMING_BYTES = before[1:]


@pytest.mark.usefixtures("settings")
def test_a_planted_fault_is_found(monkeypatch):
    """The planted fault: pieces begin one element too late if a box is cut along an outer axis."""
    real = soak.fill.pieces

    def wrong(*arguments):
        for at, (address, index, axes) in enumerate(real(*arguments)):
            yield address, index + (at > 0), axes

    assert first_failure(soak.case_fill, 40) is None
    monkeypatch.setattr(soak.fill, "pieces", wrong)
    assert "elements differ" in str(first_failure(soak.case_fill, 40))


@pytest.mark.usefixtures("settings")
def test_a_planted_race_is_found(monkeypatch):
    """The planted race: a call does not wait for its helper threads, which still write."""

    def close(job):
        with job._lock:
            job._open = False

    assert first_failure(soak.case_threads, 10) is None
    monkeypatch.setattr(threads._Job, "close", close)
    assert "elements differ" in str(first_failure(soak.case_threads, 300))
