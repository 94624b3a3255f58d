"""Whole models over devices: the logical arrays are the same in every layout.

Cases of eight devices are in sharded_devices.py, in one process and in two real ones.
"""

import json
import math
import random
import socket
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharded_devices
import torch
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import winit_fast as wf
import winit_fast.jax as ours
import winit_fast.torch as of_torch
from winit_fast.base.boxes import Box
from winit_fast.jax.rearranged import _ranges
from winit_fast.models import TensorSpec

ALONE = SingleDeviceSharding(jax.devices()[0])
Shape = jax.ShapeDtypeStruct


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What every process says of every case: one process of eight devices, two of four."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = [[], [port, 0, 2], [port, 1, 2]]
    files = [folder / f"{number}.json" for number in range(3)]
    runs = [
        subprocess.Popen(
            [sys.executable, sharded_devices.__file__, file, *map(str, given)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for file, given in zip(files, arguments, strict=True)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=600)
        assert run.returncode == 0, errors[-3000:]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize("case", sharded_devices.CASES)
@pytest.mark.parametrize("process", ["one", "first of two", "second of two"])
def test_eight_devices(reports, process, case):
    report = reports[["one", "first of two", "second of two"].index(process)]
    assert report[case] is None, report[case]


# Names


@jax.tree_util.register_dataclass
@dataclass
class Linear:
    """A module as Equinox has them."""

    weight: object
    bias: object


def test_names_are_paths():
    haiku = {"mlp/~/linear_0": {"w": Shape((4, 3), "float32"), "b": Shape((3,), "float32")}}
    equinox = [Linear(Shape((4, 3), "float32"), None)]
    made = ours.sharded({"h": haiku, "e": equinox}, ALONE, rules={"*": "normal"}, seed=1)
    for array, name in (
        (made["h"]["mlp/~/linear_0"]["w"], "h/mlp/~/linear_0/w"),
        (made["e"][0].weight, "e/0/weight"),
    ):
        np.testing.assert_array_equal(array, wf.RandomNormal()((4, 3), seed=1, name=name))
    assert made["e"][0].bias is None


def test_a_model_of_haiku():
    import haiku

    model = haiku.transform(lambda x: haiku.Sequential([haiku.nets.MLP([8, 3]), haiku.LayerNorm(
        -1, create_scale=True, create_offset=True)])(x))  # fmt: skip
    inputs = jnp.ones((2, 4))
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    rules = {"*/w": wf.LecunNormal(), "*/scale": "ones", "*": "zeros"}
    made = ours.sharded(shapes, ALONE, rules=rules, seed=1)
    assert jax.tree.structure(made) == jax.tree.structure(shapes)
    for name, shape in ("mlp/~/linear_0", (4, 8)), ("mlp/~/linear_1", (8, 3)):
        expected = wf.LecunNormal()(shape, seed=1, name=f"{name}/w")
        np.testing.assert_array_equal(made[name]["w"], expected)
    assert (made["layer_norm"]["scale"] == 1).all()
    assert jnp.isfinite(model.apply(made, None, inputs)).all()


def test_a_model_of_equinox():
    """Its functions are leaves, too, and stay; its weights are (outputs, inputs)."""
    import equinox

    model = equinox.filter_eval_shape(lambda: equinox.nn.MLP(4, 3, 8, 1, key=jax.random.key(0)))
    scheme = wf.LecunNormal(in_axis=1, out_axis=0)
    rules = {"*/weight": scheme, "*/bias": "zeros"}
    made = ours.sharded(model, ALONE, rules=rules, seed=1)
    for number, shape in enumerate([(8, 4), (3, 8)]):
        expected = scheme(shape, seed=1, name=f"layers/{number}/weight")
        np.testing.assert_array_equal(made.layers[number].weight, expected)
        assert (made.layers[number].bias == 0).all()
    assert made.activation is model.activation
    assert jnp.isfinite(made(jnp.ones(4))).all()


def test_names_of_others():
    shapes = {"a": Shape((4, 3), "float32"), "b": Shape((4, 3), "float32")}
    for names in {"a": "x/a"}, lambda name: f"x/{name}" if name == "a" else name:
        made = ours.sharded(
            shapes, ALONE, rules={"x/*": "normal", "b": "ones"}, seed=1, names=names
        )
        expected = wf.RandomNormal()((4, 3), seed=1, name="x/a")
        np.testing.assert_array_equal(made["a"], expected)
        assert (made["b"] == 1).all()


def test_axes_are_jaxs():
    made = ours.sharded([Shape((3, 3, 4, 8), "float32")], ALONE, rules={"*": "he_normal"}, seed=1)
    expected = wf.HeNormal(in_axis=-2, out_axis=-1)((3, 3, 4, 8), seed=1, name="0")
    np.testing.assert_array_equal(made[0], expected)


def test_paths_that_meet_are_refused():
    tree = {"a": {"b": Shape((2,), "float32")}, "a/b": Shape((2,), "float32")}
    with pytest.raises(ValueError, match="tree must give every leaf a name of its own, got 'a/b'"):
        ours.sharded(tree, ALONE, rules={"*": "normal"}, seed=1)


# Leaves that are no floating-point arrays


def test_leaves_with_values_stay_as_they_are():
    key, count = jax.random.key(3), np.arange(3)
    tree = {"key": key, "count": count, "rate": 0.1, "w": jnp.zeros((2, 2), "bfloat16")}
    made = ours.sharded(tree, ALONE, rules={"*": "normal"}, seed=1)
    assert made["key"] is key and made["count"] is count and made["rate"] == 0.1
    expected = wf.RandomNormal()((2, 2), seed=1, name="w", dtype="bfloat16")
    np.testing.assert_array_equal(made["w"], expected)


def test_integers_have_known_values():
    tree = {"steps": Shape((3,), "int32"), "w": Shape((), "complex64")}
    made = ours.sharded(tree, ALONE, rules={"steps": wf.Constant(7), "w": "normal"}, seed=1)
    assert made["steps"].dtype == "int32" and (made["steps"] == 7).all()
    expected = wf.RandomNormal()((), seed=1, name="w", dtype="complex64")
    np.testing.assert_array_equal(made["w"], expected)
    with pytest.raises(TypeError, match="tensor 'steps': .* draws real numbers, which int32"):
        ours.sharded(tree, ALONE, rules={"*": "normal"}, seed=1)
    with pytest.raises(ValueError, match="rules have none for 'steps'"):
        ours.sharded(tree, ALONE, rules={"w": "normal"}, seed=1)


class Dropping(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def test_keys_without_values_are_refused():
    model = nnx.eval_shape(lambda: Dropping(nnx.Rngs(0)))
    with pytest.raises(TypeError, match="got one as 'drop/rngs/key': split the tree"):
        ours.sharded(nnx.state(model), ALONE, rules={"*": "zeros"}, seed=1)
    real = ours.sharded(nnx.state(Dropping(nnx.Rngs(5))), ALONE, rules={"*": "normal"}, seed=1)
    assert jax.random.key_data(real["drop"]["rngs"]["key"][...]).shape == (2,)
    expected = wf.RandomNormal()((4, 3), seed=1, name="layer/kernel")
    np.testing.assert_array_equal(real["layer"]["kernel"][...], expected)


def test_types_without_a_scheme_are_refused():
    for dtype in "float8_e4m3b11fnuz", "int4":
        with pytest.raises(TypeError, match=f"types known to winit_fast, got {dtype} as 'w'"):
            ours.sharded({"w": Shape((2,), dtype)}, ALONE, rules={"*": "zeros"}, seed=1)


def test_a_variable_in_two_places():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(4, 4, rngs=rngs)
            self.b = self.a

    model = nnx.eval_shape(lambda: Tied(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="got one as 'a/bias' and 'b/bias': give nnx.state"):
        ours.sharded(model, ALONE, rules={"*": "normal"}, seed=1)
    graph, state = nnx.split(model)
    made = nnx.merge(graph, ours.sharded(state, ALONE, rules={"*": "normal"}, seed=1))
    assert made.a is made.b
    alone = nnx.eval_shape(lambda: nnx.Linear(4, 4, rngs=nnx.Rngs(0)))
    module = ours.sharded(alone, ALONE, rules={"*": "normal"}, seed=1)
    assert module(jnp.ones((1, 4))).shape == (1, 4)


# Seeds


def test_keys_are_seeds():
    shapes = [Shape((3, 4), "float32")]
    made = [
        ours.sharded(shapes, ALONE, rules={"*": "normal"}, seed=seed)[0]
        for seed in (9, jax.random.key(9), jax.random.PRNGKey(9), np.int64(9))
    ]
    for array in made:
        np.testing.assert_array_equal(array, made[0])
    for seed in np.random.SeedSequence(3), np.random.default_rng(3):
        ours.sharded(shapes, ALONE, rules={"*": "normal"}, seed=seed)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (None, ValueError, "seed must be given, .* got None"),
        (-1, ValueError, "seed must be at least 0, got -1"),
        (1.5, TypeError, "seed must be an integer, .* got 1.5"),
        (jax.random.key(2, impl="rbg"), ValueError, "seed must be a key of 64 bits"),
        (jax.random.split(jax.random.key(2)), TypeError, "seed must be an integer, .* got"),
    ],
)
def test_other_seeds_are_refused(seed, error, message):
    for tree in [Shape((3,), "float32")], wf.Plan([TensorSpec("w", (3,), wf.RandomNormal())]):
        rules = None if isinstance(tree, wf.Plan) else {"*": "normal"}
        with pytest.raises(error, match=message):
            ours.sharded(tree, ALONE, rules=rules, seed=seed)


# A plan in JAX's layouts


def test_a_torch_modules_plan():
    """A layer of attention, its plan recorded from torch, in Flax' layout."""

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = torch.nn.Linear(16, 48)
            self.out = torch.nn.Linear(16, 16)

    plan = of_torch.record(Attention)
    module = of_torch.fill_(Attention(), plan, seed=21)
    names = {"out/kernel": ours.Rearranged("out.weight", "d (heads dim) -> heads dim d")}
    tree = {"out": {"kernel": Shape((4, 4, 16), "float32"), "bias": Shape((16,), "float32")}}
    names["out/bias"] = "out.bias"
    for number, part in enumerate(("query", "key", "value")):
        rows = np.s_[16 * number : 16 * (number + 1)]
        tree[part] = {"kernel": Shape((16, 4, 4), "float32"), "bias": Shape((4, 4), "float32")}
        for leaf, pattern in (
            ("kernel", "(heads dim) d -> d heads dim"),
            ("bias", "(heads dim) -> heads dim"),
        ):
            of = "qkv.weight" if leaf == "kernel" else "qkv.bias"
            names[f"{part}/{leaf}"] = ours.Rearranged(of, pattern, rows)
    made = ours.sharded(tree, ALONE, rules=plan, seed=21, names=names)
    weight, bias = (each.detach().numpy() for each in (module.qkv.weight, module.qkv.bias))
    for number, part in enumerate(("query", "key", "value")):
        rows = np.s_[16 * number : 16 * (number + 1)]
        expected = weight[rows].T.reshape(16, 4, 4)
        np.testing.assert_array_equal(made[part]["kernel"], expected)
        np.testing.assert_array_equal(made[part]["bias"], bias[rows].reshape(4, 4))
    out = module.out.weight.detach().numpy().reshape(16, 4, 4).transpose(1, 2, 0)
    np.testing.assert_array_equal(made["out"]["kernel"], out)


def test_the_leafs_type_is_made():
    plan = wf.Plan([TensorSpec("w", (4, 6), wf.RandomNormal())])
    made = ours.sharded({"w": Shape((4, 6), "bfloat16")}, ALONE, rules=plan, seed=1)["w"]
    np.testing.assert_array_equal(made, plan.cast("bfloat16")["w"].array(seed=1))


def random_pattern(generator):
    """A pattern, with the shapes of both sides and NumPy's way from one to the other."""
    names = "abcde"[: generator.randint(1, 5)]
    sizes = {name: generator.choice([1, 2, 3, 5]) for name in names}

    def side():
        order = generator.sample(names, len(names))
        groups = []
        while order:
            take = generator.randint(0, min(3, len(order)))
            groups.append(order[:take])
            del order[:take]
        return groups

    plan, array = side(), side()
    text = " -> ".join(
        " ".join(f"({' '.join(group)})" if len(group) != 1 else group[0] for group in groups)
        for groups in (plan, array)
    ).replace("()", "1")
    shapes = [
        tuple(math.prod(sizes[name] for name in group) for group in groups)
        for groups in (plan, array)
    ]
    flat = [name for group in plan for name in group]
    order = [flat.index(name) for group in array for name in group]

    def turn(values):
        return values.reshape([sizes[name] for name in flat]).transpose(order).reshape(shapes[1])

    return text, shapes, turn


def test_any_box_of_any_rearrangement():
    """Boxes of random patterns, into destinations of any strides, against NumPy's reshape."""
    generator, boxes = random.Random(5), 0
    for _ in range(1500):
        text, (tensor, shape), turn = random_pattern(generator)
        values = np.arange(math.prod(tensor)).reshape(tensor)
        whole = turn(values)

        def fill(out, cut, num_threads, values=values):
            assert out.shape == cut.shape and 0 not in cut.shape
            out[...] = values[cut.slices]

        try:
            filler = ours.Rearranged("w", text).filler(tensor, shape, fill)
        except ValueError as error:
            assert "leaves the extent of" in str(error)
            continue
        boxes += 1
        starts = tuple(generator.randint(0, extent) for extent in shape)
        sizes = tuple(
            generator.randint(0, extent - start)
            for extent, start in zip(shape, starts, strict=True)
        )
        axes = generator.sample(range(len(shape)), len(shape))  # the order in memory
        out = np.full([sizes[axis] for axis in axes], -1).transpose(np.argsort(axes).tolist())
        cut = Box(shape, starts, sizes, tuple(range(len(shape))))
        filler(out, cut, 1)
        np.testing.assert_array_equal(out, whole[cut.slices], err_msg=text)
    assert boxes > 600


def test_ranges_are_as_few_as_can_be():
    for start in range(24):
        for stop in range(start, 25):
            found = list(_ranges([2, 3, 4], start, stop)) if start < stop else []
            flat = [
                (a * 3 + b) * 4 + c
                for rows in found
                for a in range(*rows[0])
                for b in range(*rows[1])
                for c in range(*rows[2])
            ]
            assert flat == list(range(start, stop)) and len(found) <= 5


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a b", "pattern must have one arrow, got 'a b'"),
        ("a b -> b", "the same axes on both sides, got 'a b -> b'"),
        ("a a -> a", "an axis once a side, got 'a a -> a'"),
        ("(a (b)) -> a b", "names of axes"),
        ("a -> 2", "names of axes"),
    ],
)
def test_other_patterns_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        ours.Rearranged("w", pattern)


