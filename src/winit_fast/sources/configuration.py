"""Configurations of Hugging Face: the plan is recorded from the initialisation of transformers.

The model is built without memory and never with code from elsewhere: ``auto_map`` is not followed,
nothing is asked and nothing is loaded over the network.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winit_fast.base import dtypes
from winit_fast.base.arguments import path as path_argument
from winit_fast.base.files import regular_file
from winit_fast.base.names import excerpt, one_of, unknown
from winit_fast.models.plan import Plan
from winit_fast.sources import quantization

FILE = "config.json"
GENERATION = "generation_config.json"

_FLOATS = ("float64", "float32", "float16", "bfloat16")
"""The types in which torch builds modules."""

_HEADS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)
"""Where transformers lists classes by model type. The first that has one is taken."""


@dataclass(frozen=True)
class Recorded:
    """A model that was recorded.

    Attributes
    ----------
    name : str
        Name of the model's class.
    plan : winit_fast.Plan
        The tensors of the module.
    saved : winit_fast.Plan
        The tensors as ``save_pretrained`` writes them.
    dtype : str
        Type of the configuration.
    texts : dict of str to str
        config.json, and generation_config.json for a model that generates.
    by : str
        The library, with its version.
    """

    name: str
    plan: Plan
    saved: Plan
    dtype: str
    texts: dict[str, str]
    by: str


def from_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | Any,
    *,
    form: str = "checkpoint",
    **settings: Any,
) -> Plan:
    """Record the initialisation that transformers defines for a configuration, as a plan.

    No memory is used for the weights, and no numbers are drawn. Only the code of the installed
    transformers is run: ``auto_map`` is not followed.

    Parameters
    ----------
    config : path, str, mapping or transformers.PreTrainedConfig
        A config.json, a folder that has one, its content, a configuration, or a model type such as
        ``"llama"``, with the sizes that transformers has for it.
    form : {"checkpoint", "module"}
        The tensors as ``save_pretrained`` writes them, for
        `winit_fast.checkpoint.write_checkpoint`; or as they are in the module, for
        ``winit_fast.torch.fill_``. They differ in models that fuse tensors, such as the experts
        of a layer. Both have the same bits.
    **settings
        Other values of the configuration, such as ``num_hidden_layers=2``, ``dtype="bfloat16"`` or
        ``architectures=["LlamaForSequenceClassification"]``. If there are no ``architectures``, the
        class is the language model of that type, or else its base model.

    Returns
    -------
    winit_fast.Plan
        In the dtype of the configuration, float32 if it has none. Tensors that transformers keeps
        in float32 are float32. If the quantization_config is float8 ("fp8"), weights of linear
        layers and experts are float8_e4m3fn, each followed by its scales.

    Raises
    ------
    ImportError
        If torch or transformers is not installed.
    ValueError, TypeError
        If transformers has no such model or cannot make it, or a setting does not exist, or the
        quantization is another one.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import winit_fast as wf
    >>> plan = wf.models.from_config("llama", num_hidden_layers=2)
    >>> plan["model.layers.0.mlp.up_proj.weight"].initializer
    RandomNormal(stddev=0.02)
    """
    one_of("form", form, ("checkpoint", "module"))
    if isinstance(config, Mapping):
        recorded_model = recorded(dict(config), "config", settings)
    elif isinstance(config, (str, os.PathLike)):
        text = path_argument("config", config)
        file = Path(text) / FILE if Path(text).is_dir() else Path(text)
        if file.suffix == ".json":
            recorded_model = recorded(read(file), str(file), settings)
        else:
            recorded_model = recorded({"model_type": text}, "config", settings)
    elif callable(getattr(config, "to_dict", None)):
        recorded_model = recorded(config.to_dict(), "config", settings)
    else:
        raise TypeError(f"config must be a path, a model type or a configuration, got {config!r}")
    return recorded_model.saved if form == "checkpoint" else recorded_model.plan


def read(file: Path) -> dict[str, Any]:
    """Read a JSON file, which may have infinite numbers, in the forms that transformers writes.

    Raises
    ------
    ValueError
        If it does not hold a JSON object.
    OSError
        If it cannot be read.
    """
    with regular_file(str(file)) as opened:
        data = opened.read()
    try:
        content = json.loads(data.decode(), object_hook=_number)
        if not isinstance(content, dict):
            raise TypeError(f"it holds {content!r:.200}")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no configuration: {error}") from None
    return content


def _number(value: dict[str, Any]) -> Any:
    """Convert ``{"__float__": "Infinity"}`` to a number."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def recorded(
    content: dict[str, Any], shown: str, settings: Mapping[str, Any] | None = None
) -> Recorded:
    """Build the model of a configuration without memory, and record its initialisation.

    Parameters
    ----------
    content : dict
        The content of config.json.
    shown : str
        What errors call it.
    settings : mapping, optional
        Other values, which must be of the configuration.

    Returns
    -------
    Recorded
    """
    try:
        import torch
        import transformers

        from winit_fast.torch.names import tensors
        from winit_fast.torch.plans import record
        from winit_fast.torch.saved_names import as_saved, saved_keys
    except ImportError as error:
        raise ImportError(
            f"a configuration needs torch and transformers, and {error.name} is not installed: "
            "pip install torch transformers"
        ) from error
    content = deepcopy(content | dict(settings or {}))
    quantized = quantization.taken(content, shown)
    config = _configuration(transformers, content, shown)
    dtype = _dtype(config, shown)
    kind = _class_of(transformers, config, shown)
    _refuse_idle(settings or {}, config, kind)
    made: list[Any] = []

    def make() -> Any:
        with torch.device("meta"):
            model = kind._from_config(config, dtype=getattr(torch, dtype))
        made.append(model)
        return model

    try:
        with _offline():
            plan = record(make)
    except Exception as error:  # of the model's own code, which may raise anything
        raise ValueError(
            f"{shown}: the initialisation of {kind.__name__} cannot be recorded: "
            f"{type(error).__name__}: {error}"
        ) from error
    model = made[-1]
    plan = _kept_in_float32(plan, model, dtype)
    saved = as_saved(plan, model)
    config.architectures = [kind.__name__]
    config.dtype = dtype
    generates = model.can_generate()
    if quantized is not None:
        keys = saved_keys(model, tensors(model))
        try:
            in_module, in_files = quantization.scales(model, quantized, keys)
        except Exception as error:  # of the code of transformers, as above
            raise ValueError(
                f"{shown}: the layers of {kind.__name__} cannot be float8: "
                f"{type(error).__name__}: {error}"
            ) from error
        plan = quantization.in_float8(plan, in_module)
        saved = quantization.in_float8(saved, in_files)
        config.quantization_config = quantized
    texts = {FILE: config.to_json_string()}
    if generates:
        texts[GENERATION] = model.generation_config.to_json_string()
    by = f"transformers {transformers.__version__}"
    return Recorded(kind.__name__, plan, saved, dtype, texts, by)


