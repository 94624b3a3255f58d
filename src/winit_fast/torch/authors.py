"""Finds the author's code that initialises a module: for the whole model, or module by module."""

import inspect
from collections.abc import Callable, Iterator

from torch.nn import Module

WHOLE_MODEL = "initialize_weights", "init_states", "init_weights"
"""Methods that initialise a whole model: of transformers, torchtitan, and timm and torchvision."""

RESET = "reset_parameters", "_reset_parameters"
"""Methods that initialise a module's own tensors; the second is that of torch's attention."""


def whole_model_methods(module: Module) -> list[Callable[[], object]]:
    """List the whole-model methods of the outermost modules that have one."""
    found: list[Callable[[], object]] = []
    stack, seen = [module], set()
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        method = _whole_model_method(one)
        if method is not None:
            found.append(method)
        else:
            stack += reversed([child for child in one._modules.values() if child is not None])
    return found


def _whole_model_method(module: Module) -> Callable[[], object] | None:
    for name in WHOLE_MODEL:
        if callable(getattr(type(module), name, None)):
            method: Callable[[], object] = getattr(module, name)
            try:
                inspect.signature(method).bind()
            except TypeError:  # with arguments: it initialises only a part of the model
                continue
            return method
    return None


def resets(
    inside: list[tuple[str, Module]], owners: set[Module] | None
) -> Iterator[Callable[[], object]]:
    """List the methods that reset modules, inner modules first, as in construction.

    With owners given, only the methods of these and of the modules that contain them.
    """
    wanted = None if owners is None else {id(owner) for owner in owners}
    for _, one in reversed(inside):
        if wanted is not None and not _has_any(one, wanted):
            continue
        for name in RESET:
            method = getattr(one, name, None)
            if callable(method):
                yield method
                break


def _has_any(module: Module, wanted: set[int]) -> bool:
    """Return whether a module is wanted or contains a wanted one, and mark it as wanted then."""
    if id(module) in wanted:
        return True
    if any(child is not None and id(child) in wanted for child in module._modules.values()):
        wanted.add(id(module))
        return True
    return False
