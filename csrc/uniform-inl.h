/* Uniform numbers in [low, high). */
#ifndef WINIT_UNIFORM_INL_H
#define WINIT_UNIFORM_INL_H

#include "philox-inl.h"

/* Words to elements: t = (s + 1/2) 2^-23 is in (-1, 1), exact and never 0, where s is the signed
 * number in the upper 24 bits of the word. The element is middle + t half, rounded once and clamped
 * to the bounds. */
V_INLINE void uniform_f32(const vu *w, const winit_distribution *d, const int n, vu *out) {
    EACH(i, 2 * n) {
        const vf s = v_float_i32(v_sar32(w[i], 8));
        const vf t = v_fmaf(s, v_setf(0x1p-23f), v_setf(0x1p-24f));
        const vf x = v_fmaf(t, v_setf((float)d->scale), v_setf((float)d->loc));
        out[i] = v_f_as_u(v_minf(v_maxf(x, v_setf((float)d->low)), v_setf((float)d->high)));
    }
}

/* The same in fewer operations. 256 (s + 1/2) is the word with its lower 8 bits replaced, an
 * integer with 24 significant bits. The factor 2^-31 is part of the scale; a power of two changes
 * no rounding. Clamping to the lower bound is not needed: winit_set has checked the smallest
 * result. */
V_INLINE void inside_f32(const vu *w, const winit_distribution *d, const int n, vu *out) {
    EACH(i, 2 * n) {
        const vf t = v_float_i32(v_and_or(w[i], v_set32(0xFFFFFF00u), v_set32(0x80)));
        const vf x = v_fmaf(t, v_setf((float)d->scale), v_setf((float)d->loc));
        out[i] = v_f_as_u(v_minf(x, v_setf((float)d->high)));
    }
}

/* The same with the upper 53 bits: t = (s + 1/2) 2^-52. */
V_INLINE void uniform_f64(const vu *w, const winit_distribution *d, const int n, vu *out) {
    double_words(w, n, out);
    EACH(i, 2 * n) {
        const vd x = v_fmad(v_centred_i53(out[i]), v_setd(d->scale), v_setd(d->loc));
        out[i] = v_d_as_u(v_mind(v_maxd(x, v_setd(d->low)), v_setd(d->high)));
    }
}

/* In float64 there is no faster way, so all intervals use the same function. */
V_INLINE void inside_f64(const vu *w, const winit_distribution *d, const int n, vu *out) {
    uniform_f64(w, d, n, out);
}

#endif
