"""`inspect`: the statistics of a checkpoint in every type, and faults that were planted."""

import json
import math
import re
import struct

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import winit_fast as wf
from winit_fast.base import safetensors
from winit_fast.checkpoint import expectation, inspect, inspection, repeats, write_checkpoint
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.cli import main
from winit_fast.models.tensor_spec import TensorSpec

NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    **{f"I{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.bool_,
    "C64": np.complex64,
}


def write(path, tensors, metadata=None):
    """Write a safetensors file by hand, with any type, from (tag, shape, bytes)."""
    header, end = {"__metadata__": metadata or {}}, 0
    for name, (tag, shape, data) in tensors.items():
        header[name] = {"dtype": tag, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    bodies = b"".join(data for _, _, data in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + bodies)


def stored(array, tag):
    return tag, list(array.shape), array.astype(NUMPY[tag]).tobytes()


def found_in(path, **options):
    return {tensor.name: tensor for tensor in inspect(path, **options).tensors}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(inspection, "_CHUNK", 1 << 15)
    monkeypatch.setattr(inspection, "_UNIT", 1 << 16)
    monkeypatch.setattr(repeats, "_CHUNK", 1 << 15)


@pytest.mark.parametrize("tag", NUMPY)
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.usefixtures("small_chunks")
def test_statistics_of_every_type(tmp_path, tag, num_threads):
    rng = np.random.default_rng(5)
    numbers = 3 + 20 * rng.standard_normal((300, 70))
    numbers[:, :7] = 0
    array = (abs(numbers) if tag[0] == "U" else numbers).astype(NUMPY[tag])
    write(tmp_path / "m.safetensors", {"w": stored(array, tag), "e": (tag, [0, 4], b"")})
    found = found_in(tmp_path / "m.safetensors", num_threads=num_threads)
    wide = array.view(np.float32) if tag == "C64" else array
    exact = wide.astype(np.float64)
    assert found["w"].dtype == tag and found["w"].shape == (300, 70)
    assert math.isclose(found["w"].mean, exact.mean(), rel_tol=1e-5)
    assert math.isclose(found["w"].deviation, exact.std(), rel_tol=1e-5)
    assert (found["w"].minimum, found["w"].maximum) == (exact.min(), exact.max())
    assert found["w"].zeros == np.count_nonzero(exact == 0) >= 300 * 7
    assert found["w"].not_finite == 0
    assert found["e"].mean is None and found["e"].zeros == 0


def test_all_types_of_the_format_are_here(tmp_path):
    """F8_E8M0, powers of two, has its own table; other types are not whole bytes."""
    codes = np.arange(256, dtype=np.uint8)
    assert {*safetensors._BITS} == {*NUMPY, "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2"}
    parts = {
        "scales": ("F8_E8M0", [256], codes.tobytes()),
        "four": ("F4", [2, 64], codes[:64].tobytes()),
        "six": ("F6_E2M3", [32, 4], codes[:96].tobytes()),
    }
    write(tmp_path / "m.safetensors", parts)
    found = found_in(tmp_path / "m.safetensors")
    assert (found["scales"].minimum, found["scales"].maximum) == (2.0**-127, 2.0**127)
    assert found["scales"].not_finite == 1
    assert found["four"].mean is found["six"].zeros is None


@pytest.mark.parametrize("tag", ["F64", "F32", "F16", "BF16", "F8_E5M2"])
def test_what_is_not_finite_is_counted_and_left_out(tmp_path, tag):
    array = np.ones((40, 50))
    array[3, 4], array[5, 6], array[7, 8], array[9] = np.nan, np.inf, -np.inf, 3.0
    nothing = np.full((40, 50), np.nan)
    file = tmp_path / "m.safetensors"
    write(file, {"w": stored(array, tag), "n": stored(nothing, tag)})
    found = found_in(file)
    exact = array[np.isfinite(array)]
    assert (found["w"].not_finite, found["n"].not_finite) == (3, 2000)
    assert math.isclose(found["w"].mean, exact.mean(), rel_tol=1e-6)
    assert math.isclose(found["w"].deviation, exact.std(), rel_tol=1e-5)
    assert (found["w"].minimum, found["w"].maximum) == (1.0, 3.0)
    assert found["n"].mean is None and found["n"].zeros == 0


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 1e-3), (1e20, 1e18), (1e-25, 1e-26)])
@pytest.mark.usefixtures("small_chunks")
def test_deviations_that_sums_of_squares_would_lose(tmp_path, mean, deviation):
    rng = np.random.default_rng(6)
    array = (mean + deviation * rng.standard_normal((200, 500))).astype(np.float32)
    save_file({"w": array, "same": np.full(70000, 0.1, np.float32)}, tmp_path / "m.safetensors")
    found = found_in(tmp_path / "m.safetensors")
    exact = array.astype(np.float64)
    assert math.isclose(found["w"].mean, exact.mean(), rel_tol=1e-6)
    assert math.isclose(found["w"].deviation, exact.std(), rel_tol=1e-4)
    assert found["same"].deviation == 0.0 and found["same"].mean == float(np.float32(0.1))


