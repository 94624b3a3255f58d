/* The words of a stream one after another, for NumPy's Generator, which asks for single numbers. */
#include "winit.h"

static void refill(winit_words *w) {
    const int64_t n = WINIT_BUFFERED, one = 1, size = sizeof(uint32_t);
    winit_distribution bits;
    winit_set(&bits, "bits", WINIT_F32, &(winit_parameters){0});
    winit_fill(&bits, &w->stream, w->words, w->first, 1, &n, &one, &size, 0);
}

void winit_words_seek(winit_words *w, const winit_stream *s, uint64_t position) {
    w->stream = *s;
    w->next = (int)(position % WINIT_BUFFERED);
    w->first = position - (uint64_t)w->next;
    refill(w);
}

uint64_t winit_words_position(const winit_words *w) { return w->first + (uint64_t)w->next; }

static inline uint32_t next(winit_words *w) {
    if (w->next == WINIT_BUFFERED) {
        w->first += WINIT_BUFFERED; /* wraps at 2^64, the period */
        w->next = 0;
        refill(w);
    }
    return w->words[w->next++];
}

uint32_t winit_words_next_u32(void *words) { return next(words); }

uint64_t winit_words_next_u64(void *words) {
    winit_words *w = words;
    if (w->next <= WINIT_BUFFERED - 2) {
        const uint32_t *pair = w->words + w->next;
        w->next += 2;
        return pair[0] | (uint64_t)pair[1] << 32;
    }
    const uint64_t low = next(w);
    return low | (uint64_t)next(w) << 32;
}

/* [0, 1), a multiple of 2^-53, as NumPy's own bit generators do. */
double winit_words_next_double(void *words) {
    return (double)(winit_words_next_u64(words) >> 11) * 0x1p-53;
}
