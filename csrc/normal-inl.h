/* Normal numbers by the Box-Muller transform (Ann. Math. Statist. 29, 1958). A pair of words gives
 * a pair of elements, without rejection, so that each element is a function of its index.
 *
 * The first half replaces the radius words of n groups, w[2 i], by the squares of the radii. */
#ifndef WINIT_NORMAL_INL_H
#define WINIT_NORMAL_INL_H

#include "math-inl.h"

V_INLINE void squared_radius_f32(vu *w, const int n) {
    vf r[AT_ONCE];
    EACH(i, n) { /* (0, 1]: the minimum 2^-32 gives 6.66 sigma */
        r[i] = v_fmaf(v_float_i32(v_shr32(w[2 * i], 1)), v_setf(0x1p-31f), v_setf(0x1p-32f));
    }
    log_u2_f32(r, n, -2, minus_two_log_f32, NULL);
    EACH(i, n) w[2 * i] = v_f_as_u(r[i]);
}

V_INLINE void normal_f32(const vu *w, const winit_distribution *d, const int n, vu *out) {
    const vf scale = v_setf((float)d->scale), loc = v_setf((float)d->loc);
    vu angle[AT_ONCE];
    vf squared[AT_ONCE], sin[AT_ONCE], cos[AT_ONCE];
    EACH(i, n) {
        squared[i] = v_as_f(w[2 * i]);
        angle[i] = w[2 * i + 1];
    }
    sincos_u2_f32(angle, squared, n, sin, cos);
    EACH(i, n) {
        out[2 * i] = v_f_as_u(v_fmaf(cos[i], scale, loc));
        out[2 * i + 1] = v_f_as_u(v_fmaf(sin[i], scale, loc));
    }
}

/* The words of float64 have 64 bits: the angles take the place of w[2 i + 1]. The logarithms are a
 * loop of their own, since their long chains overlap best on as many registers as there are. */
V_INLINE void squared_radius_f64(vu *w, const int n) {
    const int few = at_once(n), many = n < LOGS_AT_ONCE ? n : LOGS_AT_ONCE;
    vd r[MOST_RADII];
    for (int k = 0; k < n; k += few) {
        EACH(i, few) { /* (0, 1]: the minimum 2^-64 gives 9.42 sigma */
            vu *const pair = w + 2 * (k + i);
            const vu radius = v_pack_low(pair[0], pair[1]);
            pair[1] = v_pack_high(pair[0], pair[1]);
            r[k + i] = v_fmad(v_double_u64(v_shr64(radius, 1)), v_setd(0x1p-63), v_setd(0x1p-64));
        }
    }
    for (int k = 0; k < n; k += many) {
        log_u2_f64(r + k, many, -2, minus_two_log_f64, NULL);
        EACH(i, many) w[2 * (k + i)] = v_d_as_u(r[k + i]);
    }
}

V_INLINE void normal_f64(const vu *w, const winit_distribution *d, const int n, vu *out) {
    const vd scale = v_setd(d->scale), loc = v_setd(d->loc);
    vu angle[AT_ONCE];
    vd squared[AT_ONCE], sin[AT_ONCE], cos[AT_ONCE];
    EACH(i, n) {
        squared[i] = v_as_d(w[2 * i]);
        angle[i] = w[2 * i + 1];
    }
    sincos_u2_f64(angle, squared, n, sin, cos);
    EACH(i, n) {
        out[2 * i] = v_d_as_u(v_fmad(cos[i], scale, loc));
        out[2 * i + 1] = v_d_as_u(v_fmad(sin[i], scale, loc));
    }
}

#endif
