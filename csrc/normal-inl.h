/* Normal numbers by the transform of G. Box and M. Muller (Ann. Math. Statist. 29, 1958): a pair of
 * words makes a pair of elements, with no rejection, so that each stays a function of its index. */
#ifndef WINIT_NORMAL_INL_H
#define WINIT_NORMAL_INL_H

#include "math-inl.h"

V_INLINE void normal_f32(const vu w[4], const winit_distribution *d, vu out[2]) {
    const vu radius = v_pack_low(w[0], w[2]), angle = v_pack_low(w[1], w[3]);
    /* (0, 1]: 2^-32 at the least, which is 6.66 sigma */
    const vf u = v_fmaf(v_float_i32(v_shr32(radius, 1)), v_setf(0x1p-31f), v_setf(0x1p-32f));
    const vf r = v_sqrtf(v_mulf(v_setf(-2.0f), log_u2_f32(u, v_setf(0.0f))));
    const vf scale = v_setf((float)d->scale), loc = v_setf((float)d->loc);
    vf sin, cos;
    sincos_u2_f32(angle, &sin, &cos);
    const vu even = v_f_as_u(v_fmaf(v_mulf(r, cos), scale, loc));
    const vu odd = v_f_as_u(v_fmaf(v_mulf(r, sin), scale, loc));
    out[0] = v_unpack_low32(even, odd);
    out[1] = v_unpack_high32(even, odd);
}

V_INLINE void normal_f64(const vu w[4], const winit_distribution *d, vu out[2]) {
    const vu radius = v_pack_low(w[0], w[1]), angle = v_pack_low(w[2], w[3]);
    /* (0, 1]: 2^-64 at the least, which is 9.42 sigma */
    const vd u = v_fmad(v_double_u64(v_shr64(radius, 1)), v_setd(0x1p-63), v_setd(0x1p-64));
    const vd r = v_sqrtd(v_muld(v_setd(-2.0), log_u2_f64(u, v_setd(0.0))));
    const vd scale = v_setd(d->scale), loc = v_setd(d->loc);
    vd sin, cos;
    sincos_u2_f64(angle, &sin, &cos);
    const vu even = v_d_as_u(v_fmad(v_muld(r, cos), scale, loc));
    const vu odd = v_d_as_u(v_fmad(v_muld(r, sin), scale, loc));
    out[0] = v_unpack_low64(even, odd);
    out[1] = v_unpack_high64(even, odd);
}

#endif
