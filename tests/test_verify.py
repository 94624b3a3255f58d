"""`verify`: which tensors are fresh, which are not, and where the first difference is."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes  # noqa: F401  makes NumPy know bfloat16
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import winit_fast as wf
from winit_fast.checkpoint import segments, verify, write_checkpoint
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.cli import main
from winit_fast.models.tensor_spec import TensorSpec

TENSORS = (
    TensorSpec("table", (300, 70), wf.RandomNormal(0.0, 0.02)),
    TensorSpec("bias", (5,), wf.Zeros()),
    TensorSpec("scalar", (), wf.RandomNormal()),
    TensorSpec("norm", (1601,), wf.Ones()),
    TensorSpec("empty", (0, 4), wf.RandomUniform()),
    TensorSpec("sparse", (90, 40), wf.Sparse(0.5)),
    TensorSpec("orthogonal", (64, 48), wf.Orthogonal()),
    TensorSpec("window", (40, 40), wf.TruncatedNormal(0, 1, -np.inf, 2)),
    TensorSpec("scaled", (40, 40), wf.Scaled(wf.STFT(), 0.5)),
)
TENSORS = (*TENSORS[:-1], TensorSpec("scaled", (8, 1, 5), wf.Scaled(wf.STFT(), 0.5)))


def statuses(verification):
    return {finding.name: finding.status for finding in verification.tensors}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("limit", [10**9, 9000])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_what_was_just_written(tmp_path, dtype, limit, num_threads):
    tensors = TENSORS[:6] if dtype == "float8_e4m3fn" else TENSORS
    calls = []
    write_checkpoint(tmp_path, tensors, seed=2**64 - 1, dtype=dtype, max_shard_size=limit)
    found = verify(tmp_path, num_threads=num_threads, progress=lambda *call: calls.append(call))
    assert found.fresh
    assert [finding.name for finding in found.tensors] == [tensor.name for tensor in tensors]
    assert found.seed == 2**64 - 1
    itemsize = wf.Zeros()((), dtype=dtype).itemsize
    assert found.nbytes == sum(tensor.size for tensor in tensors) * itemsize
    assert calls[-1] == (found.nbytes, found.nbytes) and calls == sorted(calls)
    assert verify(tmp_path, tensors=tensors).fresh


def changed(tmp_path, change, tensors=TENSORS):
    """Write a checkpoint, change some of its arrays, and verify it."""
    write_checkpoint(tmp_path, tensors, seed=3, dtype="float32")
    path = tmp_path / "model.safetensors"
    header = path.read_bytes()
    metadata = json.loads(header[8 : 8 + struct.unpack("<Q", header[:8])[0]])["__metadata__"]
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path, metadata)
    return verify(tmp_path)


def test_every_kind_of_change(tmp_path):
    def change(arrays):
        arrays["table"] += np.float32(1e-3) * np.sign(arrays["table"])  # as after a little training
        arrays["norm"][1600] = 1.5
        arrays["sparse"][:] = 0
        arrays["orthogonal"] = wf.Orthogonal()((64, 48), seed=4, name="orthogonal")
        arrays["window"][20:] = 0
        arrays["bias"] = arrays["bias"].astype(np.float16)
        del arrays["scalar"]
        arrays["more"] = np.ones(3, np.float32)

    found = changed(tmp_path, change)
    assert not found.fresh
    assert statuses(found) == {
        "table": "changed",
        "bias": "other",
        "scalar": "missing",
        "norm": "changed",
        "empty": "fresh",
        "sparse": "zero",
        "orthogonal": "unrelated",
        "window": "changed",
        "scaled": "fresh",
        "more": "unknown",
    }
    details = {finding.name: finding.detail for finding in found.tensors}
    assert details["norm"] == "element (1600,) is 1.5, should be 1.0; 1 of 1,601 elements differ"
    assert details["bias"] == "it is F16 (5,), should be F32 (5,)"
    first = wf.TruncatedNormal(0, 1, -np.inf, 2)((40, 40), seed=3, name="window")[20, 0]
    assert details["window"].startswith(
        f"element (20, 0) is 0.0, should be {float(first)!r}; 800 of"
    )
    differing = {finding.name: finding.differing for finding in found.tensors}
    assert differing["table"] == 300 * 70 and differing["norm"] == 1


def test_another_seed_is_unrelated(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=3, dtype="float32")
    found = statuses(verify(tmp_path, seed=4))
    drawn = {"table", "orthogonal", "window", "sparse"}
    assert {name for name, status in found.items() if status == "unrelated"} == drawn
    assert found["scalar"] == "changed"  # one number is not enough to call it unrelated
    assert {found[name] for name in found.keys() - drawn - {"scalar"}} == {"fresh"}


def test_what_is_not_finite_is_a_change(tmp_path):
    def change(arrays):
        arrays["table"][7, 9] = np.nan
        arrays["norm"][:] = -np.inf

    found = changed(tmp_path, change)
    assert statuses(found)["table"] == statuses(found)["norm"] == "changed"
    assert found.tensors[0].detail.startswith("element (7, 9) is nan, should be ")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_flipped_bit_is_found(tmp_path, dtype):
    """A sample of all bits of the file; a flipped bit of the data is found in its tensor."""
    write_checkpoint(tmp_path / "a", TENSORS[:5], seed=3, dtype=dtype)
    whole = (tmp_path / "a" / "model.safetensors").read_bytes()
    size = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:size])
    rng = np.random.default_rng(0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for at in [*range(0, size, 7), *rng.integers(size, len(whole), 30).tolist()]:
        content = bytearray(whole)
        content[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "b" / "model.safetensors").write_bytes(content)
        try:
            stale = [each.name for each in verify(tmp_path / "b").tensors if each.status != "fresh"]
        except ValueError as error:
            assert at < size and str(tmp_path / "b") in str(error)
            continue
        assert stale
        if at < size:  # the header: another name, shape or seed
            continue
        (name,) = stale
        begin, end = header[name]["data_offsets"]
        assert begin <= at - size < end


def test_a_plan_that_is_another_one(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=3)
    text = (tmp_path / PLAN).read_text()
    (tmp_path / PLAN).write_text(text.replace("0.02", "0.03"))
    with pytest.raises(ValueError, match="is not the plan whose digest is in the headers"):
        verify(tmp_path)
    for broken in ("", "[]", "{}", '{"format": 2, "tensors": []}', '{"format": 1, "tensors": [3]}'):
        (tmp_path / PLAN).write_text(broken)
        with pytest.raises(ValueError, match="winit_fast.plan.json is not a plan of this version"):
            verify(tmp_path)
    (tmp_path / PLAN).unlink()
    with pytest.raises(ValueError, match="has no winit_fast.plan.json: tensors must be given"):
        verify(tmp_path)
    assert verify(tmp_path, tensors=TENSORS).fresh


def test_files_that_say_nothing(tmp_path):
    """Files without this package's metadata: seed and plan must be given."""
    arrays = {t.name: t.initializer(t.shape, seed=3, name=t.name) for t in TENSORS}
    save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="do not say the seed: seed must be given"):
        verify(tmp_path, tensors=TENSORS)
    whole = verify(tmp_path, tensors=TENSORS, seed=3)
    assert statuses(whole).pop("table") == "fresh"
    with pytest.raises(ValueError, match="tensors must be given"):
        verify(tmp_path, seed=3)


