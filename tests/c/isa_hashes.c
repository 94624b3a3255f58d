/* Compares every instruction set of this CPU with the frozen hashes, without Python:
 *
 *     isa_hashes tests/hashes.txt
 *
 * Each set runs twice: in the floating-point environment of the program's start, and in one that
 * rounds upward and flushes subnormals. Every call must leave the environment as it found it.
 * Cross-compiled and run in an emulator, the program tests processors other than the one at hand.
 * The table and the distributions come from tests/make_hashes.py. The exit status is 1 if a hash
 * differs or an environment was changed. */
#include <fenv.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sets.h" /* only for WINIT_X86_64 and WINIT_AARCH64 */
#include "winit.h"
#include "cases.h" /* written by tests/make_hashes.py */

static const winit_stream stream = {UINT64_C(0x0123456789ABCDEF), UINT64_C(0xFEDCBA9876543210)};

/* The control register that holds the rounding mode and the flush-to-zero bits. Where it also
 * holds exception flags, which arithmetic sets, these are masked out. */
#if WINIT_X86_64
#include <immintrin.h>
enum { UPWARD_AND_FLUSH = 0xC040 };
static uint64_t environment(void) { return _mm_getcsr() & ~0x3Fu; }
static void set_environment(uint64_t e) { _mm_setcsr((unsigned)e); }
#elif WINIT_AARCH64 && defined(__GNUC__)
enum { UPWARD_AND_FLUSH = 1 << 24 | 1 << 22 };
static uint64_t environment(void) {
    uint64_t e;
    __asm__ volatile("mrs %0, fpcr" : "=r"(e));
    return e;
}
static void set_environment(uint64_t e) { __asm__ volatile("msr fpcr, %0" : : "r"(e)); }
#else
enum { UPWARD_AND_FLUSH = FE_UPWARD ^ FE_TONEAREST }; /* fenv.h has no flushing */
static uint64_t environment(void) { return (uint64_t)fegetround(); }
static void set_environment(uint64_t e) { fesetround((int)e); }
#endif

/* The lengths in the table: 0 to 70 together, and 4099. See make_hashes.py. */
enum {
    SHORT = 70,
    LONG = 4099,
    BYTES = 8 * (LONG > SHORT * (SHORT + 1) / 2 ? LONG : SHORT * (SHORT + 1) / 2)
};

/* BLAKE2b (RFC 7693) of at most BYTES bytes, without a key, with a digest of 16 bytes. */

static const uint64_t blake2b_iv[8] = {
    UINT64_C(0x6A09E667F3BCC908), UINT64_C(0xBB67AE8584CAA73B), UINT64_C(0x3C6EF372FE94F82B),
    UINT64_C(0xA54FF53A5F1D36F1), UINT64_C(0x510E527FADE682D1), UINT64_C(0x9B05688C2B3E6C1F),
    UINT64_C(0x1F83D9ABFB41BD6B), UINT64_C(0x5BE0CD19137E2179),
};

static const uint8_t blake2b_sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static uint64_t rotate(uint64_t x, int n) { return x >> n | x << (64 - n); }

static void mix(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, uint64_t x, uint64_t y) {
    *a += *b + x, *d = rotate(*d ^ *a, 32), *c += *d, *b = rotate(*b ^ *c, 24);
    *a += *b + y, *d = rotate(*d ^ *a, 16), *c += *d, *b = rotate(*b ^ *c, 63);
}

static void blake2b(const uint8_t *data, size_t size, char hex[33]) {
    uint64_t h[8];
    memcpy(h, blake2b_iv, sizeof h);
    h[0] ^= 0x01010010; /* no key, a digest of 16 bytes */
    for (size_t done = 0, last = 0; !last;) {
        size_t part = size - done < 128 ? size - done : 128;
        uint64_t m[16] = {0}, v[16];
        for (size_t i = 0; i < part; i++) m[i / 8] |= (uint64_t)data[done + i] << (i % 8 * 8);
        done += part;
        last = done == size;
        memcpy(v, h, sizeof h);
        memcpy(v + 8, blake2b_iv, sizeof h);
        v[12] ^= done;
        v[14] ^= last ? UINT64_MAX : 0;
        for (int round = 0; round < 12; round++) {
            const uint8_t *s = blake2b_sigma[round % 10];
            for (int i = 0; i < 8; i++) { /* four columns, then four diagonals */
                int turn = i / 4;
                mix(&v[i % 4], &v[4 + (i + turn) % 4], &v[8 + (i + 2 * turn) % 4],
                    &v[12 + (i + 3 * turn) % 4], m[s[2 * i]], m[s[2 * i + 1]]);
            }
        }
        for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[8 + i];
    }
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, __builtin_bswap64(h[0]),
             __builtin_bswap64(h[1]));
}

