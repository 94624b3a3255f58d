/* The loops of one instruction set: from indices to words, and from words to elements in memory. */
#ifndef WINIT_LOOPS_INL_H
#define WINIT_LOOPS_INL_H

#include <string.h>

#include "kernels.h"

#include "narrow-inl.h"
#include "philox-inl.h"

/* The functions and constants of a kernel. Wherever a kernel is used they are compile-time
 * constants, so compilers inline the calls. */
typedef struct {
    /* Transforms the words of n groups of V_LANES blocks, in the order of philox_end, to results:
     * the even elements of group i in out[2 i], the odd ones in out[2 i + 1]. A transform of radii
     * and angles has a first half, `radius`, which replaces half of the words by radii. */
    void (*transform)(const vu *w, const winit_distribution *d, const int n, vu *out);
    void (*radius)(vu *w, const int n);
    int has_radius;
    void (*put)(void *p, const vu x[2], int streaming);
    int size, per_block;
} kernel;

V_INLINE int group_bytes(const kernel *f) { return V_LANES * f->per_block * f->size; }

/* memcpy, not inlined: for small sizes compilers would inline it as a string instruction, which
 * takes longer than computing a dozen elements. */
V_NOINLINE void copy(char *dst, const char *src, size_t bytes) { memcpy(dst, src, bytes); }

V_INLINE void bits_f32(const vu *w, const winit_distribution *d, const int n, vu *out) {
    (void)d;
    EACH(i, 2 * n) out[i] = w[i];
}

V_INLINE void bits_f64(const vu *w, const winit_distribution *d, const int n, vu *out) {
    (void)d;
    double_words(w, n, out);
}

enum { MAX_GROUP_BYTES = 16 * V_LANES };

/* Transforms the words of n groups, of which the radii are known, and stores the results. */
V_INLINE void store_groups(char *dst, const vu *w, const winit_distribution *d, int streaming,
                           const int n, const kernel *f) {
    vu x[AT_ONCE];
    f->transform(w, d, n, x);
    EACH(i, n) f->put(dst + i * group_bytes(f), x + 2 * i, streaming);
}

/* The same for words as Philox makes them, V_TOGETHER groups at a time or one by one. */
V_INLINE void finish_groups(char *dst, vu *w, const winit_distribution *d, int streaming,
                            const int groups, const kernel *f) {
    const int n = groups % V_TOGETHER ? 1 : V_TOGETHER;
    V_UNROLL for (int g = 0; g < groups; g += n) {
        if (f->has_radius) f->radius(w + 2 * g, n);
        store_groups(dst + g * group_bytes(f), w + 2 * g, d, streaming, n, f);
    }
}

/* Computes the groups of the listed blocks, and stores them consecutively. */
V_INLINE void make_groups(char *dst, const philox_keys *k, const uint64_t *blocks,
                          const winit_distribution *d, const int groups, const kernel *f) {
    vu w[V_GROUPS][4], words[2 * V_GROUPS];
    EACH(g, groups) philox_begin(k, v_load_blocks(blocks + g * V_LANES), w[g]);
    philox_end(k, w, groups, words);
    finish_groups(dst, words, d, 0, groups, f);
}

