"""Fuzz tests: any argument or file gives the right result or a documented error before writing.

Errors about arguments are exactly ValueError, TypeError or IndexError, not subclasses, which would
come from an internal failure. Each names an argument.
"""

import json
import math
from contextlib import suppress
from dataclasses import fields

import click
import numpy as np
import pytest
from draws import DRAWS
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import anything, examples, indices, names, others, refused_or, shapes, types

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.base import boxes, dtypes, threads
from winit_fast.base.formulas import evaluate
from winit_fast.cli import parameters
from winit_fast.initializers import activations, fans
from winit_fast.models import Rule, Rules


def test_what_is_meant_by_refused():
    for message, error in (("about nothing", ValueError), ("scale is wrong", UnicodeError)):

        def fail(error=error, message=message):
            raise error(message)

        with pytest.raises(AssertionError):
            refused_or(fail, ["scale"])


@examples(600)
@given(st.data())
def test_streams(data):
    method, own = data.draw(
        st.sampled_from(
            [
                *((method, draw.names) for method, draw in DRAWS.items()),
                ("bits", ["offset"]),
            ]
        )
    )
    strategies = dict.fromkeys(own, anything)
    strategies |= {"n" if method == "bits" else "shape": shapes, "index": indices}
    strategies |= {"dtype": types, "num_threads": anything}
    arguments = data.draw(st.fixed_dictionaries({}, optional=strategies))
    memory = np.full(640, 0xA5, np.uint8)
    if data.draw(st.booleans()):
        width = {"bits": np.uint32}.get(method, np.float32)
        arguments["out"] = data.draw(
            st.sampled_from([memory.view(width)[:60].reshape(10, 6), memory.view(width)[::3]])
            | others
        )
    draw = getattr(wf.Stream(0, "fuzz"), method)
    named = [*own, "shape", "index", "dtype", "num_threads", "out", "n"]
    result = refused_or(lambda: draw(**arguments), named)
    if isinstance(result, Exception):
        assert (memory == 0xA5).all()


@examples(200)
@given(seed=anything | st.integers(0, 2**64 - 1), name=anything | names | st.just("\ud800"))
def test_seeds_and_names(seed, name):
    stream = refused_or(lambda: wf.Stream(seed, name), ["seed", "name"])
    if isinstance(stream, wf.Stream):
        assert 0 <= stream.seed < 2**64 and 0 <= stream.id < 2**64


SCHEMES = [  # without the classes that other tests define
    cls
    for cls in sorted({*wf.Initializer._registry.values()}, key=lambda cls: cls.__name__)
    if cls.__module__.startswith("winit_fast.")
]


@pytest.mark.parametrize("cls", SCHEMES)
@examples(120)
@given(data=st.data())
def test_initializers(cls, data):
    own = [field.name for field in fields(cls)]
    values = anything | st.sampled_from([-1, 0, 1, (0, 1), 0.5, "relu", "zeros", "fan_avg", "hann"])
    parameters = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(own, values)))
    named = [*own, "axis", "shape", "index", "argument", "identifier", "high - low", "activation"]
    named.append(cls.__name__)
    try:
        scheme = refused_or(lambda: cls(**parameters), named)
    except FileNotFoundError:  # the file of Pretrained does not exist
        return
    if isinstance(scheme, Exception):
        return
    if not any(isinstance(value, np.ndarray) for value in parameters.values()):
        assert scheme == scheme and isinstance(hash(scheme), int)
    assert repr(scheme)
    shape = data.draw(st.lists(st.integers(0, 6), max_size=5).map(tuple))
    out = np.full(shape, 7.0, data.draw(st.sampled_from(list(dtypes.FLOATS))))
    try:
        result = refused_or(lambda: scheme.fill(out, seed=0, name="fuzz"), [*named, "loc", "scale"])
    except FileNotFoundError:
        return
    if isinstance(result, Exception):
        assert (out == 7).all()


@pytest.mark.parametrize("cls", SCHEMES)
@examples(40)
@given(data=st.data())
def test_configurations(cls, data):
    own = [field.name for field in fields(cls)]
    keys = st.sampled_from([*own, "seed", ""]) | st.text(max_size=4) | st.integers(0, 2)
    config = data.draw(others | st.dictionaries(keys, anything, max_size=3))
    named = [*own, "config", "axis", "argument", "identifier", "activation", "high - low"]
    named.append("parameters")
    scheme = refused_or(lambda: cls.from_config(config), named)
    if not isinstance(scheme, Exception):
        assert type(scheme) is cls and repr(cls.from_config(scheme.get_config())) == repr(scheme)


