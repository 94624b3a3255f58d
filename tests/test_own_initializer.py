"""A user's own initializer can do everything that the catalogue's can; without frameworks here."""

from dataclasses import dataclass

import numpy as np
import pytest

import winit_fast as wf
from winit_fast.checkpoint import write_checkpoint
from winit_fast.initializers.fans import TORCH
from winit_fast.streams import distributions


@dataclass(frozen=True, repr=False)
class OwnNormal(wf.Elementwise, names=("own_normal",)):
    """Elementwise: it only names the distribution."""

    stddev: float = 0.5
    in_axis: int | None = None

    def draws_from(self, shape, dtype):
        if len(shape) != 2:
            raise ValueError(f"OwnNormal is for matrices, got shape {shape}")
        return distributions.normal(dtype, 0.0, self.stddev / shape[self.in_axis or 0] ** 0.5)


@dataclass(frozen=True, repr=False)
class Ramp(wf.Initializer, names=("own_ramp",)):
    """Not elementwise: element i is i times the step, in any box."""

    step: float = 1.0

    def check(self, shape, dtype):
        if len(shape) != 2:
            raise ValueError(f"Ramp is for matrices, got shape {shape}")

    def fill_box(self, out, box, stream, num_threads):
        rows, columns = (
            np.arange(start, start + size)
            for start, size in zip(box.starts, box.sizes, strict=True)
        )
        box.expand(out)[...] = (rows[:, None] * box.tensor[1] + columns) * self.step


class Mutable(wf.Elementwise):
    """Not a dataclass: its parameter may change."""

    stddev = 1.0

    def draws_from(self, shape, dtype):
        return distributions.normal(dtype, 0.0, self.stddev)


SHAPE = 24, 16
OWN = [OwnNormal(0.25), Ramp(0.5), Mutable()]


@pytest.mark.parametrize("initializer", OWN, ids=lambda one: type(one).__name__)
def test_arrays_buffers_and_boxes(initializer):
    whole = initializer(SHAPE, seed=3, name="w")
    for index in (np.s_[2:5], np.s_[:, 3], np.s_[4:9, 2:16], np.s_[5, 6], np.s_[0:0]):
        assert np.array_equal(initializer(SHAPE, seed=3, name="w", index=index), whole[index])
        out = np.full(whole[index].shape, 7, np.float32)
        initializer.fill(out, seed=3, name="w", shape=SHAPE, index=index)
        assert np.array_equal(out, whole[index])
    out = np.full((SHAPE[1], SHAPE[0]), 7, np.float32).T
    assert np.array_equal(initializer.fill(out, seed=3, name="w", num_threads=3), whole)


@pytest.mark.parametrize("initializer", OWN[:2], ids=lambda one: type(one).__name__)
def test_refused_before_anything_is_allocated(initializer):
    with pytest.raises(ValueError, match=r"for matrices, got shape \(1099511627776,\)"):
        initializer(1 << 40)
    with pytest.raises(ValueError, match=r"for matrices, got shape \(3,\)"):
        initializer(3, index=np.s_[0:0])
    out = np.full(3, 7, np.float32)
    with pytest.raises(ValueError, match="for matrices"):
        initializer.fill(out)
    assert (out == 7).all()


@pytest.mark.parametrize("initializer", OWN[:2], ids=lambda one: type(one).__name__)
def test_names_configurations_and_scaling(initializer):
    config = {"class_name": type(initializer).__name__, "config": initializer.get_config()}
    name = {"OwnNormal": "own_normal", "Ramp": "own_ramp"}[type(initializer).__name__]
    assert (
        wf.get(name, **initializer.get_config())
        == initializer
        == wf.get(config | {"class_name": name})
    )
    half = wf.Scaled(initializer, 0.5)(SHAPE, seed=3, name="w")
    assert np.array_equal(half, initializer(SHAPE, seed=3, name="w") * np.float32(0.5))
    grown = wf.Pretrained(np.ones((2, 16), np.float32), fallback=initializer)(
        SHAPE, seed=3, name="w"
    )
    assert np.array_equal(grown[2:], initializer(SHAPE, seed=3, name="w")[2:])


@pytest.mark.parametrize("initializer", OWN[:2], ids=lambda one: type(one).__name__)
def test_checkpoints(initializer, tmp_path):
    from safetensors.numpy import load_file

    from winit_fast.models.tensor_spec import TensorSpec

    write_checkpoint(
        tmp_path / "new", [TensorSpec("w", SHAPE, initializer)], seed=3, dtype="float32"
    )
    (file,) = (tmp_path / "new").glob("*.safetensors")
    assert np.array_equal(load_file(file)["w"], initializer(SHAPE, seed=3, name="w"))


def test_axes_by_a_framework_s_convention():
    assert OwnNormal().with_axes(TORCH, 2) == OwnNormal(in_axis=1)
    assert OwnNormal(in_axis=0).with_axes(TORCH, 2) == OwnNormal(in_axis=0)


class Half(wf.HeNormal):
    """A subclass that is not a dataclass: its additional attribute is part of its value."""

    def __init__(self, factor):
        super().__init__()
        object.__setattr__(self, "factor", factor)

    def draws_from(self, shape, dtype):
        return distributions.normal(dtype, 0.0, self.factor * self.stddev(shape))


def test_saying_axes_loses_nothing():
    said = Half(0.5).with_axes(TORCH, 2)
    assert (type(said), said.factor, said.in_axis, said.out_axis) == (Half, 0.5, 1, 0)
    full = wf.HeNormal(in_axis=1, out_axis=0)(SHAPE, seed=3)
    assert np.array_equal(said(SHAPE, seed=3), full * np.float32(0.5))
    own = Mutable()
    assert own.with_axes(TORCH, 2) is own and repr(own) == "Mutable()" and own.get_config() == {}


def test_what_changes_is_not_kept():
    own = Mutable()
    first = own((4, 4), seed=0)
    own.stddev = 2.0
    assert np.array_equal(own((4, 4), seed=0), 2 * first)
