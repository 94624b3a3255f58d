"""PyTorch: the functions of ``torch.nn.init`` with this package's kernels, and whole modules.

Four ways to use it, from the least change to the most control:

- ``with winit_fast.torch.fast_init():`` around ``model = Model()``: the same code, faster.
- ``import winit_fast.torch as init`` in place of ``from torch.nn import init``: the same functions
  and arguments. The additional arguments ``seed=`` and ``name=`` select the frozen stream.
- ``winit_fast.torch.init_(model, rules, seed=0)``: each parameter from the stream of its own name.
- ``winit_fast.torch.record(lambda: Model(config))`` and ``fill_(model, plan, seed=0)``: the same
  by way of a `winit_fast.Plan`, which can be printed, changed and written to a file.

Functions that are not random (``constant_``, ``ones_``, ``zeros_``, ``eye_``, ``calculate_gain``)
are torch's own.
"""

try:
    import torch  # noqa: F401  # PyTorch itself, since imports are absolute
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "winit_fast.torch needs PyTorch, which is not installed: pip install 'winit_fast[torch]'"
    ) from error

from winit_fast.torch.dcp import write_dcp
from winit_fast.torch.init import (
    calculate_gain,
    constant,
    constant_,
    dirac,
    dirac_,
    eye,
    eye_,
    kaiming_normal,
    kaiming_normal_,
    kaiming_uniform,
    kaiming_uniform_,
    normal,
    normal_,
    ones_,
    orthogonal,
    orthogonal_,
    sparse,
    sparse_,
    trunc_normal_,
    uniform,
    uniform_,
    xavier_normal,
    xavier_normal_,
    xavier_uniform,
    xavier_uniform_,
    zeros_,
)
from winit_fast.torch.mode import fast_init
from winit_fast.torch.modules import init_
from winit_fast.torch.plans import fill_, record
from winit_fast.torch.reinit import reinit_
from winit_fast.torch.state_dicts import state_dict
from winit_fast.torch.verification import ModuleVerification, verify_

__all__ = [
    "ModuleVerification",
    "calculate_gain",
    "constant",
    "constant_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "fast_init",
    "fill_",
    "init_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "record",
    "reinit_",
    "sparse",
    "sparse_",
    "state_dict",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "verify_",
    "write_dcp",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]
