"""The tensors of a module by qualified name, without the prefixes of wrappers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import Module

Names = Mapping[str, str] | Callable[[str], str]

_WRAPPERS = {
    "_orig_mod": {"OptimizedModule"},
    "module": {"DistributedDataParallel", "DataParallel", "DeepSpeedEngine"},
    "_checkpoint_wrapped_module": {"ActivationWrapper"},
    "_fsdp_wrapped_module": {"FullyShardedDataParallel"},
}
"""The attributes in which wrappers hold the wrapped module, with the classes of the wrappers."""


@dataclass(slots=True)
class Named:
    """One tensor of a module.

    Attributes
    ----------
    name : str
        Qualified name from the outermost module on, without the prefixes of wrappers.
    tensor : Tensor
    module : torch.nn.Module
        The module that has the tensor.
    attribute : str
        The tensor's attribute name in that module.
    is_parameter, is_persistent : bool
    """

    name: str
    tensor: Tensor
    module: Module
    attribute: str
    is_parameter: bool
    is_persistent: bool

    @property
    def what(self) -> str:
        return f"{'parameter' if self.is_parameter else 'buffer'} {self.name!r}"


def is_wrapper(module: Module, attribute: str) -> bool:
    """Return whether a module is only a wrapper of its submodule ``attribute``.

    Examples
    --------
    >>> import torch
    >>> is_wrapper(torch.nn.DataParallel(torch.nn.Linear(2, 2)), "module")
    True
    """
    known = _WRAPPERS.get(attribute)
    return known is not None and any(kind.__name__ in known for kind in type(module).__mro__)


def modules(module: Module, shared: bool = False) -> Iterator[tuple[str, Module]]:
    """Iterate over a module and its submodules, with their names, from the outside in.

    Parameters
    ----------
    module : torch.nn.Module
    shared : bool
        Whether a module with several names is yielded under each name, or once under its first.

    Examples
    --------
    >>> import torch
    >>> compiled = torch.compile(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    >>> [name for name, _ in modules(compiled)]
    ['', '', '0']
    """
    seen: set[int] = set()
    stack = [("", module)]
    while stack:
        name, one = stack.pop()
        if not shared:
            if id(one) in seen:
                continue
            seen.add(id(one))
        yield name, one
        inner = []
        for attribute, child in one._modules.items():
            if child is not None:
                if not is_wrapper(one, attribute):
                    inner.append((f"{name}.{attribute}" if name else attribute, child))
                else:
                    inner.append((name, child))
        stack += reversed(inner)


def unwrapped(module: Module) -> Module:
    """Return the module inside all wrappers."""
    for attribute, inner in module._modules.items():
        if inner is not None and is_wrapper(module, attribute):
            return unwrapped(inner)
    return module


def tensors(
    module: Module, shared: bool = False, inside: Iterable[tuple[str, Module]] | None = None
) -> list[Named]:
    """List the parameters and buffers of a module, each tensor object once.

    Parameters
    ----------
    module : torch.nn.Module
    shared : bool
        Whether a tensor that has several names comes under each.
    inside : iterable of (str, torch.nn.Module), optional
        What `modules` gives for the same arguments, where it is at hand.
    """
    found = []
    seen: set[int] = set()
    for name, one in modules(module, shared) if inside is None else inside:
        for held, is_parameter in ((one._parameters, True), (one._buffers, False)):
            if not held:
                continue
            for attribute, tensor in held.items():
                if tensor is None or (not shared and id(tensor) in seen):
                    continue
                seen.add(id(tensor))
                full = f"{name}.{attribute}" if name else attribute
                persistent = is_parameter or attribute not in one._non_persistent_buffers_set
                found.append(Named(full, tensor, one, attribute, is_parameter, persistent))
    return found


def streams(
    module: Module, found: list[Named], names: Names | None = None, prefix: str = ""
) -> dict[str, str]:
    """Determine the names of the tensors' streams.

    Parameters
    ----------
    module : torch.nn.Module
        The module that has the tensors.
    found : list of Named
    names : mapping of str to str, or callable, optional
        Maps the name of a tensor to that of its stream. Names that a mapping lacks are unchanged.
    prefix : str
        The name of the module in a larger one.

    Returns
    -------
    dict of str to str

    Raises
    ------
    TypeError
        If a name is not a str.
    ValueError
        If the mapping has a name that no tensor has, or two tensors get the same name.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, got {prefix!r}")
    own = [named.name for named in found]
    if names is None:
        start = f"{prefix.removesuffix('.')}." if prefix else _base_model_prefix(module)
        return {name: start + name for name in own}
    if isinstance(names, Mapping):
        strange = [name for name in names if name not in set(own)]
        if strange:
            raise ValueError(f"names must be of the module's tensors, got {strange[0]!r}")
        result = {name: names.get(name, name) for name in own}
    elif callable(names):
        result = {name: names(name) for name in own}
    else:
        raise TypeError(f"names must be a mapping or a function, got {names!r}")
    start = f"{prefix.removesuffix('.')}." if prefix else ""
    seen: dict[str, str] = {}
    for name, stream in result.items():
        if not isinstance(stream, str):
            raise TypeError(f"names must give a str, got {stream!r} for {name!r}")
        if seen.setdefault(stream, name) != name:
            raise ValueError(
                f"names must give every tensor a name of its own, got {stream!r} "
                f"for {seen[stream]!r} and {name!r}"
            )
    return {name: start + stream for name, stream in result.items()}


def _base_model_prefix(module: Module) -> str:
    """Return the prefix that a base model of transformers has inside models with a head.

    `save_pretrained` of a model with a head writes ``transformer.h.0...``, so the streams of the
    base model have that prefix too. Some families declare a prefix that none of their models uses.
    So the prefix applies only if the constructor of a model with a head sets that attribute. It
    does not apply if the model that generates text has the base model's children itself, as that
    of T5 has.
    """
    model: Any = unwrapped(module)
    prefix = getattr(model, "base_model_prefix", "")
    base = next((one for one in type(model).__mro__ if one.__name__ == "PreTrainedModel"), None)
    if not prefix or not isinstance(prefix, str) or base is None or prefix in model._modules:
        return ""
    if _generates(type(model)):
        return ""
    import sys

    found = ""
    home = sys.modules.get(type(model).__module__)
    for head in vars(home).values() if home is not None else ():
        if (
            isinstance(head, type)
            and issubclass(head, base)
            and head.__module__ == type(model).__module__
            and getattr(head, "base_model_prefix", None) == prefix
            and getattr(head, "config_class", None) is getattr(model, "config_class", None)
        ):
            sets = getattr(head.__init__, "__wrapped__", head.__init__).__code__.co_names
            if prefix in sets:
                found = f"{prefix}."
            elif _generates(head) and set(model._modules).issubset(sets):
                return ""
    return found


def _generates(kind: type) -> bool:
    return any(one.__name__ == "GenerationMixin" for one in kind.__mro__)
