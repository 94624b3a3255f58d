"""Reading safetensors files: what the format's own library rejects is rejected, with an error."""

import json
import os
import socket
import struct
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from strategies import examples

import winit_fast as wf
from winit_fast.base import safetensors, strict_json

W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
V = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


def write(path, header, data=bytes(8)):
    """Write a file with the given header: bytes as they are, or an object as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def text_of(entry):
    return json.dumps(entry).encode()


REFUSED = {
    "trailing bytes": ({"w": W}, bytes(9)),
    "cut off": ({"w": W}, bytes(7)),
    "hole at the beginning": ({"w": V}, bytes(16)),
    "hole": ({"w": W, "v": {**V, "data_offsets": [12, 20]}}, bytes(20)),
    "overlap": ({"w": W, "v": {**V, "data_offsets": [4, 12]}}, bytes(12)),
    "the same bytes twice": ({"w": W, "v": W}, bytes(8)),
    "empty one in the middle": (
        {"w": W, "z": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}},
        bytes(8),
    ),
    "negative offsets": ({"w": {**W, "data_offsets": [-8, 0]}}, bytes(8)),
    "backward offsets": ({"w": {**W, "data_offsets": [8, 0]}}, bytes(8)),
    "offsets of another shape": ({"w": {**W, "shape": [3]}}, bytes(8)),
    "offsets of another type": ({"w": {**W, "dtype": "F64"}}, bytes(8)),
    "three offsets": ({"w": {**W, "data_offsets": [0, 8, 8]}}, bytes(8)),
    "bool offset": ({"w": {**W, "data_offsets": [False, 8]}}, bytes(8)),
    "bool extent": ({"w": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4)),
    "float offset": ({"w": {**W, "data_offsets": [0.0, 8]}}, bytes(8)),
    "text for offsets": ({"w": {**W, "data_offsets": "08"}}, bytes(8)),
    "text for a shape": ({"w": {**W, "shape": "2"}}, bytes(8)),
    "negative extents": ({"w": {**W, "shape": [-2, -1]}}, bytes(8)),
    "extent past 64 bits": ({"w": {**W, "shape": [2**64]}}, bytes(8)),
    "unknown type": ({"w": {**W, "dtype": "X9"}}, bytes(8)),
    "no type": ({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "a fault in another tensor": ({"w": W, "v": {**V, "dtype": 3}}, bytes(16)),
    "half a byte": ({"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, bytes(2)),
    "field twice": (b'{"w":{"dtype":"F32",' + text_of(W)[1:] + b"}", bytes(8)),
    "metadata twice": (
        b'{"__metadata__":{},"__metadata__":{},"w":' + text_of(W) + b"}",
        bytes(8),
    ),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "w": W}, bytes(8)),
    "metadata of lists": ({"__metadata__": [], "w": W}, bytes(8)),
    "list": (b"[]", b""),
    "nothing": (b"", b""),
    "UTF-16": (json.dumps({"w": W}).encode("utf-16"), bytes(8)),
    "UTF-32": (json.dumps({"w": W}).encode("utf-32-le"), bytes(8)),
    "Latin 1": ('{"é":'.encode("latin-1") + text_of(W) + b"}", bytes(8)),
    "byte order mark": (b"\xef\xbb\xbf" + text_of({"w": W}), bytes(8)),
    "half a surrogate pair": (b'{"\\ud800":' + text_of(W) + b"}", bytes(8)),
    "NaN": (b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":NaN}}', bytes(8)),
    "trailing NUL": (text_of({"w": W}) + b"\0", bytes(8)),
    "depth": (b'{"w":' + b"[" * 5000 + b"]" * 5000 + b"}", bytes(8)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_the_library_refuses_it(tmp_path, case):
    path = write(tmp_path / "w.safetensors", *REFUSED[case])
    with pytest.raises(SafetensorError), safe_open(path, "np"):
        pass
    out = np.full(2, 7, np.float32)
    for name in ("w", "v"):
        with pytest.raises(
            ValueError, match="w.safetensors is not a (complete )?safetensors file: "
        ):
            wf.Pretrained(path, name).fill(out)
    assert (out == 7).all()


def test_names_that_are_there_twice(tmp_path):
    """The safetensors library takes the last one; the format forbids it."""
    text = b'{"w":' + text_of(W) + b',"w":' + text_of(W) + b"}"
    with pytest.raises(ValueError, match="'w' occurs twice"):
        safetensors.read_header(write(tmp_path / "w.safetensors", text))
    text = b'{"__metadata__":{"a":"b","a":"c"},"w":' + text_of(W) + b"}"
    with pytest.raises(ValueError, match="'a' occurs twice"):
        safetensors.read_header(write(tmp_path / "w.safetensors", text))


ACCEPTED = {
    "plain": ({"w": W}, bytes(8)),
    "metadata": ({"__metadata__": {"a": "b"}, "w": W}, bytes(8)),
    "no metadata": ({"__metadata__": None, "w": W}, bytes(8)),
    "another order": ({"v": V, "w": W}, bytes(16)),
    "spaces": (b" " + text_of({"w": W}) + b"\n\t  ", bytes(8)),
    "further fields": ({"w": {**W, "x": [1, -2, 0.5]}}, bytes(8)),
    "empty ones": (
        {
            "a": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]},
            "w": W,
            "z": {"dtype": "I8", "shape": [0], "data_offsets": [8, 8]},
        },
        bytes(8),
    ),
    "no tensor": ({}, b""),
} | {
    f"beside {tag}": (
        {
            "w": W,
            "x": {"dtype": tag, "shape": [8], "data_offsets": [8, 8 + bits]},
        },
        bytes(8 + bits),
    )
    for tag, bits in safetensors._BITS.items()
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_read_as_the_library_reads_it(tmp_path, case):
    path = write(tmp_path / "w.safetensors", *ACCEPTED[case])
    header = safetensors.read_header(path)
    with safe_open(path, "np") as file:
        assert header.entries.keys() == set(file.keys())
        assert header.metadata == (file.metadata() or {})
        for name, entry in header.entries.items():
            assert entry.shape == tuple(file.get_slice(name).get_shape())
            assert entry.tag == file.get_slice(name).get_dtype()
    if "w" in header.entries:
        assert (wf.Pretrained(path, "w")(2) == 0).all()


def test_every_type_of_the_library_is_known():
    """The library's error message lists its types."""
    with pytest.raises(SafetensorError) as caught:
        from safetensors import deserialize

        text = text_of({"w": {**W, "dtype": "X9"}})
        deserialize(struct.pack("<Q", len(text)) + text + bytes(8))
    listed = str(caught.value).partition("one of ")[2].partition(" at line")[0]
    assert {tag.strip("`") for tag in listed.split(", ")} == {*safetensors._BITS}


