# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Householder reflectors in C: making them, and applying few of them at once.

All arrays are float32 or all float64. Nothing is checked twice: `householder` checks.
"""

from libc.stddef cimport size_t

from winit_fast import _core

ctypedef fused real:
    float
    double


cdef extern from "householder.h" nogil:
    const size_t WINIT_COLUMNS

    struct winit_householder:
        void (*reflectors_f32)(float *, size_t, size_t, size_t, float *, float *) noexcept nogil
        void (*reflectors_f64)(double *, size_t, size_t, size_t, double *, double *) noexcept nogil
        void (*factor_f32)(const float *, size_t, const float *, size_t, float *,
                           size_t) noexcept nogil
        void (*factor_f64)(const double *, size_t, const double *, size_t, double *,
                           size_t) noexcept nogil
        void (*columns_f32)(const float *, size_t, const float *, const float *, size_t, size_t,
                            size_t, float *) noexcept nogil
        void (*columns_f64)(const double *, size_t, const double *, const double *, size_t, size_t,
                            size_t, double *) noexcept nogil

    const winit_householder *table "winit_householder"(const char *)


COLUMNS = WINIT_COLUMNS


cdef const winit_householder *kernels() except NULL:
    """Take the table of the instruction set in use, which a test may change."""
    cdef bytes isa = _core.isa().encode()
    cdef const winit_householder *found = table(isa)
    if found is NULL:
        raise RuntimeError(f"no Householder kernels for {isa.decode()!r}")
    return found


def reflectors(real[:, ::1] v, real[::1] tau, real[::1] sign):
    """Turn the vectors of a panel, row r from column r on, into reflectors, in place."""
    cdef const winit_householder *use = kernels()
    with nogil:
        if real is float:
            use.reflectors_f32(&v[0, 0], v.shape[0], v.shape[1], v.shape[1], &tau[0], &sign[0])
        else:
            use.reflectors_f64(&v[0, 0], v.shape[0], v.shape[1], v.shape[1], &tau[0], &sign[0])


def factor(real[:, :] products, real[::1] tau, real[:, :] out):
    """Compute -T of I - V T V' from V'V and tau, all cut to one diagonal block."""
    cdef const winit_householder *use = kernels()
    cdef size_t n = out.shape[0]
    cdef size_t products_stride = products.strides[0] // sizeof(real)
    cdef size_t stride = out.strides[0] // sizeof(real)
    with nogil:
        if real is float:
            use.factor_f32(&products[0, 0], products_stride, &tau[0], n, &out[0, 0], stride)
        else:
            use.factor_f64(&products[0, 0], products_stride, &tau[0], n, &out[0, 0], stride)


def columns(real[:, ::1] v, real[::1] tau, real[::1] sign, real gain, size_t first,
            real[:, ::1] work, real[:, :] out):
    """Write columns ``first``... of gain * Q to all of ``out``; ``work`` has COLUMNS columns."""
    cdef const winit_householder *use = kernels()
    with nogil:
        some(use, &v[0, 0], v.shape[1], tau, sign, gain, first, work, out)


def matrices(real[:, :, ::1] v, real[::1] tau, real[::1] sign, real gain, real[:, ::1] work,
             real[:, :, :] out):
    """Write gain * Q for each of a batch of panels of vectors, which are overwritten."""
    cdef const winit_householder *use = kernels()
    cdef Py_ssize_t at
    with nogil:
        for at in range(v.shape[0]):
            if real is float:
                use.reflectors_f32(&v[at, 0, 0], v.shape[1], v.shape[2], v.shape[2], &tau[0],
                                   &sign[0])
            else:
                use.reflectors_f64(&v[at, 0, 0], v.shape[1], v.shape[2], v.shape[2], &tau[0],
                                   &sign[0])
            some(use, &v[at, 0, 0], v.shape[2], tau, sign, gain, 0, work, out[at])


cdef void some(const winit_householder *use, real *v, size_t stride, real[::1] tau, real[::1] sign,
               real gain, size_t first, real[:, ::1] work, real[:, :] out) noexcept nogil:
    cdef size_t start = first
    cdef size_t stop = first + out.shape[1]
    cdef size_t rows = out.shape[0]
    cdef size_t row, column
    while start < stop:
        if real is float:
            use.columns_f32(v, stride, &tau[0], &sign[0], rows, tau.shape[0], start,
                            &work[0, 0])
        else:
            use.columns_f64(v, stride, &tau[0], &sign[0], rows, tau.shape[0], start,
                            &work[0, 0])
        for row in range(rows):
            for column in range(min(WINIT_COLUMNS, stop - start)):
                out[row, start - first + column] = gain * work[row, column]
        start += WINIT_COLUMNS
