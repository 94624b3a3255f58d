# cython: language_level=3, freethreading_compatible=True
"""Pointers in, kernels run: nothing is checked here that the callers have checked."""

import os

import numpy as np

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from winit_fast cimport _winit

F64 = _winit.WINIT_F64
F32 = _winit.WINIT_F32
F16 = _winit.WINIT_F16
BF16 = _winit.WINIT_BF16
E4M3FN = _winit.WINIT_E4M3FN
E5M2 = _winit.WINIT_E5M2

NO_VALUE = -1
NOT_FINITE = -2

# Elements below which letting go of the interpreter's lock costs more than the fill.
cdef enum:
    KEEP_LOCK = 16384


cdef class Distribution:
    """A distribution and its parameters, ready for the kernels; immutable."""

    cdef _winit.winit_distribution d


def bits(int code):
    """Raw words: uint64 for F64, uint32 for F32."""
    cdef Distribution made = Distribution.__new__(Distribution)
    _winit.winit_set_bits(&made.d, code)
    return made


def uniform(int code, double low, double high):
    """Make a distribution: (0 or NO_VALUE or NOT_FINITE, Distribution)."""
    cdef Distribution made = Distribution.__new__(Distribution)
    return _winit.winit_set_uniform(&made.d, code, low, high), made


def normal(int code, double loc, double scale):
    """Make a distribution: (0 or NOT_FINITE, Distribution)."""
    cdef Distribution made = Distribution.__new__(Distribution)
    return _winit.winit_set_normal(&made.d, code, loc, scale), made


def truncated_normal(int code, double loc, double scale, double low, double high, window):
    """Make a distribution from a truncation.Window too: (status as above, Distribution)."""
    cdef Distribution made = Distribution.__new__(Distribution)
    cdef _winit.winit_window w
    w.flip = window.flip
    w.kappa = window.kappa
    w.tail_step = window.tail_step
    w.tail_start[0], w.tail_start[1] = window.tail_start
    w.t_step = window.t_step
    w.t_step_rest = window.t_step_rest
    w.t_start[0], w.t_start[1] = window.t_start
    w.t_exponent = window.t_exponent
    w.tail_exponent = window.tail_exponent
    return _winit.winit_set_truncated(&made.d, code, loc, scale, low, high, &w), made


def fill(Distribution distribution, uint64_t seed, uint64_t stream, uintptr_t address,
         uint64_t index, tuple shape, tuple index_strides, tuple byte_strides, bint streaming):
    """Fill a box: element (i0, ...) is logical element index + sum(ik * index_strides[k])."""
    cdef int64_t[64] extents
    cdef int64_t[64] steps
    cdef int64_t[64] jumps
    cdef int axes = len(shape)
    cdef int k
    cdef _winit.winit_stream s
    s.seed = seed
    s.stream = stream
    for k in range(axes):
        extents[k] = shape[k]
        steps[k] = index_strides[k]
        jumps[k] = byte_strides[k]
    with nogil:
        _winit.winit_fill(&distribution.d, &s, <void *>address, index, axes, extents, steps, jumps,
                          streaming)


