"""Names in error messages: the one that was probably meant, and the place of an error."""

from collections.abc import Iterable
from itertools import islice

_FEW = 12
"""An error lists all known names up to this number; of more it lists the most similar."""

_NEAREST = 5

_ALIKE = 0.5
"""From this similarity on, a name is suggested: difflib's ratio, at most 1."""

_COMPARED = 5000
"""Most names that are compared with an unknown one: more would take seconds."""


def excerpt(value: object, limit: int = 80) -> str:
    """Return the repr of a value for an error message, with the middle of a long one left out.

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


def located(error: TypeError | ValueError, where: str) -> TypeError | ValueError:
    """Return an error of the same kind whose message begins with the place of the error.

    Examples
    --------
    >>> located(TypeError("stddev must be a number, got 'x'"), "tensor 'w'")
    TypeError("tensor 'w': stddev must be a number, got 'x'")
    """
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{where}: {error}")


def spelling(name: str) -> str:
    """Normalise a name: case, underscores and hyphens do not matter.

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


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """List the names that are most similar to an unknown one, as the end of an error message.

    If only one name is known, it need not be similar.

    Examples
    --------
    >>> nearest("fc.wieght", ["fc.weight", "out.weight", "head.alpha"])
    "; did you mean 'fc.weight' or 'out.weight'?"
    >>> nearest("x", ["fc.weight", "fc.bias"])
    ''
    """
    from difflib import get_close_matches  # needed only for an error, so not imported at the top

    compared = list(islice(known, _COMPARED))
    similar = get_close_matches(name, compared, most, _ALIKE if len(compared) > 1 else 0.0)
    return f"; did you mean {' or '.join(map(excerpt, similar))}?" if similar else ""


def tied(argument: str, pattern: str, name: str, first: str) -> str:
    """Compose the error message for a pattern that matches only a later name of a tied tensor.

    Examples
    --------
    >>> tied("rules", "head.*", "head.weight", "embed.weight")
    "rules has 'head.*' for 'head.weight', which is tied to 'embed.weight': use that name"
    """
    shown = repr(name) if pattern == name else f"{pattern!r} for {name!r}"
    return f"{argument} has {shown}, which is tied to {first!r}: use that name"


def unknown(argument: str, value: object, known: Iterable[str]) -> str:
    """Compose the error message for a value that is not one of the known names.

    Parameters
    ----------
    argument : str
        The name of the argument.
    value : object
        The value that was given.
    known : iterable of str
        The valid names.

    Returns
    -------
    str
        A message with the value, the most similar name if it is similar at all or the only one, and
        all valid names if they are few, or else the most similar ones.

    Examples
    --------
    >>> unknown("mode", "fan_inn", ["fan_in", "fan_out"])
    "mode must be one of fan_in, fan_out, got 'fan_inn'; did you mean 'fan_in'?"
    >>> unknown("name", "w12", [f"w.{i}" for i in range(1000)])
    "name must be one of w.12, w.912, ... and 995 more, got 'w12'; did you mean 'w.12'?"
    """
    from difflib import get_close_matches  # needed only for an error, so not imported at the top

    known = list(known)
    most_similar = get_close_matches(str(value), known, n=_NEAREST, cutoff=0.0)
    hint = nearest(str(value), most_similar, most=1)
    listed = known if len(known) <= _FEW else most_similar
    more = f" and {len(known) - len(listed)} more" if len(listed) < len(known) else ""
    return f"{argument} must be one of {', '.join(listed)}{more}, got {excerpt(value)}{hint}"
