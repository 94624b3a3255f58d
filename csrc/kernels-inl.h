/* The fill loops of one instruction set, and its table of them. Included once by each
 * kernels_*.c, after the set's vec_*.h; everything but the table is static. */
#ifndef WINIT_KERNELS_INL_H
#define WINIT_KERNELS_INL_H

/* The loops are long blocks of independent work: GCC interleaves it only if it may before it has
 * given out the registers. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("schedule-insns", "sched-pressure")
#endif

#include <string.h>

#include "kernels.h"

#include "math-inl.h"
#include "narrow-inl.h"
#include "normal-inl.h"
#include "philox-inl.h"
#include "truncated-inl.h"
#include "uniform-inl.h"

/* The words of V_LANES blocks, as philox_end leaves them, to two registers of results;
 * narrow-inl.h tells their order. */
typedef void transform(const vu w[2], const winit_distribution *d, vu out[2]);
typedef void put(void *p, const vu x[2], const int paired, int streaming);

V_INLINE void bits_32(const vu w[2], const winit_distribution *d, vu out[2]) {
    (void)d;
    out[0] = v_unpack_low32(w[0], w[1]);
    out[1] = v_unpack_high32(w[0], w[1]);
}

enum { MAX_GROUP_BYTES = 16 * V_LANES };

/* From words to memory, group by group. */
V_INLINE void finish_groups(char *dst, vu (*w)[4], const winit_distribution *d, int streaming,
                            const int groups, transform *f, put *store, const int paired,
                            const int group_bytes) {
    V_UNROLL for (int g = 0; g < groups; g++) {
        vu x[2];
        f(w[g], d, x);
        store(dst + g * group_bytes, x, paired, streaming);
    }
}

/* Groups of the listed blocks, to consecutive places. */
V_INLINE void make_groups(char *dst, const philox_keys *k, const uint64_t *blocks,
                          const winit_distribution *d, const int groups, transform *f, put *store,
                          const int paired, const int group_bytes) {
    vu w[V_GROUPS][4];
    V_UNROLL for (int g = 0; g < groups; g++) {
        philox_begin(k, v_load_blocks(blocks + g * V_LANES), w[g]);
    }
    philox_end(k, w, groups);
    finish_groups(dst, w, d, 0, groups, f, store, paired, group_bytes);
}

