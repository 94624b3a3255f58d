"""Single parts of the kernels, for the tests of their accuracy."""

import numpy as np

cdef extern from "probes.h" nogil:
    void winit_transform_words(const _winit.winit_distribution *d, const uint32_t *words, void *dst,
                               size_t count)
    void winit_log_f32(const float *x, float *y, size_t n)
    void winit_log_f64(const double *x, double *y, size_t n)
    void winit_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n)
    void winit_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n)


cdef uintptr_t _address(array):
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    cdef uintptr_t address = <uintptr_t>view.buf
    PyBuffer_Release(&view)
    return address


def transform(Distribution distribution, words):
    """Transform blocks of four uint32 words to elements, and return the bytes of the elements."""
    words = np.ascontiguousarray(words, np.uint32)
    blocks = len(words) // 4
    size = _winit.winit_type_size(distribution.d.type)
    out = np.empty(blocks * _winit.winit_per_block(distribution.d.type) * size, np.uint8)
    winit_transform_words(&distribution.d, <const uint32_t *>_address(words),
                          <void *>_address(out), blocks)
    return out


def log_f32(x):
    """Logarithm of each element of a contiguous float32 array, in (0, 1]."""
    y = np.empty_like(x)
    winit_log_f32(<const float *>_address(x), <float *>_address(y), x.size)
    return y


def log_f64(x):
    """Logarithm of each element of a contiguous float64 array, in (0, 1]."""
    y = np.empty_like(x)
    winit_log_f64(<const double *>_address(x), <double *>_address(y), x.size)
    return y


def sincos_f32(a):
    """Sine and cosine of 2 pi a / 2^32 for a contiguous uint32 array."""
    sin, cos = np.empty(a.shape, np.float32), np.empty(a.shape, np.float32)
    winit_sincos_f32(<const uint32_t *>_address(a), <float *>_address(sin),
                     <float *>_address(cos), a.size)
    return sin, cos


def sincos_f64(a):
    """Sine and cosine of 2 pi a / 2^64 for a contiguous uint64 array."""
    sin, cos = np.empty(a.shape, np.float64), np.empty(a.shape, np.float64)
    winit_sincos_f64(<const uint64_t *>_address(a), <double *>_address(sin),
                     <double *>_address(cos), a.size)
    return sin, cos
