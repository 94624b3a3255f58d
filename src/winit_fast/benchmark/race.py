"""Races: contestants take turns in one process, so that noise of the machine affects all alike."""

import statistics
import time
from collections.abc import Callable, Sequence

Contestant = Callable[[], object]

_MOST_TURNS = 2000


def turns(
    contestants: Sequence[Contestant], seconds: float, least: int = 3, pause: float = 0.0
) -> list[list[float]]:
    """Time contestants in turns, after one untimed warm-up call of each.

    Parameters
    ----------
    contestants : sequence of callable
    seconds : float
        No further round begins once all contestants together have run for this time.
    least : int
        Fewest rounds, however long they take.
    pause : float
        Pause before each turn in seconds, which does not count towards ``seconds``. The contestant
        before may still return memory to the system, or have threads that spin before they sleep.

    Returns
    -------
    list of list of float
        The seconds of every turn of each contestant.

    Examples
    --------
    >>> [len(times) for times in turns([list, dict], seconds=0, least=4)]
    [4, 4]
    """
    times: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant()
    spent = 0.0
    while len(times[0]) < least or (spent < seconds and len(times[0]) < _MOST_TURNS):
        for contestant, taken in zip(contestants, times, strict=True):
            if pause:
                time.sleep(pause)
            start = time.perf_counter()
            contestant()
            taken.append(time.perf_counter() - start)
            spent += taken[-1]
    return times


def interleaved(
    contestants: Sequence[Contestant], seconds: float, least: int = 3, pause: float = 0.0
) -> list[float]:
    """Return the median seconds of each contestant; arguments as in `turns`."""
    return [statistics.median(taken) for taken in turns(contestants, seconds, least, pause)]


def repeated(contestant: Contestant, times: int) -> Contestant:
    """Make a contestant that calls another several times, if one call is too short to time."""
    if times == 1:
        return contestant

    def loop() -> None:
        for _ in range(times):
            contestant()

    return loop