/* Blocks from `block` on. */
V_INLINE vu consecutive(uint64_t block) {
    static const uint64_t first[WINIT_MAX_LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
    return v_add64(v_load_blocks(first), v_set64(block));
}

/* The words of V_GROUPS groups, and on to the next ones. */
V_INLINE void next_groups(const philox_keys *k, vu *product, vu (*w)[4]) {
    V_UNROLL for (int g = 0; g < V_GROUPS; g++) {
        philox_begin_run(k, product[g], w[g]);
        product[g] = v_add64(product[g], v_set64((uint64_t)PHILOX_M0 * V_LANES * V_GROUPS));
    }
    philox_end(k, w, V_GROUPS);
}

/* Where a group of V_LANES blocks goes: `own` of its elements, from element `skip` on, to dst. */
typedef struct {
    char *dst;
    unsigned skip, own;
} place;

/* What is left of the rows: of this one `count` elements, from element `skip` of the group that
 * begins with `block` on. */
typedef struct {
    char *dst;
    uint64_t block, count;
    unsigned skip;
    winit_rows rows;
    char *row;
    uint64_t index;
} cursor;

/* To the start of the cursor's row. Where stores stream, groups are counted from the alignment
 * before it on, and what there is of the first one's is left out. */
V_INLINE void start_row(cursor *c, uint64_t count, int streaming, const int size,
                        const int per_block) {
    const int group_bytes = V_LANES * per_block * size;
    const int align = V_STREAM_ALIGN < group_bytes ? V_STREAM_ALIGN : group_bytes;
    c->dst = c->row;
    c->count = count;
    c->block = c->index / (unsigned)per_block;
    c->skip = (unsigned)(c->index % (unsigned)per_block);
    if (streaming) {
        const unsigned past =
            (unsigned)(((uintptr_t)c->row - c->skip * (unsigned)size) % (unsigned)align);
        c->block -= past / (unsigned)(per_block * size); /* below 0 perhaps, but left out */
        c->skip += past / (unsigned)size;
    }
}

/* Past `groups` groups of one row with `own` elements in them, and on to the next row at its end.
 */
V_INLINE void advance(cursor *c, uint64_t groups, uint64_t own, uint64_t count, int streaming,
                      const int size, const int per_block) {
    c->dst += own * (unsigned)size;
    c->block += groups * V_LANES;
    c->count -= own;
    c->skip = 0;
    if (c->count == 0 && c->rows.count > 1) {
        c->rows.count--;
        c->row += c->rows.byte_stride;
        c->index += (uint64_t)c->rows.index_stride;
        start_row(c, count, streaming, size, per_block);
    }
}

/* The groups that were made into `made`, what each has of the rows to its place. The lines at a
 * row's ends belong to others too: streams write what is ours without reading them. */
V_INLINE void put_places(const place *places, const char *made, int streaming, const int size,
                         const int group_bytes) {
    for (int g = 0; g < V_GROUPS; g++) {
        const place *p = &places[g];
        const unsigned bytes = p->own * (unsigned)size;
        const char *from = made + g * group_bytes + p->skip * (unsigned)size;
        if (streaming && ((uintptr_t)p->dst | bytes) % 16 == 0) {
            for (unsigned i = 0; i < bytes; i += 16) v_put_16(p->dst + i, from + i, 1);
        } else if (bytes) {
            winit_copy(p->dst, from, bytes);
        }
    }
}

/* The same for the last groups, one by one: small fills are nothing else and need few of them. */
V_INLINE void finish_places(const place *places, vu (*w)[4], const winit_distribution *d,
                            int streaming, transform *f, put *store, const int paired,
                            const int size, const int per_group) {
    char part[MAX_GROUP_BYTES];
    V_UNROLL for (int g = 0; g < V_GROUPS; g++) {
        const place *p = &places[g];
        if (p->own) {
            const int whole = p->own == (unsigned)per_group;
            vu x[2];
            f(w[g], d, x);
            store(whole ? p->dst : part, x, paired, whole ? streaming : 0);
            if (!whole)
                winit_copy(p->dst, part + p->skip * (unsigned)size, p->own * (unsigned)size);
        }
    }
}

/* `steps` whole steps from the blocks of `product` on, below the next multiple of 2^32: their words
 * are made while those of the step before are transformed, since multiplications of integers and of
 * floats are different parts of a processor. The first results go to `to`, the others to
 * `following` on; the last step's words stay in `ready`, and their place is returned. Streaming is
 * a constant, so that a step is one block of code for the compiler to arrange. */
V_INLINE char *run_steps(char *to, char *following, uint64_t steps, const philox_keys *k,
                         vu *product, vu (*ready)[4], const winit_distribution *d,
                         const int streaming, transform *f, put *store, const int paired,
                         const int group_bytes) {
    for (; steps; steps--) {
        vu w[V_GROUPS][4];
        next_groups(k, product, w);
        finish_groups(to, ready, d, streaming, V_GROUPS, f, store, paired, group_bytes);
        memcpy(ready, w, sizeof w);
        to = following;
        following += V_GROUPS * group_bytes;
    }
    return to;
}

/* Elements [index, index + count) to dst on, and the same for the other rows, in steps of V_GROUPS
 * groups. */
V_INLINE void run(char *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                  const winit_distribution *distribution, const winit_stream *s, int streaming,
                  transform *f, put *store, const int paired, const int size, const int per_block) {
    const winit_distribution d = *distribution; /* no store to dst can change a local */
    const int per_group = V_LANES * per_block, group_bytes = per_group * size;
    const unsigned per_step = (unsigned)(V_GROUPS * per_group);
    /* Streams need blocks to start on the alignment, in every row. */
    const uint64_t shift = (uint64_t)(uintptr_t)dst - index * (unsigned)size,
                   row_shift =
                       (uint64_t)rows->byte_stride - (uint64_t)rows->index_stride * (unsigned)size;
    if ((shift | row_shift) % (unsigned)(per_block * size)) streaming = 0;

    philox_keys k;
    philox_schedule(&k, s);
    cursor c = {.index = index, .row = dst, .rows = *rows};
    start_row(&c, count, streaming, size, per_block);
    place at[V_GROUPS] = {0}; /* of the words that are ready: none yet */
    vu ready[V_GROUPS][4] = {0};
    char made[V_GROUPS * MAX_GROUP_BYTES];
    int whole = 0; /* what is ready is all of a step and goes to consecutive places */
    while (c.count) {
        /* Whole steps that stay below the next multiple of 2^32, up to the row's end. */
        const uint64_t below = (((uint64_t)1 << 32) - (uint32_t)c.block) / (V_GROUPS * V_LANES);
        const uint64_t left = c.skip ? 0 : c.count / per_step, steps = left < below ? left : below;
        vu w[V_GROUPS][4];
        if (whole && steps) {
            vu product[V_GROUPS];
            philox_schedule_run(&k, (uint32_t)(c.block >> 32));
            product[0] = v_mul_low(consecutive(c.block), k.m0);
            V_UNROLL for (int g = 1; g < V_GROUPS; g++) {
                product[g] = v_add64(product[g - 1], v_set64((uint64_t)PHILOX_M0 * V_LANES));
            }
            at[0].dst = streaming ? run_steps(at[0].dst, c.dst, steps, &k, product, ready, &d, 1, f,
                                              store, paired, group_bytes)
                                  : run_steps(at[0].dst, c.dst, steps, &k, product, ready, &d, 0, f,
                                              store, paired, group_bytes);
            advance(&c, steps * V_GROUPS, steps * per_step, count, streaming, size, per_block);
        } else { /* the first step, those at a row's end and next to a multiple of 2^32 */
            place next[V_GROUPS];
            V_UNROLL for (int g = 0; g < V_GROUPS; g++) {
                const unsigned room = (unsigned)per_group - c.skip,
                               own = c.count < room ? (unsigned)c.count : room;
                next[g] = (place){c.dst, c.skip, own};
                philox_begin(&k, consecutive(c.block), w[g]);
                advance(&c, 1, own, count, streaming, size, per_block);
            }
            philox_end(&k, w, V_GROUPS);
            if (at[0].own) {
                finish_groups(whole ? at[0].dst : made, ready, &d, whole ? streaming : 0, V_GROUPS,
                              f, store, paired, group_bytes);
                if (!whole) put_places(at, made, streaming, size, group_bytes);
            }
            memcpy(ready, w, sizeof ready);
            memcpy(at, next, sizeof at);
            whole = steps > 0;
        }
    }
    if (whole) {
        finish_groups(at[0].dst, ready, &d, streaming, V_GROUPS, f, store, paired, group_bytes);
    } else {
        finish_places(at, ready, &d, streaming, f, store, paired, size, per_group);
    }
}

/* V_GROUPS groups after each other. Blocks with places of their own are made first and then taken
 * apart. */
V_INLINE void gather(char *dst, char *const *to, const uint64_t *blocks, size_t count,
                     const winit_distribution *distribution, const winit_stream *s, int streaming,
                     transform *f, put *store, const int paired, const int size,
                     const int per_block) {
    const winit_distribution d = *distribution;
    const int group_bytes = V_LANES * per_block * size;
    char made[V_GROUPS * MAX_GROUP_BYTES];
    philox_keys k;
    philox_schedule(&k, s);
    while (count) {
        const int groups = count >= V_GROUPS * V_LANES ? V_GROUPS : 1;
        char *const at = to ? made : dst;
        if (groups == V_GROUPS) {
            make_groups(at, &k, blocks, &d, V_GROUPS, f, store, paired, group_bytes);
        } else {
            make_groups(at, &k, blocks, &d, 1, f, store, paired, group_bytes);
        }
        if (to) {
            for (int i = 0; i < groups * V_LANES; i++) v_put_16(to[i], made + 16 * i, streaming);
            to += groups * V_LANES;
        } else {
            dst += groups * group_bytes;
        }
        blocks += groups * V_LANES;
        count -= (unsigned)(groups * V_LANES);
    }
}

V_INLINE void transform_words(char *dst, const uint32_t *words, size_t count,
                              const winit_distribution *distribution, transform *f, put *store,
                              const int paired, const int size, const int per_block) {
    const winit_distribution d = *distribution;
    for (; count; count -= V_LANES) {
        vu w[2], x[2];
        V_UNROLL for (int j = 0; j < 2; j++) {
            uint64_t lanes[V_LANES];
            for (int k = 0; k < V_LANES; k++) {
                lanes[k] = words[4 * k + j] | (uint64_t)words[4 * k + j + 2] << 32;
            }
            w[j] = v_load_blocks(lanes);
        }
        f(w, &d, x);
        store(dst, x, paired, 0);
        words += 4 * V_LANES;
        dst += V_LANES * per_block * size;
    }
}

#define KERNEL(name, f, store, paired, size, per_block)                                            \
    static void run_##name(void *dst, uint64_t index, uint64_t count, const winit_rows *rows,      \
                           const winit_distribution *d, const winit_stream *s, int streaming) {    \
        run(dst, index, count, rows, d, s, streaming, f, store, paired, size, per_block);          \
    }                                                                                              \
    static void gather_##name(void *dst, char *const *to, const uint64_t *blocks, size_t count,    \
                              const winit_distribution *d, const winit_stream *s, int streaming) { \
        gather(dst, to, blocks, count, d, s, streaming, f, store, paired, size, per_block);        \
    }                                                                                              \
    static void transform_##name(void *dst, const uint32_t *words, size_t count,                   \
                                 const winit_distribution *d) {                                    \
        transform_words(dst, words, count, d, f, store, paired, size, per_block);                  \
    }

