"""Plans: sequences of tensors with their schemes, as values, without a framework."""

import base64
import json
import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
import pytest

import winit_fast as wf
from winit_fast.base.boxes import box, whole
from winit_fast.checkpoint import verify, write_checkpoint
from winit_fast.initializers.parts import covers
from winit_fast.models import Architecture, Rules, TensorSpec, plan_json
from winit_fast.models.plan_table import by_layer

TABLE = np.arange(12, dtype=np.int64).reshape(3, 4)
PLAN = wf.Plan(
    [
        TensorSpec("wte.weight", (9, 4), wf.RandomNormal(0, 0.02), tied=["lm_head.weight"]),
        TensorSpec("h.0.w", (4, 4), wf.RandomUniform(-1, 1), dtype="bfloat16", drawn_in="float32"),
        TensorSpec("h.1.w", (4, 4), wf.Orthogonal(column_axis=0), dtype="float16"),
        TensorSpec("h.0.b", (4,), wf.Zeros(), stream="elsewhere"),
        TensorSpec("h.1.b", (4,), wf.Constant(-math.inf)),
        TensorSpec(
            "qkv",
            (6, 4),
            wf.Parts([((0, 0), (3, 4), wf.HeNormal(), "q"), ((3, 0), (6, 4), wf.Zeros())]),
        ),
        TensorSpec("steps", (), wf.Zeros(), dtype="int64", kind="buffer"),
        TensorSpec(
            "table", (3, 4), wf.Computed(TABLE), dtype="int64", kind="non-persistent buffer"
        ),
        TensorSpec("mask", (2,), wf.Computed([True, False]), dtype="bool", kind="buffer"),
        TensorSpec("wave", (3,), wf.Computed(np.ones(3, "c8")), dtype="complex64", kind="buffer"),
    ]
)
WRITABLE = PLAN[:7]


def test_a_plan_is_an_immutable_sequence():
    assert len(PLAN) == 10 and next(iter(PLAN)) is PLAN[0] is PLAN["wte.weight"]
    assert PLAN["lm_head.weight"] is PLAN[0] and "lm_head.weight" in PLAN and "x" not in PLAN
    assert PLAN[0] in PLAN and PLAN[-1].name == "wave"
    assert wf.Plan(PLAN) == PLAN and hash(wf.Plan(list(PLAN))) == hash(PLAN)
    assert PLAN[:3] != PLAN and PLAN[:3] == wf.Plan(PLAN[:3])
    assert PLAN.size == 36 + 16 + 16 + 4 + 4 + 24 + 1 + 12 + 2 + 3
    with pytest.raises(KeyError, match="did you mean 'wte.weight'"):
        PLAN["wte.wieght"]
    with pytest.raises(AttributeError):
        PLAN.extra = 1
    with pytest.raises(TypeError):
        PLAN[0] = PLAN[1]


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (3, TypeError, "tensors must be a sequence of TensorSpec"),
        (["w"], TypeError, "tensors must hold TensorSpec objects, got 'w'"),
        ([PLAN[0], PLAN[0]], ValueError, "tensor name 'wte.weight' is used twice"),
        ([PLAN[0], replace(PLAN[1], tied=("lm_head.weight",))], ValueError, "'lm_head.weight' is"),
    ],
)
def test_what_is_no_plan(tensors, error, message):
    with pytest.raises(error, match=message):
        wf.Plan(tensors)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dtype": "int63"}, TypeError, "dtype must be one of .*got 'int63'"),
        ({"drawn_in": "int64"}, TypeError, "dtype must be one of .*got 'int64'"),
        ({"stream": 3}, TypeError, "stream must be a str, got 3"),
        ({"tied": "ab"}, TypeError, "tied must be a sequence of names, got 'ab'"),
        ({"tied": [3]}, TypeError, "tied must hold names, got 3"),
        ({"kind": "buffers"}, ValueError, "kind must be one of .*did you mean 'buffer'"),
    ],
)
def test_what_is_no_tensor(change, error, message):
    with pytest.raises(error, match=message):
        replace(PLAN[0], **change)