@pytest.mark.parametrize("scheme", [wf.RandomNormal(), wf.Orthogonal(), wf.Sparse(0.5), wf.Ones()])
@examples(150)
@given(data=st.data())
def test_calls_and_fills(scheme, data):
    strategies = {"seed": anything, "name": anything | names, "index": indices, "shape": shapes}
    strategies |= {"num_threads": anything}
    named = [*strategies, "out", "dtype", type(scheme).__name__, "column_axis", "argument"]
    memory = np.full(640, 0xA5, np.uint8)
    if data.draw(st.booleans()):
        matrix = memory.view(np.float32)[:60].reshape(10, 6)
        out = data.draw(st.sampled_from([matrix, matrix[::3], matrix.T[1:], memory]) | others)
        arguments = data.draw(st.fixed_dictionaries({}, optional=strategies))
        result = refused_or(lambda: scheme.fill(out, **arguments), named)
    else:
        arguments = data.draw(st.fixed_dictionaries({}, optional=strategies | {"dtype": types}))
        result = refused_or(lambda: scheme(**arguments), named)
        assert isinstance(result, (np.ndarray, Exception))
    if isinstance(result, Exception):
        assert (memory == 0xA5).all()


def strange(z):
    raise LookupError("strange")


functions = st.sampled_from(
    [np.tanh, math.tanh, abs, len, str, int, np.exp, np.sign, np.sum, lambda z: z**-1, strange]
)


@examples(300)
@given(
    anything
    | functions
    | st.sampled_from(sorted(activations.NAMES))
    | st.text("relu_ELU-", max_size=6),
    st.none() | anything,
    st.sampled_from([wf.gain, wf.gradient_gain]),
)
def test_gains(activation, param, gain):
    assume(activation is not strange)
    made = refused_or(lambda: gain(activation, param), ["activation", "param"])
    assert isinstance(made, Exception) or 0 < made < math.inf


def test_what_an_activation_raises_is_its_own():
    with pytest.raises(LookupError, match="strange"):
        wf.gain(strange)


axes = anything | st.integers(-4, 4) | st.lists(st.integers(-4, 4), max_size=3)


@examples(400)
@given(
    shapes | st.lists(st.integers(0, 9), max_size=4),
    st.fixed_dictionaries({}, optional=dict.fromkeys(["in_axis", "out_axis", "batch_axis"], axes)),
)
def test_fans(shape, arguments):
    named = ["shape", "in_axis", "out_axis", "batch_axis"]
    made = refused_or(lambda: fans.fans(shape, **arguments), named)
    assert isinstance(made, Exception) or all(type(fan) is int and fan >= 0 for fan in made)


places = st.integers(0, 2**64 - 1) | anything
states = st.fixed_dictionaries(
    {"bit_generator": st.just("Philox4x32") | anything},
    optional={
        "state": others
        | st.fixed_dictionaries(
            {"seed": places, "stream": places}, optional={"position": places, "more": anything}
        )
    },
)


@examples(300)
@given(st.sampled_from(["state", "advance", "jumped", "spawn"]), st.data())
def test_bit_generators(method, data):
    generator = wf.Philox4x32(1, 2).advance(3)
    before = generator.state
    if method == "state":
        value = data.draw(states | anything)
        made = refused_or(
            lambda: setattr(generator, "state", value), ["state", "seed", "stream", "position"]
        )
    else:
        few = anything.filter(lambda n: not isinstance(n, int) or n < 100 or n >= 1 << 32)
        argument = data.draw(few if method == "spawn" else anything)
        named = {"advance": "delta", "jumped": "jumps", "spawn": "n_children"}[method]
        made = refused_or(lambda: getattr(generator, method)(argument), [named])
    if isinstance(made, Exception):
        assert generator.state == before
        assert generator.seed_seq.n_children_spawned == 0
    generator.random_raw()


@given(anything | st.integers(1, 64))
def test_numbers_of_threads(number):
    before = wf.get_num_threads()
    try:
        made = refused_or(lambda: wf.set_num_threads(number), ["num_threads"])
        assert wf.get_num_threads() == before or made is None
    finally:
        wf.set_num_threads(None)


@given(st.text(max_size=8) | st.text("avx2scalr51neo\0 ", max_size=8) | others)
def test_instruction_sets(name):
    before = _core.isa()
    try:
        made = refused_or(lambda: _core.set_isa(name), ["instruction set", "name"])
        assert _core.isa() == (before if isinstance(made, Exception) else name)
    finally:
        _core.set_isa(before)


@examples(300)
@given(anything | st.text(alphabet="HeNormal_-uif", max_size=12))
def test_get(identifier):
    refused_or(lambda: wf.get(identifier), ["identifier", "argument"])


@given(types | st.text(max_size=10))
def test_types(dtype):
    refused_or(lambda: dtypes.find(dtype), ["dtype"])


@examples(300)
@given(shapes, indices)
def test_boxes_are_those_of_numpy(shape, index):
    def cut():
        return boxes.box(boxes.logical_shape(shape), index)

    box = refused_or(cut, ["shape", "index"])
    if isinstance(box, boxes.Box) and math.prod(box.tensor) <= 1 << 16 and index is not None:
        array = np.arange(math.prod(box.tensor)).reshape(box.tensor)
        part = array[index]
        assert part.shape == box.shape
        assert part.size == 0 or part.ravel()[0] == box.first


