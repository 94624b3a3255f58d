"""The processes of test_jax_sharded.py: cases of JAX and Keras on eight devices.

``python sharded_devices.py REPORT`` runs them in one process. With ``PORT RANK PROCESSES`` it is
one of several real processes, which share the eight devices. Each writes, as JSON, what it says of
every case: null, or why it failed.
"""

import itertools
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

DEVICES = 8
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def main(report, port=0, rank=0, processes=1):
    own = DEVICES // int(processes)
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={own}"
    os.environ["KERAS_BACKEND"] = "jax"
    import jax

    if processes != 1:
        jax.distributed.initialize(f"localhost:{port}", int(processes), int(rank))
    assert jax.device_count() == DEVICES and jax.local_device_count() == own
    found = {}
    for name, check in CASES.items():
        try:
            check()
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()
    Path(report).write_text(json.dumps(found))
    if processes != 1:
        jax.distributed.shutdown()


MESHES = {(8,): "x", (2, 4): "xy", (2, 2, 2): "xyz"}


def layouts(axes):
    """Every way to shard some axes over the axes of every mesh; mesh axes left over replicate."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    for extents, names in MESHES.items():
        mesh = jax.make_mesh(extents, tuple(names))
        runs = [
            tuple(run)
            for length in range(len(names) + 1)
            for run in itertools.permutations(names, length)
        ]
        for spec in itertools.product(runs, repeat=axes):
            used = [name for run in spec for name in run]
            if len(set(used)) == len(used):
                yield NamedSharding(mesh, PartitionSpec(*(run or None for run in spec)))


def assert_is(array, whole):
    """Every shard that this process has is its box of the whole, bit for bit."""
    import numpy as np

    assert array.shape == whole.shape and array.dtype == whole.dtype
    assert array.addressable_shards
    for shard in array.addressable_shards:
        made, expected = np.asarray(shard.data), np.ascontiguousarray(whole[shard.index])
        np.testing.assert_array_equal(
            made.view(f"u{made.itemsize}"), expected.view(f"u{made.itemsize}")
        )


@case
def schemes_types_meshes():
    import jax

    import winit_fast as wf
    import winit_fast.jax as ours

    for scheme, dtype in (
        (wf.RandomNormal(), "float32"),
        (wf.TruncatedNormal(), "bfloat16"),
        (wf.GlorotUniform(), "float8_e4m3fn"),
        (wf.Sparse(0.5), "float16"),
        (wf.Identity(2.0), "bfloat16"),
    ):
        whole = scheme((16, 16), seed=5, name="a/w", dtype=dtype)
        shapes = {"a": {"w": jax.ShapeDtypeStruct((16, 16), dtype)}}
        for sharding in layouts(2):
            made = ours.sharded(shapes, sharding, rules={"a/w": scheme}, seed=5)
            assert made["a"]["w"].sharding == sharding
            assert_is(made["a"]["w"], whole)


@case
def orthogonal_to_rounding():
    """Boxes with fewer rows than columns differ from the whole: docs/orthogonal.md."""
    import jax
    import numpy as np

    import winit_fast as wf
    import winit_fast.jax as ours

    whole = wf.Orthogonal()((32, 16), seed=5, name="w")
    shapes = {"w": jax.ShapeDtypeStruct((32, 16), "float32")}
    for sharding in layouts(2):
        made = ours.sharded(shapes, sharding, rules={"w": "orthogonal"}, seed=5)["w"]
        for shard in made.addressable_shards:
            np.testing.assert_allclose(shard.data, whole[shard.index], rtol=0, atol=1e-6)


@case
def other_layouts_of_a_plan():
    import jax
    import numpy as np

    import winit_fast as wf
    import winit_fast.jax as ours
    from winit_fast.models import TensorSpec

    plan = wf.Plan(
        [
            TensorSpec("q.weight", (32, 24), wf.RandomNormal()),
            TensorSpec("conv.weight", (16, 8, 4, 2), wf.RandomNormal(), dtype="bfloat16"),
            *(
                TensorSpec(f"h.{i}.w", (16, 8), wf.GlorotUniform(in_axis=1, out_axis=0))
                for i in range(8)
            ),
        ]
    )
    arrays = dict(plan.arrays(seed=7))
    rearranged = ours.Rearranged
    stacked = [rearranged(f"h.{i}.w", "o i -> i o") for i in range(8)]
    for source, whole in (
        (
            rearranged("q.weight", "(heads dim) d -> d heads dim"),
            arrays["q.weight"].T.reshape(24, 8, 4),
        ),
        (
            rearranged("q.weight", "(heads dim) d -> d dim heads"),
            arrays["q.weight"].reshape(8, 4, 24).transpose(2, 1, 0),
        ),
        (
            rearranged("conv.weight", "o i h w -> (h w) i o"),
            arrays["conv.weight"].transpose(2, 3, 1, 0).reshape(8, 8, 16),
        ),
        (stacked, [arrays[f"h.{i}.w"].T for i in range(8)]),
    ):
        whole = np.stack(whole) if isinstance(whole, list) else whole
        shapes = [jax.ShapeDtypeStruct(whole.shape, whole.dtype)]
        tried = 0
        for sharding in layouts(3):
            try:
                sharding.shard_shape(whole.shape)
            except ValueError:
                continue
            names = {"0": source}
            assert_is(ours.sharded(shapes, sharding, rules=plan, seed=7, names=names)[0], whole)
            tried += 1
        assert tried > 20


@case
def plans():
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    import winit_fast as wf
    import winit_fast.jax as ours
    from winit_fast.models import TensorSpec

    plan = wf.Plan(
        [
            TensorSpec("up", (16, 32), wf.RandomNormal(), dtype="bfloat16", tied=("again",)),
            TensorSpec("noise", (8, 4), wf.RandomNormal(), dtype="complex64"),
            TensorSpec("steps", (), wf.Zeros(), dtype="int32", kind="buffer"),
        ]
    )
    mesh = jax.make_mesh((2, 4), ("x", "y"))
    rows, replicated = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["y"], []))
    made = ours.sharded(plan, {"steps": replicated, "*": rows}, seed=3)
    assert list(made) == ["up", "noise", "steps"]
    assert made["up"].sharding == rows and made["steps"].sharding == replicated
    for tensor in plan:
        assert_is(made[tensor.name], tensor.array(seed=3))


@case
def only_shards_of_this_process_each_once_without_a_copy():
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    import winit_fast as wf
    import winit_fast.jax as ours

    boxes, addresses = [], set()

    @dataclass(frozen=True, repr=False)
    class Watched(wf.Initializer):
        def fill_box(self, out, box, stream, num_threads):
            boxes.append(box.slices)
            addresses.add(out.ctypes.data)
            np.copyto(box.expand(out), 1.0)

    mesh = jax.make_mesh((2, 4), ("x", "y"))
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: events.append(event)
    )
    for spec in PartitionSpec("y"), PartitionSpec("x"), PartitionSpec(), PartitionSpec("x", "y"):
        sharding = NamedSharding(mesh, spec)
        for make in (
            lambda sharding: ours.sharded(
                [jax.ShapeDtypeStruct((512, 512), "float32")],
                sharding,
                rules={"*": Watched()},
                seed=0,
            )[0],
            lambda sharding: ours.from_initializer(Watched(), (512, 512), sharding, seed=0),
        ):
            boxes.clear(), events.clear(), addresses.clear()
            array = make(sharding)
            assert not [event for event in events if "compile" in event], events
            own = {str(shard.index) for shard in array.addressable_shards}
            filled = [box for box in boxes if all(part.start < part.stop for part in box)]
            assert len(filled) == len(own), (filled, own)
            for shard in array.addressable_shards:  # what was filled is what JAX uses
                assert shard.data.unsafe_buffer_pointer() in addresses
    assert float(jax.jit(lambda: jax.numpy.ones(3) * 2)()[0]) == 2  # the listener hears these
    assert [event for event in events if "compile" in event]


@case
def replicas_may_be_donated():
    """They share memory that JAX does not own, so it does not write to it."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    import winit_fast as wf
    import winit_fast.jax as ours

    mesh = jax.make_mesh((2, 4), ("x", "y"))
    whole = wf.RandomNormal()((256, 512), seed=1, name="w")
    for spec in PartitionSpec(), PartitionSpec("x"), PartitionSpec(None, "y"):
        shapes = {"w": jax.ShapeDtypeStruct((256, 512), "float32")}
        made = ours.sharded(shapes, NamedSharding(mesh, spec), rules={"w": "normal"}, seed=1)
        doubled = jax.jit(lambda x: 2 * x, donate_argnums=0)(made["w"])
        for shard in doubled.addressable_shards:
            np.testing.assert_array_equal(shard.data, 2 * whole[shard.index])


