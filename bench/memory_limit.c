/* The speed limit of writing memory: non-temporal stores, which bypass the caches. */
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <emmintrin.h>

void stream_fill(void *dst, int value, size_t bytes) {
    const __m128i x = _mm_set1_epi8((char)value);
    char *p = dst;
    for (size_t i = 0; i + 64 <= bytes; i += 64) {
        _mm_stream_si128((__m128i *)(p + i), x);
        _mm_stream_si128((__m128i *)(p + i + 16), x);
        _mm_stream_si128((__m128i *)(p + i + 32), x);
        _mm_stream_si128((__m128i *)(p + i + 48), x);
    }
    _mm_sfence();
}
#else
void stream_fill(void *dst, int value, size_t bytes) { memset(dst, value, bytes); }
#endif
