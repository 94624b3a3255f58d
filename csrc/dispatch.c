/* Run-time dispatch: detects the CPU's instruction sets, and chooses the kernels. */
#include <string.h>

#include "kernels.h"

#if WINIT_X86_64
#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
static void cpuid(int leaf, unsigned r[4]) { __cpuidex((int *)r, leaf, 0); }
static unsigned long long xgetbv(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(int leaf, unsigned r[4]) {
    r[0] = r[1] = r[2] = r[3] = 0;
    (void)__get_cpuid_count((unsigned)leaf, 0, &r[0], &r[1], &r[2], &r[3]);
}
static unsigned long long xgetbv(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (unsigned long long)high << 32;
}
#endif

enum { EAX, EBX, ECX, EDX };
#define BIT(n) (1u << (n))

/* Whether the processor has the set, and the operating system saves its registers (XCR0). */
static int has_avx2(void) {
    const unsigned fma = BIT(12), osxsave = BIT(27), avx = BIT(28), f16c = BIT(29), avx2 = BIT(5);
    const unsigned first = fma | osxsave | avx | f16c;
    const unsigned long long ymm = 0x6;
    unsigned r1[4], r7[4];
    cpuid(1, r1);
    cpuid(7, r7);
    return (r1[ECX] & first) == first && (r7[EBX] & avx2) && (xgetbv() & ymm) == ymm;
}

static int has_avx512(void) {
    const unsigned f = BIT(16), dq = BIT(17), bw = BIT(30), vl = BIT(31), all = f | dq | bw | vl;
    const unsigned long long zmm = 0xE6;
    unsigned r7[4];
    if (!has_avx2()) return 0;
    cpuid(7, r7);
    return (r7[EBX] & all) == all && (xgetbv() & zmm) == zmm;
}
#endif

#if WINIT_AARCH64
static int has_neon(void) { return 1; }
#endif

static int has_scalar(void) { return 1; }

typedef struct {
    const winit_kernels *table;
    int (*has)(void);
} set;

static const set sets[] = {
#define X(name, flags) {&winit_kernels_##name, has_##name},
    WINIT_EACH_SET(X)
#undef X
};

/* The k-th of the sets that this CPU can run, best first, or NULL. The result is always the same,
 * so a race between threads that choose a set is harmless. */
static const winit_kernels *supported(int k) {
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (sets[i].has() && k-- == 0) return sets[i].table;
    }
    return NULL;
}

/* Set once when the module is imported, and by tests. */
static const winit_kernels *chosen = &winit_kernels_scalar;

const winit_kernels *winit_table(void) { return chosen; }

const winit_householder *winit_reflections(void) { return &chosen->householder; }

const char *winit_isa(void) { return chosen->name; }

const char *winit_isa_supported(int k) {
    const winit_kernels *table = supported(k);
    return table ? table->name : NULL;
}

int winit_isa_choose(const char *name) {
    const winit_kernels *table;
    for (int k = 0; (table = supported(k)); k++) {
        if (!name || strcmp(name, table->name) == 0) {
            chosen = table;
            return 0;
        }
    }
    return -1;
}