SCHEMES = [
    wf.Zeros(),
    wf.Ones(),
    wf.Constant(-2.5),
    wf.RandomNormal(0.1, 0.3),
    wf.RandomUniform(-1, 3),
    wf.TruncatedNormal(0.5, 0.2, -0.5, 3.0),
    wf.TruncatedNormal(0, 1, -np.inf, 1),
    wf.HeNormal(),
    wf.VarianceScaling(2.0, "fan_avg", "uniform"),
    wf.VarianceScaling(2.0, "fan_out", "truncated_normal"),
    wf.Sparse(0.77, 0.4),
    wf.Orthogonal(3.0),
    wf.Identity(2.0),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("shape", [(200, 90), (90, 200)])
def test_what_a_scheme_should_have(scheme, shape):
    """Within six standard errors of a normal standard deviation and mean: 4e-9 false alarms."""
    made = scheme(shape, seed=0, name="w", dtype="float64")
    mean, deviation = expectation.moments(scheme, shape)
    error = 6 / math.sqrt(made.size)
    assert math.isclose(made.std(), deviation, rel_tol=error, abs_tol=1e-12)
    assert math.isclose(made.mean(), mean, abs_tol=deviation * error + 1e-12)


def test_schemes_whose_deviation_is_not_known():
    assert expectation.moments(wf.STFT(), (8, 1, 5)) is None
    assert expectation.moments(wf.Constant(math.nan), (8,)) is None


def planted(tmp_path, change, shape=(96, 128), names="abcd", **options):
    """Write four normal tensors, change some, and inspect them."""
    rng = np.random.default_rng(7)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name in names}
    change(arrays)
    save_file(arrays, tmp_path / "m.safetensors")
    found = inspect(tmp_path / "m.safetensors", **options)
    return [(each.kind, each.names, each.detail) for each in found.repeats]