def test_files_of_different_origin(tmp_path):
    for seed in (3, 4):
        write_checkpoint(
            tmp_path / str(seed), TENSORS, seed=seed, dtype="float32", max_shard_size=9000
        )
    name = sorted(path.name for path in (tmp_path / "3").glob("*.safetensors"))[1]
    shutil.copy(tmp_path / "4" / name, tmp_path / "3" / name)
    with pytest.raises(ValueError, match=f"{name} has other metadata"):
        verify(tmp_path / "3")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"stream": "2", "seed": "3", "plan": ""}, "has stream version 2, this package"),
        (
            {"stream": "1", "seed": "-3", "plan": ""},
            "must have .* as seed, got '-3'",
        ),
        ({"stream": "1", "seed": "9" * 20, "plan": ""}, "from 0 to 2\\^64 - 1, got 999"),
        ({"stream": "1", "seed": "3"}, "must have all of winit_fast.*, which say where"),
    ],
)
def test_headers_that_say_what_cannot_be(tmp_path, metadata, message):
    metadata = {f"winit_fast.{key}": value for key, value in metadata.items()}
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        verify(tmp_path, tensors=[TensorSpec("w", (3,), wf.Ones())])


class Mine(wf.RandomNormal):
    """A scheme that a reader of the plan does not have."""


