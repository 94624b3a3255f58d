/* Rounds results to the element type and stores them: the last step of every kernel.
 *
 * Each function takes the even elements of a group in one register and the odd ones in another, and
 * stores them in order. Narrow types are float32 rounded to nearest even; results are never NaN.
 * bfloat16 is rounded in integer arithmetic, because the instruction sets' own conversions flush
 * subnormals or need extensions. */
#ifndef WINIT_NARROW_INL_H
#define WINIT_NARROW_INL_H

#include "philox-inl.h"

V_INLINE void put_f64(void *p, const vu x[2], int streaming) {
    v_put64(p, v_unpack_low64(x[0], x[1]), v_unpack_high64(x[0], x[1]), streaming);
}

V_INLINE void put_f32(void *p, const vu x[2], int streaming) {
    v_put32(p, v_unpack_low32(x[0], x[1]), v_unpack_high32(x[0], x[1]), streaming);
}

V_INLINE void put_f16(void *p, const vu x[2], int streaming) {
    v_put_f16(p, v_as_f(x[0]), v_as_f(x[1]), streaming);
}

/* Rounds a float to its upper 16 bits, ties to even: adds just under half a unit, or exactly half
 * if the upper bits are odd. The carry may propagate into the exponent, and to infinity. */
V_INLINE vu to_bf16(vu u) {
    const vu odd = v_and(v_shr32(u, 16), v_set32(1));
    return v_add32(v_add32(u, v_set32(0x7FFF)), odd);
}

V_INLINE void put_bf16(void *p, const vu x[2], int streaming) {
    v_put_high16(p, to_bf16(x[0]), to_bf16(x[1]), streaming);
}

/* Rounds to 8 bits with `mantissa` mantissa bits and the exponent bias `bias`; `overflow` is the
 * code after the largest number. A result below the smallest normal number is rounded by adding a
 * float whose last bit has the value of the smallest subnormal. */
V_INLINE vu to_8(vu u, const int mantissa, const int bias, const uint32_t overflow) {
    const int shift = 23 - mantissa;
    const uint32_t smallest_normal = (uint32_t)(128 - bias) << 23;
    const vu sign = v_and(v_shr32(u, 24), v_set32(0x80));
    const vu a = v_and(u, v_set32(0x7FFFFFFF));
    const vu tie = v_and(v_shr32(a, shift), v_set32(1));
    const vu rounded = v_add32(v_add32(a, v_set32((1u << (shift - 1)) - 1)), tie);
    const vu normal = v_sub32(v_shr32(rounded, shift), v_set32((uint32_t)(127 - bias) << mantissa));
    const vu unit = v_set32((uint32_t)(127 + 24 - bias - mantissa) << 23);
    const vu subnormal = v_sub32(v_f_as_u(v_addf(v_as_f(a), v_as_f(unit))), unit);
    const vu small = v_select32(v_less32(a, v_set32(smallest_normal)), subnormal, normal);
    return v_or(v_min32(small, v_set32(overflow)), sign);
}

V_INLINE void put_8(void *p, const vu x[2], int streaming) {
    v_put8(p, v_unpack_low32(x[0], x[1]), v_unpack_high32(x[0], x[1]), streaming);
}

/* This type has no infinity: the code after 448 is NaN. */
V_INLINE vu to_e4m3fn(vu u) { return to_8(u, 3, 7, 0x7F); }
V_INLINE vu to_e5m2(vu u) { return to_8(u, 2, 15, 0x7C); }

V_INLINE void put_e4m3fn(void *p, const vu x[2], int streaming) {
    const vu y[2] = {to_e4m3fn(x[0]), to_e4m3fn(x[1])};
    put_8(p, y, streaming);
}

V_INLINE void put_e5m2(void *p, const vu x[2], int streaming) {
    const vu y[2] = {to_e5m2(x[0]), to_e5m2(x[1])};
    put_8(p, y, streaming);
}

#if V_PACKED
/* The same for groups whose lane k has block k, which only narrow types make. */
#define put_f64_in_order NULL
#define put_f32_in_order NULL

V_INLINE void put_f16_in_order(void *p, const vu x[2], int streaming) {
    v_put_f16_in_order(p, v_as_f(x[0]), v_as_f(x[1]), streaming);
}

V_INLINE void put_bf16_in_order(void *p, const vu x[2], int streaming) {
    v_put_high16_in_order(p, to_bf16(x[0]), to_bf16(x[1]), streaming);
}

V_INLINE void put_8_in_order(void *p, const vu x[2], int streaming) {
    v_put8_in_order(p, v_unpack_low32(x[0], x[1]), v_unpack_high32(x[0], x[1]), streaming);
}

V_INLINE void put_e4m3fn_in_order(void *p, const vu x[2], int streaming) {
    const vu y[2] = {to_e4m3fn(x[0]), to_e4m3fn(x[1])};
    put_8_in_order(p, y, streaming);
}

V_INLINE void put_e5m2_in_order(void *p, const vu x[2], int streaming) {
    const vu y[2] = {to_e5m2(x[0]), to_e5m2(x[1])};
    put_8_in_order(p, y, streaming);
}
#endif

#endif