#define KERNELS(kind, paired)                                   \
    KERNEL(kind##_f64, kind##_f64, put_f64, paired, 8, 2)       \
    KERNEL(kind##_f32, kind##_f32, put_f32, paired, 4, 4)       \
    KERNEL(kind##_f16, kind##_f32, put_f16, paired, 2, 4)       \
    KERNEL(kind##_bf16, kind##_f32, put_bf16, paired, 2, 4)     \
    KERNEL(kind##_e4m3fn, kind##_f32, put_e4m3fn, paired, 1, 4) \
    KERNEL(kind##_e5m2, kind##_f32, put_e5m2, paired, 1, 4)

KERNEL(bits_32, bits_32, put_f32, 0, 4, 4)
KERNEL(bits_64, bits_32, put_f64, 0, 8, 2)
KERNELS(uniform, 0)
KERNELS(inside, 0)
KERNELS(normal, 1)
KERNELS(truncated, 0)
KERNELS(central, 0)

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

ELEMENTWISE(array_log_f32, float, float, y = v_f_as_u(log_u2_f32(v_as_f(x), 1, log_f32, NULL)))
ELEMENTWISE(array_log_f64, double, double, y = v_d_as_u(log_u2_f64(v_as_d(x), 1, log_f64, NULL)))
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
#define TABLE(what)                                                                   \
    {                                                                                 \
        [WINIT_BITS] = {[WINIT_F64] = what##_bits_64, [WINIT_F32] = what##_bits_32},  \
        [WINIT_UNIFORM] = ROW(what, uniform), [WINIT_INSIDE] = ROW(what, inside),     \
        [WINIT_NORMAL] = ROW(what, normal), [WINIT_TRUNCATED] = ROW(what, truncated), \
        [WINIT_CENTRAL] = ROW(what, central)                                          \
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
