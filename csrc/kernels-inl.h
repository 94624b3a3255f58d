/* The fill loops of one instruction set, and its table of them. Included once by each
 * kernels_*.c, after the set's vec_*.h; everything but the table is static. */
#ifndef WINIT_KERNELS_INL_H
#define WINIT_KERNELS_INL_H

#include <string.h>

#include "kernels.h"

#include "math-inl.h"
#include "narrow-inl.h"
#include "normal-inl.h"
#include "philox-inl.h"
#include "truncated-inl.h"
#include "uniform-inl.h"

/* The words of V_LANES blocks to two registers of consecutive results. */
typedef void transform(const vu w[4], const winit_distribution *d, vu out[2]);
typedef void put(void *p, const vu x[2], int streaming);

V_INLINE void bits_32(const vu w[4], const winit_distribution *d, vu out[2]) {
    (void)d;
    const vu a = v_pack_low(w[0], w[1]), b = v_pack_low(w[2], w[3]);
    out[0] = v_unpack_low64(a, b);
    out[1] = v_unpack_high64(a, b);
}

enum { MAX_GROUP_BYTES = 16 * V_LANES };

/* `groups` groups of V_LANES blocks, from the blocks in block[0] on. */
V_INLINE void make_groups(char *dst, const philox_keys *k, const vu *block,
                          const winit_distribution *d, int streaming, const int groups,
                          transform *f, put *store, const int group_bytes) {
    vu w[V_GROUPS][4];
    philox(k, block, w, groups);
    V_UNROLL for (int g = 0; g < groups; g++) {
        vu x[2];
        f(w[g], d, x);
        store(dst + g * group_bytes, x, streaming);
    }
}

V_INLINE vu first_blocks(uint64_t block) {
    uint64_t blocks[V_LANES];
    for (int k = 0; k < V_LANES; k++) blocks[k] = block + (uint64_t)k;
    return v_load_blocks(blocks);
}

/* Elements [index, index + count) of one row. Whole groups go straight to dst; what is left of a
 * block at either end, and what brings dst to the alignment of streaming stores, goes through
 * `group`. */
V_INLINE void run_row(char *dst, uint64_t index, uint64_t count, const winit_distribution *d,
                      const philox_keys *k, int streaming, transform *f, put *store, const int size,
                      const int per_block) {
    const int per_group = V_LANES * per_block, group_bytes = per_group * size;
    const int align = V_STREAM_ALIGN < group_bytes ? V_STREAM_ALIGN : group_bytes;
    char group[MAX_GROUP_BYTES];

    uint64_t block = index / (unsigned)per_block;
    const unsigned skip = (unsigned)(index % (unsigned)per_block);
    unsigned blocks = skip ? 1 : 0; /* to make before dst is at a group's start */
    if (streaming) {
        const uintptr_t start = (uintptr_t)dst - skip * (unsigned)size;
        const unsigned past = (unsigned)(start % (unsigned)align);
        const unsigned block_bytes = (unsigned)(per_block * size);
        if (past % block_bytes) {
            streaming = 0; /* no block starts on the alignment */
        } else if (past || skip) {
            blocks = ((unsigned)align - past) / block_bytes;
        }
    }
    const int fits = count <= (unsigned)per_group - skip;
    if (blocks || fits) {
        uint64_t part = fits ? count : blocks * (unsigned)per_block - skip;
        const vu first = first_blocks(block);
        make_groups(group, k, &first, d, 0, 1, f, store, group_bytes);
        memcpy(dst, group + skip * (unsigned)size, part * (unsigned)size);
        dst += part * (unsigned)size;
        count -= part;
        block += blocks;
    }
    if (count == 0) return;

    vu next[V_GROUPS];
    next[0] = first_blocks(block);
    V_UNROLL for (int g = 1; g < V_GROUPS; g++) next[g] = v_add64(next[g - 1], v_set64(V_LANES));
    for (; count >= (unsigned)(V_GROUPS * per_group); count -= (unsigned)(V_GROUPS * per_group)) {
        make_groups(dst, k, next, d, streaming, V_GROUPS, f, store, group_bytes);
        V_UNROLL for (int g = 0; g < V_GROUPS; g++) {
            next[g] = v_add64(next[g], v_set64(V_LANES * V_GROUPS));
        }
        dst += V_GROUPS * group_bytes;
    }
    for (; count >= (unsigned)per_group; count -= (unsigned)per_group) {
        make_groups(dst, k, next, d, streaming, 1, f, store, group_bytes);
        next[0] = v_add64(next[0], v_set64(V_LANES));
        dst += group_bytes;
    }
    if (count) {
        make_groups(group, k, next, d, 0, 1, f, store, group_bytes);
        memcpy(dst, group, count * (unsigned)size);
    }
}

