"""Every entry of torch.nn.init is recognised by whatever path it is reached, with its arguments."""

import functools
import inspect
import math
import subprocess
import sys

import pytest
import timm
import torch
import transformers.initialization as transformers_init
from torch import nn
from torch.overrides import TorchFunctionMode

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.base import dtypes
from winit_fast.torch.entries import LANDINGS, arrival, originals, question

PLAIN = originals()
RANDOM = {name: inspect.signature(PLAIN[name]).parameters for name in LANDINGS}
SHAPES = {"dirac_": (4, 3, 3)}
ARGUMENTS = {
    "uniform_": {"a": -2.0, "b": 3.0},
    "normal_": {"mean": 1.0, "std": 2.0},
    "trunc_normal_": {"mean": 1.0, "std": 2.0, "a": 4.0, "b": 40.0},
    "constant_": {"val": 3.0},
    "dirac_": {"groups": 2},
    "xavier_uniform_": {"gain": 2.0},
    "xavier_normal_": {"gain": 2.0},
    "kaiming_uniform_": {"a": 0.5, "mode": "fan_out", "nonlinearity": "relu"},
    "kaiming_normal_": {"a": 0.5, "mode": "fan_out", "nonlinearity": "relu"},
    "orthogonal_": {"gain": 2.0},
    "sparse_": {"sparsity": 0.25, "std": 2.0},
}


class Recorder(TorchFunctionMode):
    """Record the calls of entries, and answer instead of them."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        asked = question(func)
        if asked is not None:
            found = arrival(asked, args, kwargs or {}, sys._getframe(1))
            if found is not None:
                self.calls.append((found.name, found.arguments))
                return found.answer
        return func(*args, **(kwargs or {}))


class Passing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.hand_on(func, args, kwargs or {})

    def hand_on(self, func, args, kwargs):
        return func(*args, **kwargs)


def plain(name, monkeypatch):
    return getattr(torch.nn.init, name)


def saved(name, monkeypatch):
    """A saved reference; the name is then bound to an empty function, as transformers does."""
    function = getattr(torch.nn.init, name)
    monkeypatch.setattr(torch.nn.init, name, lambda *args, **kwargs: None)
    return function


def dictionary(name, monkeypatch):
    return transformers_init.TORCH_INIT_FUNCTIONS[name]


def transformers_own(name, monkeypatch):
    return getattr(transformers_init, name)


def guarded(name, monkeypatch):
    context = transformers_init.guard_torch_init_functions()
    context.__enter__()
    monkeypatch.callback(lambda: context.__exit__(None, None, None))
    return getattr(torch.nn.init, name)


def wrapped(name, monkeypatch):
    function = getattr(torch.nn.init, name)
    wrapper = functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))
    monkeypatch.setattr(torch.nn.init, name, wrapper)
    return wrapper


def method_wrapped(name, monkeypatch):
    for method in ("normal_", "uniform_", "fill_", "zero_"):
        own = getattr(torch.Tensor, method)
        monkeypatch.setattr(torch.Tensor, method, lambda self, *a, own=own, **k: own(self, *a, **k))
    return getattr(torch.nn.init, name)


class Patches(pytest.MonkeyPatch):
    def __init__(self):
        super().__init__()
        self.callbacks = []

    def callback(self, function):
        self.callbacks.append(function)

    def undo(self):
        for function in reversed(self.callbacks):
            function()
        super().undo()


PATHS = [plain, saved, dictionary, transformers_own, guarded, wrapped, method_wrapped]


@pytest.mark.parametrize("modes", ["alone", "inside", "outside"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LANDINGS)
def test_a_call_is_seen_with_its_arguments(name, path, device, modes):
    if path is saved and modes == "inside" and "torch.nn.init" in LANDINGS[name]:
        # `saved` replaces the name by a function that does nothing. Torch would pass that function
        # to an inner mode in place of the original, so only the outer mode is tested.
        modes = "outside"
    tensor = torch.zeros(SHAPES.get(name, (4, 6)), device=device)
    given = ARGUMENTS.get(name, {})
    expected = inspect.signature(PLAIN[name]).bind(tensor, **given)
    expected.apply_defaults()
    recorder = Recorder()
    contexts = {
        "alone": [recorder], "inside": [recorder, Passing()], "outside": [Passing(), recorder],
    }[modes]  # fmt: skip
    patches = Patches()
    try:
        function = path(name, patches)
        for context in contexts:
            context.__enter__()
        try:
            result = function(tensor, **given)
        finally:
            for context in reversed(contexts):
                context.__exit__(None, None, None)
    finally:
        patches.undo()
    assert result is tensor
    [(seen, arguments)] = recorder.calls
    assert seen == name and arguments.keys() == expected.arguments.keys()
    assert all(arguments[key] is value for key, value in expected.arguments.items())
    assert tensor.is_meta or not tensor.any()  # the call ended with the recorder's answer


class Drawn(nn.Module):
    """A constructor that draws, and an author's method that calls one function."""

    def __init__(self, function, shape=(4, 6), **given):
        super().__init__()
        self.w = nn.Parameter(torch.empty(shape))
        with torch.no_grad():
            self.w.uniform_(-9.0, 9.0).add_(torch.randn(shape))
        self.call = lambda: function(self.w, **given)

    def init_weights(self):
        self.call()