def test_arrays_are_those_of_the_schemes():
    made = dict(PLAN.arrays(seed=3))
    assert list(made) == list(PLAN.names)  # a tied tensor appears once
    direct = wf.RandomNormal(0, 0.02)((9, 4), seed=3, name="wte.weight")
    assert (made["wte.weight"] == direct).all()
    wide = wf.RandomUniform(-1, 1)((4, 4), seed=3, name="h.0.w")
    assert (made["h.0.w"] == wide.astype(made["h.0.w"].dtype)).all()
    assert made["h.0.w"].dtype.name == "bfloat16"
    assert made["steps"] == 0 and made["steps"].dtype == np.int64
    assert (made["table"] == TABLE).all() and made["table"].dtype == np.int64
    assert made["mask"].tolist() == [True, False] and made["wave"].dtype == np.complex64
    q = wf.HeNormal()((3, 4), seed=3, name="q")
    assert (made["qkv"][:3] == q).all() and not made["qkv"][3:].any()
    again = dict(PLAN.arrays(seed=3, num_threads=1))
    assert all((again[name] == array).all() for name, array in made.items())
    moved = replace(PLAN[0], stream="other").array(3)
    assert (moved == wf.RandomNormal(0, 0.02)((9, 4), seed=3, name="other")).all()


@pytest.mark.parametrize("tensor", PLAN, ids=lambda tensor: tensor.name)
def test_boxes_are_those_of_the_whole(tensor):
    whole = tensor.array(seed=4)
    index = tuple(slice(1, extent) for extent in tensor.shape)
    if isinstance(tensor.initializer, wf.Orthogonal):
        index = (slice(None), slice(1, 3))
    assert tensor.array(seed=4, index=index).tobytes() == whole[index].copy().tobytes()


def test_drawn_in_another_type_differs_where_it_must():
    narrow = TensorSpec("w", (1 << 16,), wf.RandomUniform(0.0, 1.0), dtype="float16")
    wide = replace(narrow, drawn_in="float32")
    # only float32 numbers are rounded up to the bound
    assert narrow.array(0).max() < 1 == wide.array(0).max()
    double = TensorSpec("w", (300_000,), wf.RandomNormal(0.0, 1.0), drawn_in="float64")
    exact = wf.RandomNormal(0.0, 1.0)(300_000, seed=5, name="w", dtype="float64")
    assert (double.array(5) == exact.astype(np.float32)).all()
    assert replace(wide, drawn_in="float16") == narrow  # the tensor's own type is the same as none


def test_check_names_the_tensor():
    PLAN.check()
    for wrong, message in (
        (TensorSpec("w", (3,), wf.Orthogonal()), "tensor 'w': "),
        (TensorSpec("w", (3,), wf.RandomNormal(), dtype="int64"), "tensor 'w': .*int64"),
        (TensorSpec("w", (3,), wf.Constant(0.5), dtype="int64"), "tensor 'w': .*fit int64, got"),
        (TensorSpec("w", (3,), wf.Constant(2), dtype="bool"), "tensor 'w': .*fit bool, got"),
        (TensorSpec("w", (4, 3), wf.Computed(TABLE), dtype="int64"), "tensor 'w': .*shape"),
        (TensorSpec("w", (3, 4), wf.Computed(TABLE)), "tensor 'w': .*float32, got int64"),
        (TensorSpec("w", (1,), wf.Computed([7e4]), dtype="float16"), "tensor 'w': .*got 70000.0"),
    ):
        plan = wf.Plan([*PLAN, wrong])
        with pytest.raises((TypeError, ValueError), match=message):
            plan.check()
        with pytest.raises((TypeError, ValueError), match=message):
            plan.arrays(0)  # the call itself raises, not only reading an array


def test_matching():
    assert PLAN.matching("h.*").names == ("h.0.w", "h.1.w", "h.0.b", "h.1.b")
    assert PLAN.matching("h.{i}.b", "qkv").names == ("h.0.b", "h.1.b", "qkv")
    with pytest.raises(ValueError, match=r"a pattern in patterns .*got 'g\.\*'"):
        PLAN.matching("h.*", "g.*")