V_INLINE void run(char *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                  const winit_distribution *distribution, const winit_stream *s, int streaming,
                  transform *f, put *store, const int size, const int per_block) {
    const winit_distribution d = *distribution; /* no store to dst can change a local */
    philox_keys k;
    philox_schedule(&k, s);
    for (int64_t row = 0; row < rows->count; row++) {
        run_row(dst, index, count, &d, &k, streaming, f, store, size, per_block);
        dst += rows->byte_stride;
        index += (uint64_t)rows->index_stride;
    }
}

V_INLINE void gather(char *dst, const uint64_t *blocks, size_t count,
                     const winit_distribution *distribution, const winit_stream *s, transform *f,
                     put *store, const int size, const int per_block) {
    const winit_distribution d = *distribution;
    const int group_bytes = V_LANES * per_block * size;
    philox_keys k;
    philox_schedule(&k, s);
    while (count) {
        vu block[V_GROUPS];
        if (count >= V_GROUPS * V_LANES) {
            V_UNROLL for (int g = 0; g < V_GROUPS; g++) {
                block[g] = v_load_blocks(blocks + g * V_LANES);
            }
            make_groups(dst, &k, block, &d, 0, V_GROUPS, f, store, group_bytes);
            blocks += V_GROUPS * V_LANES;
            dst += V_GROUPS * group_bytes;
            count -= V_GROUPS * V_LANES;
        } else {
            block[0] = v_load_blocks(blocks);
            make_groups(dst, &k, block, &d, 0, 1, f, store, group_bytes);
            blocks += V_LANES;
            dst += group_bytes;
            count -= V_LANES;
        }
    }
}

V_INLINE void transform_words(char *dst, const uint32_t *words, size_t count,
                              const winit_distribution *distribution, transform *f, put *store,
                              const int size, const int per_block) {
    const winit_distribution d = *distribution;
    for (; count; count -= V_LANES) {
        vu w[4], x[2];
        V_UNROLL for (int j = 0; j < 4; j++) {
            uint64_t lanes[V_LANES];
            for (int k = 0; k < V_LANES; k++) lanes[k] = words[4 * k + j];
            w[j] = v_load_blocks(lanes);
        }
        f(w, &d, x);
        store(dst, x, 0);
        words += 4 * V_LANES;
        dst += V_LANES * per_block * size;
    }
}

#define KERNEL(name, f, store, size, per_block)                                                 \
    static void run_##name(void *dst, uint64_t index, uint64_t count, const winit_rows *rows,   \
                           const winit_distribution *d, const winit_stream *s, int streaming) { \
        run(dst, index, count, rows, d, s, streaming, f, store, size, per_block);               \
    }                                                                                           \
    static void gather_##name(void *dst, const uint64_t *blocks, size_t count,                  \
                              const winit_distribution *d, const winit_stream *s) {             \
        gather(dst, blocks, count, d, s, f, store, size, per_block);                            \
    }                                                                                           \
    static void transform_##name(void *dst, const uint32_t *words, size_t count,                \
                                 const winit_distribution *d) {                                 \
        transform_words(dst, words, count, d, f, store, size, per_block);                       \
    }