def _configuration(transformers: Any, content: dict[str, Any], shown: str) -> Any:
    """Make the configuration's object; takes from the content what is not for it."""
    known = transformers.CONFIG_MAPPING
    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise ValueError(f"{shown} must have a model_type, got {excerpt(model_type)}")
    if model_type not in known:
        custom = " (code of its own, auto_map, is not run)" if "auto_map" in content else ""
        raise ValueError(unknown(f"model_type of {shown}", model_type, list(known)) + custom)
    kind = known[model_type]
    content.pop("auto_map", None)
    content.pop("attn_implementation", None)  # which may need a package, and draws nothing
    content.pop("_attn_implementation", None)
    try:
        return kind.from_dict(content)
    except Exception as error:  # of the configuration's own code
        raise ValueError(f"{shown} is no configuration of {model_type}: {error}") from error


def _refuse_idle(settings: Mapping[str, Any], config: Any, kind: Any) -> None:
    """Refuse a setting that neither the configuration nor the code of the model mentions."""
    own = type(config)
    names = {*vars(own()), *own.attribute_map, *own.sub_configs, "dtype", "architectures"}
    names.add(quantization.SETTING)
    for name in settings:
        if name in names:
            continue
        code = inspect.getsource(sys.modules[kind.__module__])
        if not re.search(rf"\b{re.escape(name)}\b", code):
            raise TypeError(unknown(f"settings of {config.model_type}", name, sorted(names)))


def _dtype(config: Any, shown: str) -> str:
    """Find the type of a configuration, also where only its parts have one."""
    given = getattr(config, "dtype", None)
    if given is None and hasattr(config, "get_text_config"):
        given = getattr(config.get_text_config(), "dtype", None)
    if given is None:
        return "float32"
    name = dtypes.find(given).name
    if name not in _FLOATS:
        raise ValueError(f"dtype of {shown} must be one of {', '.join(_FLOATS)}, got {name!r}")
    return name


def _class_of(transformers: Any, config: Any, shown: str) -> Any:
    """Find the class of a configuration's model."""
    architectures = config.architectures
    if architectures:
        name = architectures[0] if isinstance(architectures, list) else architectures
        kind = getattr(transformers, name, None) if isinstance(name, str) else None
        if not isinstance(kind, type) or not hasattr(kind, "_from_config"):
            raise ValueError(
                f"architectures of {shown} must be of transformers {transformers.__version__} "
                f"(other code is not run), got {excerpt(architectures)}"
            )
        fitting = getattr(kind, "config_class", None)
        if isinstance(fitting, type) and not isinstance(config, fitting):
            raise ValueError(
                f"architectures of {shown} must fit model_type {config.model_type!r}, got "
                f"{excerpt(architectures)}"
            )
        return kind
    modeling = transformers.models.auto.modeling_auto
    for heads in _HEADS:
        name = getattr(modeling, heads, {}).get(config.model_type)
        if isinstance(name, str) and hasattr(transformers, name):
            return getattr(transformers, name)
    raise ValueError(
        f"{shown} must have architectures: transformers lists no model of type "
        f"{config.model_type!r}"
    )


def _kept_in_float32(plan: Plan, model: Any, dtype: str) -> Plan:
    """Give float32 to the tensors that transformers keeps in it whatever the model's dtype is."""
    import torch
    from transformers.core_model_loading import build_glob_alternation

    kept = model._get_dtype_plan(getattr(torch, dtype))
    if not kept:
        return plan
    pattern = build_glob_alternation(list(kept))[0]
    return Plan(
        replace(tensor, dtype="float32")
        if tensor.dtype in dtypes.NAMES and pattern.search(tensor.name)
        else tensor
        for tensor in plan
    )


@contextmanager
def _offline() -> Iterator[None]:
    """Keep Hugging Face's libraries off the network, also where a model's constructor asks them."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
