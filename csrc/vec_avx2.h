/* The vector operations of AVX2 with FMA and F16C: four 64-bit or eight 32-bit lanes. */
#ifndef WINIT_VEC_AVX2_H
#define WINIT_VEC_AVX2_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with -mavx2 -mfma -mf16c"
#endif

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { V_STREAM_16 = 2 }; /* streaming stores to an address that is aligned only to 16 bytes */
#define V_SET avx2
#define V_REGISTERS 1
#define V_SCHEDULE 0
#define V_PACKED 1
#define V_XOR3 0 /* an exclusive or of three registers takes two operations */
enum { V_LANES = 4, V_GROUPS = 3, V_TOGETHER = 3, V_SETS = 3, V_STREAM_ALIGN = 32 };
enum { V_MIN_RUN = 8 * V_LANES };
enum { V_PANEL = 3 }; /* vectors in a row of a panel: householder_real-inl.h */

typedef __m256i vu;
typedef __m256 vf;
typedef __m256d vd;
typedef __m256i vm32; /* all bits of a lane, or none */
typedef __m256i vm64;

/* integers */
static inline vu v_set32(uint32_t x) { return _mm256_set1_epi32((int)x); }
static inline vu v_set64(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
/* Lane 2k gets element k, lane 2k + 1 element 2 + k: see philox-inl.h. */
static inline vu v_load_blocks(const uint64_t *p) {
    return _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i *)p), 0xD8);
}
static inline vu v_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void v_store(void *p, vu a) { _mm256_storeu_si256((__m256i *)p, a); }
static inline vu v_add64(vu a, vu b) { return _mm256_add_epi64(a, b); }
static inline vu v_sub64(vu a, vu b) { return _mm256_sub_epi64(a, b); }
static inline vu v_add32(vu a, vu b) { return _mm256_add_epi32(a, b); }
static inline vu v_sub32(vu a, vu b) { return _mm256_sub_epi32(a, b); }
static inline vu v_min32(vu a, vu b) { return _mm256_min_epu32(a, b); }
static inline vu v_and(vu a, vu b) { return _mm256_and_si256(a, b); }
static inline vu v_or(vu a, vu b) { return _mm256_or_si256(a, b); }
static inline vu v_xor(vu a, vu b) { return _mm256_xor_si256(a, b); }
/* a is the operand that is known last. */
static inline vu v_xor3(vu a, vu b, vu c) { return v_xor(a, v_xor(b, c)); }
static inline vu v_and_or(vu a, vu mask, vu bits) { return v_or(v_and(a, mask), bits); }
static inline vu v_xor_and(vu a, vu b, vu mask) { return v_xor(a, v_and(b, mask)); }
/* In each 64-bit lane, the 64-bit product of the low halves. */
static inline vu v_mul_low(vu a, vu b) { return _mm256_mul_epu32(a, b); }
#define v_shr64(a, n) _mm256_srli_epi64(a, n)
#define v_shl64(a, n) _mm256_slli_epi64(a, n)
#define v_shr32(a, n) _mm256_srli_epi32(a, n)
#define v_shl32(a, n) _mm256_slli_epi32(a, n)
#define v_sar32(a, n) _mm256_srai_epi32(a, n)
/* In each 64-bit lane, the low half of a in the low half, that of b in the high half. */
static inline vu v_pack_low(vu a, vu b) {
    return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xAA);
}
/* In each 64-bit lane, the high half of a in the low half, that of b in the high half. */
static inline vu v_pack_high(vu a, vu b) {
    return _mm256_blend_epi32(_mm256_srli_epi64(a, 32), b, 0xAA);
}
/* Interleave within each 128 bits, as all x86 unpack instructions do. */
static inline vu v_unpack_low64(vu a, vu b) { return _mm256_unpacklo_epi64(a, b); }
static inline vu v_unpack_high64(vu a, vu b) { return _mm256_unpackhi_epi64(a, b); }
static inline vu v_unpack_low32(vu a, vu b) { return _mm256_unpacklo_epi32(a, b); }
static inline vu v_unpack_high32(vu a, vu b) { return _mm256_unpackhi_epi32(a, b); }

/* The even (odd) 32-bit lanes of a, then those of b, within each 128 bits. */
static inline vu v_even32(vu a, vu b) {
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}
static inline vu v_odd32(vu a, vu b) {
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xDD));
}
/* The 64-bit products of all 32-bit lanes of a with m, first those of the even lanes. So in
 * v_even32 or v_odd32 of both the two middle lanes of each 128 bits are exchanged. */
static inline void v_mul_wide(vu a, vu m, vu p[2]) {
    p[0] = _mm256_mul_epu32(a, m);
    p[1] = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
}
static inline vu v_exchanged32(vu a) { return _mm256_shuffle_epi32(a, 0xD8); }
/* The low halves of these products, in the order of a. */
static inline vu v_mul_low32(vu a, vu m, const vu p[2]) {
    (void)p;
    return _mm256_mullo_epi32(a, m);
}