def test_rearranged_is_a_value():
    one, other = (ours.Rearranged("w", "a b -> b a", np.s_[:2]) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != ours.Rearranged("w", "a b -> b a")
    with pytest.raises(TypeError, match="tensor must be a str, got 3"):
        ours.Rearranged(3, "a b -> b a")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "leaf 'w': of the plan, tensor must be one of q, got 'absent'"),
        ("q", r"it has shape \(6, 4\), but tensor 'q' of the plan has \(4, 6\)"),
        (ours.Rearranged("q", "a b c -> c b a"), "does not turn shape .4, 6. of the plan's 'q'"),
        (ours.Rearranged("q", "a b -> a b"), r"does not turn shape .4, 6.*into .6, 4."),
        (ours.Rearranged("q", "(a b) c -> c (b a)"), "leaves the extent of 'a' open"),
        (ours.Rearranged("q", "a b -> b a", np.s_[9:]), "index 9 is outside of axis 0"),
        (["q"], r"names has 1 tensors to stack, got shape \(6, 4\)"),
    ],
)
def test_what_does_not_fit_a_plan_is_refused(source, message):
    plan = wf.Plan([TensorSpec("q", (4, 6), wf.RandomNormal())])
    with pytest.raises((ValueError, IndexError), match=message):
        ours.sharded(
            {"w": Shape((6, 4), "float32")}, ALONE, rules=plan, seed=1, names={"w": source}
        )