@pytest.mark.parametrize("source", ["factory", "module", "meta module"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LANDINGS)
def test_a_recorded_call_replaces_what_the_constructor_drew(name, path, source):
    given, shape = ARGUMENTS.get(name, {}), SHAPES.get(name, (4, 6))
    expected = torch.zeros(shape)
    seeded = {"seed": 5, "name": "w"} if "generator" in RANDOM[name] else {}
    getattr(ours, name)(expected, **given, **seeded)
    patches = Patches()
    try:
        function = path(name, patches)
        if source == "factory":
            plan = ours.record(lambda: Drawn(function, shape, **given))
        else:
            with torch.device("meta" if source == "meta module" else "cpu"):
                module = Drawn(function, shape, **given)
            plan = ours.record(module)
    finally:
        patches.undo()
    assert plan["w"].array(5).tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("name", ["trunc_normal_", "trunc_normal_tf_", "lecun_normal_"])
def test_timms_own_forms_replace_what_the_constructor_drew(name):
    function = getattr(timm.layers, name)
    plan = ours.record(lambda: Drawn(function, (30, 40)))
    scheme = plan["w"].initializer
    assert isinstance(scheme, wf.TruncatedNormal)
    std = 40**-0.5 / 0.87962566103423978 if name == "lecun_normal_" else 1.0
    assert math.isclose(scheme.stddev, std, rel_tol=1e-12)
    assert scheme.high == -scheme.low == pytest.approx(2, rel=1e-7)


def test_the_list_is_the_whole_of_torch_nn_init():
    names = {name for name in torch.nn.init.__all__ if name.endswith("_")}
    assert names == set(LANDINGS)


@pytest.mark.parametrize("name", ["uniform", "normal", "xavier_normal", "orthogonal", "eye"])
def test_names_from_before_the_underscore(name):
    with Recorder() as recorder, pytest.warns(FutureWarning):
        getattr(torch.nn.init, name)(torch.zeros(3, 4))
    assert [seen for seen, _ in recorder.calls] == [f"{name}_"]


def test_other_questions_are_no_calls():
    tensor = torch.zeros(3, 4)
    with Recorder() as recorder:
        assert not tensor.is_meta
        tensor.normal_().uniform_().zero_().fill_(1)
        torch.eye(3, 4, out=tensor)
        torch.nn.functional.relu(tensor)
    assert recorder.calls == [] and tensor.any()


class Curious(TorchFunctionMode):
    """Ask a tensor whether it is on the meta device, in the middle of an entry."""

    def __init__(self, other=None):
        super().__init__()
        self.other = other
        self.answers = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        about = args[0] if args else kwargs["tensor"]
        self.answers.append((about if self.other is None else self.other).is_meta)
        return func(*args, **kwargs)


@pytest.mark.parametrize("outer", [Recorder, functools.partial(ours.fast_init, seed=3)])
def test_a_question_that_is_not_the_entrys_landing_is_answered_as_ever(outer):
    tensor, expected = torch.zeros(3, 4), torch.zeros(3, 4)
    ours.uniform_(expected, seed=3, name=0)
    with outer() as mode, Curious() as curious:
        torch.nn.init.uniform_(tensor)
    assert curious.answers and not any(curious.answers)
    assert (mode.calls[0][0] == "uniform_") if outer is Recorder else torch.equal(tensor, expected)


@pytest.mark.parametrize("outer", [Recorder, functools.partial(ours.fast_init, seed=3)])
def test_a_question_about_another_tensor_is_answered_as_ever(outer):
    tensor, expected, other = torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(2)
    ours.orthogonal_(expected, seed=3, name=0)
    with outer() as mode, Curious(other) as curious:
        torch.nn.init.orthogonal_(tensor)
    assert curious.answers and not any(curious.answers) and not other.any()
    if outer is Recorder:
        assert [name for name, _ in mode.calls] == ["orthogonal_"]
    else:
        assert torch.equal(tensor, expected)


def test_imported_while_the_names_are_replaced():
    """The original functions are found, not those that the names are bound to."""
    program = """
import torch
names = [name for name in torch.nn.init.__all__ if name.endswith("_")]
before = {name: getattr(torch.nn.init, name) for name in names}
for name in names:
    setattr(torch.nn.init, name, lambda *args, **kwargs: None)
import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.torch.entries import originals
for name, function in originals().items():
    assert function.__code__ == before[name].__code__ and function.__name__ == name
    assert function.__globals__ is vars(torch.nn.init)
    assert function.__defaults__ == before[name].__defaults__
assert (originals()["ones_"](torch.zeros(3)) == 1).all()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


GRID = {
    "uniform_": [{}, {"a": -3, "b": 0.1}, {"a": 2.0, "b": 2.0}],
    "normal_": [{}, {"mean": 3, "std": 0.1}, {"std": 0.0}],
    "trunc_normal_": [
        {}, {"std": 0.02}, {"mean": 0.3, "std": 0.1, "a": 0.1, "b": 0.35}, {"a": 1.0, "b": 3.0},
        {"a": 4.0, "b": 40.0}, {"a": -9.0, "b": -7.0}, {"mean": 5.0}, {"a": -math.inf, "b": 0.5},
    ],
    "constant_": [{"val": 0.1}, {"val": -3}],
    "ones_": [{}],
    "zeros_": [{}],
    "eye_": [{}],
    "dirac_": [{}, {"groups": 2}],
    "xavier_uniform_": [{}, {"gain": math.sqrt(2)}, {"gain": 5 / 3}],
    "xavier_normal_": [{}, {"gain": math.sqrt(2)}, {"gain": 5 / 3}],
    "kaiming_uniform_": [
        {}, {"a": math.sqrt(5)}, {"mode": "fan_out"}, {"mode": "FAN_IN", "nonlinearity": "relu"},
        {"nonlinearity": "tanh"}, {"nonlinearity": "selu", "mode": "fan_out"},
    ],
    "kaiming_normal_": [
        {}, {"a": math.sqrt(5)}, {"mode": "fan_out"}, {"mode": "FAN_IN", "nonlinearity": "relu"},
        {"nonlinearity": "tanh"}, {"nonlinearity": "selu", "mode": "fan_out"},
    ],
    "orthogonal_": [{}, {"gain": 0.5}, {"gain": -2}],
    "sparse_": [{"sparsity": 0.0}, {"sparsity": 0.3}, {"sparsity": 0.9, "std": 2.0}],
}  # fmt: skip
TYPES = [getattr(torch, name) for name in (*dtypes.NAMES, "complex64", "complex128")]
SHAPES_OF_GRID = {
    "dirac_": [(4, 3, 3), (4, 3, 2, 5)], "eye_": [(5, 7)], "sparse_": [(40, 7), (7, 40)],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:mean")
@pytest.mark.parametrize("seeded", [True, False], ids=["seed", "generator"])
@pytest.mark.parametrize(
    ("name", "arguments"), [(name, case) for name in GRID for case in GRID[name]], ids=str
)
def test_inside_fast_init_an_entry_is_its_namesake(name, arguments, seeded):
    """Bit for bit, in every type that torch or we support; the generator's state agrees too."""
    for dtype in TYPES:
        for shape in SHAPES_OF_GRID.get(name, [(5, 7), (7, 5), (12, 3, 2)]):
            first, second = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
            keywords = {"seed": 7, "name": 0} if seeded and "generator" in RANDOM[name] else {}
            if keywords and not ours_to_fill(name, dtype):
                continue
            torch.manual_seed(3)
            try:
                getattr(ours, name)(first, **arguments, **keywords)
            # torch has no such function for complex numbers
            except (RuntimeError, NotImplementedError):
                assert dtype.is_complex and name in ("trunc_normal_", "orthogonal_")
                continue
            expected = torch.random.get_rng_state()
            torch.manual_seed(3)
            with ours.fast_init(7 if seeded else None):
                getattr(torch.nn.init, name)(second, **arguments)
            assert torch.equal(first.view(torch.uint8), second.view(torch.uint8)), dtype
            assert torch.equal(torch.random.get_rng_state(), expected)


def ours_to_fill(name, dtype):
    return not dtype.is_complex or (name.endswith("normal_") and name != "trunc_normal_")


def test_every_entry_that_draws_comes_to_this_core():
    """If this fails, torch.nn.init has changed: see LANDINGS in winit_fast.torch.entries."""
    for name in LANDINGS:
        if "generator" not in RANDOM[name]:
            continue
        state = torch.random.get_rng_state()
        with ours.fast_init(seed=7):
            got = getattr(torch.nn.init, name)(torch.zeros(6, 4), **GRID[name][-1])
        expected = getattr(ours, name)(torch.zeros(6, 4), **GRID[name][-1], seed=7, name=0)
        assert torch.equal(got, expected), (
            f"torch.nn.init.{name} of torch {torch.__version__} no longer comes to winit_fast"
        )
        assert torch.equal(state, torch.random.get_rng_state()), name
