"""Computes and applies Householder reflectors in C.

All arrays are float32 or all are float64. ``kept`` and ``out`` may have any strides, the others are
contiguous. Nothing is checked here: the only caller is initializers/reflectors.py.
"""

ctypedef fused real:
    float
    double


cdef extern from "householder.h" nogil:
    const size_t WINIT_GROUP

    size_t winit_packed(size_t, size_t)

    ctypedef struct winit_householder:
        size_t columns_f32
        size_t columns_f64
        void (*reflectors_f32)(float *, size_t, size_t, size_t, float *, float *) noexcept nogil
        void (*reflectors_f64)(double *, size_t, size_t, size_t, double *, double *) noexcept nogil
        void (*groups_f32)(const float *, size_t, size_t, size_t, const float *, float *,
                           float *) noexcept nogil
        void (*groups_f64)(const double *, size_t, size_t, size_t, const double *, double *,
                           double *) noexcept nogil
        void (*apply_f32)(const float *, size_t, size_t, const float *, int, float *, size_t,
                          const size_t *) noexcept nogil
        void (*apply_f64)(const double *, size_t, size_t, const double *, int, double *, size_t,
                          const size_t *) noexcept nogil
        void (*store_f32)(const float *, size_t, size_t, const double *, size_t, double, float *,
                          ptrdiff_t, ptrdiff_t) noexcept nogil
        void (*store_f64)(const double *, size_t, size_t, const double *, size_t, double, double *,
                          ptrdiff_t, ptrdiff_t) noexcept nogil

    const winit_householder *winit_reflections()


GROUP = WINIT_GROUP


def panel_columns(size_t itemsize):
    """Columns of a panel of numbers of 4 or 8 bytes, which depend on the instruction set."""
    return winit_reflections().columns_f32 if itemsize == 4 else winit_reflections().columns_f64


def packed_size(size_t count, size_t length):
    """Elements of the packed vectors of the first ``count`` reflectors, whole groups."""
    return winit_packed(count, length)


cdef void reflect(const winit_householder *use, real *v, size_t count, size_t padded,
                  size_t length, real *tau, real *sign, real *factors, real *packed) noexcept nogil:
    """Convert vectors to reflectors, pad them with zeros, and prepare their groups."""
    cdef size_t row, column
    for row in range(count, padded):
        tau[row] = 0
        for column in range(length):
            v[row * length + column] = 0
    if real is float:
        use.reflectors_f32(v, count, length, length, tau, sign)
        use.groups_f32(v, padded, length, length, tau, factors, packed)
    else:
        use.reflectors_f64(v, count, length, length, tau, sign)
        use.groups_f64(v, padded, length, length, tau, factors, packed)


def reflectors(real[:, ::1] v, Py_ssize_t count, real[::1] tau, real[::1] sign,
               real[:, ::1] factors, real[::1] packed):
    """Convert the first ``count`` vectors (row r, from column r on) to reflectors, in place.

    Other rows are set to 0. The signs of Q's columns are written to ``sign``, -T of each group of
    reflectors to ``factors``, which has GROUP columns, and the packed vectors to ``packed``.
    """
    cdef const winit_householder *use = winit_reflections()
    with nogil:
        reflect(use, &v[0, 0], count, v.shape[0], v.shape[1], &tau[0], &sign[0], &factors[0, 0],
                &packed[0])


def backward(real[:, :, ::1] panels, const Py_ssize_t[::1] rows, const real[::1] values,
             real[:, :] kept, size_t skip, const real[::1] packed, const real[:, ::1] factors,
             const size_t[::1] stops, double scale, real[:, :] out):
    """Write scale * H_0 H_1 ... x to ``out`` for vectors x, which are columns of ``panels``.

    The first vectors are 0 except for ``values`` in ``rows``. The others are columns of ``kept``,
    with 0 in the first ``skip`` rows; ``out`` may be ``kept``. The reflectors before a panel's stop
    are applied to it, rounded up to whole groups.
    """
    cdef const winit_householder *use = winit_reflections()
    with nogil:
        load(panels, rows, values, kept, skip)
        apply(use, packed, factors, False, panels, &stops[0])
        store(use, panels, NULL, 0, scale, out)


