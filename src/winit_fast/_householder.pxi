"""Computes and applies Householder reflectors in C.

All arrays are float32 or all are float64, and contiguous along their last axis. Nothing is checked
here: the only caller is initializers/reflectors.py.
"""

ctypedef fused real:
    float
    double


cdef extern from "householder.h" nogil:
    const size_t WINIT_COLUMNS
    const size_t WINIT_GROUP

    ctypedef struct winit_householder:
        void (*reflectors_f32)(float *, size_t, size_t, size_t, float *, float *) noexcept nogil
        void (*reflectors_f64)(double *, size_t, size_t, size_t, double *, double *) noexcept nogil
        void (*factors_f32)(const float *, size_t, size_t, size_t, const float *,
                            float *) noexcept nogil
        void (*factors_f64)(const double *, size_t, size_t, size_t, const double *,
                            double *) noexcept nogil
        void (*apply_f32)(const float *, size_t, size_t, size_t, const float *, int, float *,
                          size_t, const size_t *) noexcept nogil
        void (*apply_f64)(const double *, size_t, size_t, size_t, const double *, int, double *,
                          size_t, const size_t *) noexcept nogil

    const winit_householder *winit_reflections()


COLUMNS = WINIT_COLUMNS
GROUP = WINIT_GROUP


cdef void reflect(const winit_householder *use, real *v, size_t count, size_t padded,
                  size_t length, size_t stride, real *tau, real *sign,
                  real *factors) noexcept nogil:
    """Convert vectors to reflectors, compute the factors of their groups, and pad with zeros."""
    cdef size_t row, column
    for row in range(count, padded):
        tau[row] = 0
        for column in range(length):
            v[row * stride + column] = 0
    if real is float:
        use.reflectors_f32(v, count, length, stride, tau, sign)
        use.factors_f32(v, padded, length, stride, tau, factors)
    else:
        use.reflectors_f64(v, count, length, stride, tau, sign)
        use.factors_f64(v, padded, length, stride, tau, factors)


def reflectors(real[:, :] v, Py_ssize_t count, real[::1] tau, real[::1] sign,
               real[:, ::1] factors):
    """Convert the first ``count`` vectors (row r, from column r on) to reflectors, in place.

    Other rows are set to 0. The signs of Q's columns are written to ``sign``, and -T of each group
    of reflectors to ``factors``, which has GROUP columns.
    """
    cdef const winit_householder *use = winit_reflections()
    with nogil:
        reflect(use, &v[0, 0], count, v.shape[0], v.shape[1], v.strides[0] // sizeof(real),
                &tau[0], &sign[0], &factors[0, 0])


def backward(real[:, :, ::1] panels, const Py_ssize_t[::1] rows, const real[::1] values,
             real[:, :] kept, size_t skip, const real[:, ::1] v, const real[:, ::1] factors,
             const size_t[::1] stops, real scale, real[:, :] out):
    """Write scale * H_0 H_1 ... x to ``out`` for vectors x, which are columns of ``blocks``.

    The first vectors are 0 except for ``values`` in ``rows``. The others are columns of ``kept``,
    with 0 in the first ``skip`` rows; ``out`` may be ``kept``. The reflectors before a panel's stop
    are applied to it, rounded up to whole groups.
    """
    cdef const winit_householder *use = winit_reflections()
    with nogil:
        load(panels, rows, values, kept, skip)
        apply(use, v, factors, False, panels, &stops[0])
        store(panels, scale, out)


def forward(real[:, :, ::1] panels, const Py_ssize_t[::1] rows, const real[::1] values,
            real[:, :] kept, const real[:, ::1] v, const real[:, ::1] factors,
            const size_t[::1] stops, const real[::1] scales, real[:, :] out):
    """Write ... H_1 H_0 x to ``out`` for such vectors; the first rows are scaled by ``scales``."""
    cdef const winit_householder *use = winit_reflections()
    cdef Py_ssize_t panel, row, column
    with nogil:
        load(panels, rows, values, kept, 0)
        apply(use, v, factors, True, panels, &stops[0])
        for panel in range(panels.shape[0]):
            for row in range(scales.shape[0]):
                for column in range(<Py_ssize_t> WINIT_COLUMNS):
                    panels[panel, row, column] *= scales[row]
        store(panels, 1, out)


cdef void apply(const winit_householder *use, const real[:, ::1] v, const real[:, ::1] factors,
                bint transposed, real[:, :, ::1] q, const size_t *stops) noexcept nogil:
    """Apply reflectors to panels, from the last reflector or, if transposed, from the first."""
    if real is float:
        use.apply_f32(&v[0, 0], v.shape[0], v.shape[1], v.shape[1], &factors[0, 0], transposed,
                      &q[0, 0, 0], q.shape[0], stops)
    else:
        use.apply_f64(&v[0, 0], v.shape[0], v.shape[1], v.shape[1], &factors[0, 0], transposed,
                      &q[0, 0, 0], q.shape[0], stops)