def test_with_rules():
    rules = {
        "h.{i}.w": lambda i: wf.RandomNormal(0, 0.1 / (i + 1)),
        "h.1.*": "ones",
        "h.1.w": {"class_name": "Constant", "config": {"value": 3}},
    }
    plan = PLAN.with_rules(rules)
    assert plan["h.0.w"] == replace(PLAN["h.0.w"], initializer=wf.RandomNormal(0, 0.1),
                                    drawn_in=None)  # fmt: skip
    # an exact name takes precedence over a pattern
    assert plan["h.1.w"].initializer == wf.Constant(3)
    assert plan["h.1.b"].initializer == wf.Ones()
    assert plan["wte.weight"] is PLAN["wte.weight"]
    assert plan["h.0.b"].stream == "elsewhere"
    for rules, message in (
        ({"g.*": "zeros"}, r"a pattern in rules .*got 'g\.\*'"),
        ({"lm_head.weight": "zeros"}, "'lm_head.weight', which is tied to 'wte.weight'"),
        ({"h.*.w": "he_normal"}, "leaves open which axes"),
        ({"h.*.b": "orthogonal"}, r"tensor 'h\.0\.b'"),
        ({"steps": "normal"}, "tensor 'steps': .*int64"),
        ({"h.*.w": "he_norml"}, "rule 'h.*.w', tensor 'h.0.w': .*did you mean 'he_normal'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            PLAN.with_rules(rules)
    for axes, kernel in (("torch", (1, 0)), ("jax", (-2, -1))):
        scheme = PLAN.with_rules({"h.*.w": "he_normal"}, axes=axes)["h.0.w"].initializer
        assert (scheme.in_axis, scheme.out_axis) == kernel


def test_cast():
    plan = PLAN.cast("bf16")
    assert {tensor.dtype for tensor in plan} == {"bfloat16", "int64", "bool", "complex64"}
    assert plan["h.0.w"].drawn_in is None and plan["table"] is PLAN["table"]


def test_diff():
    assert PLAN.diff(PLAN) == PLAN.diff(wf.Plan(list(PLAN))) == []
    assert PLAN[:2].diff(wf.Plan([PLAN[1], PLAN[0]])) == ["the order of the tensors differs"]
    other = PLAN[1:].with_rules({"h.0.b": "ones"})
    assert PLAN.diff(other) == [
        "'wte.weight': missing in the other plan",
        "'h.0.b': initializer is Zeros(), the other's Ones()",
    ]
    assert other.diff(PLAN)[-1] == "'wte.weight': only the other has it"


def test_json_is_a_line_a_tensor_and_reads_back():
    text = WRITABLE.to_json()
    assert wf.Plan.from_json(text) == WRITABLE
    content = json.loads(text)
    assert text.count("\n") == len(WRITABLE) + 2 and content["format"] == 1
    assert content["tensors"][3] == {
        "name": "h.0.b", "shape": [4], "dtype": "float32", "stream": "elsewhere",
        "initializer": {"class_name": "Zeros", "config": {}},
    }  # fmt: skip


def test_files_hold_stored_values(tmp_path):
    path = tmp_path / "model.plan.json"
    WRITABLE.save(path)
    assert wf.Plan.load(path) == WRITABLE and [*tmp_path.iterdir()] == [path]
    whole = wf.Plan(
        [*PLAN, TensorSpec("part", (2, 4), wf.Parts([((0, 0), (1, 4), wf.Computed(TABLE[:1])),
                                                     ((1, 0), (2, 4), wf.Computed(TABLE[1:2]))]),
                           dtype="int64")]
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'table' cannot be written.*save\(\) has a file"):
        whole.to_json()
    whole.save(path)
    assert wf.Plan.load(path) == whole
    with pytest.raises(ValueError, match=r"beside the plan: use load\(\)"):
        wf.Plan.from_json(path.read_text())
    replace_values = whole.with_rules({"table": wf.Computed(TABLE + 1)})
    replace_values.save(tmp_path / "other.json")
    (tmp_path / "other.safetensors").replace(tmp_path / "model.plan.safetensors")
    with pytest.raises(ValueError, match="other values are stored as 'table'"):
        wf.Plan.load(path)
    (tmp_path / "model.plan.safetensors").unlink()
    with pytest.raises(ValueError, match="beside the plan: use load"):
        wf.Plan.load(path)
    with pytest.raises(ValueError, match=r"path must end in \.json, got"):
        PLAN.save(tmp_path / "plan.toml")


@dataclass(frozen=True, repr=False)
class Own(wf.Elementwise):
    pass


@pytest.mark.parametrize("scheme", [Own(), wf.Scaled(Own(), 2.0), wf.Constant(math.nan),
                                    wf.Parts([((0,), (3,), Own())])])  # fmt: skip
def test_what_json_cannot_hold_is_refused_by_name(scheme, tmp_path):
    plan = wf.Plan([TensorSpec("w", (3,), scheme)])
    for write in (plan.to_json, lambda: plan.save(tmp_path / "plan.json")):
        with pytest.raises(ValueError, match="tensor 'w' cannot be written, its scheme is"):
            write()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "its format is None, not 1"),
        ("[]", "it holds"),
        ('{"format": 2, "tensors": []}', "its format is 2, not 1"),
        ('{"format": 1, "tensors": [{"name": "w"}]}', "it has {'name': 'w'}: 'initializer'"),
        (
            '{"format": 1, "tensors": [{"name": "w", "colour": 1}]}',
            "this version has no key 'colour'",
        ),
        (WRITABLE.to_json().replace("Zeros", "Zeroes"), "did you mean"),
        (
            WRITABLE.to_json().replace(
                '"initializer": {"class_name": "Zeros", "config": {}}', '"not_written": "Own()"'
            ),
            "could not store the scheme of 'h.0.b'",
        ),
    ],
)
def test_what_is_no_plan_in_json(text, message):
    with pytest.raises(ValueError, match=message):
        wf.Plan.from_json(text)


