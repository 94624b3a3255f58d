/* AVX-512 for processors without it, so that its kernels can be tested there: SIMDe's functions,
 * and those that SIMDe lacks lane by lane. It is included before vec_avx512.h.
 *
 * SIMDe (SIMD Everywhere): https://github.com/simd-everywhere/simde, Debian's libsimde-dev. */
#ifndef WINIT_AVX512_EMULATED_H
#define WINIT_AVX512_EMULATED_H

#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

/* vec_avx512.h needs these. SIMDe must not see them: it would use the instructions. */
#define __AVX512F__ 1
#define __AVX512DQ__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1

typedef union {
    __m512i u;
    __m512 f;
    __m512d d;
    __m256 halves[2];
    uint32_t u32[16];
    int32_t i32[16];
    uint64_t u64[8];
    int64_t i64[8];
    float f32[16];
    double f64[8];
} lanes;

/* Computes the lanes of r, one by one, from those of a. */
#define CONVERSION(name, type, result, count, lane)      \
    static inline type emulated_##name(__m512i vector) { \
        const lanes a = {.u = vector};                   \
        lanes r;                                         \
        for (int i = 0; i < (count); i++) lane;          \
        return r.result;                                 \
    }
CONVERSION(cvtepi32_ps, __m512, f, 16, r.f32[i] = (float)a.i32[i])
CONVERSION(cvtepu32_ps, __m512, f, 16, r.f32[i] = (float)a.u32[i])
CONVERSION(cvtepi64_pd, __m512d, d, 8, r.f64[i] = (double)a.i64[i])
CONVERSION(cvtepu64_pd, __m512d, d, 8, r.f64[i] = (double)a.u64[i])
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepu32_ps emulated_cvtepu32_ps
#define _mm512_cvtepi64_pd emulated_cvtepi64_pd
#define _mm512_cvtepu64_pd emulated_cvtepu64_pd

#define COMPARISON(name, type, count, member)                         \
    static inline type emulated_##name(__m512i left, __m512i right) { \
        const lanes a = {.u = left}, b = {.u = right};                \
        unsigned mask = 0;                                            \
        for (int i = 0; i < (count); i++) {                           \
            mask |= (unsigned)(a.member[i] < b.member[i]) << i;       \
        }                                                             \
        return (type)mask;                                            \
    }
COMPARISON(less_u32, __mmask16, 16, u32)
COMPARISON(less_u64, __mmask8, 8, u64)
#define _mm512_cmplt_epu32_mask emulated_less_u32
#define _mm512_cmplt_epu64_mask emulated_less_u64

#define SHIFT(name, count, member)                                         \
    static inline __m512i emulated_##name(__m512i vector, unsigned by) {   \
        lanes a = {.u = vector};                                           \
        for (int i = 0; i < (count); i++) a.member[i] >>= by; /* signed */ \
        return a.u;                                                        \
    }
SHIFT(srai_32, 16, i32)
SHIFT(srai_64, 8, i64)
#define _mm512_srai_epi32 emulated_srai_32
#define _mm512_srai_epi64 emulated_srai_64

/* The even (odd) lanes of `vector` in both lanes of each pair, where the mask has a bit. */
#define DUPLICATION(name, source)                                                         \
    static inline __m512 emulated_##name(__m512 others, __mmask16 mask, __m512 vector) {  \
        const lanes a = {.f = vector};                                                    \
        lanes r = {.f = others};                                                          \
        for (int i = 0; i < 16; i++) r.u32[i] = mask >> i & 1 ? a.u32[source] : r.u32[i]; \
        return r.f;                                                                       \
    }
DUPLICATION(moveldup, i & ~1)
DUPLICATION(movehdup, i | 1)
#define _mm512_mask_moveldup_ps emulated_moveldup
#define _mm512_mask_movehdup_ps emulated_movehdup

static inline __m128i emulated_bytes(__m512i vector) {
    const lanes a = {.u = vector};
    uint8_t low[16];
    __m128i r;
    for (int i = 0; i < 16; i++) low[i] = (uint8_t)a.u32[i];
    memcpy(&r, low, sizeof r);
    return r;
}
#define _mm512_cvtepi32_epi8 emulated_bytes

/* F16C's instruction, which processors with AVX2 have. */
static inline __m256i emulated_half_floats(__m512 vector) {
    const lanes a = {.f = vector};
    return _mm256_set_m128i(_mm256_cvtps_ph(a.halves[1], _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(a.halves[0], _MM_FROUND_TO_NEAREST_INT));
}
#define _mm512_cvtps_ph(vector, rounding) emulated_half_floats(vector)

#define _mm512_stream_si512(address, vector) _mm512_storeu_si512(address, vector)

#endif