/* Sets d to the distribution that a line of the table names. Returns 0 if there is such a one. */
static int make(const char *name, const char *type, winit_distribution *d) {
    int t = 0;
    if (strcmp(type, "uint64") == 0) type = "float64";
    if (strcmp(type, "uint32") == 0) type = "float32";
    while (winit_type_name(t) && strcmp(type, winit_type_name(t)) != 0) t++;
    if (!winit_type_name(t)) return -1;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (strcmp(name, cases[k].name) == 0) {
            return winit_set(d, cases[k].distribution, t, &cases[k].p[t == WINIT_F64]);
        }
    }
    return -1;
}

static size_t fill(const winit_distribution *d, uint8_t *dst, uint64_t index, int64_t count,
                   int streaming) {
    int64_t one = 1, step = (int64_t)winit_type_size(d->type);
    if (count > 0) winit_fill(d, &stream, dst, index, 1, &count, &one, &step, streaming);
    return (size_t)(count * step);
}

/* The hash of a line of the table: over the elements of fills of all its lengths. */
static void line_hash(const winit_distribution *d, uint64_t index, const char *lengths,
                      int streaming, char hex[33]) {
    static uint8_t data[BYTES];
    size_t size = 0;
    if (strcmp(lengths, "0-70") == 0)
        for (int count = 0; count <= SHORT; count++)
            size += fill(d, data + size, index, count, streaming);
    else
        size = fill(d, data, index, atoll(lengths), streaming);
    blake2b(data, size, hex);
}

/* Returns nonzero if, with the chosen instruction set, a hash differs from the table's or a call
 * changes the floating-point environment. */
static int check_table(FILE *table, uint64_t callers, const char *callers_name) {
    char line[256], name[32], type[32], lengths[8], expected[40], hash[33];
    uint64_t index;
    int lines = 0, differ = 0, changed = 0;
    rewind(table);
    while (fgets(line, sizeof line, table)) {
        winit_distribution d;
        if (line[0] == '#') continue;
        if (sscanf(line, "%31s %31s %" SCNu64 " %7s %39s", name, type, &index, lengths, expected) !=
            5) {
            fprintf(stderr, "isa_hashes: what is this line? %s", line);
            exit(2);
        }
        set_environment(callers);
        if (make(name, type, &d) != 0) {
            fprintf(stderr, "isa_hashes: what distribution is this? %s", line);
            exit(2);
        }
        changed += environment() != callers;
        lines++;
        for (int streaming = 0; streaming <= 1; streaming++) {
            line_hash(&d, index, lengths, streaming, hash);
            changed += environment() != callers;
            if (strcmp(hash, expected) != 0 && ++differ <= 20)
                printf("%s%s: %s %s %" PRIu64 " %s: got %s, expected %s\n", winit_isa(),
                       streaming ? " streaming" : "", name, type, index, lengths, hash, expected);
        }
    }
    printf("%s, %s: %d hashes, kept in the caches or not: %d differ\n", winit_isa(), callers_name,
           lines, differ);
    if (changed) printf("%s, %s: changed by %d calls\n", winit_isa(), callers_name, changed);
    return differ > 0 || changed > 0 || lines == 0;
}

int main(int argc, char **argv) {
    const uint64_t start = environment();
    int wrong = 0;
    FILE *table = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!table) {
        fprintf(stderr, "usage: isa_hashes TABLE\n");
        return 2;
    }
    for (int k = 0; winit_isa_supported(k); k++) {
        if (winit_isa_choose(winit_isa_supported(k)) != 0) {
            fprintf(stderr, "isa_hashes: cannot choose %s\n", winit_isa_supported(k));
            return 2;
        }
        wrong |= check_table(table, start, "environment of the start");
        wrong |= check_table(table, start ^ UPWARD_AND_FLUSH, "rounding upward, flushing");
        set_environment(start);
    }
    fclose(table);
    return wrong;
}
