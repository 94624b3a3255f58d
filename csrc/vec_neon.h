/* The vector operations of NEON on aarch64: two 64-bit or four 32-bit lanes. */
#ifndef WINIT_VEC_NEON_H
#define WINIT_VEC_NEON_H

#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "compile for aarch64 with NEON"
#endif

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

enum { V_STREAM_16 = 2 };
#define V_SET neon
#define V_REGISTERS 1
#define V_SCHEDULE 1
#define V_PACKED 1
enum { V_LANES = 2, V_GROUPS = 4, V_TOGETHER = 2, V_SETS = 4, V_STREAM_ALIGN = 16 };
enum { V_MIN_RUN = 8 * V_LANES };
enum { V_PANEL = 4 }; /* vectors in a row of a panel: householder_real-inl.h */

typedef uint32x4_t vu;
typedef float32x4_t vf;
typedef float64x2_t vd;
typedef uint32x4_t vm32; /* all bits of a lane, or none */
typedef uint64x2_t vm64;

/* integers */
static inline uint64x2_t v_64(vu a) { return vreinterpretq_u64_u32(a); }
static inline vu v_from64(uint64x2_t a) { return vreinterpretq_u32_u64(a); }
static inline vu v_set32(uint32_t x) { return vdupq_n_u32(x); }
static inline vu v_set64(uint64_t x) { return v_from64(vdupq_n_u64(x)); }
/* Lane k gets element k: with only two lanes nothing is reordered. */
static inline vu v_load_blocks(const uint64_t *p) { return v_from64(vld1q_u64(p)); }
static inline vu v_load(const void *p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
static inline void v_store(void *p, vu a) { vst1q_u8(p, vreinterpretq_u8_u32(a)); }
static inline vu v_add64(vu a, vu b) { return v_from64(vaddq_u64(v_64(a), v_64(b))); }
static inline vu v_sub64(vu a, vu b) { return v_from64(vsubq_u64(v_64(a), v_64(b))); }
static inline vu v_add32(vu a, vu b) { return vaddq_u32(a, b); }
static inline vu v_sub32(vu a, vu b) { return vsubq_u32(a, b); }
static inline vu v_min32(vu a, vu b) { return vminq_u32(a, b); }
static inline vu v_and(vu a, vu b) { return vandq_u32(a, b); }
static inline vu v_or(vu a, vu b) { return vorrq_u32(a, b); }
static inline vu v_xor(vu a, vu b) { return veorq_u32(a, b); }
#if defined(__ARM_FEATURE_SHA3)
#define V_XOR3 1
static inline vu v_xor3(vu a, vu b, vu c) { return veor3q_u32(a, b, c); }
#else
#define V_XOR3 0
static inline vu v_xor3(vu a, vu b, vu c) { return v_xor(v_xor(a, b), c); }
#endif
static inline vu v_and_or(vu a, vu mask, vu bits) { return v_or(v_and(a, mask), bits); }
static inline vu v_xor_and(vu a, vu b, vu mask) { return v_xor(a, v_and(b, mask)); }
/* In each 64-bit lane, the 64-bit product of the low halves. */
static inline vu v_mul_low(vu a, vu b) {
    return v_from64(vmull_u32(vmovn_u64(v_64(a)), vmovn_u64(v_64(b))));
}
#define v_shr64(a, n) v_from64(vshrq_n_u64(v_64(a), n))
#define v_shl64(a, n) v_from64(vshlq_n_u64(v_64(a), n))
/* An operator, because clang's vshrq_n_u32 accepts only a literal, not a constant argument. */
static inline vu v_shr32(vu a, const int n) { return a >> (uint32_t)n; }
#define v_shl32(a, n) vshlq_n_u32(a, n)
#define v_sar32(a, n) vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(a), n))
/* In each 64-bit lane, the low (high) half of a in the low half, that of b in the high half. */
static inline vu v_pack_low(vu a, vu b) { return vtrn1q_u32(a, b); }
static inline vu v_pack_high(vu a, vu b) { return vtrn2q_u32(a, b); }
static inline vu v_unpack_low64(vu a, vu b) { return v_from64(vzip1q_u64(v_64(a), v_64(b))); }
static inline vu v_unpack_high64(vu a, vu b) { return v_from64(vzip2q_u64(v_64(a), v_64(b))); }
static inline vu v_unpack_low32(vu a, vu b) { return vzip1q_u32(a, b); }
static inline vu v_unpack_high32(vu a, vu b) { return vzip2q_u32(a, b); }
/* The even (odd) 32-bit lanes of a, then those of b. */
static inline vu v_even32(vu a, vu b) { return vuzp1q_u32(a, b); }
static inline vu v_odd32(vu a, vu b) { return vuzp2q_u32(a, b); }
/* The 64-bit products of all 32-bit lanes of a with m, first those of the lower two lanes. */
static inline void v_mul_wide(vu a, vu m, vu p[2]) {
    p[0] = v_from64(vmull_u32(vget_low_u32(a), vget_low_u32(m)));
    p[1] = v_from64(vmull_high_u32(a, m));
}
/* Their halves have the order of a. */
static inline vu v_exchanged32(vu a) { return a; }
/* The low halves of these products, in the order of a. */
static inline vu v_mul_low32(vu a, vu m, const vu p[2]) {
    (void)a;
    (void)m;
    return v_even32(p[0], p[1]);
}

/* masks */
static inline vm32 v_less32(vu a, vu b) { return vcltq_u32(a, b); }
static inline vm64 v_less64(vu a, vu b) { return vcltq_u64(v_64(a), v_64(b)); }
static inline vm32 v_any32(vu a, vu bit) { return vtstq_u32(a, bit); }
static inline vm64 v_any64(vu a, vu bit) { return vtstq_u64(v_64(a), v_64(bit)); }
static inline vm32 v_second_bit32(vu a) { return v_any32(a, v_set32(0x40000000u)); }
static inline vm64 v_second_bit64(vu a) { return v_any64(a, v_set64(0x4000000000000000u)); }
static inline vu v_select32(vm32 m, vu yes, vu no) { return vbslq_u32(m, yes, no); }
static inline vu v_select64(vm64 m, vu yes, vu no) { return vbslq_u32(v_from64(m), yes, no); }

/* float32 */
static inline vf v_setf(float x) { return vdupq_n_f32(x); }
static inline vf v_as_f(vu a) { return vreinterpretq_f32_u32(a); }
static inline vu v_f_as_u(vf a) { return vreinterpretq_u32_f32(a); }
static inline vf v_addf(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_subf(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mulf(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_fmaf(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_sqrtf(vf a) { return vsqrtq_f32(a); }
/* Return the second operand if both are equal, as x86 does: this matters for -0 and 0. */
static inline vf v_minf(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf v_maxf(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf v_float_i32(vu a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
static inline vf v_float_u32(vu a) { return vcvtq_f32_u32(a); }
static inline vf v_selectf(vm32 m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
static inline vf v_lookupf(const float table[8], vu index) {
    uint32_t i[4];
    vst1q_u32(i, vandq_u32(index, vdupq_n_u32(7)));
    const float values[4] = {table[i[0]], table[i[1]], table[i[2]], table[i[3]]};
    return vld1q_f32(values);
}

/* float64 */
static inline vd v_setd(double x) { return vdupq_n_f64(x); }
static inline vd v_as_d(vu a) { return vreinterpretq_f64_u32(a); }
static inline vu v_d_as_u(vd a) { return vreinterpretq_u32_f64(a); }
static inline vd v_addd(vd a, vd b) { return vaddq_f64(a, b); }
static inline vd v_subd(vd a, vd b) { return vsubq_f64(a, b); }
static inline vd v_muld(vd a, vd b) { return vmulq_f64(a, b); }
static inline vd v_fmad(vd a, vd b, vd c) { return vfmaq_f64(c, a, b); }
static inline vd v_sqrtd(vd a) { return vsqrtq_f64(a); }
static inline vd v_mind(vd a, vd b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
static inline vd v_maxd(vd a, vd b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
static inline vd v_double_i64(vu a) { return vcvtq_f64_s64(vreinterpretq_s64_u32(a)); }
static inline vd v_double_u64(vu a) { return vcvtq_f64_u64(v_64(a)); }
static inline vd v_double_high(vu a) { return v_double_i64(a); }
static inline vd v_fraction_i64(vu a) { return v_muld(v_double_i64(a), v_setd(0x1p-64)); }
/* (s + 1/2) 2^-52, where s is the signed number in the upper 53 bits */
static inline vd v_centred_i53(vu a) {
    const vd s = vcvtq_f64_s64(vshrq_n_s64(vreinterpretq_s64_u32(a), 11));
    return v_fmad(s, v_setd(0x1p-52), v_setd(0x1p-53));
}
static inline vd v_selectd(vm64 m, vd yes, vd no) { return vbslq_f64(m, yes, no); }
static inline vd v_lookupd(const double table[8], vu index) {
    const double values[2] = {table[vgetq_lane_u64(v_64(index), 0) & 7],
                              table[vgetq_lane_u64(v_64(index), 1) & 7]};
    return vld1q_f64(values);
}

/* stores of two registers to consecutive memory; NEON has no streaming stores, so it is ignored */
static inline void v_put32(void *p, vu a, vu b, int streaming) {
    (void)streaming;
    vst1q_u8(p, vreinterpretq_u8_u32(a));
    vst1q_u8((uint8_t *)p + 16, vreinterpretq_u8_u32(b));
}
static inline void v_put64(void *p, vu a, vu b, int streaming) { v_put32(p, a, b, streaming); }
/* Stores the high 16 bits of even elements in one register and odd ones in the other. */
static inline void v_put_high16(void *p, vu even, vu odd, int streaming) {
    (void)streaming;
    vst1q_u8(p, vreinterpretq_u8_u32(vsriq_n_u32(odd, even, 16)));
}
/* Stores the low 8 bits of each 32-bit lane; the others must be 0. */
static inline void v_put8(void *p, vu a, vu b, int streaming) {
    (void)streaming;
    vst1_u8(p, vmovn_u16(vcombine_u16(vmovn_u32(a), vmovn_u32(b))));
}
/* Rounds to nearest even, because kernels run in the default environment. */
static inline void v_put_f16(void *p, vf even, vf odd, int streaming) {
    (void)streaming;
    const uint16x4_t a = vreinterpret_u16_f16(vcvt_f16_f32(even));
    const uint16x4_t b = vreinterpret_u16_f16(vcvt_f16_f32(odd));
    vst1q_u8(p, vreinterpretq_u8_u16(vcombine_u16(vzip1_u16(a, b), vzip2_u16(a, b))));
}
/* Lane k has block k anyway. */
#define v_put_high16_in_order v_put_high16
#define v_put8_in_order v_put8
#define v_put_f16_in_order v_put_f16
static inline void v_put_16(char *p, const char *from, int streaming) {
    (void)streaming;
    vst1q_u8((uint8_t *)p, vld1q_u8((const uint8_t *)from));
}
static inline void v_fence(void) {}

#endif
