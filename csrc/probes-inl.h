/* The probes of one instruction set: its transforms and elementary functions, without the loops. */
#ifndef WINIT_PROBES_INL_H
#define WINIT_PROBES_INL_H

#include "loops-inl.h"
#include "math-inl.h"

V_INLINE void transform_words(char *dst, const uint32_t *words, size_t count,
                              const winit_distribution *distribution, const kernel *f) {
    const winit_distribution d = *distribution;
    for (; count; count -= V_LANES) {
        vu w[2], x[2];
        V_UNROLL for (int j = 0; j < 2; j++) {
            uint64_t lanes[V_LANES];
            for (int k = 0; k < V_LANES; k++) {
                lanes[k] = words[4 * k + j] | (uint64_t)words[4 * k + j + 2] << 32;
            }
            w[j] = v_load_blocks(lanes);
        }
        if (f->has_radius) f->squared_radius(w, 1);
        f->transform(w, &d, 1, x);
        f->put(dst, x, 0);
        words += 4 * V_LANES;
        dst += group_bytes(f);
    }
}

/* Applies `statement` to n elements, through a buffer of a register's size. */
#define ELEMENTWISE(name, in_type, out_type, statement)                        \
    static void name(const in_type *in, out_type *out, size_t n) {             \
        enum { WIDTH = sizeof(vu) / sizeof(in_type) };                         \
        for (size_t i = 0; i < n; i += WIDTH) {                                \
            const size_t bytes = (n - i < WIDTH ? n - i : WIDTH) * sizeof *in; \
            char buffer[sizeof(vu)] = {0};                                     \
            memcpy(buffer, in + i, bytes);                                     \
            const vu x = v_load(buffer);                                       \
            vu y;                                                              \
            statement;                                                         \
            v_store(buffer, y);                                                \
            memcpy(out + i, buffer, bytes);                                    \
        }                                                                      \
    }

ELEMENTWISE(array_log_f32, float, float, vf f = v_as_f(x); log_u2_f32(&f, 1, 1, log_f32, NULL);
            y = v_f_as_u(f))
ELEMENTWISE(array_log_f64, double, double, vd f = v_as_d(x); log_u2_f64(&f, 1, 1, log_f64, NULL);
            y = v_d_as_u(f))
ELEMENTWISE(array_sin_f32, uint32_t, float, vf r = v_setf(1); vf sin; vf cos;
            sincos_u2_f32(&x, &r, 1, &sin, &cos); y = v_f_as_u(sin))
ELEMENTWISE(array_cos_f32, uint32_t, float, vf r = v_setf(1); vf sin; vf cos;
            sincos_u2_f32(&x, &r, 1, &sin, &cos); y = v_f_as_u(cos))
ELEMENTWISE(array_sin_f64, uint64_t, double, vd r = v_setd(1); vd sin; vd cos;
            sincos_u2_f64(&x, &r, 1, &sin, &cos); y = v_d_as_u(sin))
ELEMENTWISE(array_cos_f64, uint64_t, double, vd r = v_setd(1); vd sin; vd cos;
            sincos_u2_f64(&x, &r, 1, &sin, &cos); y = v_d_as_u(cos))

static void array_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n) {
    array_sin_f32(a, sin, n);
    array_cos_f32(a, cos, n);
}

static void array_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n) {
    array_sin_f64(a, sin, n);
    array_cos_f64(a, cos, n);
}

#endif
