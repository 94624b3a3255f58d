"""Compute who fills what in fast_init: each function of torch.nn.init, type, layout, call and mode.

``python tests/frameworks/cells.py`` writes docs/fast_init.md; a test computes the table again.
"""

import logging
import sys
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import winit_fast.torch as ours
from winit_fast.base import dtypes
from winit_fast.torch.entries import LANDINGS, originals

PAGE = Path(__file__).parents[2] / "docs" / "fast_init.md"
TORCH = originals()
CASES = {
    "uniform_": {"a": -2.0, "b": 3.0},
    "normal_": {"mean": 1.0, "std": 2.0},
    "trunc_normal_": {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 1.5},
    "constant_": {"val": 3.0},
    "dirac_": {"groups": 2},
    "xavier_uniform_": {"gain": 1.5},
    "xavier_normal_": {"gain": 1.5},
    "kaiming_uniform_": {"a": 0.5, "mode": "fan_out"},
    "kaiming_normal_": {"nonlinearity": "relu"},
    "orthogonal_": {"gain": 1.5},
    "sparse_": {"sparsity": 0.3, "std": 2.0},
}
FLOATS = list(dtypes.NAMES)
TYPES = [*FLOATS, "complex64", "complex128", "int32", "qint8"]


class Sub(torch.Tensor):
    """A tensor subclass with torch functions of its own."""


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def zeros(shape, dtype):
    if dtype == torch.qint8:
        return torch.quantize_per_tensor(torch.zeros(shape), 0.5, 0, dtype)
    return torch.zeros(shape, dtype=dtype)


