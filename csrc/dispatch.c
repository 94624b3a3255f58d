/* Which kernels: asks the CPU once, and can be told. */
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

/* A set counts only if the operating system also saves its registers (XCR0). */
static void x86_sets(int *avx2, int *avx512) {
    const unsigned fma = BIT(12), osxsave = BIT(27), avx = BIT(28), f16c = BIT(29);
    const unsigned avx2_bit = BIT(5), f = BIT(16), dq = BIT(17), bw = BIT(30), vl = BIT(31);
    const unsigned first = fma | osxsave | avx | f16c, sets = f | dq | bw | vl;
    const unsigned long long ymm = 0x6, zmm = 0xE6;
    unsigned r1[4], r7[4];
    *avx2 = *avx512 = 0;
    cpuid(1, r1);
    cpuid(7, r7);
    if ((r1[ECX] & first) != first || !(r7[EBX] & avx2_bit)) return;
    const unsigned long long saved = xgetbv();
    *avx2 = (saved & ymm) == ymm;
    *avx512 = (saved & zmm) == zmm && (r7[EBX] & sets) == sets;
}
#endif

/* The tables this CPU can run, best first. The answer is always the same, so that threads which
 * find it at the same time write the same thing. */
enum { MAX_TABLES = 4 };
static const winit_kernels *supported(int k) {
    const winit_kernels *tables[MAX_TABLES] = {0};
    int n = 0;
#if WINIT_X86_64
    int avx2, avx512;
    x86_sets(&avx2, &avx512);
    if (avx512) tables[n++] = &winit_kernels_avx512;
    if (avx2) tables[n++] = &winit_kernels_avx2;
#endif
#if WINIT_AARCH64
    tables[n++] = &winit_kernels_neon;
#endif
    tables[n++] = &winit_kernels_scalar;
    return k >= 0 && k < n ? tables[k] : NULL;
}

/* Set once when the module is imported, and by the test hook. */
static const winit_kernels *chosen = &winit_kernels_scalar;

const winit_kernels *winit_table(void) { return chosen; }

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
