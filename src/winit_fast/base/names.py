"""Finding a name among the known ones, and saying which one was probably meant."""

from collections.abc import Iterable

_FEW = 12
"""Names that an error lists all; of more it lists the nearest."""

_NEAREST = 5


def excerpt(value: object, limit: int = 80) -> str:
    """Show a value in an error: its repr, of which a long one loses its middle.

    Examples
    --------
    >>> excerpt("fan_in")
    "'fan_in'"
    >>> excerpt("1 + " * 1000, 20)
    "'1 + 1 + ... + 1 + '"
    """
    shown = repr(value)
    if len(shown) <= limit:
        return shown
    tail = (limit - 3) // 2
    return f"{shown[: limit - 3 - tail]}...{shown[-tail:]}"


def spelling(name: str) -> str:
    """Reduce the spellings of a name to one: case, underscores and hyphens do not matter.

    Examples
    --------
    >>> {spelling(name) for name in ("HeNormal", "he_normal", "he_normal_", "HE-NORMAL")}
    {'henormal'}
    """
    return name.lower().replace("_", "").replace("-", "")


def one_of(argument: str, value: object, known: Iterable[str]) -> str:
    """Read one of the known names.

    Examples
    --------
    >>> one_of("mode", ["fan_in"], ["fan_in", "fan_out"])
    Traceback (most recent call last):
    ValueError: mode must be one of fan_in, fan_out, got ['fan_in']; did you mean 'fan_in'?
    """
    known = list(known)
    if isinstance(value, str) and value in known:
        return str(value)
    raise ValueError(unknown(argument, value, known))


def unknown(argument: str, value: object, known: Iterable[str]) -> str:
    """Word the error for a value that is none of the known names.

    Parameters
    ----------
    argument : str
        The argument that carries the value, as the caller wrote it.
    value : object
        What was given.
    known : iterable of str
        The names that would have been right.

    Returns
    -------
    str
        A message with the value and the nearest known name; and with all of them if they are few,
        else with the nearest.

    Examples
    --------
    >>> unknown("mode", "fan_inn", ["fan_in", "fan_out"])
    "mode must be one of fan_in, fan_out, got 'fan_inn'; did you mean 'fan_in'?"
    >>> unknown("name", "w12", [f"w.{i}" for i in range(1000)])
    "name must be one of w.12, w.912, ... and 995 more, got 'w12'; did you mean 'w.12'?"
    """
    from difflib import get_close_matches  # only an error has a use for it

    known = list(known)
    nearest = get_close_matches(str(value), known, n=_NEAREST, cutoff=0.0)
    hint = f"; did you mean {excerpt(nearest[0])}?" if nearest else ""
    listed = known if len(known) <= _FEW else nearest
    more = f" and {len(known) - len(listed)} more" if len(listed) < len(known) else ""
    return f"{argument} must be one of {', '.join(listed)}{more}, got {excerpt(value)}{hint}"