def test_the_table_has_a_line_for_all_layers():
    plan = Rules.load("gpt2").tensors(Architecture.load("gpt2"))
    assert isinstance(plan, wf.Plan) and repr(plan) == "Plan of 148 tensors, 124,439,808 elements"
    lines = str(plan).splitlines()
    assert len(lines) == 15
    assert lines[1].split() == [
        "1", "wte.weight", "50257", "x", "768", "float32", "RandomNormal(stddev=0.02)"
    ]  # fmt: skip
    depth = [TensorSpec(f"h.{i}.w", (2, 2), wf.RandomNormal(0, 0.1 / (i + 1) ** 0.5))
             for i in range(3)]  # fmt: skip
    (group,) = by_layer(depth)
    assert group.name == "h.{i}.w"
    assert group.initializer == "RandomNormal(stddev=0.1 / sqrt(i + 1))"
    linear = [TensorSpec(f"h.{i}.w", (2, 2), wf.RandomNormal(0, 0.1 * (i + 1))) for i in range(3)]
    assert by_layer(linear)[0][1:4:2] == ("h.*.w", "RandomNormal(stddev=0.1 to 0.3)")
    shown = str(PLAN)
    assert "(non-persistent buffer)" in shown and "in float32" in shown


def test_a_checkpoint_has_the_streams_and_types_of_its_plan(tmp_path):
    plan = PLAN[:6]
    hidden = TensorSpec("hidden", (3,), wf.Ones(), kind="non-persistent buffer")
    write_checkpoint(tmp_path / "c", [*plan, hidden], seed=1, dtype="float32")
    read = wf.Plan.load(tmp_path / "c" / "winit_fast.plan.json")
    assert read.names == plan.names  # without the non-persistent buffer
    assert read["h.0.b"].stream == "elsewhere" and read["wte.weight"].tied == ("lm_head.weight",)
    assert verify(tmp_path / "c").fresh
    stored = wf.Pretrained(tmp_path / "c" / "model.safetensors", "qkv")((6, 4))
    assert (stored == plan["qkv"].array(1)).all()
    assert not verify(tmp_path / "c", tensors=[replace(t, stream=t.name + "x") for t in plan]).fresh
    write_checkpoint(tmp_path / "d", PLAN[:9], seed=1)
    read = wf.Plan.load(tmp_path / "d" / "winit_fast.plan.json")
    assert read == wf.Plan([*PLAN[:7], PLAN[8]]) and verify(tmp_path / "d").fresh
    with pytest.raises(TypeError, match="tensor 'wave' is complex64"):
        write_checkpoint(tmp_path / "e", PLAN, seed=1)


