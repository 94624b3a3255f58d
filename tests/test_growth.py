"""Existing weights as a source: copied, extended, made anew; layers, experts and rows that grow."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import winit_fast as wf
from winit_fast.cli import main
from winit_fast.models import TensorSpec, from_checkpoint, plan_json
from winit_fast.sources.growth import parse_layers

SEED = 5


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def gpt2(layers, rows, width=8, dtype="float32"):
    """A plan of a small GPT-2."""
    shapes = {"wte.weight": (rows, width), "wpe.weight": (4, width)}
    for layer in range(layers):
        shapes[f"h.{layer}.mlp.c_fc.weight"] = (width, 4 * width)
        shapes[f"h.{layer}.mlp.c_fc.bias"] = (4 * width,)
    tensors = [TensorSpec(name, shape, wf.Zeros(), dtype=dtype) for name, shape in shapes.items()]
    return wf.Plan(tensors).with_rules("gpt2")


@pytest.fixture
def old(tmp_path):
    """A checkpoint of two layers and 11 rows."""
    arrays = {t.name: numbers(*t.shape, seed=n) for n, t in enumerate(gpt2(2, 11))}
    save_file(arrays, tmp_path / "old.safetensors")
    return tmp_path / "old.safetensors", arrays


def test_tensors_are_copied_extended_and_made_anew(old):
    file, arrays = old
    plan = gpt2(3, 13)
    new, report = from_checkpoint(plan, file)
    made = dict(new.arrays(seed=SEED))
    for name in "wpe.weight", "h.1.mlp.c_fc.weight", "h.0.mlp.c_fc.bias":
        assert np.array_equal(made[name], arrays[name])
    assert np.array_equal(made["wte.weight"][:11], arrays["wte.weight"])
    own = dict(plan.arrays(seed=SEED))
    assert np.array_equal(made["wte.weight"][11:], own["wte.weight"][11:])
    assert np.array_equal(made["h.2.mlp.c_fc.weight"], own["h.2.mlp.c_fc.weight"])
    assert report.counts() == {"copied": 5, "converted": 0, "extended": 1, "anew": 2, "unused": 0}
    assert report.names("anew") == ["h.2.mlp.c_fc.weight", "h.2.mlp.c_fc.bias"]
    row = json.loads(report.to_json())["tensors"][0]
    assert row == {
        "name": "wte.weight", "status": "extended", "shape": [13, 8], "source": "wte.weight",
        "source_shape": [11, 8],
    }  # fmt: skip
    assert wf.Plan.from_json(new.to_json()) == new


def test_types_are_converted(old):
    file, arrays = old
    new, report = from_checkpoint(gpt2(2, 11, dtype="bfloat16"), file)
    assert report.counts()["converted"] == 6
    expected = arrays["wte.weight"].astype("bfloat16")
    assert new["wte.weight"].array(seed=SEED).tobytes() == expected.tobytes()


def test_names_by_mapping(tmp_path):
    arrays = {"net.w.3": numbers(2, 3), "net.b.3": numbers(2, seed=1), "rest": numbers(1)}
    save_file(arrays, tmp_path / "old.safetensors")
    names = {"m.layers.3.weight": (2, 3), "m.layers.3.bias": (2,), "m.layers.4.bias": (2,)}
    plan = wf.Plan(TensorSpec(name, shape, wf.Ones()) for name, shape in names.items())
    mapping = [("m.layers.{i}.weight", "net.w.{i}"), ("*.layers.{i}.bias", "net.b.{i}")]
    new, report = from_checkpoint(plan, tmp_path / "old.safetensors", mapping=mapping)
    made = dict(new.arrays(seed=SEED))
    assert np.array_equal(made["m.layers.3.weight"], arrays["net.w.3"])
    assert np.array_equal(made["m.layers.3.bias"], arrays["net.b.3"])
    assert (made["m.layers.4.bias"] == 1).all()
    assert report.unused == ("rest",)


def test_a_tied_name_is_found(old):
    file, arrays = old
    tensor = TensorSpec("lm_head.weight", (11, 8), wf.Zeros(), tied=["wte.weight"])
    new, _ = from_checkpoint(wf.Plan([tensor]), file)
    assert np.array_equal(new[0].array(seed=SEED), arrays["wte.weight"])


def test_counters_are_copied(tmp_path):
    save_file({"steps": np.array(7), "mask": np.array([True, False])}, tmp_path / "m.safetensors")
    plan = wf.Plan(
        [
            TensorSpec("steps", (), wf.Zeros(), dtype="int64", kind="buffer"),
            TensorSpec("mask", (2,), wf.Ones(), dtype="bool", kind="buffer"),
        ]
    )
    made = dict(from_checkpoint(plan, tmp_path / "m.safetensors")[0].arrays(seed=0))
    assert made["steps"] == 7 and made["mask"].tolist() == [True, False]


# ------------------------------------------------------------------------------------------- growth


def test_layers_are_repeated(old):
    file, arrays = old
    new, report = from_checkpoint(gpt2(5, 11), file, layers=parse_layers("5=0..1,0,0..1"))
    made = dict(new.arrays(seed=SEED))
    for layer, source in enumerate([0, 1, 0, 0, 1]):
        for part in "weight", "bias":
            source_name = f"h.{source}.mlp.c_fc.{part}"
            assert np.array_equal(made[f"h.{layer}.mlp.c_fc.{part}"], arrays[source_name])
    assert report.counts()["copied"] == 12


def test_new_rows_have_the_mean_and_covariance_of_the_old_ones(tmp_path):
    mixed = numbers(500, 6) @ numbers(6, 6, seed=1) + np.arange(6, dtype="float32")
    save_file({"wte.weight": mixed}, tmp_path / "old.safetensors")
    plan = wf.Plan([TensorSpec("wte.weight", (20500, 6), wf.Zeros())])
    new, _ = from_checkpoint(plan, tmp_path / "old.safetensors", new_rows="mean")
    w = new[0].array(seed=SEED).astype("float64")
    assert np.array_equal(w[:500], mixed)
    rows = (w[500:] - mixed.mean(axis=0, dtype="float64")) / 1e-9**0.5
    expected = np.cov(mixed.T, ddof=0)
    # float32 has about 3 digits of the small deviations here. The standard error of an element of a
    # covariance of n rows is at most sqrt(2 / n) of the variances: 1 %.
    largest = np.diag(expected).max()
    assert np.allclose(np.cov(rows.T), expected, atol=0.05 * largest)
    assert np.allclose(rows.mean(axis=0), 0.0, atol=0.05 * largest**0.5)


def test_a_row_depends_on_its_index_only(tmp_path):
    save_file({"w": numbers(40, 16)}, tmp_path / "old.safetensors")
    old = wf.Pretrained(str(tmp_path / "old.safetensors"), "w")
    scheme = wf.Pretrained(old.source, "w", fallback=wf.RowsLike(old, 1.0))
    whole = scheme((50, 16), seed=SEED, name="w")
    assert np.array_equal(scheme((44, 16), seed=SEED, name="w"), whole[:44])
    for index in np.s_[45:47], np.s_[38:42, 3:7], np.s_[:, 15], np.s_[49, 2]:
        assert np.array_equal(scheme((50, 16), seed=SEED, name="w", index=index), whole[index])
    narrow = scheme((50, 16), seed=SEED, name="w", dtype="float16")
    assert np.array_equal(narrow[40:], whole[40:].astype("float16"))
    again = wf.get({"class_name": "RowsLike", "config": wf.RowsLike(old, 0.5).get_config()})
    assert again == wf.RowsLike(old, 0.5)


def test_fewer_old_rows_than_columns(tmp_path):
    old = wf.Pretrained(numbers(3, 8))
    w = wf.Pretrained(old.source, fallback=wf.RowsLike(old, 1.0))((2003, 8), seed=SEED)[3:]
    centred = w - old.source.mean(axis=0)
    basis = (old.source - old.source.mean(axis=0)).astype("float64")
    inside = centred @ np.linalg.pinv(basis) @ basis  # projected onto the span of the old rows
    assert np.allclose(inside, centred, atol=1e-5)
    assert np.allclose(np.cov(centred.T, ddof=0), np.cov(basis.T, ddof=0), atol=0.2)


def test_a_bias_of_the_head_grows_around_its_mean(tmp_path):
    bias = numbers(100)
    save_file({"head.bias": bias}, tmp_path / "old.safetensors")
    plan = wf.Plan([TensorSpec("head.bias", (120,), wf.Zeros())])
    new, _ = from_checkpoint(plan, tmp_path / "old.safetensors", new_rows="mean")
    made = new[0].array(seed=SEED)
    assert np.array_equal(made[:100], bias)
    assert np.allclose(made[100:], bias.mean(), atol=1e-6)


def test_experts_are_copies_with_noise(tmp_path):
    dense = {"layers.0.mlp.up_proj.weight": numbers(6, 4)}
    save_file(dense, tmp_path / "old.safetensors")
    names = [f"layers.0.mlp.experts.{expert}.up_proj.weight" for expert in range(3)]
    tensors = [TensorSpec(name, (6, 4), wf.Ones()) for name in names]
    router = TensorSpec("layers.0.mlp.gate.weight", (3, 4), wf.RandomNormal(0.0, 0.02))
    plan = wf.Plan([*tensors, router])
    mapping = [("*.experts.{e}.*", "*.*")]
    new, report = from_checkpoint(plan, tmp_path / "old.safetensors", mapping=mapping, noise=0.01)
    made = dict(new.arrays(seed=SEED))
    for name in names:
        noise = wf.RandomNormal(0.0, 0.01)((6, 4), seed=SEED, name=name).astype("float64")
        expected = (next(iter(dense.values())) + noise).astype("float32")
        assert np.array_equal(made[name], expected)
    assert report.names("anew") == ["layers.0.mlp.gate.weight"]
    assert np.array_equal(made["layers.0.mlp.gate.weight"], router.array(seed=SEED))
    exact, _ = from_checkpoint(plan, tmp_path / "old.safetensors", mapping=mapping)
    assert np.array_equal(dict(exact.arrays(seed=SEED))[names[2]], next(iter(dense.values())))


@pytest.mark.parametrize(
    ("text", "layers"),
    [("3=0..2", [0, 1, 2]), ("0..1,0..1", [0, 1, 0, 1]), ("2=5, 3", [5, 3]), ("7", [7])],
)
def test_layers_are_read(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "24=", "2..1", "a", "1-2", "3=0..1", "0,,1", "1..9999999"])
def test_layers_that_are_none(text):
    with pytest.raises(ValueError, match="layers"):
        parse_layers(text)


@pytest.mark.parametrize(
    ("plan", "options", "message"),
    [
        (gpt2(2, 10), {}, r"tensor 'wte.weight': its shape \(10, 8\) must be at least .*\(11, 8\)"),
        (
            wf.Plan([TensorSpec("wpe.weight", (4, 8, 1), wf.Zeros())]),
            {},
            "its shape .* must be at least",
        ),
        (
            wf.Plan([TensorSpec("wpe.weight", (4, 8), wf.Zeros(), dtype="int64")]),
            {},
            "its type int64 and shape",
        ),
        (
            wf.Plan([TensorSpec("vte.weight", (11, 8), wf.Zeros())]),
            {},
            "no tensor is found.*did you mean 'wte.weight'.*--map",
        ),
        (gpt2(2, 11), {"mapping": [("x.*", "*")]}, r"mapping 'x\.\*' to '\*' leads to no tensor"),
        (gpt2(2, 11), {"mapping": [("x", "*")]}, r"mapping has \* in '\*', but not in 'x'"),
        (gpt2(2, 11), {"mapping": [("*.*.*", "*")]}, "mapping must have at most 2 stars"),
        (gpt2(2, 11), {"mapping": [("{i}.{i}", "x")]}, "mapping must have different names"),
        (gpt2(3, 11), {"layers": [0, 1]}, "layers has 2 layers, the model 3"),
        (gpt2(3, 11), {"layers": [0, 1, 2]}, "layers has layer 2, which .* has not"),
        (gpt2(2, 11), {"new_rows": "mean"}, "new_rows 'mean' is for a model with more rows"),
        (gpt2(2, 12), {"new_rows": "avg"}, "new_rows must be one of scheme, mean, got 'avg'"),
        (gpt2(2, 11), {"noise": 0.1}, "noise is for tensors that are copied more than once"),
        (gpt2(2, 11), {"noise": -1.0}, "noise must be >= 0, got -1.0"),
    ],
)  # fmt: skip
def test_refusals(old, plan, options, message):
    with pytest.raises(ValueError, match=message):
        from_checkpoint(plan, old[0], **options)


@pytest.mark.parametrize(
    ("old", "message"),
    [
        (3, "old must be a Pretrained without a fallback, got 3"),
        (wf.Pretrained(np.ones((2, 2)), fallback="zeros"), "old must be a Pretrained without"),
    ],
)
def test_rows_like_what(old, message):
    with pytest.raises(TypeError, match=message):
        wf.RowsLike(old)


def test_rows_of_another_width_are_refused():
    scheme = wf.RowsLike(wf.Pretrained(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"old must be a matrix with the columns of \(5, 4\)"):
        scheme((5, 4), seed=0)
    with pytest.raises(ValueError, match="old must be finite"):
        wf.RowsLike(wf.Pretrained(np.full((2, 3), np.inf)))((5, 3), seed=0)
    with pytest.raises(ValueError, match="scale must be >= 0"):
        wf.RowsLike(wf.Pretrained(np.ones((2, 3))), -1.0)


# ----------------------------------------------------------------------------------- foreign files


def headed(file, entries, nbytes=32):
    """Write a file with a header that no writer makes."""
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(nbytes))


def entry(shape, end=32):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


TWICE = "{{{0},{0}}}".format(json.dumps({"w": entry([8])})[1:-1]).encode()


@pytest.mark.parametrize("option", ["--from", "--like"])
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            "../outside.safetensors",
            "is not an index of safetensors files in its own folder: 'w' is",
        ),
        ("/etc/passwd", "is not an index of safetensors files in its own folder: 'w' is in '/etc"),
        ("a/../../outside.safetensors", "is not an index of safetensors files in its own folder"),
        ("missing.safetensors", "No such file"),
        ("other.safetensors", "index.json names tensor 'w', which is not in its file"),
    ],
)
def test_files_that_leave_the_directory(tmp_path, option, index, message):
    folder = tmp_path / "old"
    folder.mkdir()
    for file in tmp_path / "outside.safetensors", folder / "other.safetensors":
        save_file({"w" if file.stem == "outside" else "v": numbers(2, 2)}, file)
    content = {"metadata": {}, "weight_map": {"w": index, "v": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    wf.Plan([TensorSpec("w", (2, 2), wf.Zeros())]).save(tmp_path / "new.json")
    result = run("init", tmp_path / "new.json", option, folder, "--out", tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False), result.output
    assert message in result.stderr


@pytest.mark.parametrize("option", ["--from", "--like"])
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (TWICE, "'w' occurs twice"),
        ({"w": entry([2**40, 2**40])}, "w"),
        ({"w": entry([-8])}, "w"),
        ({"w": entry([9])}, "w"),
        ({"w": entry([8], 64)}, "w"),
    ],
    ids=["twice", "overflow", "negative", "other size", "beyond the end"],
)
def test_headers_that_no_writer_makes(tmp_path, option, header, message):
    headed(tmp_path / "old.safetensors", header)
    wf.Plan([TensorSpec("w", (8,), wf.Zeros())]).save(tmp_path / "new.json")
    result = run(
        "init", tmp_path / "new.json", option, tmp_path / "old.safetensors",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False), result.output
    assert "old.safetensors" in result.stderr and message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"shape": [2**40, 2**40]}], "shape"),
        ([{"shape": [-1]}], "shape"),
        ([{}, {}], "tensor name 'w' is used twice"),
        ([{}, {"name": "v", "tied": ["w"]}], "tensor name 'w' is used twice"),
        ([{"initializer": {"class_name": "OwnScheme", "config": {}}}], "its module is imported"),
        ([{"initializer": {"class_name": "Zeros", "config": {"gain": 2}}}], "gain"),
        ([{"dtype": "float12"}], "float12"),
        ([{"name": 3}], "name must be"),
        ([{"shpae": [4]}], "a plan of this version has no key 'shpae'"),
        ([{"kind": "weight"}], "kind"),
    ],
)
def test_malformed_plans(tmp_path, entries, message):
    basis = {"name": "w", "shape": [4], "dtype": "float32",
             "initializer": {"class_name": "Zeros", "config": {}}}  # fmt: skip
    content = {"format": plan_json.FORMAT, "tensors": [basis | own for own in entries]}
    (tmp_path / "new.json").write_text(json.dumps(content))
    result = run("init", tmp_path / "new.json", "--out", tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False), result.output
    assert message in result.stderr and "Traceback" not in result.stderr


# -------------------------------------------------------------------------------------- the command


def test_the_command_copies_extends_and_reports(old, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    file, arrays = old
    gpt2(3, 13).save(tmp_path / "new.json")
    report = tmp_path / "report.json"
    result = run(
        "init", tmp_path / "new.json", "--from", file, "--new-rows", "mean", "--layers", "3=0..1,1",
        "--out", tmp_path / "out", "--report", report, "--seed", SEED,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert re.search(r"copied +7", result.output)
    assert re.search(r"extended +1 +wte\.weight", result.output)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(found["h.2.mlp.c_fc.weight"], arrays["h.1.mlp.c_fc.weight"])
    assert np.allclose(found["wte.weight"][12], arrays["wte.weight"].mean(axis=0), atol=1e-3)
    assert json.loads(report.read_text())["counts"]["copied"] == 7
    assert run("verify", tmp_path / "out").exit_code == 0
    found = run("init", tmp_path / "new.json", "--from", file, "--layers", "3=0..1,1", "--dry-run")
    assert re.search(r"extended +1 +wte\.weight", found.output)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--map", "a=b"], 2, "--map needs --from"),
        (["--layers", "2=0..1"], 2, "--layers needs --from"),
        (["--noise", "0"], 2, "--noise needs --from"),
        (["--new-rows", "mean"], 2, "--new-rows needs --from"),
        (["--report", "x"], 2, "--report needs --from"),
        (["--from", "{old}", "--map", "a"], 2, "'a' is not NEW=OLD"),
        (["--from", "{old}", "--layers", "x"], 1, "layers must be like 24=0..15,8..15, got 'x'"),
        (["--from", "{old}", "--new-rows", "x"], 1, "new_rows must be one of scheme, mean"),
        (["--from", "{old}", "--noise", "nan"], 1, "noise must be finite, got nan"),
        (["--from", "missing"], 1, "missing holds neither model.safetensors nor"),
    ],
)
def test_refusals_of_the_command(old, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    gpt2(2, 11).save("new.json")
    given = [str(old[0]) if argument == "{old}" else argument for argument in arguments]
    result = run("init", "new.json", *given, "--out", "out")
    assert (result.exit_code, (tmp_path / "out").exists()) == (status, False)
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_refused_run_leaves_no_report(old, tmp_path, dry_run):
    """The plan is made and reported in full before the refusal: of a type, or of the folder."""
    gpt2(2, 11).save(tmp_path / "new.json")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").touch()
    report = tmp_path / "report.json"
    options = ["--from", old[0], "--report", report]
    if dry_run:
        options += ["--dry-run", "--keep-float32", "nothing*"]
    else:
        options += ["--out", tmp_path / "out"]
    for before in None, "mine":
        if before is not None:
            report.write_text(before)
        result = run("init", tmp_path / "new.json", *options)
        assert result.exit_code == 1, result.output
        assert (report.read_text() if report.exists() else None) == before
    if dry_run:
        options = [*options[:4], "--dry-run"]
    else:
        options.append("--force")
    assert run("init", tmp_path / "new.json", *options).exit_code == 0
    assert json.loads(report.read_text())["counts"]["copied"] == 6


def test_rules_that_no_tensor_needs_are_refused(old, tmp_path):
    for rows, options, status in [(11, [], 1), (13, ["--new-rows", "mean"], 1), (13, [], 0)]:
        gpt2(2, rows).save(tmp_path / "new.json")
        result = run(
            "init", tmp_path / "new.json", "--from", old[0], "--rules", "megatron", *options,
            "--out", tmp_path / "out",
        )  # fmt: skip
        assert (result.exit_code, (tmp_path / "out").exists()) == (status, not status)
        assert status == 0 or "--rules megatron has no effect: every tensor is" in result.stderr


@pytest.mark.parametrize("report", ["missing/report.json", "."])
def test_a_report_that_cannot_be_written_is_refused_first(old, tmp_path, report):
    gpt2(2, 11).save(tmp_path / "new.json")
    arguments = ["--from", old[0], "--out", tmp_path / "out", "--report", tmp_path / report]
    result = run("init", tmp_path / "new.json", *arguments)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "--report must be a file in an existing folder" in result.stderr


def test_a_report_in_the_new_folder(old, tmp_path):
    gpt2(2, 11).save(tmp_path / "new.json")
    report = tmp_path / "out" / "report.json"
    arguments = ["--from", old[0], "--out", tmp_path / "out", "--report", report]
    assert run("init", tmp_path / "new.json", *arguments).exit_code == 0
    assert json.loads(report.read_text())["counts"]["copied"] == 6


def test_only_the_rank_that_publishes_writes_the_report(old, tmp_path):
    gpt2(2, 11).save(tmp_path / "new.json")
    report = tmp_path / "report.json"
    for rank in 0, 1:
        assert not report.exists()
        result = run(
            "init", tmp_path / "new.json", "--from", old[0], "--out", tmp_path / "out",
            "--report", report, "--rank", rank, "--world", 2, "--max-shard-size", "500",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    assert json.loads(report.read_text())["counts"]["copied"] == 6


# -------------------------------------------------------------------------- names, shapes and types


def test_like_a_checkpoint(old, tmp_path):
    file, arrays = old
    arrays["wpe.weight"] = arrays["wpe.weight"].astype("float16")
    save_file(arrays, file)
    result = run("init", "--like", file, "--rules", "gpt2", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        name: (a.shape, a.dtype) for name, a in arrays.items()
    }
    expected = wf.RandomNormal(0.0, 0.02)((4, 8), seed=0, name="wpe.weight", dtype="float16")
    assert np.array_equal(found["wpe.weight"], expected)


def test_like_a_checkpoint_with_the_schemes_of_a_source(old, tmp_path):
    gpt2(2, 11).save(tmp_path / "new.json")
    result = run("init", tmp_path / "new.json", "--like", old[0], "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = load_file(tmp_path / "out" / "model.safetensors")
    made = dict(gpt2(2, 11).arrays(seed=0))
    assert all(np.array_equal(found[name], array) for name, array in made.items())


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (None, [], "--like needs a SOURCE or --rules: a checkpoint has no schemes"),
        (None, ["--rules", "olmo_ngpt"], "have no rule for 1 of 6 tensors of "),
        (None, ["--rules", "gpt2", "--dtype", "half"], "--like gives the types too, got --dtype"),
        (gpt2(2, 12), [], "has 'wte.weight' with shape (11, 8), the model with (12, 8)"),
        (gpt2(1, 11), [], "a tensor must be one of"),
        (gpt2(3, 11), [], "lacks 2 tensors of the model: h.2.mlp.c_fc.weight, h.2.mlp.c_fc.bias"),
    ],
)
def test_like_what_does_not_fit(old, tmp_path, source, arguments, message):
    if source is not None:
        source.save(tmp_path / "new.json")
        arguments = [tmp_path / "new.json", *arguments]
    result = run("init", *arguments, "--like", old[0], "--out", tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False), result.output
    assert message in result.stderr


def test_neither_a_source_nor_a_checkpoint(tmp_path):
    result = run("init", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "Missing argument 'SOURCE'" in result.stderr
