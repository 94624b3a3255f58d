/* The kernels of one instruction set, and the table of these kernels. Each kernels_*.c includes
 * this file once, after the set's vec_*.h. Everything except the table is static. */
#ifndef WINIT_KERNELS_INL_H
#define WINIT_KERNELS_INL_H

#include "householder-inl.h"

/* The loop bodies are long sequences of independent instructions. GCC interleaves them only if it
 * may schedule instructions before register allocation. It then needs more registers, so a set with
 * only 16 of them has the operations of several registers interleaved in the source (V_TOGETHER),
 * and GCC has to keep their order: else it stores parts of Philox's state, and combines last what
 * is known first.
 */
#if defined(__GNUC__) && !defined(__clang__) && V_SCHEDULE
#pragma GCC optimize("schedule-insns", "sched-pressure")
#elif defined(__GNUC__) && !defined(__clang__) && V_REGISTERS
#pragma GCC optimize("no-tree-reassoc", "no-tree-ter")
#endif

#include "loops-inl.h"
#include "normal-inl.h"
#include "probes-inl.h"
#include "truncated-inl.h"
#include "uniform-inl.h"

#if V_PACKED
#include "chunks-inl.h"
#else
#include "steps-inl.h"
#endif

#define KERNEL(name, transform, squared_radius, has_radius, in_loops, put, size, per_block)        \
    PARTS_OF_LOOPS(name)                                                                           \
    static const kernel kernel_##name = {                                                          \
        transform, squared_radius, has_radius, in_loops,                                           \
        put,       size,           per_block,  LIST_OF_PARTS(name, put##_in_order)};               \
    static void run_##name(void *dst, uint64_t index, uint64_t count, const winit_rows *rows,      \
                           const winit_distribution *d, const winit_stream *s, int streaming) {    \
        run(dst, index, count, rows, d, s, streaming, &kernel_##name);                             \
    }                                                                                              \
    static void gather_##name(void *dst, char *const *to, const uint64_t *blocks, size_t count,    \
                              const winit_distribution *d, const winit_stream *s, int streaming) { \
        gather(dst, to, blocks, count, d, s, streaming, &kernel_##name);                           \
    }                                                                                              \
    static void column_##name(void *dst, uint64_t index, uint64_t step, size_t count,              \
                              const winit_distribution *d, const winit_stream *s) {                \
        column(dst, index, step, count, d, s, &kernel_##name);                                     \
    }                                                                                              \
    static void transform_##name(void *dst, const uint32_t *words, size_t count,                   \
                                 const winit_distribution *d) {                                    \
        transform_words(dst, words, count, d, &kernel_##name);                                     \
    }

enum { f64_per_block = 2, f32_per_block = 4 };

#define KERNEL_OF_TYPE(kind, NAME, type, arithmetic, name, bytes, ...)                         \
    KERNEL(kind##_##type, kind##_##arithmetic, squared_radius_##arithmetic, kind##_has_radius, \
           kind##_in_loops, put_##type, bytes, arithmetic##_per_block)
#define KERNELS(NAME, kind, has_radius, in_loops)                        \
    enum { kind##_has_radius = has_radius, kind##_in_loops = in_loops }; \
    WINIT_EACH_TYPE(KERNEL_OF_TYPE, kind)

KERNEL(bits_f64, bits_f64, squared_radius_f64, 0, 0, put_f64, 8, 2)
KERNEL(bits_f32, bits_f32, squared_radius_f32, 0, 0, put_f32, 4, 4)
WINIT_EACH_KERNEL(KERNELS)

#define ENTRY(of, NAME, type, ...) [WINIT_##NAME] = of##_##type,
#define ROW(NAME, of) [WINIT_##NAME] = {WINIT_EACH_TYPE(ENTRY, of)},
#define RUN(NAME, kind, ...) ROW(NAME, run_##kind)
#define GATHER(NAME, kind, ...) ROW(NAME, gather_##kind)
#define COLUMN(NAME, kind, ...) ROW(NAME, column_##kind)
#define TRANSFORM(NAME, kind, ...) ROW(NAME, transform_##kind)
#define BITS(of) [WINIT_BITS] = {[WINIT_F64] = of##_bits_f64, [WINIT_F32] = of##_bits_f32},

#define PASTE(a, b) a##b
#define TABLE(set) PASTE(winit_kernels_, set)
#define QUOTE(name) #name
#define NAME_OF(set) QUOTE(set)

const winit_kernels TABLE(V_SET) = {
    .name = NAME_OF(V_SET),
    .lanes = V_LANES,
    .run = {BITS(run) WINIT_EACH_KERNEL(RUN)},
    .min_run = V_MIN_RUN,
    .fence = v_fence,
    .gather = {BITS(gather) WINIT_EACH_KERNEL(GATHER)},
    .column_at_once = COLUMN_AT_ONCE,
    .column = {BITS(column) WINIT_EACH_KERNEL(COLUMN)},
    .householder = HOUSEHOLDER,
    .probes =
        {
            .transform = {BITS(transform) WINIT_EACH_KERNEL(TRANSFORM)},
            .log_f32 = array_log_f32,
            .log_f64 = array_log_f64,
            .sincos_f32 = array_sincos_f32,
            .sincos_f64 = array_sincos_f64,
        },
};

#endif