@case
def a_linen_model():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    import winit_fast as wf
    import winit_fast.jax as ours

    def part(*axes):
        return nn.with_partitioning(nn.initializers.lecun_normal(), axes)

    class Block(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(64, 16)(tokens)
            x = nn.MultiHeadDotProductAttention(4, kernel_init=part(None, "model"))(x)
            x = nn.Dense(32, kernel_init=part(None, "model"))(nn.LayerNorm()(x))
            return nn.Dense(16, kernel_init=part("model", None))(x)

    tokens = jnp.zeros((2, 8), jnp.int32)
    shapes = jax.eval_shape(Block().init, jax.random.key(0), tokens)
    rules = {
        "*/embedding": wf.RandomNormal(0.0, 0.02),
        "*/MultiHeadDotProductAttention_0/*/kernel": wf.GlorotUniform(in_axis=0, out_axis=(1, 2)),
        "*/kernel": wf.LecunNormal(),
        "*/scale": "ones",
        "*": "zeros",
    }
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=auto)
    made = ours.sharded(shapes, nn.get_sharding(shapes, mesh), rules=rules, seed=jax.random.key(11))
    with jax.set_mesh(mesh):
        again = ours.sharded(shapes, nn.get_partition_spec(shapes), rules=rules, seed=11)
    whole = ours.sharded(
        shapes, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), rules=rules, seed=11
    )
    assert jax.tree.structure(made) == jax.tree.structure(shapes) == jax.tree.structure(whole)
    for tree in made, again:
        jax.tree.map(lambda array, alone: assert_is(array, np.asarray(alone)), tree, whole)
    kernel = nn.unbox(made)["params"]["Dense_0"]["kernel"]
    assert kernel.sharding == NamedSharding(mesh, PartitionSpec(None, "model"))
    name = "params/Dense_0/kernel"
    assert_is(kernel, wf.LecunNormal()((16, 32), seed=11, name=name))
    if jax.process_count() == 1:  # else a collective, which the CPU's backend may lack
        out = jax.jit(Block().apply)(nn.unbox(made), tokens)
        np.testing.assert_allclose(out, Block().apply(nn.unbox(whole), tokens), atol=1e-5)