/* masks: AVX2 compares only signed numbers, so the sign bits are flipped first */
static inline vm32 v_less32(vu a, vu b) {
    const vu sign = v_set32(0x80000000u);
    return _mm256_cmpgt_epi32(v_xor(b, sign), v_xor(a, sign));
}
static inline vm64 v_less64(vu a, vu b) {
    const vu sign = v_set64(0x8000000000000000u);
    return _mm256_cmpgt_epi64(v_xor(b, sign), v_xor(a, sign));
}
/* `bit` must have only one bit set. */
static inline vm32 v_any32(vu a, vu bit) { return _mm256_cmpeq_epi32(v_and(a, bit), bit); }
static inline vm64 v_any64(vu a, vu bit) { return _mm256_cmpeq_epi64(v_and(a, bit), bit); }
/* Only for v_selectf and v_selectd, which look at the highest bit of a lane alone. */
static inline vm32 v_second_bit32(vu a) { return v_shl32(a, 1); }
static inline vm64 v_second_bit64(vu a) { return v_shl64(a, 1); }
static inline vu v_select32(vm32 m, vu yes, vu no) { return _mm256_blendv_epi8(no, yes, m); }
static inline vu v_select64(vm64 m, vu yes, vu no) { return _mm256_blendv_epi8(no, yes, m); }

