"""Fuzz tests of what reads and writes files: nothing is left half done.

As in `test_fuzz.py`, the result is right, or it is a documented error that names an argument and
nothing was written.
"""

import copy
import io
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from strategies import anything, examples, others, refused_or

import winit_fast as wf
from winit_fast import benchmark, checkpoint, cli
from winit_fast.checkpoint import Summary, write_checkpoint
from winit_fast.initializers import Zeros
from winit_fast.models import Architecture, Rules, architectures, data_files, rule_list
from winit_fast.models.tensor_spec import TensorSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)
WHOLE = saved(ARRAY)

literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
headers = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(["<f4", ">f4", "<f2", "<i4", "O", "V2", "<f4,", "(2,)f4"])
        | literals,
        "fortran_order": st.booleans() | literals,
        "shape": st.just((3, 4))
        | st.lists(st.integers(-2, 2**65), max_size=3).map(tuple)
        | literals,
    },
    optional={"more": literals},
)


@st.composite
def npy_files(draw):
    how = draw(st.sampled_from(["bytes", "cut", "header", "text", "other"]))
    if how == "bytes":
        content = bytearray(WHOLE)
        for _ in range(draw(st.integers(1, 4))):
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        return bytes(content)
    if how == "cut":
        return WHOLE[: draw(st.integers(0, len(WHOLE)))]
    if how == "other":
        arrays = [np.array([{}], object), np.zeros(2, "f4,i4"), np.zeros((3, 4), complex)]
        pickle = saved(arrays[0])[128:]
        return draw(
            st.binary(max_size=90) | st.sampled_from([pickle, b"PK\3\4", *map(saved, arrays)])
        )
    header = draw(
        headers.map(repr) if how == "header" else st.text("{'descr:()f4,}\\\n\0é", max_size=40)
    )
    length = len(header.encode()).to_bytes(2, "little")
    return b"\x93NUMPY\1\0" + length + header.encode() + ARRAY.tobytes()


@examples(400)
@given(npy_files())
def test_npy_files(folder, content):
    path = folder / "w.npy"
    path.write_bytes(content)
    out = np.full((3, 4), 7, np.float32)
    made = refused_or(lambda: wf.Pretrained(path).fill(out), ["source"])
    if isinstance(made, Exception):
        assert (out == 7).all()
        assert "w.npy" in str(made) or "shape" in str(made) or "axes" in str(made)


@pytest.mark.parametrize("content", [b"", WHOLE[:9], WHOLE[:60], WHOLE[:-1], b"PK\3\4", b"\x80\4."])
def test_what_is_no_npy_file(folder, content):
    path = folder / "w.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"source '{path}' is not a .npy file: ")):
        wf.Pretrained(path)((3, 4))


@examples(200)
@given(others | st.text("a.npy/\0\ud800", max_size=9) | st.text(max_size=4).map("{}.npy".format))
def test_names_of_files(source):
    try:
        scheme = refused_or(lambda: wf.Pretrained(source), ["source", "tensor"])
        if not isinstance(scheme, Exception):
            refused_or(lambda: scheme((1, 2, 3)), ["source"])
    except OSError as error:  # the file does not exist
        assert str(source) in str(error) or repr(source) in str(error)


TENSORS = (TensorSpec("w", (3, 4), wf.HeNormal()), TensorSpec("b", (4,), wf.Zeros()))
tensors = st.sampled_from([TENSORS, iter(TENSORS), TENSORS[:1] * 2, [TENSORS[1]], ["w"]]) | anything
texts = st.dictionaries(
    st.text("a.j/\0\ud800", max_size=4) | st.just("model.safetensors") | st.integers(0, 1),
    st.text("a\ud800", max_size=3) | st.none(),
    max_size=2,
)


@examples(250)
@given(data=st.data())
def test_arguments_of_checkpoints(folder, data):
    inside = folder / "checkpoint"
    names = st.text("ab\0\ud800é", max_size=5).map(lambda name: f"{inside}/{name}")
    strategies = {
        "dtype": anything | st.sampled_from(["float32", "float8_e5m2"]),
        "max_shard_size": anything | st.sampled_from([16, 48]),
        "metadata": others | texts,
        "texts": others | texts,
        "force": others,
        "num_threads": st.integers(-2, 3) | others,
        "progress": others | st.just(lambda done, total: None),
    }
    arguments = data.draw(st.fixed_dictionaries({}, optional=strategies))
    # A string would be used as a folder of the current directory.
    directory = data.draw(names | others.filter(lambda value: not isinstance(value, str)))
    named = [*strategies, "directory", "tensors", "seed", "tensor name"]
    call = [directory, data.draw(st.just(TENSORS) | tensors)]
    seed = data.draw(st.integers(0, 9) | anything)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda file: None)
            made = refused_or(lambda: write_checkpoint(*call, seed=seed, **arguments), named)
        if isinstance(made, Exception):
            assert not inside.exists()
        else:
            for file in made.files:
                with safetensors.safe_open(file, "np") as opened:
                    assert set(opened.keys()) <= {"w", "b"}
    finally:
        shutil.rmtree(inside, ignore_errors=True)