def test_arrays_in_a_checkpoints_plan_are_those_of_their_digests(tmp_path):
    write_checkpoint(tmp_path, PLAN[8:9], seed=1)
    path = tmp_path / "winit_fast.plan.json"
    content = json.loads(path.read_text())
    ((digest, (tag, shape, text)),) = content["arrays"].items()
    for arrays, message in [
        ({digest: ["BOOL", [3], text]}, "has other bytes than BOOL \\(3,\\) takes"),
        ({digest: ["BOOL", [1], text]}, "has other bytes than BOOL \\(1,\\) takes"),
        ({digest: [tag, shape, "no base64"]}, "its arrays cannot be read"),
        ({digest: [tag, shape, text[4:]]}, "its arrays cannot be read"),
        ({digest: ["F4", shape, text]}, "its arrays cannot be read: 'F4'"),
        ({digest: [tag, shape]}, "its arrays cannot be read"),
        ([digest], "its arrays cannot be read"),
        ({digest: ["U8", shape, text]}, "values must have"),
        ({"0": [tag, shape, text]}, f"no array is stored as '{digest}'"),
        ({digest: [tag, shape, _packed(b"\0\0")]}, f"other values are stored as '{digest}'"),
    ]:
        path.write_text(json.dumps(content | {"arrays": arrays}))
        with pytest.raises((ValueError, TypeError), match=message):
            wf.Plan.load(path)["mask"].check()


def _packed(content):
    return base64.b64encode(zlib.compress(content)).decode()


def test_boxes_cover_a_tensor_where_a_mask_says_so():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(1000):
        shape = tuple(rng.integers(0, 5, size=rng.integers(0, 4)).tolist())
        boxes, mask = [], np.zeros(shape, bool)
        for _ in range(rng.integers(0, 6)):
            starts = rng.integers(0, 6, size=len(shape)).tolist()
            stops = [start + size for start, size in zip(
                starts, rng.integers(0, 5, size=len(shape)).tolist(), strict=True)]  # fmt: skip
            boxes.append((starts, stops))
            mask[tuple(slice(*ends) for ends in zip(starts, stops, strict=True))] = True
        assert covers(boxes, whole(shape)) == mask.all(), (shape, boxes)
        found += bool(mask.all())
    assert 100 < found < 900


def test_computed_is_a_value():
    first, same = wf.Computed(TABLE), wf.Computed(TABLE.tolist())
    assert first == same and hash(first) == hash(same) and first != wf.Computed(TABLE + 1)
    assert first != wf.Computed(TABLE.astype("f8")) and first != wf.Computed(TABLE.reshape(4, 3))
    assert wf.Computed([0.0]) != wf.Computed([-0.0]) and wf.Computed([math.nan]) == wf.Computed(
        [math.nan]
    )
    assert repr(first) == "Computed(int64 of shape (3, 4))"
    source = TABLE.copy()
    kept = wf.Computed(source)
    source[:] = 0
    assert (kept((3, 4), dtype="int64") == TABLE).all()
    out = np.zeros((4, 3), np.int64).T
    assert (kept.fill(out) == TABLE).all()
    halves = wf.Computed([0.1])(1, dtype="bfloat16")
    assert halves == np.float32(0.1).astype(halves.dtype)
    for values, error in (
        (["a"], "values must be numbers"), ([[1], [1, 2]], "values must be an array"),
        (np.zeros((1 << 22) + 1, np.int8), "at most 4,194,304 elements"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=error):
            wf.Computed(values)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "int64", "bool"])