/* V_LANES consecutive block numbers from `block` on. */
V_INLINE vu consecutive(uint64_t block) {
    static const uint64_t first[WINIT_MAX_LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
    return v_add64(v_load_blocks(first), v_set64(block));
}

#if V_PACKED
/* The lower words of 2 V_LANES consecutive blocks in 32-bit lanes, from `block` on. */
V_INLINE vu packed_blocks(uint64_t block) {
    return v_even32(consecutive(block), consecutive(block + V_LANES));
}
#endif

/* Computes the words of V_GROUPS groups, and advances `product` to the next groups. */
V_INLINE void next_groups(const philox_keys *k, vu *product, vu *words) {
    vu w[V_GROUPS][4];
    EACH(g, V_GROUPS) {
        philox_begin_run(k, product[g], w[g]);
        product[g] = v_add64(product[g], v_set64((uint64_t)PHILOX_M0 * V_LANES * V_GROUPS));
    }
    philox_end(k, w, V_GROUPS, words);
}

/* Runs whole steps in chunks, as far as they fill sets, and returns how many were left. The words
 * of a chunk go to a buffer that stays in the L1 cache. Each part of the work is then a short loop
 * on as many registers as are best for it: a processor that looks only some hundred instructions
 * ahead overlaps more of it than of one long loop. */
V_INLINE uint64_t run_chunks(char *dst, uint64_t block, uint64_t steps, const philox_keys *k,
                             const winit_distribution *d, const int streaming, const kernel *f) {
#if V_PACKED
    enum { PART = 2 * V_SETS, LEAST = PART / V_GROUPS, MOST = 24 / V_GROUPS };
    while (steps >= LEAST) {
        const uint64_t some = steps < MOST ? steps / LEAST * LEAST : MOST;
        const int groups = (int)some * V_GROUPS;
        vu words[2 * MOST * V_GROUPS];
        for (int g = 0; g < groups; g += PART) {
            philox_packed(k, packed_blocks(block), words + 2 * g);
            block += PART * V_LANES;
        }
        for (int g = 0; f->has_radius && g < groups; g += AT_ONCE) {
            f->radius(words + 2 * g, AT_ONCE);
        }
        for (int g = 0; g < groups; g += V_TOGETHER) {
            store_groups(dst, words + 2 * g, d, streaming, V_TOGETHER, f);
            dst += V_TOGETHER * group_bytes(f);
        }
        steps -= some;
    }
#else
    (void)dst, (void)block, (void)k, (void)d, (void)streaming, (void)f;
#endif
    return steps;
}

/* Where a group of V_LANES blocks is stored: its first `skip` elements are dropped, and the next
 * `own` elements go to dst. */
typedef struct {
    char *dst;
    unsigned skip, own;
} place;

/* The remaining rows. `count` elements of the current row remain, from element `skip` on of the
 * group that begins with `block`. */
typedef struct {
    char *dst;
    uint64_t block, count;
    unsigned skip;
    winit_rows rows;
    char *row;
    uint64_t index;
} cursor;

/* Moves the cursor to the start of its row. With streaming stores, groups start at the aligned
 * address before the row, and `skip` leaves out the elements before it. */
V_INLINE void start_row(cursor *c, uint64_t count, int streaming, const kernel *f) {
    const int align = V_STREAM_ALIGN < group_bytes(f) ? V_STREAM_ALIGN : group_bytes(f);
    const unsigned size = (unsigned)f->size, per_block = (unsigned)f->per_block;
    c->dst = c->row;
    c->count = count;
    c->block = c->index / per_block;
    c->skip = (unsigned)(c->index % per_block);
    if (streaming) {
        const unsigned past = (unsigned)(((uintptr_t)c->row - c->skip * size) % (unsigned)align);
        c->block -= past / (per_block * size); /* may wrap below 0: those blocks are skipped */
        c->skip += past / size;
    }
}

/* Advances the cursor by `groups` groups of one row, which have `own` elements of it, and at the
 * end of the row to the next one. */
V_INLINE void advance(cursor *c, uint64_t groups, uint64_t own, uint64_t count, int streaming,
                      const kernel *f) {
    c->dst += own * (unsigned)f->size;
    c->block += groups * V_LANES;
    c->count -= own;
    c->skip = 0;
    if (c->count == 0 && c->rows.count > 1) {
        c->rows.count--;
        c->row += c->rows.byte_stride;
        c->index += (uint64_t)c->rows.index_stride;
        start_row(c, count, streaming, f);
    }
}

/* Copies from the groups in `made` the elements that belong to the rows. The cache lines at the
 * ends of a row may also hold other data: streaming stores write our part without reading them. */
V_INLINE void put_places(const place *places, const char *made, int streaming, const kernel *f) {
    for (int g = 0; g < V_GROUPS; g++) {
        const place *p = &places[g];
        const unsigned bytes = p->own * (unsigned)f->size;
        const char *from = made + g * group_bytes(f) + p->skip * (unsigned)f->size;
        if (streaming && ((uintptr_t)p->dst | bytes) % 16 == 0) {
            for (unsigned i = 0; i < bytes; i += 16) v_put_16(p->dst + i, from + i, 1);
        } else if (bytes) {
            copy(p->dst, from, bytes);
        }
    }
}

/* The same for the last groups, one by one: a small fill has no others and needs only a few. */
V_INLINE void finish_places(const place *places, vu *w, const winit_distribution *d, int streaming,
                            const kernel *f) {
    char part[MAX_GROUP_BYTES];
    EACH(g, V_GROUPS) {
        const place *p = &places[g];
        if (p->own) {
            const int whole = p->own == (unsigned)(V_LANES * f->per_block);
            finish_groups(whole ? p->dst : part, w + 2 * g, d, whole ? streaming : 0, 1, f);
            if (!whole) {
                copy(p->dst, part + p->skip * (unsigned)f->size, p->own * (unsigned)f->size);
            }
        }
    }
}

/* Runs `steps` whole steps from `block` on, below the next multiple of 2^32: whole chunks first.
 * The words of a step are computed while those of the previous step are transformed, because
 * integer and floating-point multiplications use different units of a processor. The results of
 * `ready` go to `to`, the others to `following` and after. The words of the last step stay in
 * `ready`; their destination is returned. `streaming` is a constant, so that a step is one basic
 * block, which the compiler can schedule. */
V_INLINE char *run_steps(char *to, char *following, uint64_t block, uint64_t steps,
                         const philox_keys *k, vu *ready, const winit_distribution *d,
                         const int streaming, const kernel *f) {
    const uint64_t left = 1 + run_chunks(following, block, steps - 1, k, d, streaming, f);
    vu product[V_GROUPS];
    block += (steps - left) * V_GROUPS * V_LANES;
    following += (steps - left) * V_GROUPS * (unsigned)group_bytes(f);
    product[0] = v_mul_low(consecutive(block), k->m0);
    V_UNROLL for (int g = 1; g < V_GROUPS; g++) {
        product[g] = v_add64(product[g - 1], v_set64((uint64_t)PHILOX_M0 * V_LANES));
    }
    for (steps = left; steps; steps--) {
        vu words[2 * V_GROUPS];
        next_groups(k, product, words);
        finish_groups(to, ready, d, streaming, V_GROUPS, f);
        memcpy(ready, words, sizeof words);
        to = following;
        following += V_GROUPS * group_bytes(f);
    }
    return to;
}

/* Writes elements [index, index + count) to dst, and the same for the other rows, in steps of
 * V_GROUPS groups. */
V_INLINE void run(char *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                  const winit_distribution *distribution, const winit_stream *s, int streaming,
                  const kernel *f) {
    const winit_distribution d = *distribution; /* no store to dst can change a local */
    const unsigned size = (unsigned)f->size, per_block = (unsigned)f->per_block;
    const unsigned per_group = V_LANES * per_block, per_step = V_GROUPS * per_group;
    /* Streaming stores require that blocks are aligned in every row. */
    const uint64_t shift = (uint64_t)(uintptr_t)dst - index * size;
    const uint64_t row_shift = (uint64_t)rows->byte_stride - (uint64_t)rows->index_stride * size;
    if ((shift | row_shift) % (per_block * size)) streaming = 0;

    philox_keys k;
    philox_schedule(&k, s);
    cursor c = {.index = index, .row = dst, .rows = *rows};
    start_row(&c, count, streaming, f);
    place at[V_GROUPS] = {0}; /* of the words in `ready`: none yet */
    vu ready[2 * V_GROUPS] = {0};
    char made[V_GROUPS * MAX_GROUP_BYTES];
    int whole = 0; /* `ready` holds a whole step for consecutive places */
    while (c.count) {
        /* Number of whole steps before the next multiple of 2^32 and the end of the row. */
        const uint64_t below = (((uint64_t)1 << 32) - (uint32_t)c.block) / (V_GROUPS * V_LANES);
        const uint64_t left = c.skip ? 0 : c.count / per_step, steps = left < below ? left : below;
        if (whole && steps) {
            philox_schedule_run(&k, (uint32_t)(c.block >> 32));
            at[0].dst = streaming
                            ? run_steps(at[0].dst, c.dst, c.block, steps, &k, ready, &d, 1, f)
                            : run_steps(at[0].dst, c.dst, c.block, steps, &k, ready, &d, 0, f);
            advance(&c, steps * V_GROUPS, steps * per_step, count, streaming, f);
        } else { /* the first step, and steps at the end of a row or next to a multiple of 2^32 */
            place next[V_GROUPS];
            vu w[V_GROUPS][4], words[2 * V_GROUPS];
            EACH(g, V_GROUPS) {
                const unsigned room = per_group - c.skip;
                const unsigned own = c.count < room ? (unsigned)c.count : room;
                next[g] = (place){c.dst, c.skip, own};
                philox_begin(&k, consecutive(c.block), w[g]);
                advance(&c, 1, own, count, streaming, f);
            }
            philox_end(&k, w, V_GROUPS, words);
            if (at[0].own) {
                finish_groups(whole ? at[0].dst : made, ready, &d, whole ? streaming : 0, V_GROUPS,
                              f);
                if (!whole) put_places(at, made, streaming, f);
            }
            memcpy(ready, words, sizeof words);
            memcpy(at, next, sizeof at);
            whole = steps > 0;
        }
    }
    if (whole) {
        finish_groups(at[0].dst, ready, &d, streaming, V_GROUPS, f);
    } else {
        finish_places(at, ready, &d, streaming, f);
    }
}

/* Computes the listed blocks, V_GROUPS groups at a time. If the blocks have separate destinations,
 * they are computed into a buffer and copied from there. */
V_INLINE void gather(char *dst, char *const *to, const uint64_t *blocks, size_t count,
                     const winit_distribution *distribution, const winit_stream *s, int streaming,
                     const kernel *f) {
    const winit_distribution d = *distribution;
    char made[V_GROUPS * MAX_GROUP_BYTES];
    philox_keys k;
    philox_schedule(&k, s);
    while (count) {
        const int groups = count >= V_GROUPS * V_LANES ? V_GROUPS : 1;
        char *const at = to ? made : dst;
        if (groups == V_GROUPS) {
            make_groups(at, &k, blocks, &d, V_GROUPS, f);
        } else {
            make_groups(at, &k, blocks, &d, 1, f);
        }
        if (to) {
            for (int i = 0; i < groups * V_LANES; i++) v_put_16(to[i], made + 16 * i, streaming);
            to += groups * V_LANES;
        } else {
            dst += groups * group_bytes(f);
        }
        blocks += groups * V_LANES;
        count -= (unsigned)(groups * V_LANES);
    }
}

/* Groups of pairs in flight, each of two groups of blocks. */
enum { PAIR_GROUPS = V_REGISTERS ? 3 : 1, PAIRS_AT_ONCE = 2 * V_LANES * PAIR_GROUPS };

/* Moves the half of each lane that the lowest bit of `high` selects to the low half. */
V_INLINE vu half(vu words, vu high) {
    return v_select64(v_any64(high, v_set64(1)), v_shr64(words, 32), words);
}

/* Half blocks. A pair is the low half or the high half of a lane of words. The pairs of two groups
 * are packed into one group before the transform, so that only requested pairs are transformed. The
 * first group has the even entries of the list: unpacking two registers then restores the order. */
V_INLINE void pairs(char *dst, const uint64_t *list, size_t count,
                    const winit_distribution *distribution, const winit_stream *s,
                    const kernel *f) {
    const winit_distribution d = *distribution;
    philox_keys k;
    philox_schedule(&k, s);
    for (; count; count -= PAIRS_AT_ONCE) {
        vu w[2 * PAIR_GROUPS][4], high[2 * PAIR_GROUPS], words[4 * PAIR_GROUPS];
        V_UNROLL for (int g = 0; g < 2 * PAIR_GROUPS; g += 2) {
            const vu a = v_load(list), b = v_load(list + V_LANES);
            high[g] = v_unpack_low64(a, b);
            high[g + 1] = v_unpack_high64(a, b);
            list += 2 * V_LANES;
        }
        EACH(g, 2 * PAIR_GROUPS) philox_begin(&k, v_shr64(high[g], 1), w[g]);
        philox_end(&k, w, 2 * PAIR_GROUPS, words);
        EACH(g, PAIR_GROUPS) {
            const vu *a = words + 4 * g, *b = a + 2;
            EACH(j, 2) {
                words[2 * g + j] = v_pack_low(half(a[j], high[2 * g]), half(b[j], high[2 * g + 1]));
            }
        }
        finish_groups(dst, words, &d, 0, PAIR_GROUPS, f);
        dst += PAIR_GROUPS * group_bytes(f);
    }
}

#endif
