"""NumPy's Generator on our stream: the same words, every distribution, pickling and copying."""

import copy
import ctypes
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import winit_fast as wf
import winit_fast._core as _core

# Words are made 1024 at a time: sizes around that, and around a block of four words.
SIZES = 1, 3, 4, 5, 1023, 1024, 1025, 5000


def _generator(seed=0, name=None):
    return np.random.Generator(wf.Philox4x32(seed, name))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [None, "fc.weight", 7])
def test_words_are_the_streams(isa, size, name):
    stream = wf.Stream(3, name)
    words = _generator(3, name).integers(1 << 32, size=size, dtype=np.uint32)
    np.testing.assert_array_equal(words, stream.bits(size))
    pairs = stream.bits(size, dtype=np.uint64)
    np.testing.assert_array_equal(wf.Philox4x32(3, name).random_raw(size), pairs)
    generated = _generator(3, name).integers((1 << 64) - 1, size=size, dtype=np.uint64, endpoint=1)
    np.testing.assert_array_equal(generated, pairs)
    np.testing.assert_array_equal(_generator(3, name).random(size), (pairs >> 11) * 2.0**-53)


def test_no_word_is_left_out():
    """A 64-bit number takes the next two words, even if they are in two buffers."""
    words = wf.Stream(1).bits(3000)
    for odd in (1, 1023, 1025):
        generator = _generator(1)
        first = generator.integers(1 << 32, size=odd, dtype=np.uint32)
        low, high, after = words[odd : odd + 3].tolist()
        assert generator.bit_generator.random_raw() == low | high << 32
        assert generator.integers(1 << 32, dtype=np.uint32) == after
        np.testing.assert_array_equal(first, words[:odd])
        assert generator.bit_generator.state["state"]["position"] == odd + 3


def test_through_ctypes():
    generator = wf.Philox4x32(2, "x")  # a name keeps it alive, because ctypes' address does not
    interface = generator.ctypes
    words = wf.Stream(2, "x").bits(4).tolist()
    state = ctypes.c_void_p(interface.state_address)
    assert [interface.next_uint32(state) for _ in range(2)] == words[:2]
    assert interface.next_uint64(state) == words[2] | words[3] << 32


def test_distributions_repeat():
    def draw(generator):
        shuffled = np.arange(100)
        generator.shuffle(shuffled)
        return np.concatenate(
            [
                generator.standard_normal(100),
                generator.standard_normal(100, dtype=np.float32),
                generator.integers(-5, 6, 100),
                generator.integers(0, 200, 101, dtype=np.uint8),
                shuffled,
                generator.choice(1000, 20, replace=False),
                generator.gamma(2.5, size=50),
                generator.binomial(20, 0.3, 50),
                generator.permuted(np.arange(60).reshape(6, 10), axis=1).ravel(),
            ]
        )

    first = draw(_generator(5, "x"))
    np.testing.assert_array_equal(first, draw(_generator(5, "x")))
    assert (first != draw(_generator(5, "y"))).any() and (first != draw(_generator(6, "x"))).any()


def test_distributions_fit():
    """Four p-values below 1e-6: a false alarm in 250,000 seeds. The seed is fixed."""
    generator = _generator(0, "fit")
    n = 100_000
    assert stats.kstest(generator.standard_normal(n), "norm").pvalue > 1e-6
    assert stats.kstest(generator.exponential(size=n), "expon").pvalue > 1e-6
    assert stats.kstest(generator.random(n, dtype=np.float32), "uniform").pvalue > 1e-6
    counts = np.bincount(generator.integers(0, 37, n), minlength=37)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_seeds():
    sequence = np.random.SeedSequence(4)
    assert wf.Philox4x32(sequence).state["state"]["seed"] == wf.Stream(sequence).seed
    assert wf.Philox4x32(sequence).seed_seq is sequence
    drawn = wf.Philox4x32(np.random.default_rng(1)).state["state"]["seed"]
    assert drawn == wf.Stream(np.random.default_rng(1)).seed
    assert wf.Philox4x32().state != wf.Philox4x32().state
    assert repr(_generator()).startswith("Generator(Philox4x32)")


def test_state_goes_round():
    generator = _generator(9, "x")
    generator.integers(1 << 32, size=1023, dtype=np.uint32)
    state = generator.bit_generator.state
    stream = wf.Stream(9, "x")
    assert state == {
        "bit_generator": "Philox4x32",
        "state": {"seed": 9, "stream": stream.id, "position": 1023},
    }
    expected = generator.standard_normal(2000)
    other = _generator(1)
    other.bit_generator.state = state
    np.testing.assert_array_equal(other.standard_normal(2000), expected)
    generator.bit_generator.state = state
    np.testing.assert_array_equal(generator.standard_normal(2000), expected)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))]
)
@pytest.mark.parametrize("seed", [8, np.random.SeedSequence(8)])
def test_copies(duplicate, seed):
    bits = wf.Philox4x32(seed, "x")
    bits.random_raw(700)
    other = duplicate(bits)
    assert type(other) is wf.Philox4x32 and other.state == bits.state
    generator, twin = np.random.Generator(bits), duplicate(np.random.Generator(other))
    np.testing.assert_array_equal(twin.standard_normal(999), generator.standard_normal(999))
    (child,) = bits.spawn(1)
    if duplicate is not copy.copy:  # copy.copy shares the SeedSequence, which counts its children
        assert twin.bit_generator.spawn(1)[0].state == child.state


