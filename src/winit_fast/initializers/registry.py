"""Finding an initializer by its name."""

from collections.abc import Mapping
from typing import Any

from winit_fast.base.names import spelling, unknown
from winit_fast.initializers.protocol import Initializer


def find(identifier: str) -> type[Initializer]:
    """Find the class of an initializer by any of the names that `get` accepts."""
    try:
        return Initializer._by_spelling[spelling(identifier)]
    except KeyError:
        raise ValueError(unknown("identifier", identifier, Initializer._registry)) from None


def get(identifier: str | Mapping[str, Any] | Initializer, **parameters: Any) -> Initializer:
    """Make an initializer from any name that PyTorch, Keras, JAX or this package uses for it.

    A name selects only the scheme. Parameters that are not given have the defaults of this package,
    not those of the framework: ``"normal_"`` is ``RandomNormal()``, with standard deviation 0.05.

    Parameters
    ----------
    identifier : str, mapping or Initializer
        For example ``"he_normal"``, ``"kaiming_normal_"``, ``"GlorotUniform"``. Case, underscores
        and hyphens do not matter. A mapping is ``{"class_name": ..., "config": ...}``, as in Keras
        and in `Initializer.get_config`. An initializer is returned as it is.
    **parameters
        The parameters of the initializer, if ``identifier`` is a name.

    Returns
    -------
    Initializer

    Raises
    ------
    ValueError
        If no initializer has that name.
    TypeError
        If the identifier has another type, if parameters are given and it is not a name, or if the
        initializer has no such parameter.

    Examples
    --------
    >>> get("xavier_uniform"), get("constant", value=0.5)
    (GlorotUniform(), Constant(value=0.5))
    >>> get({"class_name": "RandomNormal", "config": {"stddev": 0.02}})
    RandomNormal(stddev=0.02)
    >>> get("he_norml")
    Traceback (most recent call last):
    ValueError: identifier must be one of ...; did you mean 'he_normal'?
    """
    if isinstance(identifier, str):
        return find(identifier).from_config(parameters)
    if parameters:
        raise TypeError(
            f"parameters must not be given with an initializer object, got {parameters}"
        )
    if isinstance(identifier, Mapping) and isinstance(identifier.get("class_name"), str):
        config = identifier.get("config") or {}
        if isinstance(config, Mapping):
            return get(identifier["class_name"], **config)
    if not isinstance(identifier, Initializer):
        raise TypeError(
            'identifier must be a name, a mapping with "class_name" and "config", or an '
            f"initializer, got {identifier!r}"
        )
    return identifier
