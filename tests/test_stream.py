"""Seeds and names, and the functions that return numbers."""

import pickle
from dataclasses import FrozenInstanceError
from hashlib import blake2b

import numpy as np
import pytest
from draws import DRAWS, FROZEN

import winit_fast as wf
from winit_fast.base import dtypes
from winit_fast.streams import fill
from winit_fast.streams.identity import stream_id


def test_seeds():
    assert wf.Stream(0).seed == 0
    assert wf.Stream(2**64 - 1).seed == 2**64 - 1
    assert wf.Stream(np.uint32(7)).seed == 7
    assert wf.Stream(None).seed != wf.Stream().seed


def test_seed_sequence_gives_the_same_seed_again():
    sequence = np.random.SeedSequence(5)
    first = wf.Stream(sequence).seed
    assert first == wf.Stream(sequence).seed == wf.Stream(np.random.SeedSequence(5)).seed
    assert first == int(np.random.SeedSequence(5).generate_state(1, np.uint64)[0])


def test_generator_gives_a_new_seed_each_time():
    generator = np.random.default_rng(5)
    seeds = [wf.Stream(generator).seed for _ in range(2)]
    again = np.random.default_rng(5).integers(1 << 64, size=2, dtype=np.uint64)
    assert seeds == again.tolist()


def test_names():
    assert wf.Stream(0).id == wf.Stream(0, 0).id == 0
    assert wf.Stream(0, 2**64 - 1).id == 2**64 - 1
    for name in ("", "fc.weight", "fc.weight\0mask", "größe"):
        digest = blake2b(name.encode("utf-8"), digest_size=8).digest()
        assert stream_id(name) == int.from_bytes(digest, "little")


def test_value():
    stream = wf.Stream(3, "fc")
    assert stream == wf.Stream(3, "fc") and hash(stream) == hash(wf.Stream(3, "fc"))
    assert stream == wf.Stream(3, stream.id)  # a stream can also be given by its id
    assert stream != wf.Stream(3, "fd") and stream != wf.Stream(4, "fc")
    assert repr(stream) == "Stream(seed=3, name='fc')"
    assert eval(repr(stream), {"Stream": wf.Stream}) == stream
    assert pickle.loads(pickle.dumps(stream)) == stream
    with pytest.raises(FrozenInstanceError):
        stream.seed = 4


@pytest.mark.parametrize("kind", dtypes.FLOATS.values(), ids=lambda kind: kind.name)
def test_the_short_way_gives_the_same_bits(isa, kind):
    stream = wf.Stream(1, "x")
    for size in (0, 1, 16, 1000, fill.MIN_PIECE, fill.MIN_PIECE + 1):
        for method, parameters in FROZEN.values():
            draw = getattr(stream, method)
            out = np.zeros(size, kind.dtype)
            assert draw(*parameters, out=out) is out
            long_way = draw(*parameters, shape=size, dtype=kind.name, num_threads=1)
            assert out.tobytes() == long_way.tobytes()


def test_defaults_are_the_standard_distributions():
    stream = wf.Stream(0, "x")
    pairs = [(stream.bits(9), stream.bits((9,), 0, dtype="uint32"))]
    for method, one in DRAWS.items():
        draw = getattr(stream, method)
        named = dict(zip(one.names, one.standard, strict=True))
        pairs.append((draw(shape=9), draw(*one.standard, (9,), dtype="float32")))
        pairs.append((draw(shape=9), draw(**named, shape=[9], dtype=np.float32)))
    for made, spelt in pairs:
        assert made.dtype == spelt.dtype and (made == spelt).all()


def test_bits_and_their_offset():
    stream = wf.Stream(9, "words")
    words = stream.bits(100)
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(stream.bits(90, 10), words[10:])
    # A 64-bit word is two 32-bit words, the lower one first.
    np.testing.assert_array_equal(stream.bits(50, dtype="uint64"), words.view("<u8"))
    out = np.empty(100, np.uint64)
    assert stream.bits(out=out, offset=7) is out
    np.testing.assert_array_equal(out, stream.bits(100, 7, dtype=np.uint64))
    far = stream.bits(8, (1 << 34) - 4)
    np.testing.assert_array_equal(stream.bits(4, 1 << 34), far[4:])


def test_streams_differ():
    draws = [
        wf.Stream(seed, name).bits(64).tobytes()
        for seed in (0, 1, 1 << 32, 1 << 63)
        for name in (None, 1, 1 << 32, "a", "b")
    ]
    assert len(set(draws)) == len(draws)


def test_negative_zero_is_zero():
    """The last distributions are cached, so equal parameters must give equal distributions."""
    for loc in (-0.0, 0.0, -0.0):
        assert not np.signbit(wf.Stream(0).normal(loc, 0.0, 64)).any()


def test_same_numbers_whatever_was_drawn_before():
    stream = wf.Stream(0, "x")
    first = stream.normal(shape=100)
    stream.uniform(shape=1000)
    assert (stream.normal(shape=100) == first).all()
