# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Converts Python objects to pointers and calls the C kernels; callers check the arguments."""

import os

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from winit_fast cimport _winit

cdef dict _types():
    """Return the codes of C's types by their names in NumPy and ml_dtypes."""
    codes = {}
    cdef const char *name = _winit.winit_type_name(0)
    while name != NULL:
        codes[name.decode()] = len(codes)
        name = _winit.winit_type_name(len(codes))
    return codes


TYPES = _types()
F64 = _winit.WINIT_F64
F32 = _winit.WINIT_F32

NO_VALUE = _winit.WINIT_NO_VALUE
NOT_FINITE = _winit.WINIT_NOT_FINITE

# Below this number of elements, releasing the GIL takes longer than the fill.
cdef enum:
    KEEP_LOCK = 16384


cdef class Distribution:
    """A distribution with its parameters, prepared for the kernels; immutable."""

    cdef _winit.winit_distribution d


def distribution(str name, int code, *, double loc=0, double scale=1, double low=0,
                 double high=0, window=None):
    """Make a distribution of winit.h's list; return (0 or NO_VALUE or NOT_FINITE, Distribution).

    All parameters must be finite, except the bounds of a truncated normal. ``window`` is the
    truncation.Window of a truncated normal.
    """
    cdef Distribution made = Distribution.__new__(Distribution)
    cdef _winit.winit_parameters p
    memset(&p, 0, sizeof(p))
    p.loc, p.scale, p.low, p.high = loc, scale, low, high
    if window is not None:
        p.window.flip = window.flip
        p.window.kappa = window.kappa
        p.window.tail_step = window.tail_step
        p.window.tail_start[0], p.window.tail_start[1] = window.tail_start
        p.window.t_step = window.t_step
        p.window.t_step_rest = window.t_step_rest
        p.window.t_start[0], p.window.t_start[1] = window.t_start
        p.window.t_exponent = window.t_exponent
        p.window.tail_exponent = window.tail_exponent
    status = _winit.winit_set(&made.d, name.encode(), code, &p)
    if status == _winit.WINIT_UNKNOWN:
        raise ValueError(f"winit.h has no distribution {name!r}")
    return status, made


def fill(Distribution distribution, uint64_t seed, uint64_t stream, uintptr_t address,
         uint64_t index, tuple shape, tuple index_strides, tuple byte_strides, bint streaming):
    """Fill a box: element (i0, ...) has logical index ``index + sum(ik * index_strides[k])``."""
    cdef int64_t[_winit.WINIT_MAX_AXES] extents
    cdef int64_t[_winit.WINIT_MAX_AXES] steps
    cdef int64_t[_winit.WINIT_MAX_AXES] jumps
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


def merged(tuple shape, tuple index_strides, tuple byte_strides):
    """Sort and join the axes of a box as a fill does: (extent, index stride, byte stride) of each.

    The slowest in memory comes first; axes of extent 1 are left out.
    """
    cdef _winit.winit_axis[_winit.WINIT_MAX_AXES] axes
    cdef int n = 0
    for extent, index_stride, byte_stride in zip(shape, index_strides, byte_strides):
        if extent != 1:  # axes of extent 1 are left out: NumPy may give them any stride
            axes[n] = _winit.winit_axis(extent, index_stride, byte_stride)
            n += 1
    n = _winit.winit_merge(axes, n)
    return [(axes[k].extent, axes[k].index_stride, axes[k].byte_stride) for k in range(n)]


def fill_array(Distribution distribution, uint64_t seed, uint64_t stream, array, int64_t most):
    """Fill an array with elements 0, 1, 2, ..., if it is simple, and return whether it is.

    It must be C-contiguous and writable, and have ``most`` elements at most.
    """
    cdef Py_buffer view
    cdef _winit.winit_stream s
    cdef int64_t n, one = 1
    cdef int64_t size = <int64_t>_winit.winit_type_size(distribution.d.type)
    s.seed = seed
    s.stream = stream
    try:
        PyObject_GetBuffer(array, &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
    except ValueError:
        return False
    n = view.len // size
    if n == 0 or n > most:
        pass
    elif n < KEEP_LOCK:
        _winit.winit_fill(&distribution.d, &s, view.buf, 0, 1, &n, &one, &size, False)
    else:
        with nogil:
            _winit.winit_fill(&distribution.d, &s, view.buf, 0, 1, &n, &one, &size, False)
    PyBuffer_Release(&view)
    return n <= most


def isa():
    """Name of the instruction set in use."""
    return _winit.winit_isa().decode()


def supported_isas():
    """Names of the instruction sets that this CPU can run, best first."""
    names = []
    cdef const char *name = _winit.winit_isa_supported(0)
    while name != NULL:
        names.append(name.decode())
        name = _winit.winit_isa_supported(len(names))
    return tuple(names)


def set_isa(str name):
    """Choose another instruction set, for the whole process."""
    if name not in supported_isas() or _winit.winit_isa_choose(name.encode()):
        raise ValueError(
            f"the instruction set must be one of {', '.join(supported_isas())} on this CPU, "
            f"got {name!r}"
        )


def philox(counter, key):
    """Return the four words of one counter, computed by the chosen instruction set."""
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
    """A position in a stream, from which NumPy's Generator draws."""

    cdef _winit.winit_words words

    def seek(self, uint64_t seed, uint64_t stream, uint64_t position):
        """Set the position, which counts words."""
        cdef _winit.winit_stream s
        s.seed = seed
        s.stream = stream
        _winit.winit_words_seek(&self.words, &s, position)

    def place(self):
        """Return the seed, the stream and the position."""
        position = _winit.winit_words_position(&self.words)
        return self.words.stream.seed, self.words.stream.stream, position

    def drive(self, capsule):
        """Make a numpy.random.BitGenerator draw from this object, by filling in its capsule."""
        cdef winit_bitgen *bitgen = <winit_bitgen *>PyCapsule_GetPointer(capsule, "BitGenerator")
        bitgen.state = &self.words
        bitgen.next_uint64 = bitgen.next_raw = _winit.winit_words_next_u64
        bitgen.next_uint32 = _winit.winit_words_next_u32
        bitgen.next_double = _winit.winit_words_next_double


include "_constants.pxi"
include "_householder.pxi"
include "_probes.pxi"

_winit.winit_isa_choose(NULL)
if os.environ.get("WINIT_FAST_ISA"):
    try:
        set_isa(os.environ["WINIT_FAST_ISA"])
    except ValueError as error:
        raise ValueError(f"WINIT_FAST_ISA: {error}") from None
