/* Truncated normal numbers by inversion: one word for each element, no rejection.
 *
 * Let t = 2 Phi(z) - 1 and v = 1 - |t|, which is twice the tail probability beyond |z|. The
 * quantile is z = t P(-ln(1 - t^2)), with 1 - t^2 = v (1 + |t|) (the form of M. Giles,
 * "Approximating the erfinv function", 2011). Both |t| and v are linear in the word. |t| is
 * computed from the word where |t| is smallest, and v from the word where v is smallest, each as a
 * sum of terms of one sign. So both keep their relative precision, and so does z, in the tails and
 * near zero alike.
 *
 * If most of the window (truncation.py) is below zero, `flip` mirrors it. Words from kappa on give
 * numbers above zero, smaller words give numbers below zero. In a far tail v is scaled by a power
 * of two, which log_shift corrects after the logarithm. In a narrow window around zero t is in
 * units of t_unit, which the scale corrects. */
#ifndef WINIT_TRUNCATED_INL_H
#define WINIT_TRUNCATED_INL_H

#include "math-inl.h"

/* z = t P(w) for w >= 0. For each octave k of w + 4 = m 2^(k + 2), P is a constant plus a
 * polynomial in m - 1, so that near zero the polynomial and its rounding errors vanish. If a
 * window's probability does not underflow, w is less than 745, which is in the last octave. */
V_INLINE vf inverse_f32(vf t, vf w) {
    const vu y = v_f_as_u(v_addf(w, v_setf(4.0f)));
    const vu k = v_sub32(v_shr32(y, 23), v_set32(129));
    const vu m = v_or(v_and(y, v_set32(0x007FFFFFu)), v_set32(0x3F800000u));
    const vf x = v_subf(v_as_f(m), v_setf(1.0f));
    vf p = v_lookupf(quantile_f32[COUNT(quantile_f32) - 1], k);
    V_UNROLL for (int i = COUNT(quantile_f32) - 2; i >= 0; i--) {
        p = v_fmaf(p, x, v_lookupf(quantile_f32[i], k));
    }
    return v_fmaf(t, v_lookupf(quantile_head_f32, k), v_mulf(t, p));
}

V_INLINE vd inverse_f64(vd t, vd w) {
    const vu y = v_d_as_u(v_addd(w, v_setd(4.0)));
    const vu k = v_sub64(v_shr64(y, 52), v_set64(1025));
    const vu m = v_or(v_and(y, v_set64(0x000FFFFFFFFFFFFFu)), v_set64(0x3FF0000000000000u));
    const vd x = v_subd(v_as_d(m), v_setd(1.0));
    vd p = v_lookupd(quantile_f64[COUNT(quantile_f64) - 1], k);
    V_UNROLL for (int i = COUNT(quantile_f64) - 2; i >= 0; i--) {
        p = v_fmad(p, x, v_lookupd(quantile_f64[i], k));
    }
    return v_fmad(t, v_lookupd(quantile_head_f64, k), v_muld(t, p));
}

/* The same for w < 4: only the first octave, so no table lookup is needed. m - 1 is exact. */
V_INLINE vd inverse_first_f64(vd t, vd w) {
    const vd x = v_fmad(v_addd(w, v_setd(4.0)), v_setd(0.25), v_setd(-1.0));
    vd p = v_setd(quantile_f64[COUNT(quantile_f64) - 1][0]);
    V_UNROLL for (int i = COUNT(quantile_f64) - 2; i >= 0; i--) {
        p = v_fmad(p, x, v_setd(quantile_f64[i][0]));
    }
    return v_fmad(t, v_setd(quantile_head_f64[0]), v_muld(t, p));
}

/* z scale + loc, clamped to the bounds. */
V_INLINE vu truncated_place_f32(vu z, const winit_distribution *d) {
    const vf x = v_fmaf(v_as_f(z), v_setf((float)d->scale), v_setf((float)d->loc));
    return v_f_as_u(v_minf(v_maxf(x, v_setf((float)d->low)), v_setf((float)d->high)));
}

V_INLINE vu truncated_lane_f32(vu word, const winit_distribution *d) {
    const vu w = v_xor(word, v_set32((uint32_t)d->flip)), kappa = v_set32((uint32_t)d->kappa);
    const vu none = v_set32(0), all = v_set32(0xFFFFFFFFu);
    const vm32 below = v_less32(w, kappa);
    const vu turn = v_select32(below, all, none);
    /* number of words from this word to the window's end on its side, and to zero */
    const vf to_end = v_float_u32(v_xor(v_xor(w, turn), all));
    const vf to_zero = v_float_u32(v_xor(v_sub32(w, kappa), turn));
    const vf v =
        v_fmaf(to_end, v_setf((float)d->tail_step),
               v_selectf(below, v_setf((float)d->tail_start[1]), v_setf((float)d->tail_start[0])));
    const vf start = v_selectf(below, v_setf((float)d->t_start[1]), v_setf((float)d->t_start[0]));
    const vf t = v_fmaf(to_zero, v_setf((float)d->t_step),
                        v_fmaf(to_zero, v_setf((float)d->t_step_rest), start));
    const vf one_less_t2 = v_mulf(v, v_fmaf(t, v_setf((float)d->t_unit), v_setf(1.0f)));
    const vf shift = v_setf((float)d->log_shift);
    const vf minus_ln = v_maxf(log_u2_f32(one_less_t2, -1, minus_log_f32, &shift), v_setf(0.0f));
    const vu z = v_f_as_u(inverse_f32(t, minus_ln));
    const vu turned = v_xor(turn, v_set32((uint32_t)d->flip));
    return truncated_place_f32(v_xor_and(z, turned, v_set32(0x80000000u)), d);
}

