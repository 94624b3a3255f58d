"""`winit-fast bench` and its parts: which libraries are compared, and what each of them writes."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from draws import DRAWS

from winit_fast import benchmark
from winit_fast.base import dtypes
from winit_fast.benchmark import contestants
from winit_fast.cli import main


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_table_has_every_case_and_the_limit():
    result = run("bench", "--size", 100, "--seconds", 0, "--against", "NumPy")
    assert result.exit_code == 0, result.output
    assert re.search(r"stream version 1, instruction set \w+ \(of .*scalar\)", result.output)
    assert re.search(r"100 elements; .* caches, .* written at \d+\.\d GB/s\n", result.output)
    for distribution, dtype in benchmark.quick.CASES:
        name = distribution.replace("_", " ")
        assert re.search(rf"{name} {dtype} +\d+\.\d+ +\d+% +[\d.]+", result.output)
    assert re.search(r"orthogonal 100 x 100 +\d+\.\d+ +- +[\d.]+", result.output)


def test_what_memory_takes_is_told_of_large_arrays_only(monkeypatch):
    monkeypatch.setattr(benchmark.quick, "IN_CACHE", 100)
    result = run("bench", "--size", 100, "--seconds", 0, "--against", "NumPy")
    assert re.search(r"this machine's memory is written at \d+\.\d GB/s\n", result.output)


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread"), (3, "3 threads")])
def test_every_race_has_the_threads_asked_for(monkeypatch, threads, said):
    asked = []
    fill = contestants.Orthogonal.fill

    def watched(self, out, **options):
        asked.append(options["num_threads"])
        fill(self, out, **options)

    monkeypatch.setattr(contestants.Orthogonal, "fill", watched)
    arguments = "--size", 300, "--seconds", 0, "--against", "NumPy", "--threads", threads
    result = run("bench", *arguments)
    assert result.output.splitlines()[0].endswith(f", {said}")
    assert set(asked) == {threads}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "0 is not in the range"),
        (["--threads", "0"], "0 is not in the range"),
        (["--against", "R"], "'R' is not"),
    ],
)
def test_refused_with_the_value(arguments, message):
    result = run("bench", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("size", [1, 100, (1 << 22) + 1, (1 << 22) + 2])
def test_the_limit_writes_every_byte_and_no_other(size):
    for threads in (1, 2, 3):
        guarded = np.zeros(size + 2, np.uint8)
        benchmark.memory(guarded[1:-1], threads)()
        assert (guarded[1:-1] == 0x5A).all()
        assert guarded[0] == guarded[-1] == 0


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=str)
@pytest.mark.parametrize("distribution", contestants.DISTRIBUTIONS)
def test_numpy_makes_the_same_distribution_as_we_do(distribution, dtype):
    ours, theirs = np.zeros((2, 1000), dtype)
    benchmark.ours(distribution, ours)()
    benchmark.peers(distribution, theirs, names=["NumPy"])["NumPy"]()
    for x in ours.astype(np.float64), theirs.astype(np.float64):
        low, high, mean = DRAWS[distribution].spread
        assert low <= x.min() and x.max() <= high
        # The mean of 1000 numbers: six standard errors of a normal mean; the others vary less.
        assert abs(x.mean() - mean) < 6 / 1000**0.5
        assert len(np.unique(x)) > 30  # float8_e5m2 has few values


def test_numpys_orthogonal_matrix_is_one():
    for shape in ((30, 20), (20, 30)):
        out = np.zeros(shape, np.float32)
        for contestant in benchmark.orthogonal(out, names=["NumPy"]).values():
            out[...] = 0
            contestant()
            gram = out.T @ out if shape[0] > shape[1] else out @ out.T
            assert abs(gram - np.eye(20)).max() < 1e-5


def test_numpys_truncated_normal_mends_every_piece(monkeypatch):
    monkeypatch.setattr(contestants, "_PIECE", 64)
    out = np.full((3, 50), 9, np.float32)
    benchmark.peers("truncated_normal", out, names=["NumPy"])["NumPy"]()
    assert abs(out).max() <= 2 and len(np.unique(out)) == out.size


def test_fresh_memory_is_for_those_who_fill_in_place():
    made = benchmark.fresh("normal", (100,), np.float32, 1)
    assert made.keys() - {"PyTorch"} == {"winit_fast", "memory", "NumPy"}
    for contestant in made.values():
        contestant()


def test_pauses_come_before_each_turn_and_do_not_count(monkeypatch):
    """A fake clock, which only pauses and turns advance."""
    now, happened = [0.0], []

    def take(what, seconds):
        happened.append(what)
        now[0] += seconds

    monkeypatch.setattr(benchmark.race.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(benchmark.race.time, "sleep", lambda seconds: take("-", seconds))
    times = benchmark.turns([lambda: take("a", 1.0), lambda: take("b", 2.0)], 8, pause=100.0)
    assert "".join(happened) == "ab" + "-a-b" * 3
    assert times == [[1.0] * 3, [2.0] * 3]


def test_turns_alternate_after_one_that_does_not_count():
    calls = []
    times = benchmark.turns([lambda: calls.append("a"), lambda: calls.append("b")], 0, least=3)
    assert "".join(calls) == "ab" * 4
    assert [len(each) for each in times] == [3, 3]