# Refusals

SHAPES = {"w": Shape((4, 6), "float32")}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rules": None}, ValueError, "rules must be given for a tree of shapes, .* got None"),
        ({"rules": {"v": "normal"}}, ValueError, "a pattern in rules must be one of w, got 'v'"),
        ({"rules": {}}, ValueError, "rules have none for 'w'"),
        ({"rules": "normal"}, TypeError, "rules must be a mapping of patterns"),
        (
            {"rules": {"*": ours.lecun_normal()}},
            TypeError,
            r"rules\['\*'\] must be a scheme of winit_fast",
        ),
        (
            {"rules": {"*": jax.nn.initializers.zeros}},
            TypeError,
            r"rules\['\*'\] must be a scheme of winit_fast",
        ),
        ({"rules": {"w": "identity"}, "tree": {"w": Shape((4,), "float32")}}, ValueError, "'w'"),
        ({"names": {"v": "w"}}, ValueError, "names must be one of w, got 'v'"),
        ({"names": 3}, TypeError, "names must be a mapping or a function, got 3"),
        ({"names": lambda name: 3}, TypeError, "names must give a name, .* got 3 for 'w'"),
        (
            {"names": {"w": ours.Rearranged("w", "a b -> b a")}},
            TypeError,
            "names must give a name where rules is no plan",
        ),
        ({"shardings": None}, TypeError, "shardings must hold shardings .* got None for 'w'"),
        ({"shardings": "x"}, TypeError, "shardings must hold shardings .* got 'x' for 'w'"),
        ({"shardings": {"v": ALONE}}, ValueError, "shardings must be one sharding, or a tree"),
        ({"shardings": PartitionSpec()}, ValueError, "PartitionSpec for 'w', .* no mesh is set"),
        ({"num_threads": 0}, ValueError, "num_threads must be .* got 0"),
    ],
)
def test_refused_before_anything_is_made(arguments, error, message, monkeypatch):
    def made(*_):
        raise AssertionError("an array was made")

    monkeypatch.setattr(jax, "make_array_from_callback", made)
    given = {"tree": SHAPES, "shardings": ALONE, "rules": {"*": "normal"}, "seed": 1} | arguments
    with pytest.raises(error, match=message):
        ours.sharded(given.pop("tree"), given.pop("shardings"), **given)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rules": {"*": "normal"}}, TypeError, "rules must be None for a plan"),
        ({"names": {"w": "v"}}, TypeError, "names must be None for a plan"),
        ({"shardings": {"v": ALONE}}, ValueError, "a pattern in shardings must be one of w"),
        ({"shardings": {}}, ValueError, "one for every tensor, got none for 'w'"),
        ({"shardings": {"w": 3}}, TypeError, "shardings must hold shardings .* got 3 for 'w'"),
    ],
)
def test_refused_for_a_plan(arguments, error, message):
    plan = wf.Plan([TensorSpec("w", (4, 6), wf.RandomNormal())])
    given = {"shardings": ALONE, "seed": 1} | arguments
    with pytest.raises(error, match=message):
        ours.sharded(plan, given.pop("shardings"), **given)


