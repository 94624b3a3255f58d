"""Masks of sparse matrices: the zeros of the contract, and how often their keys are computed."""

import math
import threading

import numpy as np
import pytest

import winit_fast as wf
from winit_fast.base.boxes import box
from winit_fast.checkpoint import segments, write_checkpoint
from winit_fast.initializers import sparse
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import Stream


def by_the_contract(sparsity, shape, seed, name):
    """The positions of the zeros, computed literally as docs/contract.md says."""
    rows, columns = shape
    words = Stream(seed, name).part("mask").bits(shape, dtype="uint64")
    bits = (rows - 1).bit_length()
    keys = (words >> np.uint64(bits) << np.uint64(bits)) + np.arange(rows, dtype=np.uint64)[:, None]
    zeros = np.zeros(shape, bool)
    smallest = np.argsort(keys, axis=0, kind="stable")[: math.ceil(sparsity * rows)]
    zeros[smallest, np.arange(columns)] = True
    return zeros


SHAPES = [(1, 1), (3, 5), (100, 50), (4095, 7), (4096, 7), (5000, 300), (300_000, 2), (6, 3000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.0, 1e-4, 0.3, 0.5, 0.9999, 1.0])
def test_zeros_are_those_of_the_contract(shape, sparsity):
    made = wf.Sparse(sparsity)(shape, seed=5, name="w")
    expected = wf.RandomNormal(0, 0.01)(shape, seed=5, name="w")
    expected[by_the_contract(sparsity, shape, 5, "w")] = 0
    assert (made == expected).all()


@pytest.mark.parametrize("sparsity", [0.02, 0.5, 1.0])
def test_a_threshold_that_is_far_from_its_expected_place(monkeypatch, sparsity):
    """If too few keys lie near the expected threshold, the search widens until it finds it."""
    monkeypatch.setattr(sparse, "_TALL", 8)
    monkeypatch.setattr(sparse, "_CUT", 100)
    monkeypatch.setattr(sparse.Mask, "_spread", 1)
    found, near = [], sparse.Mask._found_near

    def recorded(*args):
        found.append(near(*args))
        return found[-1]

    monkeypatch.setattr(sparse.Mask, "_found_near", recorded)
    made = wf.Sparse(sparsity)((777, 20), seed=5, name="w") == 0
    assert (made == by_the_contract(sparsity, (777, 20), 5, "w")).all()
    assert any(one is None for one in found)


@pytest.mark.parametrize("tall", [2, 4096])
def test_of_equal_words_the_first_rows_are_zeros(monkeypatch, tall):
    """No seed is known that gives equal words in one column, so all words are replaced here."""

    def of_one_word(distribution, seed, stream, out, *rest, **options):
        if out.dtype == np.uint64:
            out[...] = 5 << 60
        else:
            real(distribution, seed, stream, out, *rest, **options)

    real = sparse.fill
    monkeypatch.setattr(sparse, "fill", of_one_word)
    monkeypatch.setattr(sparse, "_TALL", tall)
    scheme = wf.Sparse(0.4)
    zeros = scheme((10, 3), seed=5, name="w") == 0
    assert zeros.tolist() == [[row < 4] * 3 for row in range(10)]
    part = scheme((10, 3), seed=5, name="w", index=np.s_[3:6, 1:]) == 0
    assert part.tolist() == [[row < 4] * 2 for row in range(3, 6)]


@pytest.fixture
def keys_made(monkeypatch):
    """Count the keys that are computed, in all threads."""
    made, make = [], sparse.Mask.keys

    def counted(mask, of):
        made.append(math.prod(of.sizes))
        return make(mask, of)

    monkeypatch.setattr(sparse.Mask, "keys", counted)
    return made


@pytest.mark.parametrize("shape", [(300, 200), (5000, 40)])
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("scheme", [wf.Sparse(0.3), wf.Scaled(wf.Sparse(0.3, 0.02), 0.5)])
def test_a_checkpoint_costs_the_keys_twice(
    tmp_path, monkeypatch, keys_made, shape, num_threads, scheme
):
    """Once to find the thresholds of the columns, once to set the zeros, as for an array."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1024)
    write_checkpoint(
        tmp_path, [TensorSpec("w", shape, scheme)], seed=5, dtype="float32", num_threads=num_threads
    )
    assert sum(keys_made) == 2 * math.prod(shape)
    data = (tmp_path / "model.safetensors").read_bytes()
    keys_made.clear()
    expected = wf.Sparse(0.3)(shape, seed=5, name="w")
    assert sum(keys_made) == 2 * math.prod(shape)
    assert data.endswith(expected.tobytes())


def test_a_box_costs_the_keys_of_its_columns_once(keys_made):
    wf.Sparse(0.3)((3000, 500), seed=5, name="w", index=np.s_[10:20, 7:11])
    assert sum(keys_made) == 4 * 3000 + 4 * 10


def test_more_columns_than_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sparse, "_KEPT", 7)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 64)
    write_checkpoint(
        tmp_path,
        [TensorSpec("w", (20, 30), wf.Sparse(0.3))],
        seed=5,
        dtype="float32",
        num_threads=2,
    )
    expected = wf.Sparse(0.3)((20, 30), seed=5, name="w")
    assert (tmp_path / "model.safetensors").read_bytes().endswith(expected.tobytes())
    assert ((expected == 0) == by_the_contract(0.3, (20, 30), 5, "w")).all()


def test_boxes_filled_by_several_threads_at_once():
    """They share the search for thresholds; if it fails in one thread, another one does it."""
    shape = (500, 4000)
    whole = wf.Sparse(0.5)(shape, seed=5, name="w")
    fill = wf.Sparse(0.5).prepared(shape, np.dtype(np.float32), Stream(5, "w"))
    parts = [box(shape, np.s_[first : first + 50]) for first in range(0, 500, 50)]
    made = np.empty(shape, np.float32)
    threads = [
        threading.Thread(target=fill, args=(made[part.starts[0] :][:50], part, 1 + number % 2))
        for number, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made == whole).all()


def test_a_threshold_that_one_thread_fails_to_find(monkeypatch):
    """The next thread that needs the threshold finds it."""
    found = sparse.Mask.found
    calls = []

    def fails_first(*args):
        calls.append(args)
        if len(calls) == 1:
            raise MemoryError
        return found(*args)

    monkeypatch.setattr(sparse.Mask, "found", fails_first)
    fill = wf.Sparse(0.5).prepared((30, 40), np.dtype(np.float32), Stream(5, "w"))
    out = np.empty((30, 40), np.float32)
    with pytest.raises(MemoryError):
        fill(out, box((30, 40)), 1)
    fill(out, box((30, 40)), 1)
    assert (out == wf.Sparse(0.5)((30, 40), seed=5, name="w")).all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_matrices_of_no_element(tmp_path, shape):
    tensors = [TensorSpec("w", shape, wf.Sparse(0.5)), TensorSpec("b", (3,), wf.Ones())]
    write_checkpoint(tmp_path, tensors, seed=0)
    assert wf.Sparse(0.5)(shape, seed=0).shape == shape


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float8_e4m3fn"])
def test_zeros_are_zeros_of_every_type_and_order(dtype):
    out = np.full((9, 70), 1, wf.Zeros()((1,), dtype=dtype).dtype)
    for part in (out, out.T.copy().T, out[::-1], out[:, ::2]):
        wf.Sparse(0.5).fill(part, seed=5, name="w")
        zeros = by_the_contract(0.5, part.shape, 5, "w")
        assert (part.astype(float)[zeros] == 0).all()
        assert not np.signbit(part.astype(float)[zeros]).any()