@examples(400)
@given(st.text(alphabet="0123456789.+-*/() nsqrtlogmixae_'j,\\\n\0", max_size=24))
def test_formulas(formula):
    try:
        value = evaluate(formula, {"n": 3, "x": 0.5})
    except ValueError as error:
        assert type(error) is ValueError and "formula" in str(error)
    else:
        assert type(value) in (int, float)


names_of_tensors = st.text(alphabet="hw.{}i*01_\n\\([^", max_size=9)


@examples(400)
@given(names_of_tensors, names_of_tensors)
def test_patterns(pattern, name):
    rule = refused_or(lambda: Rule(pattern, "zeros", {}), ["pattern"])
    if isinstance(rule, Rule):
        found = rule.match(name)
        assert found is None or all(isinstance(number, int) for number in found.values())
        if not set(pattern) & set("{}*"):
            assert (found is not None) == (pattern == name)


@examples(200)
@given(st.text(max_size=8) | st.sampled_from(["normal", "orthogonal"]), anything)
def test_rules(initializer, value):
    rules = Rules("fuzz", "", (), (Rule("*", initializer, {"stddev": value}),))
    named = ["identifier", "stddev", "formula", "argument", "parameters"]
    refused_or(lambda: rules.initializer("w", {"n": 2}), named)


@examples(400)
@given(
    st.text(max_size=6) | st.text(alphabet="0123456789.kKMGTiIbB \u212a\u0131\u0663", max_size=9)
)
def test_sizes(text):
    try:
        size = parameters.size(text)
    except click.BadParameter as error:
        assert "is not a size" in error.message
    else:
        assert type(size) is int and size >= 1 and text.isascii()


@given(st.text(max_size=6) | st.integers().map(str))
def test_number_of_threads_of_the_environment(text):
    assume("\0" not in text and text.isprintable())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINIT_FAST_NUM_THREADS", text)
        number = refused_or(threads._from_environment, ["WINIT_FAST_NUM_THREADS"])
    assert number is None or isinstance(number, Exception) or number >= 1


@examples(60)
@given(groups=st.text(max_size=30), quota=st.text(alphabet="0123456789 -max\n", max_size=12))
def test_control_groups(tmp_path_factory, groups, quota):
    folder = tmp_path_factory.mktemp("cgroup")
    (folder / "groups").write_text(groups + "\n0::/\n", encoding="utf-8")
    (folder / "cpu.max").write_text(quota)
    assert threads.cgroup_quota(folder / "groups", folder) > 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    header = {"__metadata__": {"format": "pt"}}
    header["w"] = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    text = json.dumps(header).encode()
    return path, len(text).to_bytes(8, "little") + text + bytes(range(48))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@examples(400)
@given(data=st.data())
def test_safetensors_files(checkpoint, data):
    """A file that is changed, cut short or has another header is read, or the error names it."""
    path, whole = checkpoint
    how = data.draw(st.sampled_from(["bytes", "cut", "header", "json"]))
    if how == "bytes":
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    elif how == "cut":
        content = whole[: data.draw(st.integers(0, len(whole)))]
    else:
        entry = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
        entry[data.draw(st.sampled_from([*entry]))] = data.draw(values)
        header = {"w": data.draw(values) if how == "json" else entry}
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + bytes(48)
    path.write_bytes(content)
    out = np.full((3, 4), 7, np.float32)
    result = refused_or(
        lambda: wf.Pretrained(str(path), "w").fill(out), ["safetensors", "tensor", "source"]
    )
    if isinstance(result, Exception):
        assert (out == 7).all()


@examples(200)
@given(
    values | st.dictionaries(st.just("weight_map"), values | st.dictionaries(st.just("w"), values))
)
def test_indices_of_checkpoints(checkpoint, content):
    index = checkpoint[0].with_name("model.safetensors.index.json")
    index.write_text(json.dumps(content))
    checkpoint[0].write_bytes(checkpoint[1])
    scheme = wf.Pretrained(str(index), "w")
    with suppress(FileNotFoundError):  # the index may name a file that does not exist
        refused_or(lambda: scheme((3, 4)), ["safetensors", "tensor", "source"])


@pytest.mark.parametrize("scaling", [None, "density", "spectrum"])
def test_a_window_that_does_not_fit_leaves_the_buffer_alone(scaling):
    out = np.zeros((8, 1, 5), np.float16)
    window = [1e300 if scaling == "density" else 1e308] * 8
    with pytest.raises(ValueError, match="window must (fit float16|have a finite norm), got"):
        wf.STFT(window=window, scaling=scaling).fill(out)
    assert not out.any()


def test_a_factor_past_the_type_gives_infinities_as_a_normal_does():
    made = wf.Scaled(wf.STFT(), 1e9)((8, 1, 5), dtype="float16")
    assert np.isinf(made).any()
    assert np.isinf(wf.RandomNormal(0, 1e9)((8, 5), seed=0, dtype="float16")).any()
