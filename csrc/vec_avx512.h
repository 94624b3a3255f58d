/* The vector operations of AVX-512 (F, BW, DQ, VL): eight 64-bit or sixteen 32-bit lanes. */
#ifndef WINIT_VEC_AVX512_H
#define WINIT_VEC_AVX512_H

#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || \
    !defined(__AVX512VL__)
#error "compile with -mavx512f -mavx512dq -mavx512bw -mavx512vl"
#endif

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define V_SET avx512
#define V_REGISTERS 1
#define V_SCHEDULE 1
#define V_PACKED 0
enum { V_LANES = 8, V_GROUPS = 4, V_TOGETHER = 1, V_STREAM_ALIGN = 64 };
enum { V_MIN_RUN = 48 };
enum { V_PANEL = 2 }; /* vectors in a row of a panel: householder_real-inl.h */

typedef __m512i vu;
typedef __m512 vf;
typedef __m512d vd;
typedef __mmask16 vm32;
typedef __mmask8 vm64;

/* integers */
static inline vu v_set32(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline vu v_set64(uint64_t x) { return _mm512_set1_epi64((long long)x); }
/* Lane 2k gets element k, lane 2k + 1 element 4 + k: see philox-inl.h. */
static inline vu v_load_blocks(const uint64_t *p) {
    const vu order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm512_permutexvar_epi64(order, _mm512_loadu_si512(p));
}
static inline vu v_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void v_store(void *p, vu a) { _mm512_storeu_si512(p, a); }
static inline vu v_add64(vu a, vu b) { return _mm512_add_epi64(a, b); }
static inline vu v_sub64(vu a, vu b) { return _mm512_sub_epi64(a, b); }
static inline vu v_add32(vu a, vu b) { return _mm512_add_epi32(a, b); }
static inline vu v_sub32(vu a, vu b) { return _mm512_sub_epi32(a, b); }
static inline vu v_min32(vu a, vu b) { return _mm512_min_epu32(a, b); }
static inline vu v_and(vu a, vu b) { return _mm512_and_si512(a, b); }
static inline vu v_or(vu a, vu b) { return _mm512_or_si512(a, b); }
static inline vu v_xor(vu a, vu b) { return _mm512_xor_si512(a, b); }
static inline vu v_xor3(vu a, vu b, vu c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
/* (a & mask) | bits */
static inline vu v_and_or(vu a, vu mask, vu bits) {
    return _mm512_ternarylogic_epi32(a, mask, bits, 0xEA);
}
/* a ^ (b & mask) */
static inline vu v_xor_and(vu a, vu b, vu mask) {
    return _mm512_ternarylogic_epi32(a, b, mask, 0x78);
}
/* In each 64-bit lane, the 64-bit product of the low halves. */
static inline vu v_mul_low(vu a, vu b) { return _mm512_mul_epu32(a, b); }
#define v_shr64(a, n) _mm512_srli_epi64(a, n)
#define v_shl64(a, n) _mm512_slli_epi64(a, n)
#define v_shr32(a, n) _mm512_srli_epi32(a, n)
#define v_shl32(a, n) _mm512_slli_epi32(a, n)
#define v_sar32(a, n) _mm512_srai_epi32(a, n)
/* In each 64-bit lane, the low half of a in the low half, that of b in the high half. */
static inline vu v_pack_low(vu a, vu b) {
    return _mm512_castps_si512(
        _mm512_mask_moveldup_ps(_mm512_castsi512_ps(a), 0xAAAA, _mm512_castsi512_ps(b)));
}
/* In each 64-bit lane, the high half of a in the low half, that of b in the high half. */
static inline vu v_pack_high(vu a, vu b) {
    return _mm512_castps_si512(
        _mm512_mask_movehdup_ps(_mm512_castsi512_ps(b), 0x5555, _mm512_castsi512_ps(a)));
}
/* Interleave within each 128 bits, as all x86 unpack instructions do. */
static inline vu v_unpack_low64(vu a, vu b) { return _mm512_unpacklo_epi64(a, b); }
static inline vu v_unpack_high64(vu a, vu b) { return _mm512_unpackhi_epi64(a, b); }
static inline vu v_unpack_low32(vu a, vu b) { return _mm512_unpacklo_epi32(a, b); }
static inline vu v_unpack_high32(vu a, vu b) { return _mm512_unpackhi_epi32(a, b); }

/* masks */
static inline vm32 v_less32(vu a, vu b) { return _mm512_cmplt_epu32_mask(a, b); }
static inline vm64 v_less64(vu a, vu b) { return _mm512_cmplt_epu64_mask(a, b); }
static inline vm32 v_any32(vu a, vu bits) { return _mm512_test_epi32_mask(a, bits); }
static inline vm64 v_any64(vu a, vu bits) { return _mm512_test_epi64_mask(a, bits); }
static inline vm32 v_second_bit32(vu a) { return v_any32(a, v_set32(0x40000000u)); }
static inline vm64 v_second_bit64(vu a) { return v_any64(a, v_set64(0x4000000000000000u)); }
static inline vu v_select32(vm32 m, vu yes, vu no) { return _mm512_mask_blend_epi32(m, no, yes); }
static inline vu v_select64(vm64 m, vu yes, vu no) { return _mm512_mask_blend_epi64(m, no, yes); }

/* float32 */
static inline vf v_setf(float x) { return _mm512_set1_ps(x); }
static inline vf v_as_f(vu a) { return _mm512_castsi512_ps(a); }
static inline vu v_f_as_u(vf a) { return _mm512_castps_si512(a); }
static inline vf v_addf(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_subf(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mulf(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_fmaf(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_sqrtf(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_minf(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_maxf(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_float_i32(vu a) { return _mm512_cvtepi32_ps(a); }
static inline vf v_float_u32(vu a) { return _mm512_cvtepu32_ps(a); }
static inline vf v_selectf(vm32 m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
static inline vf v_lookupf(const float table[8], vu index) {
    return _mm512_permutexvar_ps(index, _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
}

/* float64 */
static inline vd v_setd(double x) { return _mm512_set1_pd(x); }
static inline vd v_as_d(vu a) { return _mm512_castsi512_pd(a); }
static inline vu v_d_as_u(vd a) { return _mm512_castpd_si512(a); }
static inline vd v_addd(vd a, vd b) { return _mm512_add_pd(a, b); }
static inline vd v_subd(vd a, vd b) { return _mm512_sub_pd(a, b); }
static inline vd v_muld(vd a, vd b) { return _mm512_mul_pd(a, b); }
static inline vd v_fmad(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
static inline vd v_sqrtd(vd a) { return _mm512_sqrt_pd(a); }
static inline vd v_mind(vd a, vd b) { return _mm512_min_pd(a, b); }
static inline vd v_maxd(vd a, vd b) { return _mm512_max_pd(a, b); }
static inline vd v_double_i64(vu a) { return _mm512_cvtepi64_pd(a); }
static inline vd v_double_u64(vu a) { return _mm512_cvtepu64_pd(a); }
static inline vd v_double_high(vu a) { return v_double_i64(a); }
static inline vd v_fraction_i64(vu a) { return v_muld(v_double_i64(a), v_setd(0x1p-64)); }
/* (s + 1/2) 2^-52, where s is the signed number in the upper 53 bits */
static inline vd v_centred_i53(vu a) {
    return v_fmad(v_double_i64(_mm512_srai_epi64(a, 11)), v_setd(0x1p-52), v_setd(0x1p-53));
}
static inline vd v_selectd(vm64 m, vd yes, vd no) { return _mm512_mask_blend_pd(m, no, yes); }
static inline vd v_lookupd(const double table[8], vu index) {
    return _mm512_permutexvar_pd(index, _mm512_loadu_pd(table));
}

/* stores of two registers to consecutive memory; streaming ones need V_STREAM_ALIGN */
static inline void v_put32(void *p, vu a, vu b, int streaming) {
    if (streaming) {
        _mm512_stream_si512(p, a);
        _mm512_stream_si512((void *)((char *)p + 64), b);
    } else {
        _mm512_storeu_si512(p, a);
        _mm512_storeu_si512((char *)p + 64, b);
    }
}
static inline void v_put64(void *p, vu a, vu b, int streaming) { v_put32(p, a, b, streaming); }
static inline void v_put_one(void *p, vu a, int streaming) {
    if (streaming) {
        _mm512_stream_si512(p, a);
    } else {
        _mm512_storeu_si512(p, a);
    }
}
/* Stores the high 16 bits of even elements in one register and odd ones in the other. */
static inline void v_put_high16(void *p, vu even, vu odd, int streaming) {
    const vu order = _mm512_set_epi16(63, 31, 61, 29, 55, 23, 53, 21, 47, 15, 45, 13, 39, 7, 37, 5,
                                      59, 27, 57, 25, 51, 19, 49, 17, 43, 11, 41, 9, 35, 3, 33, 1);
    v_put_one(p, _mm512_permutex2var_epi16(even, order, odd), streaming);
}
/* Stores the low 8 bits of each 32-bit lane; the others must be 0. */
static inline void v_put8(void *p, vu a, vu b, int streaming) {
    __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(a)),
                                            _mm512_cvtepi32_epi8(b), 1);
    if (streaming) {
        _mm256_stream_si256(p, bytes);
    } else {
        _mm256_storeu_si256(p, bytes);
    }
}
/* Rounds to nearest even, whatever the rounding mode in MXCSR. */
static inline void v_put_f16(void *p, vf even, vf odd, int streaming) {
    const vu order = _mm512_set_epi16(47, 15, 46, 14, 43, 11, 42, 10, 39, 7, 38, 6, 35, 3, 34, 2,
                                      45, 13, 44, 12, 41, 9, 40, 8, 37, 5, 36, 4, 33, 1, 32, 0);
    const __m256i a = _mm512_cvtps_ph(even, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i b = _mm512_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    v_put_one(
        p, _mm512_permutex2var_epi16(_mm512_castsi256_si512(a), order, _mm512_castsi256_si512(b)),
        streaming);
}
static inline void v_put_16(char *p, const char *from, int streaming) {
    const __m128i x = _mm_loadu_si128((const __m128i *)from);
    if (streaming) {
        _mm_stream_si128((__m128i *)p, x);
    } else {
        _mm_storeu_si128((__m128i *)p, x);
    }
}
static inline void v_fence(void) { _mm_sfence(); }

#endif