# The TOML files of rules and architectures in the package, each with one value replaced.

TOML = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text(max_size=4) | st.floats() | st.just("4 * n_embd"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def damaged(draw, content):
    content = copy.deepcopy(content)
    at, key = content, draw(st.sampled_from([*content]))
    while isinstance(at[key], (dict, list)) and at[key] and draw(st.booleans()):
        at = at[key]
        key = draw(st.sampled_from([*at] if isinstance(at, dict) else range(len(at))))
    if draw(st.booleans()):
        at[key] = draw(TOML)
    else:
        del at[key]
    return content


@examples(250)
@given(damaged(data_files.load_all("rules")["gpt2"]))
def test_damaged_rules(content):
    with pytest.MonkeyPatch.context() as patch:
        others = data_files.load_all("rules")
        patch.setattr(rule_list, "load_all", lambda folder: {**others, "fuzz": content})
        made = refused_or(lambda: Rules.load("fuzz"), ["rules/fuzz.toml"])
    if isinstance(made, Rules):
        named = ["identifier", "argument", "formula", "parameters", "stddev", "mean", "rule"]
        refused_or(lambda: made.initializer("h.0.attn.c_proj.weight", {"n_layer": 12}), named)
        tensors = [TensorSpec("h.0.attn.c_proj.weight", (4, 4), Zeros())]
        refused_or(lambda: made.applied(tensors, {"n_layer": 12}), named)


SMALL = copy.deepcopy(data_files.load_all("architectures")["gpt2"])
SMALL["models"] = {"gpt2": {"n_layer": 1, "n_head": 1, "n_embd": 2}}


@examples(250)
@given(damaged(SMALL))
def test_damaged_architectures(content):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "load_all", lambda folder: {"fuzz": content})
        made = refused_or(lambda: Architecture.load("gpt2"), ["model", "architectures/fuzz.toml"])
    assert isinstance(made, (Architecture, Exception))


@given(anything)
def test_names_of_models_and_rules(name):
    refused_or(lambda: Architecture.load(name), ["model"])
    refused_or(lambda: Rules.load(name), ["rules"])


@given(st.binary(max_size=20) | st.text('[a]="1\n{}.#', max_size=20).map(str.encode))
def test_toml_files(content):
    made = refused_or(lambda: data_files.parse("rules/fuzz.toml", content), ["rules/fuzz.toml"])
    assert isinstance(made, (dict, Exception))


# The command line: the functions that do the work are replaced, and their arguments checked.

words = st.text(st.characters(exclude_characters="\0"), max_size=6)
values = words | st.integers(-2, 2**65).map(str) | st.sampled_from(["1e3", "nan", "5GB", "float32"])
OPTIONS = {
    "init": ["--dtype", "--seed", "--max-shard-size", "--threads", "--force", "--sed", "--rules"],
    "bench": ["--size", "--seconds", "--threads", "--against", "--siz", "--json"],
    "info": ["--dtype", "--rules", "--json"],
}


@examples(250)
@given(command=st.sampled_from([*OPTIONS]), more=st.data())
def test_command_lines(folder, command, more):
    line = [command]
    if command != "bench":
        line += more.draw(st.lists(values | st.just("gpt2"), max_size=1))
    for option in more.draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=3, unique=True)):
        line += [option] if option in ("--force", "--json") else [option, more.draw(values)]
    out = folder / "out"
    if command == "init":
        line += ["--out", str(out)]
    handed = []

    def write(directory, tensors, **arguments):
        assert str(directory) == str(out) and 0 <= arguments["seed"] < 2**64
        assert arguments["max_shard_size"] >= 1 and (arguments["num_threads"] or 1) >= 1
        handed.append(directory)
        return Summary((out / "model.safetensors",), 1, 4, 1.0, 1)

    def race(size, seconds, threads, matrix, peers):
        assert size >= 1 and 0 <= seconds < np.inf and (threads or 1) >= 1
        handed.append(peers)
        return [benchmark.quick.Row("fuzz", 4, {benchmark.quick.LIMIT: 1.0, "winit_fast": 1.0})]

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write_checkpoint", write)
        patch.setattr(benchmark, "run", race)
        result = CliRunner().invoke(cli.main, line)
    signal.signal(signal.SIGTERM, before)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert not out.exists()
    if result.exit_code:
        assert result.exit_code in (1, 2) and not handed
        assert re.search("Error: .*(--[a-z]|argument|option|model|dtype|rule)", result.output), (
            result.output
        )
    else:
        assert handed or command == "info" or not {"-h", "--help"}.isdisjoint(line)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WINIT_FAST_ISA", "avx9"),
        ("WINIT_FAST_ISA", "\udcff\udce9"),
        ("WINIT_FAST_NUM_THREADS", "0"),
        ("WINIT_FAST_NUM_THREADS", "1.5"),
        ("WINIT_FAST_NUM_THREADS", "\udcff"),
    ],
)
def test_environment(variable, value):
    result = subprocess.run(
        [sys.executable, "-c", "import winit_fast"],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"ValueError: {variable}") and ascii(value)[1:-1] in last
