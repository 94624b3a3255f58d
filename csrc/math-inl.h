/* ln, sin and cos, from correctly rounded operations in one fixed order, so that every instruction
 * set gives the same bits.
 *
 * The error bound is in the name: _u2 means at most 2 ulp for every input that can occur
 * (bench/accuracy.py measures it exhaustively). */
#ifndef WINIT_MATH_INL_H
#define WINIT_MATH_INL_H

#include "coefficients.h"
#include "philox-inl.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

V_INLINE vf horner_f32(vf x, const float *c, const int n) {
    vf p = v_setf(c[n - 1]);
    V_UNROLL for (int k = n - 2; k >= 0; k--) p = v_fmaf(p, x, v_setf(c[k]));
    return p;
}

V_INLINE vd horner_f64(vd x, const double *c, const int n) {
    vd p = v_setd(c[n - 1]);
    V_UNROLL for (int k = n - 2; k >= 0; k--) p = v_fmad(p, x, v_setd(c[k]));
    return p;
}

/* factor * ln x for normal x > 0. x = m 2^e with m in [2/3, 4/3), so that ln m and e ln 2 do not
 * cancel, and f = m - 1 is exact. ln 2 as a float32 is accurate to 2^-28, as a float64 to 2^-55.
 * factor is plus or minus a power of two. The polynomial is one in g = factor f, with coefficients
 * that include the factor, which costs nothing and changes no rounding. With a shift, in units of
 * the exponent's last bit, the result is factor * ln(2^shift x); shift may be NULL. */
V_INLINE vf log_u2_f32(vf x, const float factor, const float *coefficients, const vf *shift) {
    const vu bits = v_f_as_u(x);
    const vu e = v_and(v_sub32(bits, v_set32(0x3F2AAAABu)), v_set32(0xFF800000u));
    const vf m = v_as_f(v_sub32(bits, e));
    const vf g = v_fmaf(m, v_setf(factor), v_setf(-factor));
    const vf p = horner_f32(g, coefficients, COUNT(log_f32));
    const vf exponent = shift ? v_addf(v_float_i32(e), *shift) : v_float_i32(e);
    return v_fmaf(exponent, v_setf(factor * 0x1p-23f * 0x1.62e43p-1f), v_fmaf(v_mulf(g, g), p, g));
}

V_INLINE vd log_u2_f64(vd x, const double factor, const double *coefficients, const vd *shift) {
    const vu bits = v_d_as_u(x);
    const vu e = v_and(v_sub64(bits, v_set64(0x3FE5555555555555u)), v_set64(0xFFF0000000000000u));
    const vd m = v_as_d(v_sub64(bits, e));
    const vd g = v_fmad(m, v_setd(factor), v_setd(-factor));
    const vd p = horner_f64(g, coefficients, COUNT(log_f64));
    const vd exponent = shift ? v_addd(v_double_i64(e), *shift) : v_double_i64(e);
    return v_fmad(exponent, v_setd(factor * 0x1p-52 * 0x1.62e42fefa39efp-1),
                  v_fmad(v_muld(g, g), p, g));
}

/* sin and cos of 2 pi a / 2^32. In quarter turns a is q + x with an integer q and x in [-1/2, 1/2):
 * a << 2 is x as a signed fraction, and the two highest bits of a + 2^29 are q. */
V_INLINE void sincos_u2_f32(vu a, vf *sin, vf *cos) {
    const vf x = v_mulf(v_float_i32(v_shl32(a, 2)), v_setf(0x1p-32f));
    const vf y = v_mulf(x, x);
    const vf s =
        v_fmaf(x, v_setf(sin_head_f32[0]), v_mulf(x, horner_f32(y, sin_f32, COUNT(sin_f32))));
    const vf c = v_fmaf(y, horner_f32(y, cos_f32, COUNT(cos_f32)), v_setf(1.0f));
    const vu q = v_add32(a, v_set32(0x20000000u)); /* q is in the two highest bits */
    const vm32 odd = v_any32(q, v_set32(0x40000000u));
    const vu sign = v_set32(0x80000000u);
    const vu next = v_add32(q, v_set32(0x40000000u));
    *sin = v_as_f(v_xor_and(v_f_as_u(v_selectf(odd, c, s)), q, sign));
    *cos = v_as_f(v_xor_and(v_f_as_u(v_selectf(odd, s, c)), next, sign));
}

V_INLINE void sincos_u2_f64(vu a, vd *sin, vd *cos) {
    const vd x = v_muld(v_double_i64(v_shl64(a, 2)), v_setd(0x1p-64));
    const vd y = v_muld(x, x);
    const vd s =
        v_fmad(x, v_setd(sin_head_f64[0]), v_muld(x, horner_f64(y, sin_f64, COUNT(sin_f64))));
    const vd c = v_fmad(y, horner_f64(y, cos_f64, COUNT(cos_f64)), v_setd(1.0));
    const vu q = v_add64(a, v_set64(0x2000000000000000u));
    const vm64 odd = v_any64(q, v_set64(0x4000000000000000u));
    const vu sign = v_set64(0x8000000000000000u);
    const vu next = v_add64(q, v_set64(0x4000000000000000u));
    *sin = v_as_d(v_xor_and(v_d_as_u(v_selectd(odd, c, s)), q, sign));
    *cos = v_as_d(v_xor_and(v_d_as_u(v_selectd(odd, s, c)), next, sign));
}

#endif
