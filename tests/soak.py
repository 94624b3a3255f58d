"""Soak test: random calls of everything that fills, compared with the reference, for any time.

    python tests/soak.py --minutes 30
    python tests/soak.py --seed 17 --case 4242    # repeat one case of a run

A case depends only on the seed of the run and on its own number, so that a failure can be repeated;
the failure's message says how. Only the timing of threads and interrupts differs. The program ends
with one line of figures. The exit status is 1 if a case failed or memory grew.
"""

import argparse
import contextlib
import ctypes
import gc
import math
import os
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import reference
from draws import DRAWS

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.base import dtypes
from winit_fast.checkpoint import write_checkpoint
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams import fill

REFUSED = (ValueError, TypeError, IndexError)
ISAS = _core.supported_isas()
WIDE = {4: "float32", 8: "float64"}

MEMORY_AFTER_CALLS = 1 << 20
MEMORY_AFTER_CASES = 48 << 20
"""Bytes by which memory may have grown. Cases are of many sizes, which the allocator keeps."""


class Interrupt(BaseException):
    """Raised by the timer, to be distinguished from the user's Ctrl-C."""


slowest_interrupt = 0.0


def interruptible(call):
    """Make a call; the timer interrupts only inside it."""
    with contextlib.suppress(Interrupt):
        enclosed(call)


def enclosed(call):
    call()


def interrupt(signum, frame):
    while frame is not None:
        if frame.f_code is enclosed.__code__:
            raise Interrupt
        frame = frame.f_back


