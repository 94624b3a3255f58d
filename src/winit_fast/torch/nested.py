"""What is nested in the arguments of an operation of torch: found, or replaced."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def instances(kind: type[T], arguments: Any) -> Iterator[T]:
    """Find the objects of a type in lists, tuples and dicts, in order.

    Examples
    --------
    >>> list(instances(int, (1, {"dims": [2, "no", (3,)]})))
    [1, 2, 3]
    """
    if isinstance(arguments, kind):
        yield arguments
    elif isinstance(arguments, dict):
        for item in arguments.values():
            yield from instances(kind, item)
    elif isinstance(arguments, (list, tuple)):
        for item in arguments:
            yield from instances(kind, item)


def replaced(kind: type[T], function: Callable[[T], Any], arguments: Any) -> Any:
    """Replace the objects of a type by those that a function makes of them.

    Examples
    --------
    >>> replaced(int, str, (1, {"dims": [2, None, (3,)]}))
    ('1', {'dims': ['2', None, ('3',)]})
    """
    if isinstance(arguments, kind):
        return function(arguments)
    if isinstance(arguments, dict):
        return {key: replaced(kind, function, item) for key, item in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        return type(arguments)([replaced(kind, function, item) for item in arguments])
    return arguments
