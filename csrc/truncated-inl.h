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

/* Replaces t by z = t P(w), for w >= 0. For each octave k of w + 4 = m 2^(k + 2), P is a constant
 * plus a polynomial in m - 1, so that near zero the polynomial and its rounding errors vanish. If a
 * window's probability does not underflow, w is less than 745, which is in the last octave. */
V_INLINE void inverse_f32(vf *t, const vf *w, const int n) {
    vu k[AT_ONCE];
    vf x[AT_ONCE], p[AT_ONCE];
    EACH(i, n) {
        const vu y = v_f_as_u(v_addf(w[i], v_setf(4.0f)));
        const vu m = v_or(v_and(y, v_set32(0x007FFFFFu)), v_set32(0x3F800000u));
        k[i] = v_sub32(v_shr32(y, 23), v_set32(129));
        x[i] = v_subf(v_as_f(m), v_setf(1.0f));
        p[i] = v_lookupf(quantile_f32[COUNT(quantile_f32) - 1], k[i]);
    }
    V_UNROLL for (int c = COUNT(quantile_f32) - 2; c >= 0; c--) {
        EACH(i, n) p[i] = v_fmaf(p[i], x[i], v_lookupf(quantile_f32[c], k[i]));
    }
    EACH(i, n) t[i] = v_fmaf(t[i], v_lookupf(quantile_head_f32, k[i]), v_mulf(t[i], p[i]));
}

V_INLINE void inverse_f64(vd *t, const vd *w, const int n) {
    vu k[AT_ONCE];
    vd x[AT_ONCE], p[AT_ONCE];
    EACH(i, n) {
        const vu y = v_d_as_u(v_addd(w[i], v_setd(4.0)));
        const vu m = v_or(v_and(y, v_set64(0x000FFFFFFFFFFFFFu)), v_set64(0x3FF0000000000000u));
        k[i] = v_sub64(v_shr64(y, 52), v_set64(1025));
        x[i] = v_subd(v_as_d(m), v_setd(1.0));
        p[i] = v_lookupd(quantile_f64[COUNT(quantile_f64) - 1], k[i]);
    }
    V_UNROLL for (int c = COUNT(quantile_f64) - 2; c >= 0; c--) {
        EACH(i, n) p[i] = v_fmad(p[i], x[i], v_lookupd(quantile_f64[c], k[i]));
    }
    EACH(i, n) t[i] = v_fmad(t[i], v_lookupd(quantile_head_f64, k[i]), v_muld(t[i], p[i]));
}

/* The same for w < 4: only the first octave, so no table lookup is needed. m - 1 is exact. */
V_INLINE void inverse_first_f64(vd *t, const vd *w, const int n) {
    vd x[AT_ONCE], p[AT_ONCE];
    EACH(i, n) {
        x[i] = v_fmad(v_addd(w[i], v_setd(4.0)), v_setd(0.25), v_setd(-1.0));
        p[i] = v_setd(quantile_f64[COUNT(quantile_f64) - 1][0]);
    }
    V_UNROLL for (int c = COUNT(quantile_f64) - 2; c >= 0; c--) {
        EACH(i, n) p[i] = v_fmad(p[i], x[i], v_setd(quantile_f64[c][0]));
    }
    EACH(i, n) t[i] = v_fmad(t[i], v_setd(quantile_head_f64[0]), v_muld(t[i], p[i]));
}

/* z scale + loc with the sign bits of z reversed where those of `turn` are set, clamped. */
V_INLINE vu truncated_place_f32(vf z, vu turn, const winit_distribution *d) {
    const vf turned = v_as_f(v_xor_and(v_f_as_u(z), turn, v_set32(0x80000000u)));
    const vf x = v_fmaf(turned, v_setf((float)d->scale), v_setf((float)d->loc));
    return v_f_as_u(v_minf(v_maxf(x, v_setf((float)d->low)), v_setf((float)d->high)));
}

V_INLINE vu truncated_place_f64(vd z, vu turn, const winit_distribution *d) {
    const vd turned = v_as_d(v_xor_and(v_d_as_u(z), turn, v_set64(0x8000000000000000u)));
    const vd x = v_fmad(turned, v_setd(d->scale), v_setd(d->loc));
    return v_d_as_u(v_mind(v_maxd(x, v_setd(d->low)), v_setd(d->high)));
}

/* The parts of a transform are loops over up to AT_ONCE registers at a time: what a loop computes
 * is a short chain of operations, of which a processor has several in flight. */
V_INLINE void truncated_f32(const vu *words, const winit_distribution *d, const int n, vu *out) {
    const int count = 2 * n, part = at_once(count);
    vu turn[2 * MOST_GROUPS];
    vf t[2 * MOST_GROUPS], u[2 * MOST_GROUPS];
    for (int k = 0; k < count; k += part) {
        EACH(j, part) {
            const int i = k + j;
            const vu w = v_xor(words[i], v_set32((uint32_t)d->flip));
            const vu kappa = v_set32((uint32_t)d->kappa);
            const vu none = v_set32(0), all = v_set32(0xFFFFFFFFu);
            const vm32 below = v_less32(w, kappa);
            turn[i] = v_select32(below, all, none);
            /* number of words from this word to the window's end on its side, and to zero */
            const vf to_end = v_float_u32(v_xor(v_xor(w, turn[i]), all));
            const vf to_zero = v_float_u32(v_xor(v_sub32(w, kappa), turn[i]));
            const vf v = v_fmaf(
                to_end, v_setf((float)d->tail_step),
                v_selectf(below, v_setf((float)d->tail_start[1]), v_setf((float)d->tail_start[0])));
            const vf start =
                v_selectf(below, v_setf((float)d->t_start[1]), v_setf((float)d->t_start[0]));
            t[i] = v_fmaf(to_zero, v_setf((float)d->t_step),
                          v_fmaf(to_zero, v_setf((float)d->t_step_rest), start));
            u[i] = v_mulf(v, v_fmaf(t[i], v_setf((float)d->t_unit), v_setf(1.0f))); /* 1 - t^2 */
        }
    }
    const vf shift = v_setf((float)d->log_shift);
    for (int k = 0; k < count; k += part) {
        log_u2_f32(u + k, part, -1, minus_log_f32, &shift);
        EACH(j, part) u[k + j] = v_maxf(u[k + j], v_setf(0.0f));
    }
    const vu flip = v_set32((uint32_t)d->flip);
    for (int k = 0; k < count; k += part) {
        inverse_f32(t + k, u + k, part);
        EACH(j, part) out[k + j] = truncated_place_f32(t[k + j], v_xor(turn[k + j], flip), d);
    }
}