def forward(real[:, :, ::1] panels, const Py_ssize_t[::1] rows, const real[::1] values,
            real[:, :] kept, const real[::1] packed, const real[:, ::1] factors,
            const size_t[::1] stops, const double[::1] scales, real[:, :] out):
    """Write ... H_1 H_0 x to ``out`` for such vectors; the first rows are scaled by ``scales``."""
    cdef const winit_householder *use = winit_reflections()
    with nogil:
        load(panels, rows, values, kept, 0)
        apply(use, packed, factors, True, panels, &stops[0])
        store(use, panels, &scales[0], scales.shape[0], 1, out)


cdef void apply(const winit_householder *use, const real[::1] packed, const real[:, ::1] factors,
                bint transposed, real[:, :, ::1] q, const size_t *stops) noexcept nogil:
    """Apply reflectors to panels, from the last reflector or, if transposed, from the first."""
    if real is float:
        use.apply_f32(&packed[0], factors.shape[0], q.shape[1], &factors[0, 0], transposed,
                      &q[0, 0, 0], q.shape[0], stops)
    else:
        use.apply_f64(&packed[0], factors.shape[0], q.shape[1], &factors[0, 0], transposed,
                      &q[0, 0, 0], q.shape[0], stops)


cdef void load(real[:, :, ::1] panels, const Py_ssize_t[::1] rows, const real[::1] values,
               real[:, :] kept, size_t skip) noexcept nogil:
    """Put vectors, as columns, into panels."""
    cdef size_t fresh = rows.shape[0], length = panels.shape[1], columns = panels.shape[2]
    cdef size_t count = fresh if kept is None else kept.shape[1]
    cdef size_t column, row, first, last
    cdef real *panel
    memset(&panels[0, 0, 0], 0, panels.shape[0] * length * columns * sizeof(real))
    for column in range(fresh):
        panels[column // columns, rows[column], column % columns] = values[column]
    first = fresh
    while first < count:  # one panel at a time
        last = min((first // columns + 1) * columns, count)
        panel = &panels[first // columns, 0, 0]
        for row in range(skip, length):
            for column in range(first, last):
                panel[row * columns + column % columns] = kept[row, column]
        first = last


cdef void store(const winit_householder *use, const real[:, :, ::1] panels, const double *scales,
                size_t scaled, double rest, real[:, :] out) noexcept nogil:
    """Write the columns in panels to ``out``, the first rows times their scales."""
    cdef ptrdiff_t row_stride = out.strides[0] // <ptrdiff_t> sizeof(real)
    cdef ptrdiff_t column_stride = out.strides[1] // <ptrdiff_t> sizeof(real)
    if real is float:
        use.store_f32(&panels[0, 0, 0], panels.shape[1], out.shape[1], scales, scaled, rest,
                      &out[0, 0], row_stride, column_stride)
    else:
        use.store_f64(&panels[0, 0, 0], panels.shape[1], out.shape[1], scales, scaled, rest,
                      &out[0, 0], row_stride, column_stride)


def matrices(real[:, :, ::1] v, real[::1] tau, real[::1] sign, real[:, ::1] factors,
             real[::1] packed, double gain, real[:, ::1] q, real[:, :, ::1] out):
    """Write gain * Q for each matrix of a batch, given its vectors in ``v``.

    The vectors are converted to reflectors in place. ``v`` has space for padding after each matrix.
    ``tau``, ``sign``, ``factors``, ``packed`` and the panel ``q`` are work space for one matrix.
    """
    cdef const winit_householder *use = winit_reflections()
    cdef size_t padded = v.shape[1], length = v.shape[2], count = out.shape[2]
    cdef size_t columns = q.shape[1], first, last, column
    cdef Py_ssize_t at
    with nogil:
        for at in range(v.shape[0]):
            reflect(use, &v[at, 0, 0], count, padded, length, &tau[0], &sign[0], &factors[0, 0],
                    &packed[0])
            first = 0
            while first < count:
                last = min(first + columns, count)
                q[:, :] = 0
                for column in range(first, last):
                    q[column, column - first] = sign[column]
                if real is float:
                    use.apply_f32(&packed[0], padded, length, &factors[0, 0], False, &q[0, 0], 1,
                                  &last)
                    use.store_f32(&q[0, 0], length, last - first, NULL, 0, gain,
                                  &out[at, 0, first], count, 1)
                else:
                    use.apply_f64(&packed[0], padded, length, &factors[0, 0], False, &q[0, 0], 1,
                                  &last)
                    use.store_f64(&q[0, 0], length, last - first, NULL, 0, gain,
                                  &out[at, 0, first], count, 1)
                first = last