cdef void load(real[:, :, ::1] panels, const Py_ssize_t[::1] rows, const real[::1] values,
               real[:, :] kept, size_t skip) noexcept nogil:
    """Put vectors, as columns, into panels."""
    cdef size_t fresh = rows.shape[0], length = panels.shape[1]
    cdef size_t count = fresh if kept is None else kept.shape[1]
    cdef size_t column, row, first, last
    cdef real *panel
    memset(&panels[0, 0, 0], 0, panels.shape[0] * length * WINIT_COLUMNS * sizeof(real))
    for column in range(fresh):
        panels[column // WINIT_COLUMNS, rows[column], column % WINIT_COLUMNS] = values[column]
    first = fresh
    while first < count:  # one panel at a time
        last = min((first // WINIT_COLUMNS + 1) * WINIT_COLUMNS, count)
        panel = &panels[first // WINIT_COLUMNS, 0, 0]
        for row in range(skip, length):
            for column in range(first, last):
                panel[row * WINIT_COLUMNS + column % WINIT_COLUMNS] = kept[row, column]
        first = last


cdef void store(const real[:, :, ::1] panels, real scale, real[:, :] out) noexcept nogil:
    """Write scale * the columns in panels to ``out``."""
    cdef size_t length = panels.shape[1], count = out.shape[1]
    cdef Py_ssize_t row_stride = out.strides[0] // <Py_ssize_t> sizeof(real)
    cdef Py_ssize_t column_stride = out.strides[1] // <Py_ssize_t> sizeof(real)
    cdef size_t first = 0
    while first < count:
        put(&panels[first // WINIT_COLUMNS, 0, 0], length, min(WINIT_COLUMNS, count - first), scale,
            &out[0, 0] + <Py_ssize_t> first * column_stride, row_stride, column_stride)
        first += WINIT_COLUMNS


cdef void put(const real *panel, size_t length, size_t width, real scale, real *out,
              Py_ssize_t row_stride, Py_ssize_t column_stride) noexcept nogil:
    """Write a panel the way that steps least in ``out``, and long runs in a fast loop."""
    cdef size_t row, column
    if column_stride == 1 and width == WINIT_COLUMNS:
        for row in range(length):
            for column in range(WINIT_COLUMNS):
                out[<Py_ssize_t> row * row_stride + <Py_ssize_t> column] = (
                    scale * panel[row * WINIT_COLUMNS + column]
                )
    elif row_stride == 1:
        for column in range(width):
            for row in range(length):
                out[<Py_ssize_t> column * column_stride + <Py_ssize_t> row] = (
                    scale * panel[row * WINIT_COLUMNS + column]
                )
    else:
        for row in range(length):
            for column in range(width):
                out[<Py_ssize_t> row * row_stride + <Py_ssize_t> column * column_stride] = (
                    scale * panel[row * WINIT_COLUMNS + column]
                )


def matrices(real[:, :, ::1] v, real[::1] tau, real[::1] sign, real[:, ::1] factors, real gain,
             real[:, ::1] q, real[:, :, ::1] out):
    """Write gain * Q for each matrix of a batch, given its vectors in ``v``.

    The vectors are converted to reflectors in place. ``v`` has space for padding after each matrix.
    ``tau``, ``sign``, ``factors`` and ``q`` are work space for one matrix.
    """
    cdef const winit_householder *use = winit_reflections()
    cdef size_t padded = v.shape[1], length = v.shape[2], count = out.shape[2]
    cdef size_t first, last, column
    cdef Py_ssize_t at
    cdef real *own
    with nogil:
        for at in range(v.shape[0]):
            own = &v[at, 0, 0]
            reflect(use, own, count, padded, length, length, &tau[0], &sign[0], &factors[0, 0])
            first = 0
            while first < count:
                last = min(first + WINIT_COLUMNS, count)
                q[:, :] = 0
                for column in range(first, last):
                    q[column, column - first] = sign[column]
                if real is float:
                    use.apply_f32(own, padded, length, length, &factors[0, 0], False, &q[0, 0], 1,
                                  &last)
                else:
                    use.apply_f64(own, padded, length, length, &factors[0, 0], False, &q[0, 0], 1,
                                  &last)
                put(&q[0, 0], length, last - first, gain, &out[at, 0, first], count, 1)
                first = last