#define KERNELS(kind)                                   \
    KERNEL(kind##_f64, kind##_f64, put_f64, 8, 2)       \
    KERNEL(kind##_f32, kind##_f32, put_f32, 4, 4)       \
    KERNEL(kind##_f16, kind##_f32, put_f16, 2, 4)       \
    KERNEL(kind##_bf16, kind##_f32, put_bf16, 2, 4)     \
    KERNEL(kind##_e4m3fn, kind##_f32, put_e4m3fn, 1, 4) \
    KERNEL(kind##_e5m2, kind##_f32, put_e5m2, 1, 4)

KERNEL(bits_32, bits_32, put_f32, 4, 4)
KERNEL(bits_64, bits_32, put_f64, 8, 2)
KERNELS(uniform)
KERNELS(normal)
KERNELS(truncated)
KERNELS(central)

/* n elements, the last few through copies of a register's size. */
#define ELEMENTWISE(name, in_type, out_type, statement)                        \
    static void name(const in_type *in, out_type *out, size_t n) {             \
        enum { WIDTH = sizeof(vu) / sizeof(in_type) };                         \
        for (size_t i = 0; i < n; i += WIDTH) {                                \
            const size_t bytes = (n - i < WIDTH ? n - i : WIDTH) * sizeof *in; \
            char buffer[sizeof(vu)] = {0};                                     \
            memcpy(buffer, in + i, bytes);                                     \
            const vu x = v_load(buffer);                                       \
            vu y;                                                              \
            statement;                                                         \
            v_store(buffer, y);                                                \
            memcpy(out + i, buffer, bytes);                                    \
        }                                                                      \
    }

ELEMENTWISE(array_log_f32, float, float, y = v_f_as_u(log_u2_f32(v_as_f(x), v_setf(0.0f))))
ELEMENTWISE(array_log_f64, double, double, y = v_d_as_u(log_u2_f64(v_as_d(x), v_setd(0.0))))
ELEMENTWISE(array_sin_f32, uint32_t, float, vf sin; vf cos; sincos_u2_f32(x, &sin, &cos);
            y = v_f_as_u(sin))
ELEMENTWISE(array_cos_f32, uint32_t, float, vf sin; vf cos; sincos_u2_f32(x, &sin, &cos);
            y = v_f_as_u(cos))
ELEMENTWISE(array_sin_f64, uint64_t, double, vd sin; vd cos; sincos_u2_f64(x, &sin, &cos);
            y = v_d_as_u(sin))
ELEMENTWISE(array_cos_f64, uint64_t, double, vd sin; vd cos; sincos_u2_f64(x, &sin, &cos);
            y = v_d_as_u(cos))

static void array_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n) {
    array_sin_f32(a, sin, n);
    array_cos_f32(a, cos, n);
}

static void array_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n) {
    array_sin_f64(a, sin, n);
    array_cos_f64(a, cos, n);
}

#define ROW(what, kind)                                                              \
    {                                                                                \
        [WINIT_F64] = what##_##kind##_f64, [WINIT_F32] = what##_##kind##_f32,        \
        [WINIT_F16] = what##_##kind##_f16, [WINIT_BF16] = what##_##kind##_bf16,      \
        [WINIT_E4M3FN] = what##_##kind##_e4m3fn, [WINIT_E5M2] = what##_##kind##_e5m2 \
    }
#define TABLE(what)                                                                    \
    {                                                                                  \
        [WINIT_BITS] = {[WINIT_F64] = what##_bits_64, [WINIT_F32] = what##_bits_32},   \
        [WINIT_UNIFORM] = ROW(what, uniform), [WINIT_NORMAL] = ROW(what, normal),      \
        [WINIT_TRUNCATED] = ROW(what, truncated), [WINIT_CENTRAL] = ROW(what, central) \
    }

const winit_kernels V_TABLE = {
    .name = V_NAME,
    .lanes = V_LANES,
    .run = TABLE(run),
    .fence = v_fence,
    .gather = TABLE(gather),
    .transform = TABLE(transform),
    .log_f32 = array_log_f32,
    .log_f64 = array_log_f64,
    .sincos_f32 = array_sincos_f32,
    .sincos_f64 = array_sincos_f64,
};

#endif
