"""Arguments and files of every sort: the result or a documented error, and nothing written.

The errors of arguments are ValueError, TypeError and IndexError, never one of their subclasses that
tells what went wrong inside, and each names an argument.
"""

import json
import math
import re
from contextlib import suppress
from dataclasses import fields

import click
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import winit_fast as wf
from winit_fast import cli, dtypes, fill, threads
from winit_fast.expression import evaluate
from winit_fast.recipes import Rule, Rules

REFUSED = (ValueError, TypeError, IndexError)
BIG = 10**400

numbers = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, BIG, -BIG]),
    st.floats(),
    st.sampled_from([np.float32(0.5), np.int64(3), np.uint8(2), np.array(1.5), np.bool_(True)]),
)
others = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.sampled_from([..., slice(None), object(), np.array([1.0, 2.0]), np.array("x"), int, {}]),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sets(st.integers(0, 3), max_size=2),
)
anything = numbers | others
names = st.none() | st.text(max_size=12) | st.integers(0, 2**64 - 1)


def in_bounds(shape):
    """Whether an array of this shape, if it is one, is small enough to be made."""
    try:
        size = math.prod(shape if isinstance(shape, (tuple, list)) else [shape])
        return abs(size) <= 1 << 16 or size > 1 << 62
    except (TypeError, ValueError, OverflowError):
        return True


extents = st.integers(-1, 6) | st.sampled_from([2**62, 2**63, 2**64]) | anything
shapes = (anything | st.lists(extents, max_size=5).map(tuple)).filter(in_bounds)
positions = st.integers(-8, 8) | st.sampled_from([None, np.int8(2), 2**70, 1.0, "1"])
parts = positions | st.builds(slice, positions, positions, positions) | st.just(...)
indices = anything | parts | st.lists(parts, max_size=4).map(tuple)
types = anything | st.sampled_from([*dtypes.FLOATS, "float32", ">f4", "f4,,", "int8", "uint32"])


def refused_or(call, named):
    """Make a call; an error is a documented one that names one of some arguments."""
    try:
        return call()
    except REFUSED as error:
        assert type(error) in REFUSED, repr(error)
        assert re.search(rf"\b({'|'.join(named)})\b", str(error)), str(error)
        return error


def test_what_is_meant_by_refused():
    for message, error in (("about nothing", ValueError), ("scale is wrong", UnicodeError)):

        def fail(error=error, message=message):
            raise error(message)

        with pytest.raises(AssertionError):
            refused_or(fail, ["scale"])


@settings(max_examples=600)
@given(st.data())
def test_streams(data):
    method, own = data.draw(
        st.sampled_from(
            [
                ("normal", ["loc", "scale"]),
                ("uniform", ["low", "high"]),
                ("truncated_normal", ["loc", "scale", "low", "high"]),
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


@settings(max_examples=200)
@given(seed=anything | st.integers(0, 2**64 - 1), name=anything | names | st.just("\ud800"))
def test_seeds_and_names(seed, name):
    stream = refused_or(lambda: wf.Stream(seed, name), ["seed", "name"])
    if isinstance(stream, wf.Stream):
        assert 0 <= stream.seed < 2**64 and 0 <= stream.id < 2**64


SCHEMES = sorted({*wf.Initializer._registry.values()}, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", SCHEMES)
@settings(max_examples=120)
@given(data=st.data())
def test_initializers(cls, data):
    own = [field.name for field in fields(cls)]
    values = anything | st.sampled_from([-1, 0, 1, (0, 1), 0.5, "relu", "zeros", "fan_avg", "hann"])
    parameters = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(own, values)))
    named = [*own, "axis", "shape", "index", "argument", "identifier", "high - low", "activation"]
    named.append(cls.__name__)
    try:
        scheme = refused_or(lambda: cls(**parameters), named)
    except FileNotFoundError:  # of Pretrained
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


@settings(max_examples=300)
@given(anything | st.text(alphabet="HeNormal_-uif", max_size=12))
def test_get(identifier):
    refused_or(lambda: wf.get(identifier), ["identifier", "argument"])


@given(types | st.text(max_size=10))
def test_types(dtype):
    refused_or(lambda: dtypes.find(dtype), ["dtype"])


@settings(max_examples=300)
@given(shapes, indices)
def test_boxes_are_those_of_numpy(shape, index):
    def cut():
        return fill.box(fill.logical_shape(shape), index)

    box = refused_or(cut, ["shape", "index"])
    if isinstance(box, fill.Box) and math.prod(box.tensor) <= 1 << 16 and index is not None:
        array = np.arange(math.prod(box.tensor)).reshape(box.tensor)
        part = array[index]
        assert part.shape == box.shape
        assert part.size == 0 or part.ravel()[0] == box.first


@settings(max_examples=400)
@given(st.text(alphabet="0123456789.+-*/() nsqrtlogmixae_'j,\\\n\0", max_size=24))
def test_formulas(formula):
    try:
        value = evaluate(formula, {"n": 3, "x": 0.5})
    except ValueError as error:
        assert type(error) is ValueError and "formula" in str(error)
    else:
        assert type(value) in (int, float)


names_of_tensors = st.text(alphabet="hw.{}i*01_\n\\([^", max_size=9)


@settings(max_examples=400)
@given(names_of_tensors, names_of_tensors)
def test_patterns(pattern, name):
    assume(pattern.count("*") < 5)
    rule = refused_or(lambda: Rule(pattern, "zeros", {}), ["pattern"])
    if isinstance(rule, Rule):
        found = rule.match(name)
        assert found is None or all(isinstance(number, int) for number in found.values())
        if not set(pattern) & set("{}*"):
            assert (found is not None) == (pattern == name)


@settings(max_examples=200)
@given(st.text(max_size=8) | st.sampled_from(["normal", "orthogonal"]), anything)
def test_rules(initializer, value):
    rules = Rules("fuzz", "", (), (Rule("*", initializer, {"stddev": value}),))
    named = ["identifier", "stddev", "formula", "argument", "parameters"]
    refused_or(lambda: rules.initializer("w", {"n": 2}), named)


@settings(max_examples=400)
@given(
    st.text(max_size=6) | st.text(alphabet="0123456789.kKMGTiIbB \u212a\u0131\u0663", max_size=9)
)
def test_sizes(text):
    try:
        size = cli._size(text)
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


@settings(max_examples=60)
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


@settings(max_examples=400)
@given(data=st.data())
def test_safetensors_files(checkpoint, data):
    """A file with other bytes, cut, or of another header: read, or refused with its name."""
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


@settings(max_examples=200)
@given(
    values | st.dictionaries(st.just("weight_map"), values | st.dictionaries(st.just("w"), values))
)
def test_indices_of_checkpoints(checkpoint, content):
    index = checkpoint[0].with_name("model.safetensors.index.json")
    index.write_text(json.dumps(content))
    checkpoint[0].write_bytes(checkpoint[1])
    scheme = wf.Pretrained(str(index), "w")
    with suppress(FileNotFoundError):  # another file, which is not there
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
