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

/* Every function below works on n registers at a time: see EACH. */
V_INLINE void horner_f32(const vf *x, const int n, const float *c, const int count, vf *p) {
    EACH(i, n) p[i] = v_setf(c[count - 1]);
    V_UNROLL for (int k = count - 2; k >= 0; k--) {
        EACH(i, n) p[i] = v_fmaf(p[i], x[i], v_setf(c[k]));
    }
}

V_INLINE void horner_f64(const vd *x, const int n, const double *c, const int count, vd *p) {
    EACH(i, n) p[i] = v_setd(c[count - 1]);
    V_UNROLL for (int k = count - 2; k >= 0; k--) {
        EACH(i, n) p[i] = v_fmad(p[i], x[i], v_setd(c[k]));
    }
}

/* Replaces each x by factor * ln x, for normal x > 0. x = m 2^e with m in [2/3, 4/3), so that ln m
 * and e ln 2 do not cancel, and f = m - 1 is exact. ln 2 as a float32 is accurate to 2^-28, as a
 * float64 to 2^-55. factor is plus or minus a power of two. The polynomial is one in g = factor f,
 * with coefficients that include the factor, which costs nothing and changes no rounding. With a
 * shift, in units of the exponent's last bit, the result is factor * ln(2^shift x); shift may be
 * NULL. */
V_INLINE void log_u2_f32(vf *x, const int n, const float factor, const float *coefficients,
                         const vf *shift) {
    vf exponent[AT_ONCE], g[AT_ONCE], p[AT_ONCE];
    EACH(i, n) {
        const vu bits = v_f_as_u(x[i]);
        const vu e = v_and(v_sub32(bits, v_set32(0x3F2AAAABu)), v_set32(0xFF800000u));
        const vf m = v_as_f(v_sub32(bits, e));
        g[i] = v_fmaf(m, v_setf(factor), v_setf(-factor));
        exponent[i] = shift ? v_addf(v_float_i32(e), *shift) : v_float_i32(e);
    }
    horner_f32(g, n, coefficients, COUNT(log_f32), p);
    const vf ln2 = v_setf(factor * 0x1p-23f * ln2_f32[0]);
    EACH(i, n) x[i] = v_fmaf(exponent[i], ln2, v_fmaf(v_mulf(g[i], g[i]), p[i], g[i]));
}

V_INLINE void log_u2_f64(vd *x, const int n, const double factor, const double *coefficients,
                         const vd *shift) {
    vd exponent[LOGS_AT_ONCE], g[LOGS_AT_ONCE], p[LOGS_AT_ONCE];
    EACH(i, n) {
        const vu bits = v_d_as_u(x[i]);
        const vu e =
            v_and(v_sub64(bits, v_set64(0x3FE5555555555555u)), v_set64(0xFFF0000000000000u));
        const vd m = v_as_d(v_sub64(bits, e));
        g[i] = v_fmad(m, v_setd(factor), v_setd(-factor));
        exponent[i] = shift ? v_addd(v_double_high(e), *shift) : v_double_high(e);
    }
    horner_f64(g, n, coefficients, COUNT(log_f64), p);
    const vd ln2 = v_setd(factor * 0x1p-52 * ln2_f64[0]);
    EACH(i, n) x[i] = v_fmad(exponent[i], ln2, v_fmad(v_muld(g[i], g[i]), p[i], g[i]));
}

/* r sin and r cos of 2 pi a / 2^32, for the root r of `squared`. In quarter turns a is q + x with
 * an integer q and x in [-1/2, 1/2): a << 2 is x as a signed fraction, and the two highest bits of
 * a + 2^29 are q. The quadrants 2 and 3 reverse both signs, which is done by that of r; the odd
 * ones exchange sin and cos, and reverse the sign of the latter. The root takes a processor several
 * cycles, in which it has other work here, and none in the loop of the logarithms; it is taken
 * last, when registers are free. */
V_INLINE void sincos_u2_f32(const vu *a, const vf *squared, const int n, vf *sin, vf *cos) {
    vf x[AT_ONCE], y[AT_ONCE], s[AT_ONCE], c[AT_ONCE];
    EACH(i, n) {
        x[i] = v_mulf(v_float_i32(v_shl32(a[i], 2)), v_setf(0x1p-32f));
        y[i] = v_mulf(x[i], x[i]);
    }
    horner_f32(y, n, sin_f32, COUNT(sin_f32), s);
    horner_f32(y, n, cos_f32, COUNT(cos_f32), c);
    EACH(i, n) {
        s[i] = v_fmaf(x[i], v_setf(sin_head_f32[0]), v_mulf(x[i], s[i]));
        c[i] = v_fmaf(y[i], c[i], v_setf(1.0f));
    }
    EACH(i, n) {
        const vu q = v_add32(a[i], v_set32(0x20000000u)); /* q is in the two highest bits */
        const vm32 odd = v_second_bit32(q);
        const vu sign = v_set32(0x80000000u);
        const vf minus = v_as_f(v_xor(v_f_as_u(s[i]), sign));
        const vf r = v_as_f(v_xor_and(v_f_as_u(v_sqrtf(squared[i])), q, sign));
        sin[i] = v_mulf(r, v_selectf(odd, c[i], s[i]));
        cos[i] = v_mulf(r, v_selectf(odd, minus, c[i]));
    }
}

V_INLINE void sincos_u2_f64(const vu *a, const vd *squared, const int n, vd *sin, vd *cos) {
    vd x[AT_ONCE], y[AT_ONCE], s[AT_ONCE], c[AT_ONCE];
    EACH(i, n) {
        x[i] = v_fraction_i64(v_shl64(a[i], 2));
        y[i] = v_muld(x[i], x[i]);
    }
    horner_f64(y, n, sin_f64, COUNT(sin_f64), s);
    horner_f64(y, n, cos_f64, COUNT(cos_f64), c);
    EACH(i, n) {
        s[i] = v_fmad(x[i], v_setd(sin_head_f64[0]), v_muld(x[i], s[i]));
        c[i] = v_fmad(y[i], c[i], v_setd(1.0));
    }
    EACH(i, n) {
        const vu q = v_add64(a[i], v_set64(0x2000000000000000u));
        const vm64 odd = v_second_bit64(q);
        const vu sign = v_set64(0x8000000000000000u);
        const vd minus = v_as_d(v_xor(v_d_as_u(s[i]), sign));
        const vd r = v_as_d(v_xor_and(v_d_as_u(v_sqrtd(squared[i])), q, sign));
        sin[i] = v_muld(r, v_selectd(odd, c[i], s[i]));
        cos[i] = v_muld(r, v_selectd(odd, minus, c[i]));
    }
}

#endif
