"""Configurations with quantization_config: which tensors are float8, and their scales.

transformers itself replaces the layers, in the model that has no memory. So the layers, the names
and the shapes are those that it loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from winit_fast.base.names import excerpt
from winit_fast.models.float8 import quantised
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import TensorSpec

SETTING = "quantization_config"

_ALLOWED: dict[str, tuple[Any, ...]] = {
    "quant_method": ("fp8",),
    "fmt": ("e4m3", None),
    "activation_scheme": ("dynamic",),  # static scales are measured, not drawn
    "scale_fmt": ("float", None),
    "expert_dtype": ("fp8", None),
}
"""The values that are made, of the settings that change the tensors. The first is the default."""


class Scales(NamedTuple):
    """The scales of one tensor that becomes float8.

    Attributes
    ----------
    name : str
        The name of the tensor of scales.
    shape : tuple of int
    """

    name: str
    shape: tuple[int, ...]


def taken(content: dict[str, Any], shown: str) -> dict[str, Any] | None:
    """Take the quantization out of a configuration, and refuse one whose tensors are not made.

    Parameters
    ----------
    content : dict
        The content of config.json. Its quantization_config is removed.
    shown : str
        What errors call the configuration.

    Returns
    -------
    dict or None
        The quantization_config, if there is one.

    Raises
    ------
    ValueError
        If it is of another method than float8 with one scale for each block or tensor, or is that
        of a part of the model.
    """
    for name, part in content.items():
        if isinstance(part, Mapping) and part.get(SETTING) is not None:
            raise ValueError(
                f"{name} of {shown} has {SETTING}={excerpt(part[SETTING], 200)}: quantised weights "
                f"are made if {SETTING} is that of the whole model"
            )
    setting = content.pop(SETTING, None)
    if setting is None:
        return None
    given = setting.to_dict() if callable(getattr(setting, "to_dict", None)) else setting
    if not isinstance(given, Mapping):
        raise ValueError(f"{SETTING} of {shown} must be a mapping, got {excerpt(given)}")
    if given.get("quant_method") != "fp8":
        raise ValueError(
            f"{shown} has {SETTING}={excerpt(dict(given), 200)}: quantised weights are made for "
            f"quant_method 'fp8', got {excerpt(given.get('quant_method'))}; remove it to get the "
            "weights that are quantised"
        )
    for name, allowed in _ALLOWED.items():
        if given.get(name, allowed[0]) not in allowed:
            raise ValueError(
                f"{name} of {SETTING} of {shown} must be {allowed[0]!r}, got {excerpt(given[name])}"
            )
    return dict(given)


def scales(
    model: Any, setting: Mapping[str, Any], keys: Mapping[str, Iterable[Any]]
) -> tuple[dict[str, Scales], dict[str, Scales]]:
    """Let transformers replace the layers of a model, and read which tensors are float8.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Without memory. Its layers are replaced.
    setting : mapping
        The quantization_config, which `taken` has checked.
    keys : mapping of str to iterable of Key
        The keys of tensors that are saved in parts: see ``winit_fast.torch.saved_names``.

    Returns
    -------
    in_module, in_files : dict of str to Scales
        By the names of the tensors in the module, and in files.

    Raises
    ------
    ValueError
        If no layer is replaced, or one by a layer of another shape.
    """
    import torch
    from transformers import FineGrainedFP8Config
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

    before = dict(model.named_parameters(remove_duplicate=False))
    shapes = {name: tuple(tensor.shape) for name, tensor in before.items()}
    # what it says of loading, dequantize, has no effect on the files
    config = FineGrainedFP8Config(**{**setting, "dequantize": False})
    quantizer = FineGrainedFP8HfQuantizer(config, pre_quantized=True)
    quantizer._process_model_before_weight_loading(model)
    block = config.weight_block_size
    own = dict(model.named_parameters(remove_duplicate=False))
    in_module: dict[str, Scales] = {}
    in_files: dict[str, Scales] = {}
    for name, parameter in own.items():
        if parameter.dtype != torch.float8_e4m3fn:
            continue
        if tuple(parameter.shape) != shapes.get(name):
            raise ValueError(
                f"{name} has shape {tuple(parameter.shape)} in float8, in the model "
                f"{shapes.get(name)}: such layers are not made"
            )
        suffix = next(end for end in ("_scale_inv", "_scale") if name + end in own)
        whole = in_module[name] = Scales(name + suffix, tuple(own[name + suffix].shape))
        if name not in keys:
            in_files[name] = whole
            continue
        for key in keys[name]:
            is_whole = key.shape == shapes[name]
            shape = whole.shape if is_whole else _blocks(key.shape, block)
            in_files[key.key] = Scales(key.key + suffix, shape)
    if not in_module:
        raise ValueError(f"{SETTING} applies to no layer: none is linear, or all are excepted")
    return in_module, in_files


def _blocks(shape: tuple[int, ...], block: Iterable[int] | None) -> tuple[int, ...]:
    """Count the blocks of a tensor that is one of several in a tensor of the module."""
    if block is None:
        return (*shape[:-2], 1, 1)
    sizes = zip(shape[-2:], block, strict=True)
    return (*shape[:-2], *(-(-size // step) for size, step in sizes))


def in_float8(plan: Plan, found: Mapping[str, Scales]) -> Plan:
    """Give a plan's tensors float8, each followed by its scales.

    Parameters
    ----------
    plan : winit_fast.Plan
    found : mapping of str to Scales

    Returns
    -------
    winit_fast.Plan

    Raises
    ------
    ValueError
        If a tensor is shared with a layer that is not float8, or has no known bound.
    """
    for name in found:
        tensor = plan[name]
        if tensor.name != name or tensor.tied:
            raise ValueError(
                f"{name} is float8 by {SETTING}, but tied to others ({tensor.name!r}, "
                f"{', '.join(map(repr, tensor.tied))}): modules_to_not_convert must have its module"
            )
    tensors: list[TensorSpec] = []
    for tensor in plan:
        own = found.get(tensor.name)
        tensors += [tensor] if own is None else quantised(tensor, *own)
    return Plan(tensors)