numbers = st.integers(-1, 20) | st.sampled_from([True, 0.0, 2**64, "1", None])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "F4", "X9"]),
        "shape": st.lists(numbers, max_size=3) | st.lists(st.integers(0, 4), max_size=3),
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2)
        | st.lists(numbers, max_size=3),
    }
)


@examples(400)
@given(
    header=st.dictionaries(st.sampled_from(["w", "v", "é", "__metadata__"]), entries, max_size=3),
    length=st.integers(0, 24),
)
def test_the_library_and_this_one_agree(tmp_path_factory, header, length):
    path = write(tmp_path_factory.mktemp("s") / "w.safetensors", header, bytes(length))
    try:
        with safe_open(path, "np") as file:
            expected = set(file.keys())
    except SafetensorError:
        with pytest.raises(ValueError, match="w.safetensors is no"):
            safetensors.read_header(path)
        return
    assert safetensors.read_header(path).entries.keys() == expected


def test_a_header_of_more_than_100_megabytes(tmp_path):
    """It is rejected before it is read: the sparse file takes no memory and no disk space."""
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", safetensors.MAX_HEADER + 1))
        file.truncate(8 + safetensors.MAX_HEADER + 1)
    with pytest.raises(SafetensorError, match="too large"), safe_open(path, "np"):
        pass
    with pytest.raises(
        ValueError, match=r"its header has 100,000,001 bytes, more than 100,000,000"
    ):
        wf.Pretrained(path, "w")(2)
    index = tmp_path / "model.safetensors.index.json"
    with index.open("wb") as file:
        file.truncate(safetensors.MAX_HEADER + 1)
    with pytest.raises(ValueError, match="more than 100,000,000 bytes"):
        wf.Pretrained(index, "w")(2)


def test_a_file_that_is_changed_is_read_anew(tmp_path, monkeypatch):
    path = write(tmp_path / "w.safetensors", {"w": W})
    assert (wf.Pretrained(path, "w")(2) == 0).all()
    write(tmp_path / "w.safetensors", {"w": {**W, "shape": [1, 2]}}, np.float32([1, 2]).tobytes())
    assert wf.Pretrained(path, "w")((1, 2)).tolist() == [[1, 2]]
    write(tmp_path / "w.safetensors", {"w": W}, bytes(7))
    with pytest.raises(ValueError, match="cut off"):
        wf.Pretrained(path, "w")(2)
    # The header of an older file is cached until the file changes.
    now, reads, read = time.time_ns(), [], strict_json.read
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**11)
    monkeypatch.setattr(strict_json, "read", lambda *args: reads.append(1) or read(*args))
    for header, data in (({"w": W}, bytes(8)), ({"w": W, "v": V}, bytes(16))):
        write(tmp_path / "w.safetensors", header, data)
        for _ in range(3):
            assert safetensors.read_header(path).entries.keys() == header.keys()
    assert len(reads) == 2