def fill_array(Distribution distribution, uint64_t seed, uint64_t stream, array):
    """Fill a whole C-contiguous array with elements 0, 1, 2, ..."""
    cdef Py_buffer view
    cdef _winit.winit_stream s
    cdef int64_t n, one = 1
    cdef int64_t size = <int64_t>_winit.winit_type_size(distribution.d.type)
    s.seed = seed
    s.stream = stream
    PyObject_GetBuffer(array, &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
    n = view.len // size
    if n == 0:
        pass
    elif n < KEEP_LOCK:
        _winit.winit_fill(&distribution.d, &s, view.buf, 0, 1, &n, &one, &size, False)
    else:
        with nogil:
            _winit.winit_fill(&distribution.d, &s, view.buf, 0, 1, &n, &one, &size, False)
    PyBuffer_Release(&view)


def isa():
    """Name of the instruction set in use."""
    return _winit.winit_isa().decode()


def supported_isas():
    """Names of the sets that this CPU can run, best first."""
    names = []
    cdef const char *name = _winit.winit_isa_supported(0)
    while name != NULL:
        names.append(name.decode())
        name = _winit.winit_isa_supported(len(names))
    return tuple(names)


def set_isa(str name):
    """Choose another set, for the whole process."""
    if name not in supported_isas() or _winit.winit_isa_choose(name.encode()):
        raise ValueError(
            f"the instruction set must be one of {', '.join(supported_isas())} on this CPU, "
            f"got {name!r}"
        )


def philox(counter, key):
    """Four words of one counter, from the chosen set's kernels."""
    cdef uint32_t[4] c = counter
    cdef uint32_t[2] k = key
    cdef uint32_t[4] words
    _winit.winit_philox(c, k, words)
    return words[0], words[1], words[2], words[3]


cdef extern from *:
    """
    /* The public interface of NumPy's bit generators, numpy/random/bitgen.h. */
    #include <stdint.h>
    typedef struct {
        void *state;
        uint64_t (*next_uint64)(void *);
        uint32_t (*next_uint32)(void *);
        double (*next_double)(void *);
        uint64_t (*next_raw)(void *);
    } winit_bitgen;
    """
    ctypedef struct winit_bitgen:
        void *state
        uint64_t (*next_uint64)(void *) noexcept nogil
        uint32_t (*next_uint32)(void *) noexcept nogil
        double (*next_double)(void *) noexcept nogil
        uint64_t (*next_raw)(void *) noexcept nogil


cdef class Words:
    """A place in a stream, from which NumPy's Generator draws."""

    cdef _winit.winit_words words

    def seek(self, uint64_t seed, uint64_t stream, uint64_t position):
        """Go to a word."""
        cdef _winit.winit_stream s
        s.seed = seed
        s.stream = stream
        _winit.winit_words_seek(&self.words, &s, position)

    def place(self):
        """Tell the seed, the stream and the position."""
        position = _winit.winit_words_position(&self.words)
        return self.words.stream.seed, self.words.stream.stream, position

    def drive(self, capsule):
        """Let a numpy.random.BitGenerator, of which this is the capsule, draw from here."""
        cdef winit_bitgen *bitgen = <winit_bitgen *>PyCapsule_GetPointer(capsule, "BitGenerator")
        bitgen.state = &self.words
        bitgen.next_uint64 = bitgen.next_raw = _winit.winit_words_next_u64
        bitgen.next_uint32 = _winit.winit_words_next_u32
        bitgen.next_double = _winit.winit_words_next_double


# The transforms and the elementary functions by themselves, for the accuracy tests.

cdef uintptr_t _address(array):
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    cdef uintptr_t address = <uintptr_t>view.buf
    PyBuffer_Release(&view)
    return address


def transform(Distribution distribution, words):
    """Elements that blocks of four words become: uint32 in, a multiple of four, the bytes out."""
    blocks = len(words) // 4
    whole = -(-blocks // _winit.WINIT_MAX_LANES) * _winit.WINIT_MAX_LANES
    padded = np.zeros(4 * whole, np.uint32)
    padded[:4 * blocks] = words
    size = _winit.winit_type_size(distribution.d.type)
    per_block = 2 if size == 8 else 4
    out = np.empty(whole * per_block * size, np.uint8)
    _winit.winit_transform_words(&distribution.d, <const uint32_t *>_address(padded),
                                 <void *>_address(out), whole)
    return out[:blocks * per_block * size]


def log_f32(x):
    """Logarithm of each element of a contiguous float32 array, in (0, 1]."""
    y = np.empty_like(x)
    _winit.winit_log_f32(<const float *>_address(x), <float *>_address(y), x.size)
    return y


def log_f64(x):
    """Logarithm of each element of a contiguous float64 array, in (0, 1]."""
    y = np.empty_like(x)
    _winit.winit_log_f64(<const double *>_address(x), <double *>_address(y), x.size)
    return y


def sincos_f32(a):
    """Sine and cosine of 2 pi a / 2^32 for a contiguous uint32 array."""
    sin, cos = np.empty(a.shape, np.float32), np.empty(a.shape, np.float32)
    _winit.winit_sincos_f32(<const uint32_t *>_address(a), <float *>_address(sin),
                            <float *>_address(cos), a.size)
    return sin, cos


def sincos_f64(a):
    """Sine and cosine of 2 pi a / 2^64 for a contiguous uint64 array."""
    sin, cos = np.empty(a.shape, np.float64), np.empty(a.shape, np.float64)
    _winit.winit_sincos_f64(<const uint64_t *>_address(a), <double *>_address(sin),
                            <double *>_address(cos), a.size)
    return sin, cos


_winit.winit_isa_choose(NULL)
if os.environ.get("WINIT_FAST_ISA"):
    try:
        set_isa(os.environ["WINIT_FAST_ISA"])
    except ValueError as error:
        raise ValueError(f"WINIT_FAST_ISA: {error}") from None
