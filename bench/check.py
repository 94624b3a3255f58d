"""Detect slowdowns: compare today's speed with the baseline in the repository.

    make bench-check                   compare; list the slower cases and exit with status 1 if any
    make bench-check CHECK=--counts    compare only instruction counts, which works on any machine
    make bench-baseline                record the baseline of this processor and compiler again

There are two kinds of figures. *Ratios* compare with a peer in the same process: they are medians
of alternating turns, of those in which the peer was not disturbed. A case fails if its ratio is
more than 10 % below the baseline. Before that it is measured again, after all other cases and a
pause, until the peer was undisturbed in three measurements; the turns of all count together. The
baseline says how long the peer takes undisturbed. A shared machine may be disturbed for minutes, so
up to ten measurements are made. *Instruction counts*, from callgrind, repeat exactly: a case fails
if its count grew by more than 2 %.

A ratio depends on the processor, a count on the compiler. The baseline stores them by processor and
by compiler. If it lacks this processor or this compiler, only the other kind is compared, and a
message says so; if it lacks both, that is an error. A case that is not in the baseline yet is
reported but not compared. A case of the baseline that is no longer measured fails.
"""

import argparse
import json
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import instructions
import ratios

from winit_fast import get_num_threads

BASELINE = Path(__file__).with_name("baseline.json")
RATIO_ALLOWANCE, COUNT_ALLOWANCE = 0.10, 0.02
ATTEMPTS = 3  # a case is slower after this many measurements, in which the peer was undisturbed
MOST_ROUNDS = 10  # of measurements, disturbed ones included
PAUSE = 60.0  # seconds before a case is measured again
ROUNDS = 5  # times that a case is measured for the baseline
SECONDS = 3.0

Turns = dict[str, tuple[list[float], list[float]]]
"""By case: the seconds of our turns and of the peer's."""


@dataclass(frozen=True)
class Change:
    """One case and its baseline; a ``slowdown`` of 0.1 means that it takes 1.1 times as long."""

    case: str
    before: float
    now: float
    slowdown: float


def ratio_change(case: str, before: float, now: float) -> Change:
    """Compare a ratio, which is a speed: a larger one is better.

    >>> ratio_change("normal", 20.0, 10.0).slowdown
    1.0
    """
    return Change(case, before, now, before / now - 1)


def count_change(case: str, before: float, now: float) -> Change:
    """Compare an instruction count: a smaller one is better.

    >>> count_change("normal", 1000, 1500).slowdown
    0.5
    """
    return Change(case, before, now, now / before - 1)


def compare(
    before: Mapping[str, float],
    now: Mapping[str, float],
    change: Callable[[str, float, float], Change],
) -> list[Change]:
    """Compare the cases that are both measured and in the baseline; the worst comes first."""
    both = [change(case, before[case], now[case]) for case in before if case in now]
    return sorted(both, key=lambda each: -each.slowdown)


def slower(changes: list[Change], allowance: float) -> list[Change]:
    """Select the cases that take more than ``allowance`` longer."""
    return [each for each in changes if each.slowdown > allowance]


