"""Reading JSON from other sources: an object in UTF-8 without duplicate names."""

import json
from collections import Counter
from typing import Any


def read(text: bytes, fault: str) -> dict[str, Any]:
    """Read an object.

    Parameters
    ----------
    text : bytes
    fault : str
        The beginning of the error message, which names the file and the expected content.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the text is not a JSON object in UTF-8, or has a duplicate name.

    Examples
    --------
    >>> read(b'{"a": 1, "a": 2}', "w.json is no plan")
    Traceback (most recent call last):
    ValueError: w.json is no plan: 'a' occurs twice
    """
    try:
        content = json.loads(
            text.decode(), object_pairs_hook=_without_repetition, parse_constant=_no_number
        )
        if not isinstance(content, dict):
            raise TypeError(f"it holds {content!r:.200}")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{fault}: {error}") from None
    return content


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r:.200} occurs twice")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