@pytest.mark.parametrize("ending", ["safetensors", "safetensors.index.json", "npy"])
def test_what_is_no_regular_file(tmp_path, ending):
    """Opening a pipe would block, and reading a device would never end."""
    pipe, device, other = (tmp_path / f"{name}.{ending}" for name in ("pipe", "device", "socket"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        scheme = wf.Pretrained(path, None if ending == "npy" else "w")
        with pytest.raises(ValueError, match=f"{path.name} is not a regular file"):
            scheme(2)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(other))
        scheme = wf.Pretrained(other, None if ending == "npy" else "w")
        with pytest.raises((ValueError, OSError)):
            scheme(2)
    folder = tmp_path / f"folder.{ending}"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        wf.Pretrained(folder, None if ending == "npy" else "w")(2)


@pytest.mark.parametrize(
    "name",
    ["../w.safetensors", "/etc/w.safetensors", "a/../../w.safetensors", "./w.safetensors",
     "C:w.safetensors", "a\\w.safetensors", "w.safetensors\0", "w.bin", "", "a//w.safetensors"],
)  # fmt: skip
def test_an_index_of_files_elsewhere(tmp_path, name):
    write(tmp_path / "w.safetensors", {"w": W})
    folder = tmp_path / "folder"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"v": "v.safetensors", "w": name}}))
    for tensor in ("w", "v"):  # the whole index is rejected
        with pytest.raises(ValueError, match="not an index of safetensors files in its own folder"):
            wf.Pretrained(index, tensor)(2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"weight_map":{"w":"a.safetensors","w":"b.safetensors"}}', "'w' occurs twice"),
        (json.dumps({"weight_map": {"w": "w.safetensors"}}).encode("utf-16"), "codec"),
        (b'{"weight_map":{"w":3}}', "must map names of tensors to files"),
        (b'{"weight_map":["w"]}', "must map names of tensors to files"),
        (b'{"metadata":{}}', "must map names of tensors to files, got None"),
        (b"[]", r"it holds \[\]"),
    ],
)
def test_what_is_no_index(tmp_path, text, message):
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text)
    with pytest.raises(ValueError, match=f"is not an index of safetensors files: .*{message}"):
        wf.Pretrained(index, "w")(2)


def test_files_in_a_folder_below_and_behind_links(tmp_path):
    """As in the caches of the Hugging Face libraries."""
    (tmp_path / "blobs").mkdir()
    write(tmp_path / "blobs" / "1234", {"w": W}, np.float32([1, 2]).tobytes())
    folder = tmp_path / "snapshot"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "w.safetensors").symlink_to(tmp_path / "blobs" / "1234")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "part/w.safetensors"}}))
    assert wf.Pretrained(index, "w")(2).tolist() == [1, 2]


def test_the_nearest_few_of_many_names(tmp_path):
    names = [f"layers.{number}.weight" for number in range(1000)]
    entries = {
        name: {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]}
        for at, name in enumerate(names)
    }
    path = write(tmp_path / "w.safetensors", entries, bytes(1000))
    with pytest.raises(ValueError, match="did you mean 'layers.*' or 'layers.*'") as caught:
        wf.Pretrained(path, "layer.7.weight")(2)
    assert len(str(caught.value)) < 300 + len(path)


@pytest.mark.parametrize("extra", range(17))
def test_headers_are_padded_to_8_bytes_and_no_more(extra):
    tensors = [("w" * (1 + extra), np.dtype("float32"), (2, 3))]
    header, offsets = safetensors.header_bytes(tensors, {})
    spaces = len(header) - len(header.rstrip(b" "))
    assert len(header) % 8 == 0 and spaces < 8
    assert offsets == [len(header), len(header) + 24]
    assert int.from_bytes(header[:8], "little") == len(header) - 8


# Pretrained, with the arrays that were read.