@case
def an_nnx_model():
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec

    import winit_fast as wf
    import winit_fast.jax as ours

    nnx.use_eager_sharding(False)  # else abstract Variables need a mesh

    def part(*axes):
        return nnx.with_partitioning(nnx.initializers.lecun_normal(), axes)

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.table = nnx.Embed(64, 16, rngs=rngs)
            self.layers = nnx.List(
                [nnx.Linear(16, 16, kernel_init=part(None, "model"), rngs=rngs) for _ in range(2)]
            )
            self.norm = nnx.BatchNorm(16, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.head = nnx.Linear(16, 8, kernel_init=part("model", None), rngs=rngs)
            self.again = self.head

        def __call__(self, tokens):
            x = self.table(tokens)
            for layer in self.layers:
                x = jnp.tanh(layer(x))
            return self.again(self.norm(x))

    model = nnx.eval_shape(lambda: Block(nnx.Rngs(0)))
    graph, shapes, rest = nnx.split(model, (nnx.Param, nnx.BatchStat), ...)
    rules = {
        "table/embedding": wf.RandomNormal(0.0, 0.02),
        "*/kernel": wf.LecunNormal(),
        "*/scale": "ones",
        "norm/var": "ones",
        "*": "zeros",
    }
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=auto)
    made = ours.sharded(shapes, nnx.get_named_sharding(shapes, mesh), rules=rules, seed=13)
    with jax.set_mesh(mesh):
        again = ours.sharded(shapes, nnx.get_partition_spec(shapes), rules=rules, seed=13)
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    whole = ours.sharded(shapes, alone, rules=rules, seed=13)
    for tree in made, again:
        jax.tree.map(lambda array, one: assert_is(array, np.asarray(one)), tree, whole)
    kernel = made["layers"][1]["kernel"][...]
    assert kernel.sharding.is_equivalent_to(
        NamedSharding(mesh, PartitionSpec(None, "model")), kernel.ndim
    )
    assert_is(kernel, wf.LecunNormal()((16, 16), seed=13, name="layers/1/kernel"))

    if jax.process_count() == 1:
        rest = nnx.split(Block(nnx.Rngs(0)), (nnx.Param, nnx.BatchStat), ...)[2]
        tokens = jnp.zeros((2, 8), jnp.int32)
        outs = []
        replicated = NamedSharding(mesh, PartitionSpec())
        for state in made, jax.device_put(whole, replicated):
            block = nnx.merge(graph, state, rest)
            block.eval()
            outs.append(nnx.jit(lambda block, x: block(x))(block, tokens))
        np.testing.assert_allclose(*outs, atol=1e-5)