LAYOUTS = {
    "contiguous": zeros,
    "transposed": lambda shape, dtype: zeros(shape[::-1], dtype).permute(
        *reversed(range(len(shape)))
    ),
    "with gaps": lambda shape, dtype: zeros((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2],
    "overlapping": lambda shape, dtype: zeros((1, *shape[1:]), dtype).expand(shape),
    "sparse": lambda shape, dtype: zeros(shape, dtype).to_sparse(),
    "meta": lambda shape, dtype: torch.empty(shape, dtype=dtype, device="meta"),
    "subclass": lambda shape, dtype: zeros(shape, dtype).as_subclass(Sub),
}


@contextmanager
def replaced(by):
    """Bind the names of torch.nn.init to other functions inside `with`."""
    try:
        for name, function in TORCH.items():
            setattr(torch.nn.init, name, by(name, function))
        yield
    finally:
        for name, function in TORCH.items():
            setattr(torch.nn.init, name, function)


PATHS = {
    "plain": nullcontext,
    "saved, with the names emptied": lambda: replaced(lambda name, own: lambda *a, **k: None),
    "wrapped": lambda: replaced(lambda name, own: lambda *a, **k: own(*a, **k)),
}


def call(path, name, tensor, arguments):
    """Call a function through a saved reference, or by the name that torch.nn.init has now."""
    function = getattr(torch.nn.init, name) if path == "wrapped" else TORCH[name]
    return function(tensor, **arguments)


def faked(fill, tensor):
    with FakeTensorMode() as mode:
        return fill(mode.from_tensor(tensor))


def dispatched(fill, tensor):
    with Passing():
        return fill(tensor)


WATCHERS = {
    "jit.trace": lambda fill, tensor: torch.jit.trace(
        lambda x: fill(torch.empty_like(x)), tensor, check_trace=False
    )(tensor),
    "make_fx": lambda fill, tensor: make_fx(lambda x: fill(torch.empty_like(x)))(tensor)(tensor),
    "FakeTensorMode": faked,
    "vmap": lambda fill, tensor: torch.func.vmap(
        lambda x: fill(torch.empty_like(x)), randomness="different"
    )(tensor[None]),
    "TorchDispatchMode": dispatched,
}


def bits(tensor):
    """Read the type and the bits of a result."""
    kind = type(tensor).__name__, str(tensor.dtype), tuple(tensor.shape), tensor.device.type
    if tensor.is_meta or kind[0] == "FakeTensor":
        return kind
    plain = tensor.detach().as_subclass(torch.Tensor)
    plain = plain.to_dense() if plain.layout is torch.sparse_coo else plain
    plain = plain.int_repr() if plain.is_quantized else plain
    return kind, plain.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def outcome(fill, make, watcher=None):
    """Fill a new tensor; return its bits or the error, and the state of torch's generator."""
    torch.manual_seed(5)
    logging.disable(logging.ERROR)  # FakeTensorMode logs the operations that it rejects
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tensor = make()
            result = fill(tensor) if watcher is None else watcher(fill, tensor)
            told = "filled", bits(result)
        except Exception as error:  # any exception of torch: fast_init must raise the same
            told = "refused", type(error)
        finally:
            logging.disable(logging.NOTSET)
    return told, torch.random.get_rng_state().numpy().tobytes()


def cell(name, dtype, layout, path, watched):
    """Return who fills: "ours" (winit_fast.torch's bits), "torch" (as without us) or "neither"."""
    shape = (4, 3, 3) if name == "dirac_" else (6, 4)
    arguments = CASES.get(name, {})
    watcher = WATCHERS.get(watched)

    def make():
        return LAYOUTS[layout](shape, getattr(torch, dtype))

    def inside(tensor):
        return call(path, name, tensor, arguments)

    with PATHS[path]():
        own = outcome(inside, make, watcher)
        with ours.fast_init():
            got = outcome(inside, make, watcher)
    if got == own:
        return "torch"
    if got == outcome(lambda tensor: getattr(ours, name)(tensor, **arguments), make):
        return "ours"
    return "neither"


def row(name, dtype):
    """All cells of one function and type: each layout by each path, then each tracing mode."""
    cells = {}
    for layout in LAYOUTS:
        cells[layout] = {cell(name, dtype, layout, path, None) for path in PATHS}
    for watched in WATCHERS:
        cells[watched] = {
            cell(name, dtype, layout, path, watched)
            for layout, path in (("contiguous", "plain"), ("transposed", "wrapped"))
        }
    return {column: " or ".join(sorted(verdicts)) for column, verdicts in cells.items()}


HEAD = """# What fast_init accelerates

The table has a row for every function of `torch.nn.init` and every dtype, and a column for every
memory layout and every tracing mode. In a cell, `ours` means that inside `fast_init` the function
gives the result of the same function of `winit_fast.torch`: its bits, or, for tensors with
overlapping elements, its error. `torch` means that everything is as without `fast_init`: the
numbers, the errors and torch's generator.

Each layout column, from *contiguous* to *subclass*, covers three calls of the function: directly,
through a saved reference while the name in `torch.nn.init` is bound to an empty function, and
through a wrapper. The other columns are modes that see every operation; they cover direct calls
with contiguous tensors, and calls through a wrapper with transposed tensors. Functions that write
constants always remain torch's.

The table is written by `python tests/frameworks/cells.py`; a test computes it again and compares.
"""


def page(rows):
    """Write the table; types with equal cells share a row."""
    columns = [*LAYOUTS, *WATCHERS]
    lines = [f"| entry | types | {' | '.join(columns)} |", "|" + " --- |" * (len(columns) + 2)]
    for name in LANDINGS:
        alike = {}
        for dtype in TYPES:
            alike.setdefault(tuple(rows[name, dtype][c] for c in columns), []).append(dtype)
        lines += [
            f"| `{name}` | {', '.join(types)} | {' | '.join(cells)} |"
            for cells, types in alike.items()
        ]
    return HEAD + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    made = {(name, dtype): row(name, dtype) for name in LANDINGS for dtype in TYPES}
    PAGE.write_text(page(made), encoding="utf-8")
    sys.exit(any("neither" in line for line in PAGE.read_text(encoding="utf-8").splitlines()))