def test_an_abstract_mesh_is_refused():
    mesh = jax.make_mesh((1,), ("x",)).abstract_mesh
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    with pytest.raises(TypeError, match="shardings must hold shardings over devices, got"):
        ours.sharded(SHAPES, sharding, rules={"*": "normal"}, seed=1)


def test_more_axes_than_the_array_has_are_refused():
    sharding = NamedSharding(jax.make_mesh((1,), ("x",)), PartitionSpec(None, None, "x"))
    with pytest.raises(ValueError, match=r"at 'w': P.* has more axes than shape .4, 6."):
        ours.sharded(SHAPES, sharding, rules={"*": "normal"}, seed=1)


def test_refused_inside_jit():
    def make():
        return ours.sharded(SHAPES, ALONE, rules={"*": "normal"}, seed=1)

    for transformed in jax.jit(make), lambda: jax.eval_shape(make):
        with pytest.raises(TypeError, match="outside of jit and eval_shape"):
            transformed()


def test_64_bits_are_as_jax_has_them():
    plan = wf.Plan([TensorSpec("w", (4,), wf.RandomNormal(), dtype="float64")])
    with pytest.warns(UserWarning, match="float64"):
        made = ours.sharded(plan, ALONE, seed=1)["w"]
    np.testing.assert_array_equal(made, plan.cast("float32")["w"].array(seed=1))
    with jax.enable_x64(True):
        made = ours.sharded(plan, ALONE, seed=1)["w"]
        np.testing.assert_array_equal(made, plan["w"].array(seed=1))


def test_a_large_shard_may_be_donated():
    """On one device, a large shard is NumPy's memory: JAX does not write to it."""
    made = ours.sharded([Shape((512, 512), "float32")], ALONE, rules={"*": "normal"}, seed=1)[0]
    expected = 2 * wf.RandomNormal()((512, 512), seed=1, name="0")
    np.testing.assert_array_equal(jax.jit(lambda x: 2 * x, donate_argnums=0)(made), expected)
