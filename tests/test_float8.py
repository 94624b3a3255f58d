"""Tensors of float8 with a scale, and the bounds that the scales follow from."""

import math
import re

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from reference import box_muller32, box_muller64
from safetensors.numpy import save_file

import winit_fast as wf
from winit_fast.base.safetensors import file_bytes
from winit_fast.checkpoint import verify, write_checkpoint
from winit_fast.cli import main
from winit_fast.initializers.largest_magnitude import largest_magnitude
from winit_fast.models import from_checkpoint
from winit_fast.models.float8 import LARGEST, quantised
from winit_fast.models.tensor_spec import TensorSpec

FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
SHAPE = (96, 130)

SCHEMES = {
    "normal": wf.RandomNormal(0.0, 0.02),
    "normal with a mean": wf.RandomNormal(-3.0, 0.5),
    "uniform": wf.RandomUniform(-0.0721, 0.0721),
    "uniform to one side": wf.RandomUniform(-0.03, 300.0),
    "truncated": wf.TruncatedNormal(0.0, 0.02),
    "truncated far away": wf.TruncatedNormal(0.0, 0.02, -100.0, 100.0),
    "one side": wf.TruncatedNormal(1.0, 0.02, -1.0, math.inf),
    "he normal": wf.HeNormal(),
    "he uniform": wf.HeUniform(),
    "lecun": wf.LecunNormal(),
    "truncated scaling": wf.VarianceScaling(),
    "orthogonal": wf.Orthogonal(0.7),
    "sparse": wf.Sparse(0.5),
    "identity": wf.Identity(-5.0),
    "zeros": wf.Zeros(),
    "ones": wf.Ones(),
    "constant": wf.Constant(-1e-4),
    "scaled": wf.Scaled(wf.RandomUniform(-0.02, 0.02), "1 / sqrt(L)", {"L": 7}),
    "computed": wf.Computed(np.linspace(-3, 9, math.prod(SHAPE)).reshape(SHAPE)),
    "pretrained": wf.Pretrained(np.linspace(-3, 9, math.prod(SHAPE), dtype="f4").reshape(SHAPE)),
    "grown": wf.Pretrained(np.full((3, 130), 5.0, "float32"), fallback="he_normal"),
    "parts": wf.Parts(
        [((0, 0), (96, 100), wf.RandomUniform(0.0, 3.0)), ((0, 100), (96, 130), wf.HeNormal())]
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_weight_is_the_tensor_after_one_rounding(scheme, tmp_path):
    """Bit for bit the rounded quotient, in a file too; nothing overflows, nothing is 16 bits."""
    tensor = TensorSpec("w", SHAPE, scheme, dtype="bfloat16", drawn_in="bfloat16")
    weight, scale = quantised(tensor, "w_scale_inv", (3, 2))
    step = scale.array(seed=1)
    assert step.dtype == np.float32 and step.shape == (3, 2) and np.all(step == step[0, 0])
    assert math.frexp(step[0, 0])[0] == 0.5  # a power of two
    for seed in range(3):
        drawn = scheme(SHAPE, seed=seed, name="w")
        own = weight.array(seed)
        assert own.dtype == FLOAT8
        expected = (drawn / step[0, 0]).astype(FLOAT8)
        assert np.array_equal(own.view(np.uint8), expected.view(np.uint8))
        assert np.isfinite(own.astype(np.float32)).all()
        error = np.abs(own.astype(np.float32) * step[0, 0] - drawn)
        assert np.all(error <= np.maximum(np.abs(drawn) * 2.0**-4, step[0, 0] * 2.0**-10))
        limit = largest_magnitude(scheme, SHAPE, drawn.dtype)
        assert np.abs(drawn).max() <= limit * (1 + 2e-7)
    write_checkpoint(tmp_path, [weight, scale], seed=2)
    assert verify(tmp_path).fresh


def test_a_tensor_of_float64_is_drawn_in_float64():
    scheme = wf.RandomUniform(-0.1, 0.1)
    weight, scale = quantised(TensorSpec("w", SHAPE, scheme, dtype="float64"), "s", ())
    drawn = scheme(SHAPE, seed=1, name="w", dtype="float64")
    expected = (drawn / float(scale.array(seed=1))).astype(FLOAT8)
    assert np.array_equal(weight.array(1).view(np.uint8), expected.view(np.uint8))


@given(st.floats(1e-30, 1e30), st.sampled_from([1.0, 1 + 2**-50, 1 - 2**-50]))
def test_the_scale_is_the_smallest_power_of_two_that_covers_the_bound(largest, factor):
    for value in (largest, LARGEST * 2.0 ** math.floor(math.log2(largest)) * factor):
        weight, scale = quantised(TensorSpec("w", (1,), wf.Constant(value)), "s", ())
        step = float(scale.array(seed=0))
        assert math.frexp(step)[0] == 0.5
        assert LARGEST * step / 2 < value <= LARGEST * step
        assert weight.array(0).astype(np.float64)[0] * step == pytest.approx(value, rel=2**-4)


def test_the_bound_of_a_normal_is_that_of_its_farthest_words():
    """The radius word 0 with the angle 0 gives it."""
    for kind, box_muller in ((np.float32, box_muller32), (np.float64, box_muller64)):
        word = np.zeros(1, np.uint32 if kind == np.float32 else np.uint64)
        farthest = float(np.max(box_muller(word, word)))
        limit = largest_magnitude(wf.RandomNormal(0.0, 1.0), (2, 2), np.dtype(kind))
        assert farthest == pytest.approx(limit, rel=1e-6)
        assert limit < farthest * (1 + 1e-6)


@pytest.mark.parametrize(
    "scheme",
    [wf.STFT(), wf.TruncatedNormal(0.0, 1.0, 4.0, math.inf), wf.RandomNormal(0.0, 1e42)],
    ids=["unknown", "far tail", "too large"],
)
def test_a_scheme_without_a_bound_is_refused(scheme):
    tensor = TensorSpec("h.w", SHAPE, scheme)
    message = f"tensor 'h.w' cannot be float8: .* known bound.*{re.escape(repr(scheme))}"
    with pytest.raises(ValueError, match=message):
        quantised(tensor, "h.w_scale", ())


# ----------------------------------------------------------------------------------- plans of pairs


def pairs():
    """A plan of a norm and two float8 weights with scales, those of a block and of a tensor."""
    tensors = [TensorSpec("norm.weight", (8,), wf.Ones())]
    for name, scale in ("up.weight_scale_inv", (2, 1)), ("layers.1.mlp.down_proj.weight_scale", ()):
        weight = TensorSpec(name.split("_scale")[0], (8, 8), wf.RandomNormal(0.0, 0.5))
        tensors += quantised(weight, name, scale)
    return wf.Plan(tensors)


def product(plan, name, seed=3):
    """The numbers that a weight and its scales stand for."""
    end = "_scale_inv" if f"{name}_scale_inv" in plan else "_scale"
    step = plan[name + end].array(seed=seed)
    assert np.all(step == step.flat[0])
    return plan[name].array(seed=seed).astype(np.float32) * step.flat[0]


def close(made, expected):
    """Compare with one rounding to float8."""
    limit = np.maximum(np.abs(expected) * 2.0**-4, np.abs(expected).max() * 2.0**-15)
    return bool(np.all(np.abs(made - expected) <= limit))


def test_rules_act_on_the_product():
    plan = pairs()
    new = plan.with_rules({"*": wf.RandomNormal(0.0, 3.0)})
    assert [t.name for t in new] == [t.name for t in plan]
    assert new["norm.weight"].initializer == wf.RandomNormal(0.0, 3.0)
    for name in "up.weight", "layers.1.mlp.down_proj.weight":
        own = wf.RandomNormal(0.0, 3.0)((8, 8), seed=3, name=name)
        assert new[name].dtype == "float8_e4m3fn" and close(product(new, name), own)
        assert not close(product(plan, name), own)
    assert new["up.weight_scale_inv"].shape == (2, 1)
    one = plan.with_rules({"up.*": "zeros"})
    assert not product(one, "up.weight").any()
    assert one["layers.1.mlp.down_proj.weight"] == plan["layers.1.mlp.down_proj.weight"]


def test_rules_of_a_model_act_on_the_product():
    plan = pairs()
    new = plan.with_rules("torch_default")
    for name in "up.weight", "layers.1.mlp.down_proj.weight":
        limit = 8**-0.5
        own = wf.RandomUniform(-limit, limit)((8, 8), seed=3, name=name)
        assert close(product(new, name), own)
    assert new["norm.weight"] == plan["norm.weight"]
    assert len(new) == len(plan)


def test_a_cast_leaves_weights_with_scales():
    plan = pairs()
    new = plan.cast("bfloat16")
    assert new["norm.weight"].dtype == "bfloat16"
    assert list(new)[1:] == list(plan)[1:]


def test_scales_are_not_for_rules():
    with pytest.raises(ValueError, match="'up.weight_scale_inv', which follows from 'up.weight'"):
        pairs().with_rules({"up.weight_scale_inv": "ones"})
    with pytest.raises(ValueError, match="a pattern in rules must be one of"):
        pairs().with_rules({"*_scale": "ones"})
    with pytest.raises(ValueError, match="tensor 'up.weight' cannot be float8"):
        pairs().with_rules({"up.*": wf.TruncatedNormal(0.0, 1.0, 4.0, math.inf)})


def test_float8_from_numbers_without_scales(tmp_path):
    old = np.random.default_rng(0).normal(0.0, 7.0, (8, 8)).astype("float32")
    save_file({"up.weight": old}, tmp_path / "old.safetensors")
    plan = pairs()
    new, report = from_checkpoint(plan, tmp_path / "old.safetensors")
    assert close(product(new, "up.weight"), old)
    assert new["norm.weight"] == plan["norm.weight"]
    assert new["layers.1.mlp.down_proj.weight"] == plan["layers.1.mlp.down_proj.weight"]
    assert report.names("converted") == ["up.weight", "up.weight_scale_inv"]
    save_file({"up.weight": old[:5]}, tmp_path / "old.safetensors")
    new, report = from_checkpoint(plan, tmp_path / "old.safetensors")
    made = product(new, "up.weight")
    rest = wf.RandomNormal(0.0, 0.5)((8, 8), seed=3, name="up.weight")[5:]
    assert close(made[:5], old[:5]) and close(made[5:], rest)
    assert report.names("extended") == ["up.weight"]


def test_float8_with_its_scales_is_copied(tmp_path):
    arrays = {
        "old.weight": np.arange(64).reshape(8, 8).astype(FLOAT8),
        "old.weight_scale_inv": np.array([[2.0], [3.0]], "float32"),
    }
    file = tmp_path / "old.safetensors"
    file.write_bytes(file_bytes(arrays, {}))
    new, report = from_checkpoint(pairs(), file, mapping=[("up.weight", "old.weight")])
    for end in "", "_scale_inv":
        made = new[f"up.weight{end}"].array(seed=0)
        assert made.tobytes() == arrays[f"old.weight{end}"].tobytes()
    assert report.names("copied") == ["up.weight", "up.weight_scale_inv"]
    assert report.unused == ()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            TensorSpec("w", (8, 8), wf.Zeros()),
            "tensor 'w': its numbers are those of 'w' times 'w_scale' in the checkpoint, and the m",
        ),
        (
            TensorSpec("w", (9, 8), wf.RandomNormal()),
            "tensor 'w': it has scales, so 'w', float8_e4m3fn of shape (9, 8), must be as 'w' in",
        ),
        (
            TensorSpec("w", (8, 8), wf.RandomNormal()),
            "'w_scale', float32 of shape (1, 1), must be as 'w_scale' in the checkpoint, F32 of",
        ),
    ],
)
def test_scales_that_cannot_be_copied_are_refused(tmp_path, target, message):
    arrays = {"w": np.ones((8, 8), FLOAT8), "w_scale": np.float32(2)}
    file = tmp_path / "old.safetensors"
    file.write_bytes(file_bytes({n: np.asarray(a) for n, a in arrays.items()}, {}))
    plan = [target] if "numbers" in message else quantised(target, "w_scale", (1, 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        from_checkpoint(wf.Plan(plan), file)


def test_like_a_checkpoint_of_float8(tmp_path):
    write_checkpoint(tmp_path / "old", pairs(), seed=1)
    arguments = ["init", "--like", tmp_path / "old", "--rules", "torch_default"]
    result = CliRunner().invoke(main, [*map(str, arguments), "--out", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    written = wf.Plan.load(tmp_path / "new" / "winit_fast.plan.json")
    limit = 8**-0.5
    own = wf.RandomUniform(-limit, limit)((8, 8), seed=3, name="up.weight")
    assert close(product(written, "up.weight"), own)


def test_numbers_that_are_not_finite_have_no_scale():
    scheme = wf.Pretrained(np.array([[1.0, np.inf]], "float32"))
    with pytest.raises(ValueError, match="source must be finite"):
        quantised(TensorSpec("w", (1, 2), scheme), "w_scale", ())