V_INLINE void truncated_f32(const vu w[2], const winit_distribution *d, vu out[2]) {
    out[0] = truncated_lane_f32(v_unpack_low32(w[0], w[1]), d);
    out[1] = truncated_lane_f32(v_unpack_high32(w[0], w[1]), d);
}

/* The most common windows, symmetric and within 2 sigma. kappa is the middle word, so the distances
 * to zero and to the end are the word with some bits flipped. P is one polynomial in sqrt(1 - t^2),
 * a variable in which the logarithm's singularity is twice as far away as in 1 - t^2. */
V_INLINE vu central_lane_f32(vu w, const winit_distribution *d) {
    const vu below = v_xor(v_sar32(w, 31), v_set32(0xFFFFFFFFu));
    const vf to_end = v_float_i32(v_xor3(w, below, v_set32(0xFFFFFFFFu)));
    const vf to_zero = v_float_i32(v_xor3(w, below, v_set32(0x80000000u)));
    const vf v = v_fmaf(to_end, v_setf((float)d->tail_step), v_setf((float)d->tail_start[0]));
    const vf t = v_fmaf(to_zero, v_setf((float)d->t_step), v_setf((float)d->t_start[0]));
    const vf root = v_sqrtf(v_mulf(v, v_addf(t, v_setf(1.0f))));
    const vf p =
        horner_f32(v_subf(root, v_setf(0.625f)), quantile_root_f32, COUNT(quantile_root_f32));
    const vu z = v_f_as_u(v_fmaf(t, v_setf(quantile_root_head_f32[0]), v_mulf(t, p)));
    return truncated_place_f32(v_xor_and(z, below, v_set32(0x80000000u)), d);
}

V_INLINE void central_f32(const vu w[2], const winit_distribution *d, vu out[2]) {
    out[0] = central_lane_f32(v_unpack_low32(w[0], w[1]), d);
    out[1] = central_lane_f32(v_unpack_high32(w[0], w[1]), d);
}

V_INLINE vu truncated_lane_f64(vu word, const winit_distribution *d, const int central) {
    const vu w = v_xor(word, v_set64(d->flip)), kappa = v_set64(d->kappa);
    const vu none = v_set64(0), all = v_set64(0xFFFFFFFFFFFFFFFFu);
    const vm64 below = v_less64(w, kappa);
    const vu turn = v_select64(below, all, none);
    const vd to_end = v_double_u64(v_xor(v_xor(w, turn), all));
    const vd to_zero = v_double_u64(v_xor(v_sub64(w, kappa), turn));
    const vd v = v_fmad(to_end, v_setd(d->tail_step),
                        v_selectd(below, v_setd(d->tail_start[1]), v_setd(d->tail_start[0])));
    const vd start = v_selectd(below, v_setd(d->t_start[1]), v_setd(d->t_start[0]));
    const vd t = v_fmad(to_zero, v_setd(d->t_step), v_fmad(to_zero, v_setd(d->t_step_rest), start));
    const vd one_less_t2 = v_muld(v, v_fmad(t, v_setd(d->t_unit), v_setd(1.0)));
    const vd shift = v_setd(d->log_shift);
    const vd minus_ln = v_maxd(log_u2_f64(one_less_t2, -1, minus_log_f64, &shift), v_setd(0.0));
    const vu size = v_d_as_u(central ? inverse_first_f64(t, minus_ln) : inverse_f64(t, minus_ln));
    const vu turned = v_xor(turn, v_set64(d->flip));
    const vu z = v_xor_and(size, turned, v_set64(0x8000000000000000u));
    const vd x = v_fmad(v_as_d(z), v_setd(d->scale), v_setd(d->loc));
    return v_d_as_u(v_mind(v_maxd(x, v_setd(d->low)), v_setd(d->high)));
}

V_INLINE void truncated_f64(const vu w[2], const winit_distribution *d, vu out[2]) {
    const vu a = v_pack_low(w[0], w[1]), b = v_pack_high(w[0], w[1]);
    out[0] = truncated_lane_f64(v_unpack_low64(a, b), d, 0);
    out[1] = truncated_lane_f64(v_unpack_high64(a, b), d, 0);
}

/* Within 2 sigma -ln(1 - t^2) is at most 2.42, which is in the first octave. */
V_INLINE void central_f64(const vu w[2], const winit_distribution *d, vu out[2]) {
    const vu a = v_pack_low(w[0], w[1]), b = v_pack_high(w[0], w[1]);
    out[0] = truncated_lane_f64(v_unpack_low64(a, b), d, 1);
    out[1] = truncated_lane_f64(v_unpack_high64(a, b), d, 1);
}

#endif