def test_schemes_that_a_plan_cannot_hold(tmp_path):
    tensors = [
        TensorSpec("w", (3,), Mine()),
        TensorSpec("b", (3,), wf.Pretrained(np.arange(3.0))),
    ]
    write_checkpoint(tmp_path, tensors, seed=3)
    found = verify(tmp_path)
    assert statuses(found) == {"w": "not checked", "b": "fresh"} and not found.fresh
    assert "could not store Mine(" in found.tensors[0].detail
    assert verify(tmp_path, tensors=tensors).fresh


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither model.safetensors nor"):
        verify(tmp_path)
    write_checkpoint(tmp_path, TENSORS, seed=3, dtype="float32", max_shard_size=9000)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["more"] = content["weight_map"]["table"]
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names tensor 'more', which is not in its file"):
        verify(tmp_path)
    del content["weight_map"]["more"], content["weight_map"]["bias"]
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds tensor 'bias', but .*index.json does not"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"num_threads": 0}, ValueError, "num_threads"),
        ({"tensors": ["w"]}, TypeError, "tensors must hold TensorSpec objects, got 'w'"),
        ({"tensors": 3}, TypeError, "tensors must be a sequence of TensorSpec objects, got 3"),
        ({"tensors": TENSORS[:1] * 2}, ValueError, "tensor name 'table' is used twice"),
        ({"progress": 3}, TypeError, "progress must be a function, got 3"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    write_checkpoint(tmp_path, TENSORS, seed=3)
    with pytest.raises(error, match=message):
        verify(tmp_path, **arguments)
    with pytest.raises(TypeError, match="directory must be a path, got 3"):
        verify(3)


def test_another_plan(tmp_path):
    """With the plan of another checkpoint of the same model, as for files of another library."""
    write_checkpoint(tmp_path / "ours", TENSORS, seed=3, dtype="float32")
    arrays = load_file(tmp_path / "ours" / "model.safetensors")
    (tmp_path / "theirs").mkdir()
    save_file(arrays, tmp_path / "theirs" / "model.safetensors", {"format": "pt"})
    plan = tmp_path / "ours" / PLAN
    assert verify(tmp_path / "theirs", plan=plan, seed=3).fresh
    assert not verify(tmp_path / "theirs", plan=plan, seed=4).fresh
    with pytest.raises(ValueError, match="plan must not be given beside tensors, got '.*json'"):
        verify(tmp_path / "theirs", plan=plan, tensors=TENSORS, seed=3)
    with pytest.raises(TypeError, match="plan must be a path, got 3"):
        verify(tmp_path / "theirs", plan=3, seed=3)


def test_constants_and_how_many_are_not_finite(tmp_path):
    def change(arrays):
        arrays["table"][:] = 0.5
        arrays["norm"][:] = 2  # this tensor is also a constant in the plan
        arrays["window"][3, 4:6] = np.nan, np.inf

    found = {finding.name: finding for finding in changed(tmp_path, change).tensors}
    assert found["table"].status == "constant" and found["norm"].status == "changed"
    window = found["window"]
    assert (window.differing, window.not_finite, window.index) == (2, 2, (3, 4))
    assert np.isnan(window.found) and window.detail.endswith("differ, 2 of them not finite")
    expected = wf.TruncatedNormal(0, 1, -np.inf, 2)((40, 40), seed=3, name="window")
    assert window.expected == expected[3, 4]


def run(*arguments):
    return CliRunner().invoke(main, ["verify", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=3, dtype="float32")
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert re.search(r": 9 fresh \(seed 3; 0.00 GB in .* s\)$", result.stdout.strip())
    content = json.loads(run(tmp_path, "--json").stdout)
    assert content["fresh"] is True and content["counts"] == {"fresh": 9}

    result = run(tmp_path, "--seed", 4)
    assert result.exit_code == 1, result.output
    assert re.search(r"^ table +unrelated +element \(0, 0\) is -?0", result.stdout, re.M)
    assert "bias" not in result.stdout
    assert "4 unrelated, 4 fresh, 1 changed (seed 4;" in result.stdout
    result = run(tmp_path, "--seed", 4, "--json")
    assert result.exit_code == 1
    first = json.loads(result.stdout)["tensors"][0]
    assert (first["name"], first["status"], first["index"]) == ("table", "unrelated", [0, 0])
    made = wf.RandomNormal(0.0, 0.02)((300, 70), seed=3, name="table")
    assert first["found"] == float(made[0, 0])


def test_what_the_command_cannot_tell_has_a_status_of_its_own(tmp_path):
    for arguments in ((tmp_path,), (tmp_path, "--seed", -1), (tmp_path, "--what"), ()):
        assert run(*arguments).exit_code == 2
    write_checkpoint(tmp_path, TENSORS, seed=3, dtype="float32")
    result = run(tmp_path, "--plan", tmp_path / "none.json")
    assert result.exit_code == 2 and "none.json" in result.stderr
    (tmp_path / PLAN).rename(tmp_path / "kept.json")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "must be given, or plan (--plan FILE), which may be the winit_fast.plan" in result.stderr
    assert run(tmp_path, "--plan", tmp_path / "kept.json").exit_code == 0
    file = tmp_path / "model.safetensors"
    save_file(load_file(file), file, {"format": "pt"})
    result = run(tmp_path, "--plan", tmp_path / "kept.json")
    assert result.exit_code == 2 and "seed must be given (--seed)" in result.stderr
    assert run(tmp_path, "--plan", tmp_path / "kept.json", "--seed", 3).exit_code == 0
    file.write_bytes(file.read_bytes()[:-1])
    result = run(tmp_path, "--plan", tmp_path / "kept.json", "--seed", 3)
    assert result.exit_code == 2 and "is not a complete safetensors file" in result.stderr


def test_tensors_without_elements_alone(tmp_path):
    write_checkpoint(tmp_path, [TensorSpec("empty", (0, 4), wf.RandomUniform())], seed=3)
    assert run(tmp_path).exit_code == 0


def test_outputs_that_take_nothing_do_not_change_the_answer(tmp_path):
    """A closed pipe is no error; a full disk is one, and sets the exit status."""
    write_checkpoint(tmp_path, TENSORS[:3], seed=3, dtype="float32")
    command = [sys.executable, "-c", "from winit_fast_command import main; main()", "verify"]
    for seed, status in ((3, 0), (4, 1)):
        arguments = [*command, str(tmp_path), "--seed", str(seed)]
        read, write = os.pipe()
        os.close(read)
        try:
            result = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True)
        finally:
            os.close(write)
        assert (result.returncode, "Error" in result.stderr) == (status, False), result.stderr
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2 and "No space left on device" in result.stderr
