"""Fixtures that time contestants and keep the results; the printed report; the skipped cases."""

from collections.abc import Callable
from typing import Any

import pytest
from races import RESULTS, Contestant, Result, interleaved

from winit_fast.benchmark import repeated, rest

SKIPPED: list[dict[str, str]] = []


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., dict[str, float]]:
    """Time contestants in alternating turns; store the median seconds and the labels in the JSON.

    A turn is ``loops`` calls; the seconds are those of one call.
    """

    def run(
        question: str,
        contestants: dict[str, Contestant],
        *,
        nbytes: int,
        seconds: float,
        least: int = 3,
        loops: int = 1,
        **labels: Any,
    ) -> dict[str, float]:
        racers = [repeated(contestant, loops) for contestant in contestants.values()]
        pause = rest(contestants, nbytes)
        medians = [median / loops for median in interleaved(racers, seconds, least, pause)]
        found = dict(zip(contestants, medians, strict=True))
        benchmark.extra_info.update(question=question, seconds=found, nbytes=nbytes, **labels)
        benchmark.pedantic(racers[0], rounds=1)
        return found

    return run


@pytest.fixture
def race(benchmark: Any) -> Callable[..., float]:
    """Compare our function with a peer's; the ratio goes into the JSON and the printed report.

    ``work`` and ``peer_work`` are the amounts of work of one call, if they differ: then the ratio
    compares rates.
    """

    def run(
        case: str,
        ours: Contestant,
        peer: str,
        theirs: Contestant,
        *,
        bar: float,
        aim: float | None = None,
        work: float = 1.0,
        peer_work: float = 1.0,
        seconds: float = 4.0,
        least: int = 3,
    ) -> float:
        mine, other = interleaved([ours, theirs], seconds, least)
        ratio = (work / mine) / (peer_work / other)
        benchmark.extra_info.update(case=case, peer=peer, ratio=ratio, bar=bar, aim=aim)
        RESULTS.append(Result(case, peer, ratio, bar, aim, mine / work, other / peer_work))
        benchmark.pedantic(ours, rounds=1)
        return ratio

    return run


def pytest_runtest_logreport(report: Any) -> None:
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        SKIPPED.append({"case": report.nodeid.rpartition("::")[2], "reason": reason})


def pytest_collectreport(report: Any) -> None:
    """Record a file that is skipped as a whole because a package is missing."""
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        SKIPPED.append({"case": report.nodeid.rpartition("/")[2], "reason": reason})


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["skipped"] = SKIPPED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not RESULTS:
        return
    line = terminalreporter.write_line
    line("")
    line(f"{'case':<58} {'against':<30} {'ratio':>8} {'at least':>9} {'aim':>6}")
    for result in RESULTS:
        aim = "" if result.aim is None else f"{result.aim:g}"
        short = "" if result.ratio >= result.bar else "  short"
        line(
            f"{result.case:<58} {result.peer:<30} {result.ratio:8.3g} {result.bar:9g} {aim:>6}"
            f"  {result.ours:.3g} s / {result.theirs:.3g} s{short}"
        )
