"""The leaves of a pytree by name."""

from typing import Any, NamedTuple

import jax

_BOXES = {"Variable", "AxisMetadata"}
"""Flax' classes that hold an array and what is known of it."""


class Leaf(NamedTuple):
    """One leaf of a pytree.

    Attributes
    ----------
    name : str
        The keys of the path, joined by slashes.
    value : object
        An array, a ``jax.ShapeDtypeStruct``, or anything else.
    """

    name: str
    value: Any

    @property
    def is_array(self) -> bool:
        """Whether the leaf has a shape and a dtype."""
        return hasattr(self.value, "shape") and hasattr(self.value, "dtype")

    @property
    def has_values(self) -> bool:
        """Whether the leaf holds more than a shape and a dtype."""
        return not isinstance(self.value, jax.ShapeDtypeStruct)


def leaves(tree: Any) -> list[Leaf]:
    """List the leaves of a pytree in JAX's order, with names.

    A Variable or a box of Flax adds nothing to the name of the array that it holds.

    Parameters
    ----------
    tree : pytree

    Returns
    -------
    list of Leaf

    Raises
    ------
    ValueError
        If two leaves get the same name, or one Variable has several places.

    Examples
    --------
    >>> [leaf.name for leaf in leaves({"layers": [{"kernel": 1}, {"kernel": 2}]})]
    ['layers/0/kernel', 'layers/1/kernel']
    """
    found: list[Leaf] = []
    places: dict[int, str] = {}
    for keys, node in _flat(tree, ()):
        name = "/".join(keys)
        if _is_box(node) and places.setdefault(id(node), name) != name:
            raise ValueError(
                f"tree must hold every Variable once, got one as {places[id(node)]!r} and "
                f"{name!r}: give nnx.state(model), and merge the result with nnx.split's graph"
            )
        for more, value in _flat(_opened(node), ()) if _is_box(node) else [((), node)]:
            found.append(Leaf("/".join((*keys, *more)), value))
    seen: set[str] = set()
    for leaf in found:
        if leaf.name in seen:
            raise ValueError(
                f"tree must give every leaf a name of its own, got {leaf.name!r} twice"
            )
        seen.add(leaf.name)
    return found


def _flat(tree: Any, keys: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_box)
    return [((*keys, *(_text(key) for key in path)), node) for path, node in nodes]


def _opened(box: Any) -> Any:
    """The content of a box, and of the boxes in it."""
    (content,) = jax.tree_util.tree_leaves(box, is_leaf=lambda node: node is not box)
    return _opened(content) if _is_box(content) else content


def _is_box(node: Any) -> bool:
    return any(
        kind.__name__ in _BOXES and kind.__module__.startswith("flax.")
        for kind in type(node).__mro__
    )


def _text(key: Any) -> str:
    """The key of a dict, the number in a list or the name of an attribute."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