# --------------------------------------------------------------------------------------------------
# What to draw
# --------------------------------------------------------------------------------------------------


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def random_box(rng, most):
    """A logical shape of up to 2^63 elements, and an index of at most `most` of them."""
    axes = int(rng.integers(0, 6))
    if rng.random() < 0.3:  # a huge tensor
        bits = rng.multinomial(rng.integers(30, 63), np.ones(axes) / axes) if axes else []
        shape = tuple(int(rng.integers(1 << b >> 1, 1 << b)) + 1 for b in bits)
        if math.prod(shape) > 1 << 63:
            shape = tuple(max(1, extent - 1) for extent in shape)
    else:
        shape = tuple(int(extent) for extent in rng.integers(1, pick(rng, [3, 9, 70]), size=axes))
    index, left = [], most
    for extent in shape:
        size = int(rng.integers(0, min(extent, left) + 1)) if rng.random() < 0.9 else 1
        size = size or int(rng.random() < 0.9)
        start = int(rng.integers(0, extent - size, endpoint=True))
        if size == 1 and rng.random() < 0.3:
            index.append(start - extent if rng.random() < 0.5 else start)
        else:
            index.append(slice(start, start + size))
            left = max(1, left // max(1, size))
    return shape, tuple(index)


def box_shape(index):
    return tuple(part.stop - part.start for part in index if isinstance(part, slice))


def logical_index(shape, index, place):
    """The logical index of one element, given by its position in the box."""
    number, along = 0, iter(place)
    for extent, part in zip(shape, index, strict=True):
        at = part.start + int(next(along)) if isinstance(part, slice) else part % extent
        number = number * extent + at
    return number


def random_memory(rng, shape, dtype):
    """Memory, and a function that views it as an array: any order of axes, gaps, any alignment."""
    order = rng.permutation(len(shape))
    steps = [pick(rng, [1, 1, 1, 2, 3, -1, -2]) for _ in shape]
    extents = [shape[axis] * abs(steps[axis]) for axis in order]
    lead = int(rng.integers(0, 70))
    memory = np.full(lead + math.prod(extents) * dtype.itemsize + 64, 0xA5, np.uint8)

    def view(memory):
        whole = memory[lead : lead + math.prod(extents) * dtype.itemsize].view(dtype)
        whole = whole.reshape(extents).transpose(np.argsort(order))
        return whole[(..., *(slice(None, None, step) for step in steps))]

    return memory, view


def random_draw(rng):
    """A distribution with its parameters."""
    kind, draw = pick(rng, list(DRAWS.items()))
    loc, scale = pick(rng, [0.0, 0.0, 0.5, -2.0, 1e-3]), pick(rng, [1.0, 0.02, 3.3, 1e-4])
    if kind == "uniform":
        return kind, (loc - scale * rng.random(), loc + scale * (0.1 + rng.random()))
    return kind, (loc, scale, *pick(rng, draw.shapes))


def random_stream(rng):
    name = pick(rng, [None, "w", "ünï.0\0mask", int(rng.integers(1 << 63))])
    return wf.Stream(int(rng.integers(1 << 64, dtype=np.uint64)), name)


def as_bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def same(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    differ = np.ravel(as_bits(got) != as_bits(expected))
    nan = np.ravel(np.isnan(got.astype(float)) & np.isnan(expected.astype(float)))
    differ &= ~nan
    assert not differ.any(), f"{differ.sum()} of {differ.size} elements differ"


def allowed(kind, parameters, dtype):
    """Whether the contract defines values for these parameters."""
    if kind == "uniform":
        low, high = reference.uniform_bounds(dtype, *parameters)
    else:
        low, high = reference.STANDARD[kind].bounds(dtype, *parameters)
    return (low, high) == (-math.inf, math.inf) or -math.inf < low <= high < math.inf


def check_elements(stream, kind, parameters, indices, values):
    """Compare elements, given by their logical indices, with the reference."""
    dtype = values.dtype
    where = np.array(indices, np.uint64)
    if kind == "uniform":
        same(values, reference.uniform(dtype, stream.seed, stream.id, where, *parameters))
        return
    loc, scale, *shape = parameters
    standard, wide = reference.STANDARD[kind], reference.working(dtype)
    method = getattr(stream, kind)
    one_by_one = [
        method(0.0, 1.0, *shape, (int(i) + 1,), dtype=wide, index=(int(i),)) for i in where
    ]
    z = np.array(one_by_one, wide)
    ends = standard.bounds(wide, 0.0, 1.0, *shape)
    exact = standard.z(wide, stream.seed, stream.id, where, *shape)
    exact = np.minimum(np.maximum(exact, ends[0]), ends[1])
    bounds = standard.bounds(dtype, *parameters)
    x = reference.fma(wide, z, wide.type(scale), wide.type(loc))
    # A z at a bound may have been clamped, so x cannot be computed from it: those are left out.
    inside = (z != ends[0]) & (z != ends[1])
    with np.errstate(over="ignore"):
        same(values[inside], reference.clamp_and_round(dtype, x, *bounds)[inside])
    if bounds != (-math.inf, math.inf):
        numbers = values.astype(float)
        assert (bounds[0] <= numbers).all() and (numbers <= bounds[1]).all()
    assert (reference.ulp_errors(z, exact) <= 4).all()


# --------------------------------------------------------------------------------------------------
# Cases
# --------------------------------------------------------------------------------------------------


def case_fill(rng):
    """A box in any memory: equal to the reference and to another set's bits; gaps untouched."""
    shape, index = random_box(rng, pick(rng, [1, 30, 2000, 50_000]))
    stream, (kind, parameters) = random_stream(rng), random_draw(rng)
    dtype = pick(rng, list(dtypes.FLOATS))
    memory, view = random_memory(rng, box_shape(index), dtype)
    before = memory.copy()
    options = {"shape": shape, "index": index, "num_threads": int(rng.integers(1, 6))}
    draw = getattr(stream, kind)
    _core.set_isa(pick(rng, ISAS))
    fill.MIN_PIECE = pick(rng, [2, 64, 1 << 17])
    fill.STREAMING_BYTES = pick(rng, [0, 1 << 40])
    if not allowed(kind, parameters, dtype):
        with contextlib.suppress(ValueError):
            draw(*parameters, out=view(memory), **options)
            raise AssertionError("not refused")
        assert (memory == before).all()
        return
    draw(*parameters, out=view(memory), **options)
    _core.set_isa(pick(rng, ISAS))
    plain = draw(*parameters, **options | {"num_threads": 1}, dtype=dtype)
    view(before)[...] = plain
    same(memory, before)
    if plain.size:
        some = rng.choice(plain.size, size=min(12, plain.size), replace=False)
        places = [np.unravel_index(one, plain.shape) if plain.ndim else () for one in some]
        indices = [logical_index(shape, index, place) for place in places]
        check_elements(stream, kind, parameters, indices, plain.ravel()[some])


def case_words(rng):
    """Raw words, from any offset."""
    stream, count = random_stream(rng), int(rng.integers(1, 300))
    offset = int(rng.integers((1 << 63) - count)) >> int(rng.integers(0, 63))
    _core.set_isa(pick(rng, ISAS))
    index = np.arange(count, dtype=np.uint64) + np.uint64(offset)
    same(stream.bits(count, offset), reference.words32(stream.seed, stream.id, index))
    words = stream.bits(count, offset, dtype="uint64")
    same(words, reference.words64(stream.seed, stream.id, index))


def case_threads(rng):
    """Several threads fill at once, each with helper threads."""
    jobs = []
    for _ in range(int(rng.integers(2, 9))):
        stream, dtype = random_stream(rng), pick(rng, list(dtypes.FLOATS))
        size = int(rng.integers(1, 1 << pick(rng, [6, 12, 19])))
        jobs.append((stream, dtype, size, int(rng.integers(1, 5))))
    expected = [s.normal(shape=n, dtype=d, num_threads=1) for s, d, n, _ in jobs]
    got = [np.empty(n, d) for _, d, n, _ in jobs]
    _core.set_isa(pick(rng, ISAS))
    fill.MIN_PIECE = pick(rng, [1 << 10, 1 << 15])
    failures = []

    def work(out, stream, num_threads, expected):
        for _ in range(3):
            out.fill(0)
            stream.normal(out=out, num_threads=num_threads)
            then = out.copy()  # copied at once: no thread may still be writing
            try:
                same(then, expected)
            except AssertionError as error:
                failures.append(error)

    workers = [
        threading.Thread(target=work, args=(out, stream, num_threads, right))
        for out, (stream, _, _, num_threads), right in zip(got, jobs, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    for one, other in zip(got, expected, strict=True):
        same(one, other)


def case_fork(rng):
    """A child process that was forked while another thread fills can fill too."""
    stream, size = random_stream(rng), int(rng.integers(1, 1 << 18))
    fill.MIN_PIECE = 1 << 10
    expected = stream.normal(shape=size, num_threads=3)
    stop, out = threading.Event(), np.empty(size, np.float32)

    def keep_filling():
        while not stop.is_set():
            stream.normal(out=out, num_threads=2)

    other = threading.Thread(target=keep_filling)
    other.start()
    try:
        with warnings.catch_warnings():  # Python 3.12 warns about a fork while there are threads
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(120)  # kills the child in case of a deadlock
            again = stream.normal(shape=size, num_threads=3)
            os._exit(0 if again.tobytes() == expected.tobytes() else 1)
        status = os.waitpid(child, 0)[1]
        assert status == 0, f"the child ended with status {status}"
    finally:
        stop.set()
        other.join()
    same(out, expected)


def case_interrupt(rng):
    """Ctrl-C at any time: written elements are right; no thread writes after the call."""
    global slowest_interrupt
    stream, size = random_stream(rng), int(rng.integers(1 << 16, 1 << 22))
    kind = pick(rng, ["normal", "truncated_normal"])
    draw = getattr(stream, kind)
    _core.set_isa(pick(rng, ISAS))
    fill.MIN_PIECE = pick(rng, [1 << 8, 1 << 12, 1 << 17])
    num_threads = int(rng.integers(1, 5))
    begin = time.perf_counter()
    expected = draw(shape=size, num_threads=num_threads)
    lasts = time.perf_counter() - begin
    for again in range(3):
        out = np.full(size, np.float32(9e9))
        delay = max(1e-6, lasts * rng.random() * 1.2)
        begin = time.perf_counter()
        # More signals follow soon, while the call waits for its helper threads.
        signal.setitimer(signal.ITIMER_REAL, delay, 0.003 + 0.03 * rng.random() if again else 0)
        interruptible(partial(draw, out=out, num_threads=num_threads))
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest_interrupt = max(slowest_interrupt, time.perf_counter() - begin - delay)
        then = out.copy()
        time.sleep(0.001)
        same(out, then)
        done = then != np.float32(9e9)
        same(then[done], expected[done])


def case_refusal(rng):
    """One wrong argument among right ones: a documented error, and the buffer is untouched."""
    memory = np.full(4096, 0xA5, np.uint8)
    floats = memory[:1024].view(np.float32)
    good = floats.reshape(16, 16)
    outs = [
        np.lib.stride_tricks.as_strided(floats, (4, 4), (pick(rng, [0, 4, 8, -4, 12]), 4)),
        np.lib.stride_tricks.as_strided(floats, (4, 4), (16, 16), writeable=False),
        memory.view(pick(rng, [">f4", ">f8", "i4", "u2", "c8", "?", "S4", "M8[s]"])),
        memoryview(memory).toreadonly(),
        memoryview(memory),
        pick(rng, [None, 3, "w", [1.0], object(), np.float32(1)]),
    ]
    wrong = pick(
        rng,
        [
            {"out": pick(rng, outs[:5])},
            {"out": outs[5] if outs[5] is not None else 3},
            {"shape": pick(rng, [(16, 15), (16,), (1 << 62, 16), (-1, 16), 2.5, "16"])},
            {"index": pick(rng, [0, (slice(0, 4),), (slice(0, 17), 0), 1.5, [0], (..., ...)])},
            {
                "shape": (32, 16),
                "index": pick(rng, [slice(17, 33), slice(0, 32, 2), (0, 0, 0), 32]),
            },
            {"num_threads": pick(rng, [0, -1, 1.5, "2"])},
            {"loc": pick(rng, [math.nan, math.inf, "0", None, 1j, 10**400, 1e39])},
            {"scale": pick(rng, [math.nan, math.inf, -1.0, "1", None, 1j, 10**400, 1e39])},
            {"dtype": pick(rng, ["float64", "int8", "f4,,", 3, object()])},
        ],
    )
    before = memory.copy()
    stream = random_stream(rng)
    try:
        stream.normal(**{"out": good} | wrong)
    except REFUSED:
        assert (memory == before).all(), f"{wrong} was refused, but something was written"
    else:
        raise AssertionError(f"{wrong} was not refused")


def case_initializers(rng):
    """Every scheme with its defaults: a box equals the cut of the whole, or both raise errors."""
    cls = pick(rng, sorted({*wf.Initializer._registry.values()}, key=lambda cls: cls.__name__))
    try:
        scheme = cls()
    except TypeError:  # the scheme has a parameter without a default
        return
    assert cls.from_config(scheme.get_config()) == scheme
    shape = tuple(int(extent) for extent in rng.integers(1, 40, size=rng.integers(0, 5)))
    index = []
    for extent in shape:
        start = int(rng.integers(extent))
        index.append(slice(start, int(rng.integers(start, extent, endpoint=True))))
    dtype = pick(rng, list(dtypes.FLOATS))
    options = {"seed": int(rng.integers(1 << 32)), "name": "w"}
    memory, view = random_memory(rng, box_shape(index), dtype)
    before = memory.copy()
    num_threads = int(rng.integers(1, 4))
    _core.set_isa(pick(rng, ISAS))
    fill.MIN_PIECE = pick(rng, [2, 64, 1 << 17])
    place = {"shape": shape, "index": tuple(index), "num_threads": num_threads}
    try:
        whole = scheme(shape, dtype=dtype, **options)
    except ValueError:
        with contextlib.suppress(ValueError):
            scheme.fill(view(memory), **place, **options)
            raise AssertionError(f"{scheme} refuses {shape}, but not {index} of it") from None
        same(memory, before)
        return
    scheme.fill(view(memory), **place, **options)
    cut = whole[tuple(index)]
    if isinstance(scheme, (wf.Orthogonal, wf.DeltaOrthogonal)):
        wide = np.float64 if dtype == np.float64 else np.float32
        # Numbers that differ by 32 eps of the working type may round to adjacent values of the
        # type.
        bound = 32 * np.finfo(wide).eps + (0 if dtype == wide else float(_spacing_at_1(dtype)))
        difference = view(memory).astype(float) - cut.astype(float)
        assert (abs(difference) <= bound).all(), f"{scheme} of {shape}: {abs(difference).max()}"
        cut = view(memory).copy()
    view(before)[...] = cut
    same(memory, before)


def _spacing_at_1(dtype):
    return 1.0 - reference.neighbour(dtype, 1.0, "<") if dtype.itemsize < 4 else 0.0


def case_orthogonal(rng):
    """Q of any shape is orthonormal along its shorter side, and boxes agree with it."""
    m, n = (int(x) for x in rng.integers(1, pick(rng, [9, 70, 300]), size=2))
    dtype = np.dtype(pick(rng, ["float32", "float64"]))
    gain = pick(rng, [1.0, -0.5, 3.0])
    scheme = wf.Orthogonal(gain)
    options = {"seed": int(rng.integers(1 << 32)), "dtype": dtype}
    _core.set_isa(pick(rng, ISAS))
    q = scheme((m, n), **options, num_threads=int(rng.integers(1, 4))).astype(float)
    eps = np.finfo(dtype).eps
    square = (q.T @ q if m >= n else q @ q.T) / gain**2
    assert abs(square - np.eye(min(m, n))).max() < 32 * eps
    rows, columns = (sorted(rng.integers(0, x, size=2, endpoint=True).tolist()) for x in (m, n))
    index = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
    part = scheme((m, n), **options, index=index)
    assert (abs(part - q[index]) <= 32 * eps * abs(gain)).all()


def case_checkpoint(rng):
    """A checkpoint is complete, or its directory is unchanged."""
    schemes = (wf.RandomNormal(), wf.Zeros(), wf.HeUniform(), wf.TruncatedNormal())
    tensors = [
        TensorSpec(f"w.{i}", tuple(rng.integers(1, 60, size=2).tolist()), pick(rng, schemes))
        for i in range(int(rng.integers(1, 6)))
    ]
    seed, dtype = int(rng.integers(1 << 64, dtype=np.uint64)), pick(rng, list(dtypes.FLOATS))
    stops = rng.random() < 0.4

    def progress(done, total):
        if stops:
            raise Interrupt

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "a" / "b"
        size = int(rng.integers(1, 20_000))
        try:
            write_checkpoint(
                place, tensors, seed=seed, dtype=dtype, max_shard_size=size,
                num_threads=int(rng.integers(1, 4)), progress=progress,
            )  # fmt: skip
        except Interrupt:
            assert not list(Path(folder).iterdir())
            return
        assert not stops
        found = b""
        for path in sorted(place.glob("*.safetensors")):
            data = path.read_bytes()
            found += data[8 + int.from_bytes(data[:8], "little") :]
        made = (
            t.initializer(t.shape, seed=seed, name=t.name, dtype=dtype, num_threads=1)
            for t in tensors
        )
        assert found == b"".join(one.tobytes() for one in made)


CASES = {
    case_fill: 40,
    case_initializers: 20,
    case_refusal: 20,
    case_words: 5,
    case_orthogonal: 5,
    case_threads: 4,
    case_checkpoint: 3,
    case_interrupt: 2,
    case_fork: 1,
}


def run_case(seed, number):
    """Run one case, and restore the package's settings."""
    rng = np.random.default_rng([seed, number])
    weights = np.array(list(CASES.values()), float)
    case = list(CASES)[int(rng.choice(len(weights), p=weights / weights.sum()))]
    before = _core.isa(), fill.MIN_PIECE, fill.STREAMING_BYTES
    try:
        case(rng)
    finally:
        _core.set_isa(before[0])
        fill.MIN_PIECE, fill.STREAMING_BYTES = before[1:]
    return case.__name__.removeprefix("case_")


# --------------------------------------------------------------------------------------------------
# The run
# --------------------------------------------------------------------------------------------------


def resident():
    """Bytes of memory in use, after freed memory was returned to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def many_calls(count):
    """Make small calls of every kind; return how much memory grew over the last nine tenths."""
    stream, small = wf.Stream(0, "w"), np.empty(16, np.float32)
    half = np.empty((4, 8), dtypes.find("bfloat16").dtype)[:, ::2]
    scheme, read_only = wf.HeNormal(), np.empty(3, np.float32)
    read_only.flags.writeable = False

    def refused(number):
        with contextlib.suppress(ValueError):
            stream.normal(out=read_only)

    calls = [
        lambda number: stream.normal(0.0, 1.0 + number, out=small),
        lambda number: stream.uniform(-1.0, 1.0, out=small),
        lambda number: stream.truncated_normal(out=half),
        lambda number: stream.bits(5, number),
        lambda number: wf.Stream(number, f"w.{number}").normal(shape=3),
        lambda number: scheme((4, 4), seed=number, dtype="float16"),
        lambda number: scheme.fill(half, seed=0, shape=(9, 9), index=np.s_[2:6, 1:5]),
        lambda number: bytearray(stream.normal(out=memoryview(bytearray(16)).cast("f"))),
        lambda number: wf.get("orthogonal")((3, 3), seed=number),
        refused,
    ]
    before = 0
    for number in range(count):
        if number == count // 10:
            before = resident()
        calls[number % len(calls)](number)
    return resident() - before


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1 by default)")
    parser.add_argument("--cases", type=int, help="how many, in place of how long")
    parser.add_argument("--calls", type=int, default=1_000_000, help="small calls for the memory")
    parser.add_argument("--seed", type=int, help="of the run; drawn and printed by default")
    parser.add_argument("--case", type=int, help="do this one alone")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    signal.signal(signal.SIGALRM, interrupt)
    if options.case is not None:
        print(f"{run_case(seed, options.case)}: as it should be")
        return 0

    print(f"soak: seed {seed}", flush=True)
    grown_by_calls = many_calls(options.calls)
    begin = time.monotonic()
    counts, number, warm = Counter(), 0, 0
    warm_up = options.cases // 2 if options.cases is not None else None
    seconds = 60 * options.minutes

    def more():
        if options.cases is not None:
            return number < options.cases
        return time.monotonic() - begin < seconds

    while more():
        try:
            counts[run_case(seed, number)] += 1
        except Exception:
            traceback.print_exc()
            print(f"FAILED, again by: python tests/soak.py --seed {seed} --case {number}")
            return 1
        number += 1
        if not warm and (
            number >= warm_up if warm_up is not None else time.monotonic() - begin > seconds / 3
        ):
            warm = resident()
    grown = resident() - warm if warm else 0
    minutes = (time.monotonic() - begin) / 60
    fine = grown_by_calls <= MEMORY_AFTER_CALLS and grown <= MEMORY_AFTER_CASES
    print(
        f"soak: {'passed' if fine else 'FAILED, memory grew'}: {number:,} cases in {minutes:.1f} "
        f"minutes ({', '.join(f'{kind} {count:,}' for kind, count in counts.most_common())}), seed "
        f"{seed}; memory {grown / 2**20:+.1f} MiB, after {options.calls:,} calls "
        f"{grown_by_calls / 2**20:+.2f} MiB; at most {1000 * slowest_interrupt:.0f} ms after an "
        "interrupt"
    )
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
