/* Normal numbers by the Box-Muller transform (Ann. Math. Statist. 29, 1958). A pair of words gives
 * a pair of elements, without rejection, so that each element is a function of its index. The even
 * elements are returned in out[0], the odd ones in out[1]. */
#ifndef WINIT_NORMAL_INL_H
#define WINIT_NORMAL_INL_H

#include "math-inl.h"

V_INLINE void normal_f32(const vu w[2], const winit_distribution *d, vu out[2]) {
    const vu radius = w[0], angle = w[1];
    /* (0, 1]: the minimum 2^-32 gives 6.66 sigma */
    const vf u = v_fmaf(v_float_i32(v_shr32(radius, 1)), v_setf(0x1p-31f), v_setf(0x1p-32f));
    const vf r = v_sqrtf(log_u2_f32(u, -2, minus_two_log_f32, NULL));
    const vf scale = v_setf((float)d->scale), loc = v_setf((float)d->loc);
    vf sin, cos;
    sincos_u2_f32(angle, &sin, &cos);
    out[0] = v_f_as_u(v_fmaf(v_mulf(r, cos), scale, loc));
    out[1] = v_f_as_u(v_fmaf(v_mulf(r, sin), scale, loc));
}

V_INLINE void normal_f64(const vu w[2], const winit_distribution *d, vu out[2]) {
    const vu radius = v_pack_low(w[0], w[1]), angle = v_pack_high(w[0], w[1]);
    /* (0, 1]: the minimum 2^-64 gives 9.42 sigma */
    const vd u = v_fmad(v_double_u64(v_shr64(radius, 1)), v_setd(0x1p-63), v_setd(0x1p-64));
    const vd r = v_sqrtd(log_u2_f64(u, -2, minus_two_log_f64, NULL));
    const vd scale = v_setd(d->scale), loc = v_setd(d->loc);
    vd sin, cos;
    sincos_u2_f64(angle, &sin, &cos);
    out[0] = v_d_as_u(v_fmad(v_muld(r, cos), scale, loc));
    out[1] = v_d_as_u(v_fmad(v_muld(r, sin), scale, loc));
}

#endif