def test_numbers_that_the_type_cannot_hold_and_nothing_is_written(tmp_path):
    path = tmp_path / "w.safetensors"
    values = np.ones(1 << 18, ml_dtypes.bfloat16)
    values[-1] = 1e30
    write(path, {"w": {"dtype": "BF16", "shape": [1 << 18], "data_offsets": [0, 1 << 19]}},
          values.tobytes())  # fmt: skip
    out = np.full(1 << 18, 7, np.float16)
    schemes = [
        wf.Pretrained(path, "w"),
        wf.Scaled(wf.Pretrained(values.astype(np.float64) * 1e30), 0.5),
        wf.Scaled(wf.Scaled(wf.Pretrained(values.astype(np.float64) * 1e30), 0.5), "1 / 2"),
        wf.Pretrained(np.ones(3), fallback=wf.Pretrained(path, "w")),
    ]
    for scheme in schemes:
        for num_threads in (1, 3):
            with pytest.raises(ValueError, match=r"source must fit float(16|32), got 1\.\d+e"):
                scheme.fill(out, num_threads=num_threads)
            assert (out == 7).all()


@pytest.mark.parametrize("index", [np.s_[2:2], np.s_[0:0, :], np.s_[:, 1:1]])
def test_boxes_without_elements_are_checked_too(index):
    source = np.ones((4, 4))
    for scheme in (wf.Pretrained(source), wf.Scaled(wf.Pretrained(source), 0.5)):
        with pytest.raises(ValueError, match=r"got \(4, 4\) for \(5, 4\)"):
            scheme((5, 4), index=index)
        assert scheme((4, 4), index=index).size == 0
    with pytest.raises(FileNotFoundError):
        wf.Pretrained("gone.npy")((4, 4), index=index)
    with pytest.raises(ValueError, match="as many axes"):
        wf.Pretrained(source, fallback="zeros")((4, 4, 1), index=index)


def test_double_numbers_are_rounded_by_way_of_float32():
    value = 1 + 2**-11 + 2**-40
    assert np.float64(value).astype(np.float16) == 1 + 2**-10  # rounded once, it would be this
    assert wf.Pretrained(np.array([value]))(1, dtype="float16") == 1
    assert wf.Constant(value)(1, dtype="float16") == 1


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_types_that_npy_files_cannot_name(tmp_path, name):
    values = wf.RandomNormal()((5, 7), seed=0, dtype=name)
    np.save(tmp_path / "w.npy", values)
    raw = np.load(tmp_path / "w.npy")
    for source in (tmp_path / "w.npy", raw):
        hint = rf"got \|V{values.itemsize}, as NumPy loads .*'{name}'.*: give dtype="
        with pytest.raises(TypeError, match=hint):
            wf.Pretrained(source)((5, 7))
        scheme = wf.Pretrained(source, dtype=name)
        assert (scheme((5, 7), dtype=name) == values).all()
        assert (scheme((5, 7)) == values.astype(np.float32)).all()
        assert wf.Pretrained.from_config(scheme.get_config()) == scheme
        assert f"dtype={name!r}" in repr(scheme)
        wrong = "float32" if values.itemsize == 2 else "bfloat16"
        with pytest.raises(
            TypeError, match=rf"must hold {wrong}, as dtype= says, got \|V{values.itemsize}"
        ):
            wf.Pretrained(source, dtype=wrong)((5, 7))
    same = wf.Pretrained(values, dtype=name)
    assert (same((5, 7), dtype=name) == values).all()
    assert same != wf.Pretrained(values)


def test_a_type_that_npy_files_name_and_numpy_does_not_know(tmp_path):
    values = wf.RandomNormal()((5, 7), seed=0, dtype="float8_e5m2")
    np.save(tmp_path / "w.npy", values)
    with pytest.raises(ValueError, match=r"save float8_e5m2 as its bytes, w.view\('uint8'\)"):
        wf.Pretrained(tmp_path / "w.npy", dtype="float8_e5m2")((5, 7))
    np.save(tmp_path / "w.npy", values.view("uint8"))
    scheme = wf.Pretrained(tmp_path / "w.npy", dtype="float8_e5m2")
    assert (scheme((5, 7), dtype="float8_e5m2") == values).all()
    with pytest.raises(TypeError, match="got uint8"):
        wf.Pretrained(tmp_path / "w.npy")((5, 7))


def test_a_said_type_where_there_is_nothing_to_say(tmp_path):
    with pytest.raises(ValueError, match="dtype is for .npy files and arrays, got 'bfloat16'"):
        wf.Pretrained("w.safetensors", "w", dtype="bfloat16")
    with pytest.raises(TypeError, match="source must hold bfloat16, as dtype= says, got float16"):
        wf.Pretrained(np.ones(3, np.float16), dtype="bfloat16")
    with pytest.raises(TypeError, match="dtype must be one of"):
        wf.Pretrained(np.ones(3), dtype="int8")