/* The most common windows, symmetric and within 2 sigma. kappa is the middle word, so the distances
 * to zero and to the window's end are the word with some bits flipped. P is one polynomial in
 * sqrt(1 - t^2): in this variable the logarithm's singularity is twice as far away as in 1 - t^2,
 * so that fewer terms are enough. */
V_INLINE void central_f32(const vu *words, const winit_distribution *d, const int n, vu *out) {
    const int count = 2 * n, part = at_once(count);
    vf t[2 * MOST_GROUPS], root[2 * MOST_GROUPS];
    for (int k = 0; k < count; k += part) {
        EACH(j, part) {
            const vu w = words[k + j], above = v_sar32(w, 31);
            const vf to_end = v_float_i32(v_xor(w, above));
            const vf to_zero = v_float_i32(v_xor(v_xor(w, v_set32(0x7FFFFFFFu)), above));
            const vf v =
                v_fmaf(to_end, v_setf((float)d->tail_step), v_setf((float)d->tail_start[0]));
            t[k + j] = v_fmaf(to_zero, v_setf((float)d->t_step), v_setf((float)d->t_start[0]));
            root[k + j] = v_sqrtf(v_mulf(v, v_addf(t[k + j], v_setf(1.0f))));
        }
    }
    for (int k = 0; k < count; k += part) {
        vf x[AT_ONCE], p[AT_ONCE];
        EACH(j, part) x[j] = v_subf(root[k + j], v_setf(0.625f));
        horner_f32(x, part, quantile_root_f32, COUNT(quantile_root_f32), p);
        EACH(j, part) {
            const vf z =
                v_fmaf(t[k + j], v_setf(quantile_root_head_f32[0]), v_mulf(t[k + j], p[j]));
            out[k + j] = truncated_place_f32(z, v_xor(words[k + j], v_set32(0xFFFFFFFFu)), d);
        }
    }
}

V_INLINE void inversion_f64(const vu *words, const winit_distribution *d, const int n, vu *out,
                            const int first) {
    const int count = 2 * n, part = at_once(count);
    vu turn[2 * MOST_GROUPS];
    vd t[2 * MOST_GROUPS], u[2 * MOST_GROUPS];
    for (int k = 0; k < count; k += part) {
        double_words(words + k, part / 2, out + k);
        EACH(j, part) {
            const int i = k + j;
            const vu w = v_xor(out[i], v_set64(d->flip)), kappa = v_set64(d->kappa);
            const vu none = v_set64(0), all = v_set64(0xFFFFFFFFFFFFFFFFu);
            const vm64 below = v_less64(w, kappa);
            turn[i] = v_select64(below, all, none);
            const vd to_end = v_double_u64(v_xor(v_xor(w, turn[i]), all));
            const vd to_zero = v_double_u64(v_xor(v_sub64(w, kappa), turn[i]));
            const vd v =
                v_fmad(to_end, v_setd(d->tail_step),
                       v_selectd(below, v_setd(d->tail_start[1]), v_setd(d->tail_start[0])));
            const vd start = v_selectd(below, v_setd(d->t_start[1]), v_setd(d->t_start[0]));
            t[i] =
                v_fmad(to_zero, v_setd(d->t_step), v_fmad(to_zero, v_setd(d->t_step_rest), start));
            u[i] = v_muld(v, v_fmad(t[i], v_setd(d->t_unit), v_setd(1.0))); /* 1 - t^2 */
        }
    }
    const vu flip = v_set64(d->flip);
    const vd shift = v_setd(d->log_shift);
    for (int k = 0; k < count; k += part) {
        log_u2_f64(u + k, part, -1, minus_log_f64, &shift);
        EACH(j, part) u[k + j] = v_maxd(u[k + j], v_setd(0.0));
    }
    for (int k = 0; k < count; k += part) {
        if (first) {
            inverse_first_f64(t + k, u + k, part);
        } else {
            inverse_f64(t + k, u + k, part);
        }
        EACH(j, part) out[k + j] = truncated_place_f64(t[k + j], v_xor(turn[k + j], flip), d);
    }
}

V_INLINE void truncated_f64(const vu *words, const winit_distribution *d, const int n, vu *out) {
    inversion_f64(words, d, n, out, 0);
}

/* Within 2 sigma -ln(1 - t^2) is at most 2.42, which is in the first octave. */
V_INLINE void central_f64(const vu *words, const winit_distribution *d, const int n, vu *out) {
    inversion_f64(words, d, n, out, 1);
}

#endif
