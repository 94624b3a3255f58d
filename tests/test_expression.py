"""Written expressions: values computed elementwise from draws, in any box, and in plans."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import winit_fast as wf
from winit_fast.models import TensorSpec

UNIFORM = wf.RandomUniform(0.0, 1.0)
STEP = wf.Expression("d = maximum(exp(x * 4.6 - 6.9), 0.0001); d + log(-expm1(-d))", {"x": UNIFORM})


def exact(x):
    d = np.maximum(np.exp(x * 4.6 - 6.9), 0.0001)
    return d + np.log(-np.expm1(-d))


def test_the_arithmetic_is_that_of_float64_rounded_once():
    x = UNIFORM((40, 30), seed=3, name="dt_bias").astype("f8")
    w = STEP((40, 30), seed=3, name="dt_bias")
    assert w.dtype == "float32" and (w == exact(x).astype("f4")).all()
    for dtype in ("float16", "bfloat16", "float8_e5m2"):
        wide = wf.Expression(STEP.text, STEP.operands, drawn_in="float32")
        narrow = wide((40, 30), seed=3, name="dt_bias", dtype=dtype)
        assert (narrow == w.astype(narrow.dtype)).all()
    double = STEP((40, 30), seed=3, name="dt_bias", dtype="float64")
    assert (double == exact(UNIFORM((40, 30), seed=3, name="dt_bias", dtype="float64"))).all()


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("abs(x)", np.abs), ("ceil(x)", np.ceil), ("cos(x)", np.cos), ("exp(x)", np.exp),
        ("expm1(x)", np.expm1), ("floor(x)", np.floor), ("log(x * x)", lambda x: np.log(x * x)),
        ("log1p(x ** 2)", lambda x: np.log1p(x**2)), ("round(x)", np.rint), ("-x", np.negative),
        ("maximum(x, 0.5)", lambda x: np.maximum(x, 0.5)), ("sign(x)", np.sign),
        ("minimum(x, -inf + 1)", lambda x: x * 0 - np.inf),
        ("sin(pi * x)", lambda x: np.sin(np.pi * x)),
        ("sqrt(x + 9)", lambda x: np.sqrt(x + 9)), ("tanh(x)", np.tanh),
        ("sigmoid(x)", lambda x: 1 / (1 + np.exp(-x))), ("(x - 1) / 3", lambda x: (x - 1) / 3),
        ("+x * 2.5", lambda x: x * 2.5),
    ],
)  # fmt: skip
def test_every_function(text, function):
    normal = wf.RandomNormal(0.0, 1.0)
    x = normal(999, seed=1, name="w").astype("f8")
    w = wf.Expression(text, {"x": normal})(999, seed=1, name="w", dtype="float32")
    assert (w == function(x).astype("f4")).all()


def test_operands_have_shapes_and_streams_of_their_own():
    table = np.linspace(0.0, 1.0, 6)
    scheme = wf.Expression(
        "a * t + b + arange(0) / 8 + arange(-1)",
        {
            "a": (UNIFORM, None, "\0001"),
            "b": (wf.RandomNormal(0.0, 1.0), (5, 1), "other"),
            "t": (wf.Computed(table), (6,)),
        },
    )
    a = UNIFORM((4, 5, 6), seed=2, name="w\0001").astype("f8")
    b = wf.RandomNormal(0.0, 1.0)((5, 1), seed=2, name="other").astype("f8")
    expected = a * table + b + np.arange(4).reshape(4, 1, 1) / 8 + np.arange(6)
    assert (scheme((4, 5, 6), seed=2, name="w") == expected.astype("f4")).all()


COLUMN = UNIFORM, (37, 1), "\0002"
SCHEMES = [
    (STEP, (37, 50)),
    (wf.Expression("x * y + arange(1)", {"x": UNIFORM, "y": COLUMN}), (37, 50)),
    (wf.Expression("clip + exp(s)", {"clip": UNIFORM, "s": wf.Sparse(0.5)}), (37, 50)),
    (wf.Expression("3.0"), (37, 50)),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "shape"), SCHEMES, ids=str)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_box_is_a_part_of_the_whole(scheme, shape, data):
    whole = scheme(shape, seed=9, name="w", num_threads=1)
    index = []
    for extent in shape:
        start = data.draw(st.integers(0, extent - 1))
        if data.draw(st.booleans()):
            index.append(slice(start, data.draw(st.integers(start, extent))))
        else:
            index.append(start)
    part = scheme(shape, seed=9, name="w", index=tuple(index), num_threads=3)
    assert part.tobytes() == whole[tuple(index)].tobytes()
    out = np.empty((*reversed(part.shape),), "f4").T
    scheme.fill(out, seed=9, name="w", shape=shape, index=tuple(index))
    assert out.tobytes() == part.tobytes()


def test_pieces_and_threads_change_no_bit():
    shape = (3, 100_001)
    one, many = (STEP(shape, seed=4, name="w", num_threads=n) for n in (1, 5))
    assert one.tobytes() == many.tobytes()
    edge = STEP(shape, seed=4, name="w", index=np.s_[1:3, 99_990:])
    assert edge.tobytes() == one[1:3, 99_990:].tobytes()


def test_a_matrix_is_not_cut():
    """Some rows of an orthogonal matrix have other bits than the same rows of the whole."""
    matrix = wf.Orthogonal()((300, 200), seed=1, name="w")
    scheme = wf.Expression("2 * q", {"q": wf.Orthogonal()})
    assert (scheme((300, 200), seed=1, name="w", num_threads=2) == 2 * matrix).all()


def test_it_is_a_value(tmp_path):
    again = wf.get({"class_name": "Expression", "config": STEP.get_config()})
    assert again == STEP and hash(again) == hash(STEP)
    assert wf.Expression(STEP.text, {"x": wf.RandomUniform(0.0, 2.0)}) != STEP
    minus = wf.Expression("x - t", {"x": UNIFORM, "t": wf.Computed(np.eye(4, 64))})
    plan = wf.Plan(
        [
            TensorSpec("dt_bias", (64,), STEP, dtype="bfloat16", stream="layers.0.dt_bias"),
            TensorSpec("gate", (8, 64), wf.Parts([((0, 0), (8, 64), STEP)])),
            TensorSpec("mixed", (4, 64), minus),
        ]
    )  # fmt: skip
    plan.save(tmp_path / "plan.json")
    read = wf.Plan.load(tmp_path / "plan.json")
    assert read == plan
    for (name, one), (_, other) in zip(plan.arrays(7), read.arrays(7), strict=True):
        assert one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize(
    ("text", "operands", "message"),
    [
        ("", {}, "it is empty"),
        ("x", {}, "a name in text 'x' must be"),
        ("x", {"x": UNIFORM, "z": UNIFORM}, "operands has 'z', which text 'x' does not use"),
        ("x.real", {"x": UNIFORM}, r"'x.real' is not known"),
        ("__import__('os')", {}, "is not known"),
        ("exp(x, 2)", {"x": UNIFORM}, "is not known"),
        ("erfinv(x)", {"x": UNIFORM}, "is not known"),
        ("'a'", {}, "is not known"),
        ("True", {}, "is not known"),
        ("x // 2", {"x": UNIFORM}, "is not known"),
        ("x +", {"x": UNIFORM}, "cannot be read"),
        ("x; x", {"x": UNIFORM}, "it must be assignments, and last the result"),
        ("y = x", {"x": UNIFORM}, "it must be assignments, and last the result"),
        ("x = 2 * x; x", {"x": UNIFORM}, "'x' is assigned, but has a value"),
        ("pi = 3; pi", {}, "'pi' is assigned, but has a value"),
        ("+".join("x" * 300), {"x": UNIFORM}, "more than 200 operations are inside one another"),
        ("x + 1" + " " * 10_000, {"x": UNIFORM}, "is longer than 10,000 characters"),
        ("arange(0.5)", {}, "the axis of arange must be an int"),
        ("9" * 400, {}, "int too large"),
        ("x", [("x", UNIFORM), ("x", UNIFORM)], "operands must have different names"),
        ("exp", {"exp": UNIFORM}, "operands must not have the name of a function"),
        ("x", {"x y": UNIFORM}, "operands must have names like variables, got 'x y'"),
    ],
)
def test_what_is_no_expression_is_refused(text, operands, message):
    with pytest.raises(ValueError, match=message):
        wf.Expression(text, operands)


@pytest.mark.parametrize(
    ("text", "operands"), [(3, {}), ("x", 3), ("x", "x"), ("x", [("x",)]), ("x", {"x": 2}),
                           ("x", {"x": (UNIFORM, None, 3)})]
)  # fmt: skip
def test_types_that_are_refused(text, operands):
    with pytest.raises(TypeError):
        wf.Expression(text, operands)


@pytest.mark.parametrize(
    ("scheme", "shape", "dtype", "message"),
    [
        (STEP, (3,), "int32", "dtype"),
        (STEP, (3,), "complex64", "Expression cannot fill complex types"),
        (wf.Expression("arange(1)"), (3,), "float32",
         r"arange\(1\) needs that axis, got shape \(3,\)"),
        (wf.Expression("x", {"x": (UNIFORM, (2,))}), (3,), "float32",
         r"operand 'x' of shape \(2,\) cannot be broadcast to \(3,\)"),
        (wf.Expression("x", {"x": (UNIFORM, (1, 3))}), (3,), "float32", "cannot be broadcast"),
        (wf.Expression("x", {"x": wf.Orthogonal()}), (3,), "float32", "shape"),
    ],
)  # fmt: skip
def test_tensors_that_are_refused_before_anything_is_written(scheme, shape, dtype, message):
    with pytest.raises((TypeError, ValueError), match=message):
        scheme(shape, seed=0, name="w", dtype=dtype)
    if dtype in ("int32", "complex64"):
        return
    out = np.full(shape, 7.0, ml_dtypes.bfloat16)
    with pytest.raises((TypeError, ValueError), match=message):
        scheme.fill(out, seed=0, name="w")
    assert (out == 7).all()


def test_axes_go_to_the_operands():
    plan = wf.Plan([TensorSpec("w", (8, 256), wf.Zeros())])
    rule = wf.Expression("abs(x)", {"x": wf.HeNormal()})
    with pytest.raises(ValueError, match="leaves open which axes"):
        plan.with_rules({"w": rule})
    one = plan.with_rules({"w": rule}, axes="torch")["w"].array(0)
    he = wf.HeNormal(in_axis=1, out_axis=0)((8, 256), seed=0, name="w")
    assert (one == abs(he)).all() and math.isclose(he.std(), (2 / 256) ** 0.5, rel_tol=0.1)