def test_advance_and_jumped():
    words = wf.Stream(0).bits(5000)
    bits = wf.Philox4x32(0)
    assert bits.advance(4097) is bits
    assert bits.random_raw() == int(words[4097]) | int(words[4098]) << 32
    assert bits.advance(-4099).random_raw() == int(words[0]) | int(words[1]) << 32
    ahead = bits.jumped()
    assert bits.state["state"]["position"] == 2 and ahead.state["state"]["position"] == 2 + 2**48
    far = wf.Stream(0).bits(4, offset=2**49 + 2)
    assert ahead.jumped().random_raw() == int(far[0]) | int(far[1]) << 32
    assert bits.jumped(1 << 16).state == bits.state


def test_after_the_last_word_comes_the_first():
    bits = wf.Philox4x32(5, 6)
    bits.advance(-3)
    last = _core.philox((0xFFFFFFFF, 0x3FFFFFFF, 6, 0), (5, 0))
    words = np.random.Generator(bits).integers(1 << 32, size=7, dtype=np.uint32)
    np.testing.assert_array_equal(words, [*last[1:], *wf.Stream(5, 6).bits(4)])
    assert bits.state["state"]["position"] == 4


def test_spawn():
    parent = np.random.Generator(wf.Philox4x32(3, "x"))
    children = parent.spawn(3) + parent.spawn(1)
    states = [child.bit_generator.state["state"] for child in children]
    expected = [wf.Stream(child).seed for child in np.random.SeedSequence(3).spawn(4)]
    assert [state["seed"] for state in states] == expected
    assert {state["stream"] for state in states} == {wf.Stream(3, "x").id}


def test_the_generator_keeps_what_it_draws_from():
    bits = wf.Philox4x32(1)
    generator = np.random.Generator(bits)
    bits.__init__(2)
    del bits
    gc.collect()
    assert generator.bit_generator.random_raw() == wf.Stream(2).bits(1, dtype=np.uint64)[0]


def test_threads_share_one():
    """Each word goes to exactly one thread: together the threads draw the whole stream."""
    generator = _generator(4)
    with ThreadPoolExecutor(4) as pool:
        drawn = pool.map(lambda _: generator.integers(1 << 32, size=999, dtype=np.uint32), range(8))
    together = np.sort(np.concatenate(list(drawn)))
    np.testing.assert_array_equal(together, np.sort(wf.Stream(4).bits(8 * 999)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: wf.Philox4x32(-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: wf.Philox4x32(1.5), TypeError, "seed must be an integer, .*, got 1.5"),
        (lambda: wf.Philox4x32(0, 1.5), TypeError, "name must be a str, .*, got 1.5"),
        (lambda: wf.Philox4x32(0).advance(1.5), TypeError, "delta must be an integer, got 1.5"),
        (lambda: wf.Philox4x32(0).jumped("a"), TypeError, "jumps must be an integer, got 'a'"),
        (lambda: wf.Philox4x32(0).spawn(1.5), TypeError, "n_children must be an integer, got 1.5"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


PLACE = {"seed": 1, "stream": 2, "position": 3}


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (7, TypeError, "state must be a dict, got 7"),
        ({"bit_generator": "Philox4x32"}, ValueError, "state must have the key 'state'"),
        (np.random.PCG64(0).state, ValueError, "state must have the key 'seed'"),
        ({"bit_generator": "PCG64", "state": PLACE}, ValueError, "got one of a PCG64"),
        (
            {"bit_generator": "Philox4x32", "state": PLACE | {"position": -1}},
            ValueError,
            "position must be from 0 to 2.64 - 1, got -1",
        ),
        (
            {"bit_generator": "Philox4x32", "state": PLACE | {"seed": "x"}},
            TypeError,
            "seed must be an integer, got 'x'",
        ),
    ],
)
def test_states_refused(state, error, message):
    bits = wf.Philox4x32(0)
    before = bits.state
    with pytest.raises(error, match=message):
        bits.state = state
    assert bits.state == before


def test_the_place_is_read_and_set_under_the_lock():
    bits = wf.Philox4x32(5, "x")
    words, free = bits._words, []

    def try_lock():
        got = bits.lock.acquire(blocking=False)
        if got:
            bits.lock.release()
        return got

    def watched(name):
        def call(*place):
            # the lock is reentrant, so only another thread finds it taken
            with ThreadPoolExecutor(1) as other:
                free.append((name, other.submit(try_lock).result()))
            return getattr(words, name)(*place)

        return call

    bits._words = SimpleNamespace(seek=watched("seek"), place=watched("place"))
    bits.state = bits.state
    bits.advance(3)
    assert free == [(name, False) for name in ("place", "seek", "place", "seek")]
