"""Finding a name among the known ones, and saying which one was probably meant."""

from collections.abc import Iterable


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
        A message with the value, the nearest known name and all of them.

    Examples
    --------
    >>> unknown("mode", "fan_inn", ["fan_in", "fan_out"])
    "mode must be one of fan_in, fan_out, got 'fan_inn'; did you mean 'fan_in'?"
    """
    from difflib import get_close_matches  # only an error has a use for it

    known = list(known)
    nearest = get_close_matches(str(value), known, n=1, cutoff=0.0)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"{argument} must be one of {', '.join(known)}, got {value!r}{hint}"