def lost(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Return a line for each baseline case that is no longer measured; print the new cases."""
    for case in now:
        if case not in before:
            print(f"  {case} NOT compared: not in the baseline (make bench-baseline records it)")
    return [f"{case}: in the baseline, but not measured" for case in before if case not in now]


def ratios_of(measured: Turns, peers: Mapping[str, float]) -> dict[str, float]:
    """Compute the ratio of each case; ``peers`` has the peer's undisturbed seconds."""
    return {
        case: ratios.quiet_ratio(*times, ratios.QUIET * peers[case] if case in peers else None)
        for case, times in measured.items()
    }


def is_quiet(theirs: Sequence[float], undisturbed: float | None) -> bool:
    """Return whether the peer was undisturbed in a twentieth of its turns, as far as is known."""
    return undisturbed is None or ratios.undisturbed(theirs) <= ratios.QUIET * undisturbed


def pool(measured: Turns, more: Turns) -> None:
    """Add turns to those measured before."""
    for case, added in more.items():
        for times, others in zip(measured.setdefault(case, ([], [])), added, strict=True):
            times.extend(others)


def persistent(
    before: Mapping[str, float],
    measure: Callable[[list[str] | None], Turns],
    peers: Mapping[str, float],
    allowance: float = RATIO_ALLOWANCE,
    pause: float = 0.0,
) -> dict[str, float]:
    """Measure ratios; those below the bound again, until the peers were undisturbed often enough.

    Parameters
    ----------
    before : mapping of str to float
        The baseline.
    measure : callable
        Times the given cases, or all of them (None).
    peers : mapping of str to float
        Undisturbed seconds of the peers; of those that are not known every measurement counts.
    allowance : float
        How much slower a case may be.
    pause : float
        Seconds before each repetition.
    """
    measured: Turns = {}
    quiet: Counter[str] = Counter()  # measurements of each case in which its peer was undisturbed
    failed: list[str] | None = None
    for number in range(MOST_ROUNDS):
        if number:
            time.sleep(pause)
        more = measure(failed)
        quiet.update(case for case in more if is_quiet(more[case][1], peers.get(case)))
        pool(measured, more)
        found = ratios_of(measured, peers)
        changes = compare(before, found, ratio_change)
        failed = [x.case for x in slower(changes, allowance) if quiet[x.case] < ATTEMPTS]
        if not failed:
            break
    return found


def measure_turns(names: list[str] | None = None) -> Turns:
    made = ratios.cases()
    measured: Turns = {}
    for case in made if names is None else names:
        measured[case] = ratios.timed(made[case](), SECONDS)
        print(f"  {case:<58} {ratios.quiet_ratio(*measured[case]):8.3g}", flush=True)
    return measured


def processor() -> str:
    """Name what ratios depend on: the model of the processor and the number of threads."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name") or platform.processor() or platform.machine()
    numbers = "/".join(fields[key] for key in ("cpu family", "model") if key in fields)
    return f"{name} {numbers}".strip() + f", {get_num_threads()} threads"


def record(path: Path) -> None:
    """Measure on this processor and with this compiler, and store both in the baseline."""
    measured: Turns = {}
    rounds = []
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}")
        more = measure_turns()
        rounds.append(ratios_of(more, {}))
        pool(measured, more)
    found = ratios_of(measured, {})
    peers = {case: ratios.undisturbed(theirs) for case, (_, theirs) in measured.items()}
    counts = instructions.count()
    empty: dict[str, dict[str, Any]] = {"ratios": {}, "peers": {}, "instructions": {}}
    baseline = json.loads(path.read_text()) if path.exists() else empty
    baseline["ratios"][processor()] = {case: float(f"{r:.4g}") for case, r in found.items()}
    baseline["peers"][processor()] = {case: float(f"{s:.4g}") for case, s in peers.items()}
    baseline["instructions"][instructions.compiler_version()] = counts
    path.write_text(json.dumps(baseline, indent=1) + "\n")
    spreads = {case: max(r[case] for r in rounds) / min(r[case] for r in rounds) for case in found}
    widest = max(spreads, key=spreads.__getitem__)
    print(f"recorded in {path}; rounds differ most for {widest}: by {spreads[widest]:.2f}")


def report(kind: str, changes: list[Change], allowance: float) -> list[str]:
    """Print the worst cases of one kind, and return a line for each that fails."""
    for each in changes[:5]:
        print(f"  {each.case:<58} {each.before:10.5g} -> {each.now:10.5g}  {each.slowdown:+.1%}")
    return [
        f"{kind}: {each.case} is {each.slowdown:.1%} slower "
        f"({each.before:.5g} before, {each.now:.5g} now, {allowance:.0%} allowed)"
        for each in slower(changes, allowance)
    ]


def check(path: Path, counts_only: bool = False) -> list[str]:
    """Measure and compare, and return a line for each case that fails."""
    baseline = json.loads(path.read_text())
    before_counts = baseline["instructions"].get(instructions.compiler_version())
    before_ratios = None if counts_only else baseline["ratios"].get(processor())
    if before_counts is None and before_ratios is None:
        wanted = [instructions.compiler_version()]
        if not counts_only:
            wanted.append(processor())
        raise SystemExit(
            f"{path} does not know {' nor '.join(map(repr, wanted))}: "
            "record them by `make bench-baseline`, at a revision whose speed is right"
        )
    failures = []
    if before_counts is None:
        print(f"instructions NOT compared: no counts of {instructions.compiler_version()!r}")
    else:
        counts = instructions.count()
        changes = compare(before_counts, counts, count_change)
        print(f"instructions: {len(changes)} cases, the worst:")
        failures += report("instructions", changes, COUNT_ALLOWANCE)
        failures += lost(before_counts, counts)
    if counts_only:
        return failures
    if before_ratios is None:
        print(f"ratios NOT compared: none of {processor()!r} (make bench-baseline records them)")
    else:
        print("ratios:")
        peers = baseline["peers"].get(processor(), {})
        found = persistent(before_ratios, measure_turns, peers, pause=PAUSE)
        changes = compare(before_ratios, found, ratio_change)
        print(f"ratios: {len(changes)} cases, the worst:")
        failures += report("ratio", changes, RATIO_ALLOWANCE)
        failures += lost(before_ratios, found)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--record", action="store_true", help="record instead of comparing")
    kind.add_argument("--counts", action="store_true", help="compare the instruction counts alone")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    options = parser.parse_args()
    if options.record:
        record(options.baseline)
        return
    failures = check(options.baseline, options.counts)
    for failure in failures:
        print(f"SLOWER  {failure}")
    if failures:
        raise SystemExit(1)
    print("nothing has become slower")


if __name__ == "__main__":
    main()