@case
def a_keras_model():
    """Under ModelParallel and DataParallel: the bits of the model that is not distributed."""
    import jax
    import keras
    import numpy as np
    import pytest

    import winit_fast as wf
    import winit_fast.keras as ours

    def build():
        generator = keras.random.SeedGenerator(4)
        dense = keras.layers.Dense
        return keras.Sequential(
            [
                keras.layers.Input((16,)),
                dense(32, kernel_initializer=ours.HeNormal(seed=3)),
                dense(
                    16,
                    kernel_initializer=ours.GlorotUniform(seed=generator),
                    bias_initializer=ours.RandomNormal(seed=generator),
                ),
                dense(8, kernel_initializer=ours.LecunNormal(seed=5, name="head")),
            ]
        )

    wholes = [np.asarray(weight) for weight in build().weights]
    assert len(wholes) == 6
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*kernel"], layouts[".*bias"] = (None, "model"), ("model",)
    boxes = []
    make = wf.Initializer.__call__

    def record(self, shape, **arguments):
        boxes.append((shape, arguments["index"]))
        return make(self, shape, **arguments)

    for distribution, parts in (
        (keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"), 4),
        (keras.distribution.DataParallel(auto_shard_dataset=False), 1),
    ):
        boxes.clear()
        wf.Initializer.__call__ = record
        try:
            with distribution.scope():
                weights = build().weights
        finally:
            wf.Initializer.__call__ = make
        for weight, whole in zip(weights, wholes, strict=True):
            assert_is(weight.value, whole)
            sizes = {shard.data.size for shard in weight.value.addressable_shards}
            assert sizes == {whole.size // parts}
        # Three kernels and a bias, of which this process makes each of its shards once.
        own = {str(shard.index) for shard in weights[0].value.addressable_shards}
        assert len(boxes) == 4 * len(own), boxes

    layout = keras.distribution.TensorLayout((None, "model"), mesh)
    if jax.process_count() == 1:
        ours.HeNormal()((8, 8), layout=layout)
        return
    unseeded = keras.random.SeedGenerator()
    for initializer in (
        ours.HeNormal(),
        ours.HeNormal(seed=unseeded),
        ours.Scaled(ours.HeNormal(), 2.0),
    ):
        with pytest.raises(ValueError, match="seed must be given where several processes"):
            initializer((8, 8), layout=layout)
    ours.Dirac()((8, 8, 8), layout=layout)
    keras.utils.set_random_seed(3)
    initializer = ours.HeNormal()
    whole = np.asarray(initializer((8, 8)))
    assert_is(initializer((8, 8), layout=layout), whole)


@case
def uneven_axes_are_refused_as_jax_does():
    import jax
    import pytest
    from jax.sharding import NamedSharding, PartitionSpec

    import winit_fast.jax as ours

    sharding = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x"))
    shapes = {"even": jax.ShapeDtypeStruct((8,), "float32")}
    uneven = shapes | {"uneven": jax.ShapeDtypeStruct((12,), "float32")}
    ours.sharded(shapes, sharding, rules={"*": "normal"}, seed=0)
    with pytest.raises(ValueError, match="shardings, at 'uneven': .* the dimension size is 12"):
        ours.sharded(uneven, sharding, rules={"*": "normal"}, seed=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
