"""Stream version 1 is frozen, on every instruction set and in any floating-point environment."""

import ctypes
import ctypes.util
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import make_hashes
import numpy as np
import pytest
from draws import DRAWS

import winit_fast as wf
import winit_fast._core as _core
from winit_fast.streams import distributions, truncation

FROZEN = make_hashes.frozen()


def hashes(offsets: Sequence[int] = make_hashes.OFFSETS) -> dict[str, str]:
    return {key: make_hashes.blake2b(data) for key, data in make_hashes.table(offsets)}


def test_hashes(isa):
    assert hashes() == FROZEN


def test_cases_of_the_c_program():
    """The cases that tests/c/isa_hashes.c was given are what the library computes."""
    assert make_hashes.CASES.read_text() == make_hashes.cases()


# --------------------------------------------------------------------------------------------------
# The caller's floating-point environment, through the C library's own functions
# --------------------------------------------------------------------------------------------------

# For each machine: the size of glibc's fenv_t, the offset of the control register in it, the bits
# of the rounding mode, the bits that flush subnormals, and the values of FE_UPWARD and so on.
MACHINES = {
    "x86_64": (32, 28, 0x6000, 0x8040, {"up": 0x800, "down": 0x400, "zero": 0xC00}),
    "aarch64": (8, 0, 0xC00000, 0x1000000, {"up": 0x400000, "down": 0x800000, "zero": 0xC00000}),
}
MACHINE = MACHINES.get(platform.machine())
needs_glibc = pytest.mark.skipif(
    MACHINE is None or platform.libc_ver()[0] != "glibc", reason="knows glibc's fenv_t only"
)


def libm() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("m"))


def environment() -> bytearray:
    """The calling thread's fenv_t."""
    fenv = (ctypes.c_char * MACHINE[0])()
    assert libm().fegetenv(fenv) == 0
    return bytearray(fenv)


def control(fenv: bytearray) -> int:
    """The control register of fenv_t, without the exception flags, which arithmetic may set."""
    (word,) = struct.unpack_from("<I", fenv, MACHINE[1])
    return word & (MACHINE[2] | MACHINE[3])


@contextmanager
def changed(rounding: str | None, flush: bool) -> Iterator[None]:
    """Change the rounding mode, or flush subnormals, for the calling thread inside `with`."""
    before = environment()
    try:
        if rounding is not None:
            assert libm().fesetround(MACHINE[4][rounding]) == 0
        if flush:
            fenv = environment()
            (word,) = struct.unpack_from("<I", fenv, MACHINE[1])
            struct.pack_into("<I", fenv, MACHINE[1], word | MACHINE[3])
            assert libm().fesetenv((ctypes.c_char * MACHINE[0]).from_buffer(fenv)) == 0
        yield
    finally:
        assert libm().fesetenv((ctypes.c_char * MACHINE[0]).from_buffer(before)) == 0


ENVIRONMENTS = [("up", False), ("down", False), ("zero", False), (None, True), ("up", True)]


@needs_glibc
@pytest.mark.parametrize("rounding, flush", ENVIRONMENTS)
def test_hashes_in_another_environment(isa, rounding, flush):
    """One offset, inside a block, is enough: rounding does not depend on the index."""
    with changed(rounding, flush):
        during = control(environment())
        got = hashes([3])
        after = control(environment())
    assert during != control(environment()), "the switch did not take"
    assert after == during, "the caller's settings were not restored"
    assert len(got) == len(FROZEN) / len(make_hashes.OFFSETS)
    assert got.items() <= FROZEN.items()


def subnormal_fills() -> list[bytes]:
    """Parameters and results that flushing would set to zero, with and without worker threads."""
    stream = wf.Stream(3, "subnormal")
    return [
        draw.tobytes()
        for size in (16, 1000, 300_001)
        for draw in (
            stream.uniform(1e-45, 1e-38, (size,)),
            stream.uniform(-3e-308, 5e-308, (size,), dtype="float64"),
            stream.uniform(-1e-6, 6e-5, (size,), dtype="float16"),
            stream.normal(0.0, 1e-40, (size,)),
            stream.normal(2.3e-308, 2.3e-308, (size,), dtype="float64"),
            stream.truncated_normal(0.0, 1e-39, -1.0, 2.0, (size,), dtype="bfloat16"),
            stream.truncated_normal(0.0, 0.004, -2.0, 2.0, (size,), dtype="float8_e4m3fn"),
        )
    ]


@pytest.fixture(scope="module")
def expected_subnormals() -> list[bytes]:
    """Computed once, because every instruction set gives the same bits."""
    return subnormal_fills()


@needs_glibc
@pytest.mark.parametrize("rounding, flush", ENVIRONMENTS)
def test_subnormals_in_another_environment(isa, rounding, flush, expected_subnormals):
    with changed(rounding, flush):
        during = control(environment())
        got = subnormal_fills()
        after = control(environment())
    assert after == during, "the caller's settings were not restored"
    assert got == expected_subnormals
    assert np.frombuffer(got[0], np.float32).min() > 0


def orthogonal_boxes() -> list[bytes]:
    """Boxes that are computed by columns and by rows, a transposed one, and a batch."""
    scheme, batch = wf.Orthogonal(gain=0.3), wf.Orthogonal(gain=1e-39, batch_axis=0)
    return [
        scheme((150, 100), seed=1, dtype=dtype, index=index).tobytes()
        for dtype in ("float32", "float64", "bfloat16")
        for index in (np.s_[:], np.s_[:, 3:50], np.s_[20:23])
    ] + [batch((2, 20, 10), seed=1).tobytes()]


@pytest.fixture(scope="module")
def expected_boxes() -> list[bytes]:
    return orthogonal_boxes()


@needs_glibc
@pytest.mark.parametrize("rounding, flush", ENVIRONMENTS)
def test_orthogonal_in_another_environment(isa, rounding, flush, expected_boxes):
    with changed(rounding, flush):
        got = orthogonal_boxes()
    assert got == expected_boxes


PARAMETERS = [
    (getattr(distributions, method), parameters)
    for method, draw in DRAWS.items()
    for parameters in draw.environments
]


@needs_glibc
@pytest.mark.parametrize("rounding, flush", ENVIRONMENTS)
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64)])
def test_parameters_in_another_environment(isa, dtype, rounding, flush):
    """Distributions are cached; their bounds and windows must not depend on the environment."""
    got, expected = np.empty((2, len(PARAMETERS), 5000), dtype)
    truncation.window.cache_clear()
    with changed(rounding, flush):
        there = [make(dtype, *parameters) for make, parameters in PARAMETERS]
    for row, distribution in zip(got, there, strict=True):
        assert _core.fill_array(distribution, 3, 4, row, row.size)
    truncation.window.cache_clear()
    for row, (make, parameters) in zip(expected, PARAMETERS, strict=True):
        assert _core.fill_array(make(dtype, *parameters), 3, 4, row, row.size)
    np.testing.assert_array_equal(got, expected)