def test_constants_of_integer_types(dtype):
    assert wf.Ones()(3, dtype=dtype).tolist() == [1, 1, 1]
    assert wf.Zeros()((2, 1), dtype=dtype).dtype == np.dtype(dtype)
    out = np.zeros(3, dtype)
    assert wf.Constant(1).fill(out).tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="dtype must be one of"):
        wf.RandomNormal()(3, dtype=dtype)
    with pytest.raises(TypeError, match="out must have one of the types"):
        wf.Identity().fill(np.zeros((2, 2), dtype))
    with pytest.raises(ValueError, match=f"value must fit {dtype}, got 0.5"):
        wf.Constant(0.5).fill(out)


# ------------------------------------------------------------------------------------- generations


def test_generations():
    own = wf.Parts([((0,), (4,), wf.RandomNormal()), ((4,), (8,), wf.RandomUniform(), "v")])
    several = wf.Expression(
        "x + y + z",
        [("x", "normal"), ("y", "normal", None, "\0002"), ("z", "normal", None, "v\0003")],
    )
    plan = wf.Plan(
        [
            TensorSpec("a", (8,), wf.RandomNormal(), stream="other", dtype="bfloat16"),
            TensorSpec("b", (8,), own),
            TensorSpec("c", (8,), wf.Scaled(own, 2.0)),
            TensorSpec("d", (8,), several),
            TensorSpec("e", (8, 8), wf.Sparse(0.5)),
            TensorSpec("f", (8,), wf.Ones()),
        ]
    )
    again = plan.of_generation(3)
    normal, uniform = wf.RandomNormal(), wf.RandomUniform()
    suffix = "\0generation 3"
    assert (again["a"].array(5) == normal(8, seed=5, name=f"other{suffix}", dtype="bfloat16")).all()
    v = uniform(4, seed=5, name=f"v{suffix}")
    b = np.concatenate([normal(8, seed=5, name=f"b{suffix}")[:4], v])
    assert (again["b"].array(5) == b).all()
    c = np.concatenate([normal(8, seed=5, name=f"c{suffix}")[:4], v])
    assert (again["c"].array(5) == 2 * c).all()
    names = f"d{suffix}", f"d{suffix}\0002", f"v{suffix}\0003"
    d = sum(normal(8, seed=5, name=name).astype("f8") for name in names)
    assert (again["d"].array(5) == d.astype("f4")).all()
    sparse = wf.Sparse(0.5)((8, 8), seed=5, name=f"e{suffix}")
    assert (again["e"].array(5) == sparse).all()
    assert (again["f"].array(5) == 1).all()
    assert again.of_generation(0) == plan and again.of_generation(1) == plan.of_generation(1)
    assert plan.of_generation(0) == plan and plan != again != plan.of_generation(4)
    with pytest.raises(ValueError, match="generation must be >= 0, got -1"):
        plan.of_generation(-1)
    with pytest.raises(TypeError, match=r"generation must be an integer, got 1\.5"):
        plan.of_generation(1.5)


def test_an_array_that_is_too_large_takes_no_room_from_others(monkeypatch):
    monkeypatch.setattr(plan_json, "_MOST", 2000)
    noise = np.random.default_rng(0).bytes(4096)
    large = TensorSpec("large", (4096,), wf.Computed(np.frombuffer(noise, np.uint8)), dtype="uint8")
    small = TensorSpec("small", (3,), wf.Computed(np.arange(3)), dtype="int64")
    text = plan_json.text([large, small], inline=True, strict=False)
    found = plan_json.read(text.encode(), "the plan")
    assert isinstance(found[0].initializer, plan_json.NotWritten) and found[1] == small


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_filler_of_a_tensor_fills_any_box(dtype):
    tensor = TensorSpec("w", (5, 4), wf.RandomNormal(), dtype=dtype, stream="other")
    out = np.empty((2, 4), dtype)
    tensor.filler(3)(out, box((5, 4), np.s_[1:3]), None)
    np.testing.assert_array_equal(out, tensor.array(3)[1:3])


def test_a_scheme_of_ones_own_needs_its_import():
    """The text of a plan names a class that no module has defined yet."""
    text = wf.Plan([TensorSpec("w", (3,), wf.Zeros())]).to_json().replace("Zeros", "OwnScheme")
    with pytest.raises(ValueError, match="got 'OwnScheme'.*is known once its module is imported"):
        wf.Plan.from_json(text)