@pytest.mark.usefixtures("small_chunks")
class TestRepeats:
    def test_none_in_what_is_drawn(self, tmp_path):
        assert planted(tmp_path, lambda arrays: None) == []

    @pytest.mark.parametrize("shape", [(96, 128), (12345,), (4, 3, 5, 7)])
    def test_equal_tensors(self, tmp_path, shape):
        def change(arrays):
            arrays["d"] = arrays["b"].copy()

        assert planted(tmp_path, change, shape) == [("tensors", ("b", "d"), "equal")]

    def test_equal_rows(self, tmp_path):
        def change(arrays):
            arrays["c"][[50, 70, 71]] = arrays["c"][[9, 9, 10]]

        detail = "3 of 96 are equal to earlier ones: row 50 to row 9, say"
        assert planted(tmp_path, change) == [("rows", ("c",), detail)]

    @pytest.mark.parametrize(
        ("shape", "axis", "parts"),
        [
            *(((48, 24, 72), axis, parts) for axis in range(3) for parts in (2, 3, 6, 8, 24)),
            *(((24, 48, 360), axis, parts) for axis in range(3) for parts in (3, 24)),
            *(((2, 17280), 1, parts) for parts in (3, 64)),
        ],
    )
    def test_equal_pieces_of_every_axis(self, tmp_path, shape, axis, parts):
        """As if all ranks had filled their shards from the same seed."""

        def change(arrays):
            first = np.split(arrays["a"], parts, axis)[0]
            arrays["a"] = np.concatenate([first] * parts, axis)

        (found,) = planted(tmp_path, change, shape, names="a")
        assert found == ("pieces", ("a",), f"axis {axis} cut into {parts}: 1 different piece")

    @pytest.mark.parametrize("axis", [0, 1])
    def test_two_of_eight_pieces(self, tmp_path, axis):
        def change(arrays):
            pieces = np.split(arrays["a"], 8, axis)
            pieces[5] = pieces[3]
            arrays["a"] = np.concatenate(pieces, axis)

        (found,) = planted(tmp_path, change, (64, 192))
        assert found == ("pieces", ("a",), f"axis {axis} cut into 8: 7 different pieces")

    def test_pieces_and_further_rows(self, tmp_path):
        def change(arrays):
            arrays["a"][48:] = arrays["a"][:48]
            arrays["a"][[20, 68]] = arrays["a"][21]

        assert planted(tmp_path, change) == [
            ("pieces", ("a",), "axis 0 cut into 2: 1 different piece"),
            ("rows", ("a",), "49 of 96 are equal to earlier ones: row 21 to row 20, say"),
        ]

    def test_a_vector(self, tmp_path):
        def change(arrays):
            arrays["a"][600:] = arrays["a"][:600]

        (found,) = planted(tmp_path, change, (1200,))
        assert found == ("pieces", ("a",), "axis 0 cut into 2: 1 different piece")

    def test_constants_and_what_is_short_are_none(self, tmp_path):
        def change(arrays):
            arrays["a"][:, :] = 3
            arrays["b"][40:70] = 0  # constant rows are not repeats
            arrays["c"][:, 64:] = 1  # constant pieces are not repeats either
            arrays["d"] = np.tile(np.float32([1, 2, 3]), (5, 1))
            arrays["e"] = arrays["d"].copy()[:, 0]

        assert planted(tmp_path, change) == []

    def test_hashes_that_agree_by_chance_prove_nothing(self, tmp_path, monkeypatch):
        def hashes(rows, begin=0):
            return np.zeros(len(rows), np.uint64)

        monkeypatch.setattr(inspection, "row_hashes", hashes)
        monkeypatch.setattr(repeats, "_SAMPLE", 1)

        def change(arrays):
            arrays["a"][3] = arrays["a"][2]
            arrays["d"] = arrays["b"].copy()

        assert planted(tmp_path, change) == [
            ("tensors", ("b", "d"), "equal"),
            ("rows", ("a",), "1 of 96 are equal to earlier ones: row 3 to row 2, say"),
        ]


@pytest.mark.parametrize("width", [1, 7, 8, 9, 50, 4096 * 8, 4096 * 8 * 3 + 24, 100_001])
def test_a_hash_of_rows(width):
    """Any changed byte changes the hash; the hash of a long row is the sum over its parts."""
    rng = np.random.default_rng(8)
    rows = rng.integers(256, size=(3, width), dtype=np.uint8)
    whole = repeats.row_hashes(rows)
    for at in {0, width // 2, width - 1}:
        changed = rows.copy()
        changed[1, at] ^= 1 << int(rng.integers(8))
        assert (repeats.row_hashes(changed) != whole).tolist() == [False, True, False]
    (alone,) = repeats.row_hashes(rows[:1])
    assert alone == whole[0]
    parts = np.zeros(3, np.uint64)
    for begin in range(0, width, 1 << 15):
        parts += repeats.row_hashes(np.ascontiguousarray(rows[:, begin : begin + (1 << 15)]), begin)
    assert (parts == whole).all()


def test_histograms_count_every_finite_element(tmp_path):
    array = np.array([0.0, -0.0, 1.0, 1.01, -2.0, np.inf, np.nan, 3e38], np.float32)
    save_file({"w": array}, tmp_path / "m.safetensors")
    (found,) = inspect(tmp_path / "m.safetensors", histograms=True).tensors
    codes = array.view(np.uint32) >> 20
    expected = dict.fromkeys(codes[[0, 1, 4, 7]].tolist(), 1) | {int(codes[2]): 2}
    assert found.histogram == expected


TENSORS = [
    *(TensorSpec(f"h.{i}.w", (64, 64), wf.RandomNormal(0, 0.02)) for i in range(4)),
    *(TensorSpec(f"h.{i}.b", (64,), wf.Zeros()) for i in range(4)),
    TensorSpec("table", (100, 64), wf.HeNormal()),
    TensorSpec("ortho", (64, 64), wf.Orthogonal()),
]


def rewritten(path, change):
    """Change the bytes of some tensors of a file, in place."""
    header = safetensors.read_header(str(path))
    data = np.memmap(path, np.uint8, "r+")
    arrays = {
        name: data[header.size + entry.begin : header.size + entry.end]
        .view(NUMPY[entry.tag])
        .reshape(entry.shape)
        for name, entry in header.entries.items()
    }
    change(arrays)
    data.flush()


def run(*arguments):
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=1, dtype="bfloat16")

    def change(arrays):
        arrays["h.1.w"][:] = 0
        arrays["h.2.w"][3, 4] = np.nan
        arrays["h.3.w"][:] = 2 * arrays["h.3.w"].astype(np.float32)
        arrays["table"][50:] = arrays["table"][:50]

    rewritten(tmp_path / "model.safetensors", change)
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["4", "h.*.b", "BF16", "64", "0", "0", "0", "0", "0", "100%", "0"] in words
    assert [line[:6] for line in words if line[1:2] == ["h.*.w"]] == [
        ["4", "h.*.w", "BF16", "64", "x", "64"]
    ]
    for text in (
        "h.1.w +all elements are 0",
        "h.2.w +not finite: 1 of 4,096 elements",
        "h.3.w +deviation 0.0[34].*, expected 0.02",
        "table +pieces: axis 0 cut into 2: 1 different piece",
        f": 10 tensors, 0.00 GB in .* s; expected by {PLAN}",
    ):
        assert re.search(text, result.stdout)
    content = json.loads(run(tmp_path, "--json").stdout)
    assert [each["name"] for each in content["stands_out"]] == ["h.1.w", "h.2.w", "h.3.w"]
    assert content["repeats"] == [
        {"kind": "pieces", "names": ["table"], "detail": "axis 0 cut into 2: 1 different piece"}
    ]
    (table,) = (each for each in content["tensors"] if each["name"] == "table")
    assert table["shape"] == [100, 64] and math.isclose(table["expected"], math.sqrt(2 / 100))