/* float32 */
static inline vf v_setf(float x) { return _mm256_set1_ps(x); }
static inline vf v_as_f(vu a) { return _mm256_castsi256_ps(a); }
static inline vu v_f_as_u(vf a) { return _mm256_castps_si256(a); }
static inline vf v_addf(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_subf(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mulf(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_fmaf(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_sqrtf(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_minf(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_maxf(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_float_i32(vu a) { return _mm256_cvtepi32_ps(a); }
/* Both halves are exact; only the fma rounds. */
static inline vf v_float_u32(vu a) {
    vf high = _mm256_cvtepi32_ps(v_shr32(a, 16));
    vf low = _mm256_cvtepi32_ps(v_and(a, v_set32(0xFFFF)));
    return v_fmaf(high, v_setf(65536.0f), low);
}
static inline vf v_selectf(vm32 m, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m));
}
static inline vf v_lookupf(const float table[8], vu index) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
}

/* float64 */
static inline vd v_setd(double x) { return _mm256_set1_pd(x); }
static inline vd v_as_d(vu a) { return _mm256_castsi256_pd(a); }
static inline vu v_d_as_u(vd a) { return _mm256_castpd_si256(a); }
static inline vd v_addd(vd a, vd b) { return _mm256_add_pd(a, b); }
static inline vd v_subd(vd a, vd b) { return _mm256_sub_pd(a, b); }
static inline vd v_muld(vd a, vd b) { return _mm256_mul_pd(a, b); }
static inline vd v_fmad(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
static inline vd v_sqrtd(vd a) { return _mm256_sqrt_pd(a); }
static inline vd v_mind(vd a, vd b) { return _mm256_min_pd(a, b); }
static inline vd v_maxd(vd a, vd b) { return _mm256_max_pd(a, b); }
/* uint64 to double. The high and low halves of the integer become the low mantissa bits of 2^84 and
 * 2^52. Subtracting 2^84 + 2^52 is exact; only the last addition rounds. */
static inline vd v_double_u64(vu a) {
    vu high = v_or(v_shr64(a, 32), v_set64(0x4530000000000000u));       /* 2^84 + high 2^32 */
    vu low = _mm256_blend_epi32(a, v_set64(0x4330000000000000u), 0xAA); /* 2^52 + low */
    const vd both = v_setd(0x1p84 + 0x1p52);
    return v_addd(v_subd(v_as_d(high), both), v_as_d(low));
}
static inline vd v_double_i64(vu a) {
    vu high = v_xor(v_shr64(a, 32), v_set64(0x4530000080000000u)); /* 2^84 + 2^63 + high 2^32 */
    vu low = _mm256_blend_epi32(a, v_set64(0x4330000000000000u), 0xAA);
    const vd all = v_setd(0x1p84 + 0x1p63 + 0x1p52);
    return v_addd(v_subd(v_as_d(high), all), v_as_d(low));
}
/* int64 times 2^-64, as in v_double_i64, but the last bits of the mantissas have the weights 2^-32
 * and 2^-64. Scaling by a power of two changes no rounding, so the result is the same. */
static inline vd v_fraction_i64(vu a) {
    vu high = v_xor(v_shr64(a, 32), v_set64(0x4130000080000000u)); /* 2^20 + 1/2 + high 2^-32 */
    vu low = _mm256_blend_epi32(a, v_set64(0x3F30000000000000u), 0xAA); /* 2^-12 + low 2^-64 */
    const vd all = v_setd(0x1p20 + 0.5 + 0x1p-12);
    return v_addd(v_subd(v_as_d(high), all), v_as_d(low));
}
/* (s + 1/2) 2^-52, where s is the signed number in the upper 53 bits. Everything is exact. */
static inline vd v_centred_i53(vu a) {
    vu high = v_xor(v_shr64(a, 32), v_set64(0x4140000080000000u)); /* 2^21 + 1 + high 2^-31 */
    vu low = v_and_or(a, v_set64(0xFFFFF800u), v_set64(0x3F40000000000400u));
    const vd all = v_setd(0x1p21 + 1 + 0x1p-11);
    return v_addd(v_subd(v_as_d(high), all), v_as_d(low));
}
/* int64 to double where the low 32 bits are 0 */
static inline vd v_double_high(vu a) {
    const vu high = v_xor(v_shr64(a, 32), v_set64(0x4530000080000000u));
    return v_subd(v_as_d(high), v_setd(0x1p84 + 0x1p63));
}
static inline vd v_selectd(vm64 m, vd yes, vd no) {
    return _mm256_blendv_pd(no, yes, _mm256_castsi256_pd(m));
}
/* Two permutations of the halves of doubles, and a selection by the index's third bit. A gather
 * takes four times as long. For several tables with the same index, the compiler computes all but
 * the permutations once. */
static inline vd v_lookupd(const double table[8], vu index) {
    const vu twice = _mm256_shuffle_epi32(v_add32(index, index), 0xA0);
    const vu halves = v_add32(twice, v_set64((uint64_t)1 << 32));
    const vf low = _mm256_permutevar8x32_ps(_mm256_castpd_ps(_mm256_loadu_pd(table)), halves);
    const vf high = _mm256_permutevar8x32_ps(_mm256_castpd_ps(_mm256_loadu_pd(table + 4)), halves);
    return _mm256_blendv_pd(_mm256_castps_pd(low), _mm256_castps_pd(high),
                            v_as_d(v_shl64(index, 61)));
}

/* stores of two registers to consecutive memory; streaming ones need V_STREAM_ALIGN, or 16 bytes */
static inline void v_put_one(void *p, vu a, int streaming) {
    if (streaming == V_STREAM_16) {
        _mm_stream_si128(p, _mm256_castsi256_si128(a));
        _mm_stream_si128((__m128i *)p + 1, _mm256_extracti128_si256(a, 1));
    } else if (streaming) {
        _mm256_stream_si256(p, a);
    } else {
        _mm256_storeu_si256(p, a);
    }
}
static inline void v_put32(void *p, vu a, vu b, int streaming) {
    v_put_one(p, a, streaming);
    v_put_one((char *)p + 32, b, streaming);
}
static inline void v_put64(void *p, vu a, vu b, int streaming) { v_put32(p, a, b, streaming); }
static inline void v_put_half(void *p, __m128i a, int streaming) {
    if (streaming) {
        _mm_stream_si128(p, a);
    } else {
        _mm_storeu_si128(p, a);
    }
}
/* Narrow types need no shuffle across 128 bits if lane k has block k: the stores with `in_order`.
 * The others expect the order of v_load_blocks. */
static inline vu v_in_order(vu a) { return _mm256_permute4x64_epi64(a, 0xD8); }
/* Stores the high 16 bits of even elements in one register and odd ones in the other. */
static inline vu v_high16(vu even, vu odd) {
    return _mm256_blend_epi16(v_shr32(even, 16), odd, 0xAA);
}
static inline void v_put_high16(void *p, vu even, vu odd, int streaming) {
    v_put_one(p, v_in_order(v_high16(even, odd)), streaming);
}
static inline void v_put_high16_in_order(void *p, vu even, vu odd, int streaming) {
    v_put_one(p, v_high16(even, odd), streaming);
}
/* Stores the low 8 bits of each 32-bit lane; the others must be 0. */
static inline __m128i v_bytes(vu words) {
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
static inline void v_put8(void *p, vu a, vu b, int streaming) {
    v_put_half(p, v_bytes(v_in_order(_mm256_packus_epi32(a, b))), streaming);
}
static inline void v_put8_in_order(void *p, vu a, vu b, int streaming) {
    v_put_half(p, v_bytes(_mm256_packus_epi32(a, b)), streaming);
}
/* Rounds to nearest even, whatever the rounding mode in MXCSR. */
static inline void v_put_f16_in_order(void *p, vf even, vf odd, int streaming) {
    const __m128i a = _mm256_cvtps_ph(even, _MM_FROUND_TO_NEAREST_INT);
    const __m128i b = _mm256_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT);
    v_put_half(p, _mm_unpacklo_epi16(a, b), streaming);
    v_put_half((__m128i *)p + 1, _mm_unpackhi_epi16(a, b), streaming);
}
static inline void v_put_f16(void *p, vf even, vf odd, int streaming) {
    const __m128i a = _mm256_cvtps_ph(even, _MM_FROUND_TO_NEAREST_INT);
    const __m128i b = _mm256_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT);
    const vu words = _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
    v_put_one(p, v_in_order(words), streaming);
}
static inline void v_put_16(char *p, const char *from, int streaming) {
    v_put_half(p, _mm_loadu_si128((const __m128i *)from), streaming);
}
static inline void v_fence(void) { _mm_sfence(); }

#endif
