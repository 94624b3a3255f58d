/* Fills from many threads at once, to be run under ThreadSanitizer: `make tsan`.
 *
 * Every thread fills its own rows of one shared buffer, and a buffer of its own; both along rows
 * (fill_runs) and transposed (fill_tiles). All threads look up the instruction set meanwhile. The
 * exit status is 1 if a byte differs from what one thread makes; the sanitizer sets a status of its
 * own if it finds a race.
 *
 * tests/c/races.py also builds it with a fill.c whose buffer is static: then the sanitizer must
 * report a race. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "winit.h"

enum { THREADS = 8, ROWS = 64, COLUMNS = 160, ROUNDS = 3 };
static const winit_stream stream = {17, 4};

/* A thread fills every THREADS-th row of the shared buffer, from the row with its own number on. */
typedef struct {
    pthread_t thread;
    int number, type, transposed;
    const winit_distribution *d;
    char *shared, *own;
} worker;

static void fill(const worker *w, char *dst, int first, int step) {
    const int64_t size = (int64_t)winit_type_size(w->type);
    const int64_t along = w->transposed ? ROWS * size : size;
    const int64_t across = w->transposed ? size : COLUMNS * size;
    for (int row = first; row < ROWS; row += step) {
        const int64_t n = COLUMNS, one = 1;
        winit_fill(w->d, &stream, dst + row * across, (uint64_t)row * COLUMNS, 1, &n, &one, &along,
                   row % 2);
    }
}

static void *work(void *argument) {
    worker *w = argument;
    for (int round = 0; round < ROUNDS; round++) fill(w, w->own, 0, 1);
    fill(w, w->shared, w->number, THREADS);
    if (!winit_isa_supported(0)) abort();
    return NULL;
}

static int check(const winit_distribution *d, int type, int transposed) {
    const size_t bytes = ROWS * COLUMNS * winit_type_size(type);
    worker workers[THREADS];
    char *shared = malloc(bytes);
    if (!shared) abort();
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.number = i, .type = type, .transposed = transposed, .d = d};
        workers[i].shared = shared;
        workers[i].own = malloc(bytes);
        if (!workers[i].own) abort();
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) abort();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
    char *expected = malloc(bytes);
    if (!expected) abort();
    fill(&workers[0], expected, 0, 1);
    int differ = memcmp(shared, expected, bytes) != 0;
    for (int i = 0; i < THREADS; i++) {
        differ |= memcmp(workers[i].own, expected, bytes) != 0;
        free(workers[i].own);
    }
    free(expected);
    free(shared);
    return differ;
}

int main(void) {
    int differ = 0;
    if (winit_isa_choose("scalar")) abort();
    for (int type = 0; type < WINIT_TYPES; type++) {
        winit_distribution uniform, normal;
        winit_set(&uniform, "uniform", type, &(winit_parameters){.low = -1, .high = 1});
        winit_set(&normal, "normal", type, &(winit_parameters){.scale = 1});
        for (int transposed = 0; transposed < 2; transposed++) {
            differ |= check(&uniform, type, transposed);
            differ |= check(&normal, type, transposed);
        }
    }
    puts(differ ? "bytes differ" : "every byte is as one thread has it");
    return differ;
}