def test_what_is_fresh_does_not_stand_out(tmp_path):
    for dtype in ("float32", "bfloat16", "float8_e4m3fn"):
        write_checkpoint(tmp_path / dtype, TENSORS[:-1], seed=1, dtype=dtype, max_shard_size=9000)
        content = json.loads(run(tmp_path / dtype, "--json").stdout)
        assert content["stands_out"] == content["repeats"] == []


def test_index_file_and_directory(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=1, max_shard_size=9000)
    index = tmp_path / "model.safetensors.index.json"
    whole = inspect(tmp_path)
    assert inspect(index).tensors == whole.tensors
    one = inspect(next(tmp_path.glob("model-00001*")))
    assert one.tensors == whole.tensors[: len(one.tensors)]
    assert one.plan == PLAN
    for options in ({"num_threads": 1}, {"num_threads": 4}):
        assert inspect(tmp_path, **options).tensors == whole.tensors


def test_a_plan_that_is_not_there_or_another_one(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=1)
    text = (tmp_path / PLAN).read_text()
    (tmp_path / PLAN).write_text(text.replace("0.02", "0.03"))
    found = inspect(tmp_path)
    assert found.plan == f"{PLAN} is not the plan whose digest is in the headers"
    assert found.tensors[0].expected is None
    (tmp_path / PLAN).unlink()
    assert inspect(tmp_path).plan == f"there is no {PLAN}"


def test_a_damaged_file_costs_a_line(tmp_path):
    write_checkpoint(tmp_path, TENSORS, seed=1)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    result = run(tmp_path)
    assert result.exit_code == 2
    assert f"Error: {file} is not a complete safetensors file" in result.stderr
    result = run(tmp_path / "nowhere")
    assert result.exit_code == 2 and "holds neither" in result.stderr


@pytest.mark.parametrize("kind", ["png", "svg", "html"])
def test_pictures(tmp_path, kind):
    pytest.importorskip("matplotlib")
    write_checkpoint(tmp_path / "m", TENSORS, seed=1)
    file = tmp_path / f"picture.{kind}"
    result = run(tmp_path / "m", "--plot", file)
    assert result.exit_code == 0, result.output
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}
    content = file.read_bytes()
    assert content.startswith(begins[kind])
    if kind != "png":
        assert content.count(b"<svg") == 1


def test_a_picture_of_another_kind_is_refused(tmp_path):
    result = run(tmp_path, "--plot", tmp_path / "picture.pdf")
    assert result.exit_code == 2
    assert "picture.pdf' does not end in one of .png, .svg, .html" in result.output


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": 3}, TypeError, "path must be a path, got 3"),
        ({"num_threads": 0}, ValueError, "num_threads"),
        ({"progress": 3}, TypeError, "progress must be a function, got 3"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    write_checkpoint(tmp_path, TENSORS, seed=3)
    with pytest.raises(error, match=message):
        inspect(**{"path": tmp_path} | arguments)
