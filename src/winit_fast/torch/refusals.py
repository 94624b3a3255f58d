"""Modules that cannot be filled, such as sharded or quantised ones: an error names the tensor."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

from winit_fast.torch.names import Named
from winit_fast.torch.placements import is_sharded, parts

_PLAIN = {Tensor, Parameter}
"""Classes of tensors that are just memory, if nothing has been attached to them."""


def refuse(inside: list[tuple[str, Module]], found: Iterable[Named]) -> None:
    """Raise an error for a module with a tensor that cannot be filled.

    Raises
    ------
    TypeError, ValueError
    """
    summoned = False
    unusual = set(filter(_is_unusual, {type(one) for _, one in inside}))
    for name, one in inside if unusual else ():
        kind = type(one)
        if kind not in unusual:
            continue
        if kind.__name__ == "FullyShardedDataParallel":
            state = getattr(getattr(one, "training_state", None), "name", "")
            if state != "SUMMON_FULL_PARAMS":
                raise TypeError(
                    f"module {name!r} is FullyShardedDataParallel, whose parameters are parts of "
                    "a flat one: use init_ inside summon_full_params, or before wrapping"
                )
            summoned = True
        if is_gathered(one):
            raise TypeError(
                f"module {name!r} has gathered its parameters, and will drop them for its shards: "
                "call its reshard() first"
            )
        if ".nn.quantized" in kind.__module__:
            raise TypeError(f"module {name!r} is quantised: a {kind.__module__}.{kind.__name__}")
    for named in found:
        tensor = named.tensor
        if type(tensor) in _PLAIN and not vars(tensor) and not tensor.is_quantized:
            continue
        what = named.what
        if is_sharded(tensor):
            parts(tensor, what)  # raises if it is not a part of a logical tensor
            continue
        if is_lazy(tensor):
            raise ValueError(f"{what} has no shape yet: run the lazy module once")
        if getattr(tensor, "_fsdp_flattened", False) and not summoned:
            raise TypeError(
                f"{what} is a part of a flat parameter of FullyShardedDataParallel: pass the "
                "wrapped module inside summon_full_params, or use init_ before wrapping"
            )
        if hasattr(tensor, "ds_id"):
            raise TypeError(f"{what} is partitioned by ZeRO-3 (it has a ds_id): gather it first")
        if getattr(tensor, "tensor_model_parallel", False):
            raise TypeError(f"{what} is a shard of a tensor-parallel layer of Megatron")
        if tensor.is_quantized or hasattr(tensor, "quant_state"):
            raise TypeError(f"{what} is quantised: {tensor.dtype}")
        if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise TypeError(f"{what} is a {type(tensor).__name__}, which is not just memory")


def _is_unusual(kind: type[Module]) -> bool:
    """Return whether modules of a class may have to be refused."""
    return (
        kind.__name__ == "FullyShardedDataParallel"
        or hasattr(kind, "_get_fsdp_state")
        or ".nn.quantized" in kind.__module__
    )


def is_gathered(module: Any) -> bool:
    """Return whether a module of `fully_shard` has gathered its parameters."""
    if not hasattr(type(module), "_get_fsdp_state"):
        return False
    own = module._get_fsdp_state()
    groups = getattr(own, "_fsdp_param_groups", None) or [getattr(own, "_fsdp_param_group", None)]
    return any(group is not None and not group.is_sharded for group in groups)
