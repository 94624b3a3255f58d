/* The loops of sets with packed lanes: chunks of words in the L1 cache.
 *
 * A processor overlaps chains of dependent instructions only within a window of a few hundred. So
 * the words of up to MOST groups go to a buffer that stays in the L1 cache, and each part of the
 * work is a short loop on as many registers as are best for it. Only the last part differs between
 * kernels; the others are functions which all of them share. */
#ifndef WINIT_CHUNKS_INL_H
#define WINIT_CHUNKS_INL_H

#include "loops-inl.h"
#include "normal-inl.h"

/* PART: the groups whose words are made together. MOST: the groups of a chunk, a multiple of PART,
 * AT_ONCE, LOGS_AT_ONCE and V_TOGETHER. */
enum { PART = 2 * V_SETS, MOST = MOST_GROUPS };

/* The words of MOST groups of consecutive blocks, below the next multiple of 2^32. c0 has the lower
 * words of the first two groups' block numbers. */
V_INLINE void consecutive_words(const philox_keys *k, vu c0, vu *words) {
    for (int g = 0; g < MOST; g += PART) {
        vu w[V_SETS][4];
        EACH(s, V_SETS) {
            philox_packed_begin_run(k, v_add32(c0, v_set32((uint32_t)s * 2 * V_LANES)), w[s]);
        }
        philox_packed_end(k, w, V_SETS, words + 2 * g);
        c0 = v_add32(c0, v_set32(PART * V_LANES));
    }
}

/* The same with the first half of a transform. Each is one function, so that its code is
 * contiguous. Zen 3 caches decoded instructions by the lowest 12 bits of their address, and has
 * room for two loops' at the same place, but not for three. */
V_NOINLINE void run_words(const philox_keys *k, vu c0, vu *words) {
    consecutive_words(k, c0, words);
}

V_INLINE void radii_of_chunk_f32(vu *words) {
    for (int g = 0; g < MOST; g += AT_ONCE) squared_radius_f32(words + 2 * g, AT_ONCE);
}

V_INLINE void radii_of_chunk_f64(vu *words) { squared_radius_f64(words, MOST); }

V_NOINLINE void run_radii_f32(const philox_keys *k, vu c0, vu *words) {
    consecutive_words(k, c0, words);
    radii_of_chunk_f32(words);
}

V_NOINLINE void run_radii_f64(const philox_keys *k, vu c0, vu *words) {
    consecutive_words(k, c0, words);
    radii_of_chunk_f64(words);
}

/* Makes the words of several groups, set by set: BEGIN(w, g) does the first rounds of groups g and
 * g + 1. There is room for MOST groups of blocks and words, and the words are padded to a multiple
 * of PART groups. */
#define SEVERAL_WORDS(BEGIN)                                                \
    int g = 0;                                                              \
    for (; groups - g > 2; g += PART) {                                     \
        vu w[V_SETS][4];                                                    \
        EACH(s, V_SETS) BEGIN(w[s], g + 2 * s);                             \
        philox_packed_end(k, w, V_SETS, words + 2 * g);                     \
    }                                                                       \
    if (g < groups) {                                                       \
        vu w[1][4];                                                         \
        BEGIN(w[0], g);                                                     \
        philox_packed_end(k, w, 1, words + 2 * g);                          \
        for (int i = 4; i < 2 * PART; i++) words[2 * g + i] = words[2 * g]; \
    }

/* Groups of consecutive blocks that have the upper word of philox_schedule_run. */
V_INLINE void some_row_words(const philox_keys *k, listed *list, const int groups, vu *words) {
    for (int i = groups; i % PART; i++) list[i].block = list[0].block;
#define BEGIN(w, g)          \
    philox_packed_begin_run( \
        k, v_even32(consecutive(list[g].block), consecutive(list[(g) + 1].block)), w)
    SEVERAL_WORDS(BEGIN)
#undef BEGIN
}

V_NOINLINE void row_words(const philox_keys *k, listed *list, int groups, vu *words) {
    some_row_words(k, list, groups, words);
}

/* The same for MOST groups, with the first half of a transform: see run_words. */
V_NOINLINE void row_radii_f32(const philox_keys *k, listed *list, vu *words) {
    some_row_words(k, list, MOST, words);
    radii_of_chunk_f32(words);
}

V_NOINLINE void row_radii_f64(const philox_keys *k, listed *list, vu *words) {
    some_row_words(k, list, MOST, words);
    radii_of_chunk_f64(words);
}

/* Groups of any blocks. */
V_NOINLINE void list_words(const philox_keys *k, vu *blocks, int groups, vu *words) {
    for (int i = groups; i % PART; i++) blocks[i] = blocks[0];
#define BEGIN(w, g) philox_packed_begin(k, blocks[g], blocks[(g) + 1], w)
    SEVERAL_WORDS(BEGIN)
#undef BEGIN
}

/* The squares of the radii of several groups; for the one or two of a small fill not of AT_ONCE. */
#define RADII(type)                                            \
    V_NOINLINE void radii_##type(vu *words, int groups) {      \
        if (groups <= 2) {                                     \
            squared_radius_##type(words, 2);                   \
        } else {                                               \
            for (int g = 0; g < groups; g += AT_ONCE) {        \
                squared_radius_##type(words + 2 * g, AT_ONCE); \
            }                                                  \
        }                                                      \
    }
RADII(f32)
RADII(f64)

V_INLINE void radii(vu *words, int groups, const kernel *f) {
    if (f->has_radius && f->per_block == 2) {
        radii_f64(words, groups);
    } else if (f->has_radius) {
        radii_f32(words, groups);
    }
}

/* Transforms the words of listed groups, and stores the elements that belong to their places. The
 * arrays are those of list_words. The cache lines at the ends of a row may also hold other data, so
 * parts of groups are copied. */
V_INLINE void finish(listed *list, int groups, vu *words, const winit_distribution *distribution,
                     int streaming, const kernel *f) {
    const winit_distribution d = *distribution; /* no store to memory can change a local */
    const unsigned whole = V_LANES * (unsigned)f->per_block;
    char made[MOST * MAX_GROUP_BYTES];
    int parts = 0;
    for (int g = groups; g % V_TOGETHER; g++) list[g].to.own = 0;
    radii(words, groups, f);
    for (int g = 0; g < groups; g += V_TOGETHER) {
        vu x[AT_ONCE];
        f->transform(words + 2 * g, &d, V_TOGETHER, x);
        EACH(i, V_TOGETHER) {
            const place *p = &list[g + i].to;
            const int all = p->own == whole, unaligned = (uintptr_t)p->dst % stream_align(f) != 0;
            parts |= !all;
            char *const to = all ? p->dst : made + (g + i) * group_bytes(f);
            f->put(to, x + 2 * i, !all || !streaming ? 0 : unaligned ? V_STREAM_16 : 1);
        }
    }
    for (int g = 0; parts && g < groups; g++) {
        const place *p = &list[g].to;
        if (p->own < whole) put_part(p, made + g * group_bytes(f), streaming, f);
    }
}

/* Transforms the words of a column, and stores its elements. There are words of a multiple of
 * AT_ONCE groups. */
V_INLINE void finish_column(char *dst, int groups, vu *words, const vu *indices,
                            const winit_distribution *distribution, const kernel *f) {
    const winit_distribution d = *distribution;
    radii(words, groups, f);
    for (int g = 0; g < groups; g += AT_ONCE) {
        vu x[AT_ONCE], made[AT_ONCE];
        if (f->has_radius) {
            V_UNROLL for (int first = 0; first < AT_ONCE; first += V_TOGETHER) {
                f->transform(words + 2 * (g + first), &d, V_TOGETHER, x);
                EACH(i, V_TOGETHER) {
                    made[first + i] = chosen(x + 2 * i, indices[g + first + i], f);
                }
            }
        } else {
            EACH(i, V_TOGETHER) {
                choose_words(words + 2 * g + 4 * i, indices + g + 2 * i, x + 2 * i, f);
            }
            f->transform(x, &d, V_TOGETHER, made);
        }
        EACH(i, V_TOGETHER) {
            if (g + 2 * i < groups) f->put(dst, made + 2 * i, 0);
            dst += group_bytes(f);
        }
    }
}

/* Transforms the words of a chunk, and stores its groups: those of a list at their places, or if it
 * is NULL, one after another. */
V_INLINE void put_chunk(char *dst, const listed *list, vu *words, const winit_distribution *d,
                        const int streaming, const kernel *f) {
    vu made[2 * MOST];
    if (f->in_loops) f->transform(words, d, MOST, made);
    for (int g = 0; g < MOST; g += V_TOGETHER) {
        vu few[AT_ONCE], *const x = f->in_loops ? made + 2 * g : few;
        if (!f->in_loops) f->transform(words + 2 * g, d, V_TOGETHER, x);
        EACH(i, V_TOGETHER) {
            if (list) {
                f->put(list[g + i].to.dst, x + 2 * i, streaming);
            } else if (f->put_in_order) {
                f->put_in_order(dst + i * group_bytes(f), x + 2 * i, streaming);
            } else {
                f->put(dst + i * group_bytes(f), x + 2 * i, streaming);
            }
        }
        dst += V_TOGETHER * group_bytes(f);
    }
}

/* Runs whole chunks of consecutive groups, below the next multiple of 2^32. */
V_INLINE void run_chunks(char *dst, uint64_t block, uint64_t chunks, const philox_keys *k,
                         const winit_distribution *distribution, const int streaming,
                         const kernel *f) {
    const winit_distribution d = *distribution;
    vu c0 = f->put_in_order
                ? v_even32(consecutive_in_order(block), consecutive_in_order(block + V_LANES))
                : v_even32(consecutive(block), consecutive(block + V_LANES));
    for (; chunks; chunks--) {
        vu words[2 * MOST];
        if (f->has_radius && f->per_block == 2) {
            run_radii_f64(k, c0, words);
        } else if (f->has_radius) {
            run_radii_f32(k, c0, words);
        } else {
            run_words(k, c0, words);
        }
        put_chunk(dst, NULL, words, &d, streaming, f);
        dst += MOST * group_bytes(f);
        c0 = v_add32(c0, v_set32(MOST * V_LANES));
    }
}

/* The same for a list of MOST whole groups, of which streaming stores find all aligned. */
V_INLINE void finish_whole(listed *list, const philox_keys *k,
                           const winit_distribution *distribution, int streaming, const kernel *f) {
    const winit_distribution d = *distribution;
    vu words[2 * MOST];
    if (f->has_radius && f->per_block == 2) {
        row_radii_f64(k, list, words);
    } else if (f->has_radius) {
        row_radii_f32(k, list, words);
    } else {
        row_words(k, list, MOST, words);
    }
    if (streaming) {
        put_chunk(NULL, list, words, &d, 1, f);
    } else {
        put_chunk(NULL, list, words, &d, 0, f);
    }
}

#define PARTS_OF_LOOPS(name)                                                                  \
    static const kernel kernel_##name;                                                        \
    V_NOINLINE void finish_##name(listed *list, int groups, vu *words,                        \
                                  const winit_distribution *d, int streaming) {               \
        finish(list, groups, words, d, streaming, &kernel_##name);                            \
    }                                                                                         \
    V_NOINLINE void finish_whole_##name(listed *list, const philox_keys *k,                   \
                                        const winit_distribution *d, int streaming) {         \
        finish_whole(list, k, d, streaming, &kernel_##name);                                  \
    }                                                                                         \
    V_NOINLINE void finish_column_##name(char *dst, int groups, vu *words, const vu *indices, \
                                         const winit_distribution *d) {                       \
        finish_column(dst, groups, words, indices, d, &kernel_##name);                        \
    }                                                                                         \
    V_NOINLINE void chunks_##name(char *dst, uint64_t block, uint64_t chunks,                 \
                                  const philox_keys *k, const winit_distribution *d,          \
                                  int streaming) {                                            \
        if (streaming) {                                                                      \
            run_chunks(dst, block, chunks, k, d, 1, &kernel_##name);                          \
        } else {                                                                              \
            run_chunks(dst, block, chunks, k, d, 0, &kernel_##name);                          \
        }                                                                                     \
    }
#define LIST_OF_PARTS(name, put_in_order) \
    chunks_##name, finish_##name, finish_whole_##name, finish_column_##name, put_in_order

/* Makes the groups of a list. `upper` has a bit set above the lower 32 where a block's upper word
 * differs from that of the first block. */
V_NOINLINE void make_list(listed *list, int groups, uint64_t upper, philox_keys *k,
                          const winit_distribution *d, int streaming, list_function *finish) {
    vu words[2 * MOST];
    if (upper >> 32) {
        vu blocks[MOST];
        for (int g = 0; g < groups; g++) blocks[g] = consecutive(list[g].block);
        list_words(k, blocks, groups, words);
    } else {
        philox_schedule_run(k, (uint32_t)(list[0].block >> 32));
        row_words(k, list, groups, words);
    }
    finish(list, groups, words, d, streaming);
}

/* Whether there are several rows and all consist of whole groups of blocks with one upper word,
 * which streaming stores find aligned. */
V_INLINE int whole_groups(const char *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                          int streaming, const kernel *f) {
    const uint64_t per_block = (unsigned)f->per_block, more = (uint64_t)rows->count - 1;
    const uint64_t first = index / per_block;
    const uint64_t last = (index + more * (uint64_t)rows->index_stride + count - 1) / per_block;
    const uint64_t places = (uintptr_t)dst | (uint64_t)rows->byte_stride;
    return more && rows->index_stride >= 0 && count % (V_LANES * per_block) == 0 &&
           (index | (uint64_t)rows->index_stride) % per_block == 0 && !((first ^ last) >> 32) &&
           first <= last && !(streaming && places % stream_align(f));
}

/* Makes such rows, which are shorter than a chunk, of `per_row` groups. Many have only a few
 * groups, so what happens for each group and row has to be little. */
V_NOINLINE void run_whole_groups(char *dst, uint64_t block, unsigned per_row, uint64_t block_stride,
                                 const winit_rows *rows, const winit_distribution *d,
                                 philox_keys *k, int streaming, unsigned whole, unsigned bytes,
                                 list_function *finish, whole_function *finish_whole) {
    listed list[MOST];
    for (int g = 0; g < MOST; g++) list[g].to = (place){NULL, 0, whole};
    int groups = 0;
    philox_schedule_run(k, (uint32_t)(block >> 32));
    for (int64_t row = 0; row < rows->count; row++) {
        char *to = dst;
        uint64_t from = block;
        for (unsigned left = per_row; left; left--) {
            list[groups].to.dst = to;
            list[groups++].block = from;
            to += bytes;
            from += V_LANES;
            if (groups == MOST) {
                finish_whole(list, k, d, streaming);
                groups = 0;
            }
        }
        dst += rows->byte_stride;
        block += block_stride;
    }
    if (groups) make_list(list, groups, 0, k, d, streaming, finish);
}

/* Writes elements [index, index + count) to dst, and the same for the other rows: whole chunks of a
 * row at once, all other groups by a list. */
V_INLINE void run(char *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                  const winit_distribution *d, const winit_stream *s, int streaming,
                  const kernel *f) {
    const unsigned per_group = V_LANES * (unsigned)f->per_block, per_chunk = MOST * per_group;
    const unsigned bytes = (unsigned)group_bytes(f);
    philox_keys k;
    philox_schedule(&k, s);
    cursor c;
    unsigned align = stream_align(f);
    if (count < per_chunk) {
        /* The groups begin with the row, although not all of them are aligned then. Where other
         * stores write parts of the same lines, streaming ones are slow. */
        const uint64_t edges =
            (uintptr_t)dst | (uint64_t)rows->byte_stride | count * (unsigned)f->size;
        if (edges % 16) streaming = 0;
        align = 16;
        if (whole_groups(dst, index, count, rows, streaming, f)) {
            run_whole_groups(dst, index / (unsigned)f->per_block, (unsigned)(count / per_group),
                             (uint64_t)rows->index_stride / (unsigned)f->per_block, rows, d, &k,
                             streaming, per_group, bytes, f->finish, f->finish_whole);
            return;
        }
    }
    streaming = start(&c, dst, index, count, rows, streaming, align, f);
    listed list[MOST];
    int groups = 0;
    uint64_t first = 0, upper = 0;
    while (c.count) {
        if (c.count >= per_chunk && !c.skip && (uint32_t)c.block <= UINT32_MAX - MOST * V_LANES) {
            const uint64_t below = (UINT32_MAX - (uint32_t)c.block) / (MOST * V_LANES);
            const uint64_t left = c.count / per_chunk, chunks = left < below ? left : below;
            philox_schedule_run(&k, (uint32_t)(c.block >> 32));
            f->chunks(c.dst, c.block, chunks, &k, d, streaming);
            advance(&c, chunks * MOST, chunks * per_chunk, count, streaming, f);
        } else {
            /* As many whole groups as there is room for, or a part of one. */
            const unsigned room = per_group - c.skip, space = (unsigned)(MOST - groups);
            const uint64_t left = c.count / per_group;
            const int part = c.skip || !left;
            const unsigned some = part ? 1 : left < space ? (unsigned)left : space;
            const unsigned own = !part ? per_group : c.count < room ? (unsigned)c.count : room;
            if (groups == 0) first = c.block;
            upper |= (c.block ^ first) | ((c.block + some * V_LANES - 1) ^ first);
            for (unsigned i = 0; i < some; i++) {
                const place to = {c.dst + i * bytes, c.skip, own};
                list[groups++] = (listed){to, c.block + i * V_LANES};
            }
            advance(&c, some, some * own, count, streaming, f);
            if (groups == MOST) {
                make_list(list, groups, upper, &k, d, streaming, f->finish);
                groups = 0;
                upper = 0;
            }
        }
    }
    if (groups) make_list(list, groups, upper, &k, d, streaming, f->finish);
}

/* Makes the listed blocks. If they have separate destinations, they are made in a buffer and copied
 * from there. */
V_NOINLINE void make_blocks(char *dst, char *const *to, const uint64_t *blocks, size_t count,
                            const winit_distribution *d, const winit_stream *s, int streaming,
                            unsigned whole, unsigned bytes, list_function *finish) {
    char made[MOST * MAX_GROUP_BYTES];
    philox_keys k;
    philox_schedule(&k, s);
    while (count) {
        /* Stores to distant places take long, so they should not all come at the same time. */
        const size_t left = count / V_LANES, most = to ? PART : MOST;
        const int groups = (int)(left < most ? left : most);
        vu numbers[MOST], words[2 * MOST];
        listed list[MOST];
        for (int g = 0; g < groups; g++) {
            numbers[g] = v_load_blocks(blocks + g * V_LANES);
            list[g].to = (place){(to ? made : dst) + (unsigned)g * bytes, 0, whole};
        }
        list_words(&k, numbers, groups, words);
        finish(list, groups, words, d, 0);
        if (to) {
            for (int i = 0; i < groups * V_LANES; i++) v_put_16(to[i], made + 16 * i, streaming);
            to += groups * V_LANES;
        } else {
            dst += (unsigned)groups * bytes;
        }
        blocks += groups * V_LANES;
        count -= (size_t)groups * V_LANES;
    }
}

V_INLINE void gather(char *dst, char *const *to, const uint64_t *blocks, size_t count,
                     const winit_distribution *d, const winit_stream *s, int streaming,
                     const kernel *f) {
    make_blocks(dst, to, blocks, count, d, s, streaming, V_LANES * (unsigned)f->per_block,
                (unsigned)group_bytes(f), f->finish);
}

/* The words of a column, of several sets of 2 V_LANES blocks. Lane by lane, in memory order, the
 * even sets have elements 0, 2, 4, ... of the column and the odd sets those between. Of a block's
 * two pairs of words only one is needed: `words` gets a group for each set. */
V_NOINLINE void column_words_f32(const philox_keys *k, uint64_t index, uint64_t step, int sets,
                                 vu *words, vu *indices) {
    uint64_t numbers[V_LANES];
    multiples(2 * step, numbers);
    const vu even = v_load(numbers);
    for (int i = 0; i < sets; i += V_SETS) {
        vu w[V_SETS][4];
        EACH(s, V_SETS) {
            const uint64_t n = (uint64_t)(i + s), from = n / 2 * 4 * V_LANES + n % 2;
            const vu a = v_add64(even, v_set64(index + from * step));
            const vu b = v_add64(even, v_set64(index + (from + 2 * V_LANES) * step));
            indices[i + s] = v_even32(a, b);
            philox_packed_begin(k, v_shr64(a, 2), v_shr64(b, 2), w[s]);
        }
        philox_packed_rounds(k, w, V_SETS);
        EACH(s, V_SETS) {
            const vm32 second = v_any32(indices[i + s], v_set32(2));
            words[2 * (i + s)] = v_select32(second, w[s][2], w[s][0]);
            words[2 * (i + s) + 1] = v_select32(second, w[s][3], w[s][1]);
        }
    }
}

/* The same for blocks of one pair: two groups for each set, one of even elements of the column, one
 * of odd elements. */
V_NOINLINE void column_words_f64(const philox_keys *k, uint64_t index, uint64_t step, int sets,
                                 vu *words, vu *indices) {
    uint64_t numbers[V_LANES];
    multiples(2 * step, numbers);
    const vu even = v_load_blocks(numbers);
    for (int i = 0; i < sets; i += V_SETS) {
        vu w[V_SETS][4];
        EACH(s, V_SETS) {
            vu *at = indices + 2 * (i + s);
            EACH(j, 2) {
                at[j] =
                    v_add64(even, v_set64(index + (uint64_t)(2 * V_LANES * (i + s) + j) * step));
            }
            philox_packed_begin(k, v_shr64(at[0], 1), v_shr64(at[1], 1), w[s]);
        }
        philox_packed_end(k, w, V_SETS, words + 4 * i);
    }
}

V_NOINLINE void make_column(char *dst, uint64_t index, uint64_t step, size_t count,
                            const winit_distribution *d, const winit_stream *s, int per_block,
                            unsigned bytes, column_function *finish) {
    philox_keys k;
    philox_schedule(&k, s);
    while (count) {
        const size_t left = count / (2 * V_LANES);
        const int sets = left < MOST / 2 ? (int)left : MOST / 2;
        vu words[2 * MOST], indices[MOST];
        if (per_block == 2) {
            column_words_f64(&k, index, step, sets, words, indices);
        } else { /* as many sets as radii are made at one time */
            const int whole = (sets + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
            column_words_f32(&k, index, step, whole, words, indices);
        }
        const int groups = per_block == 2 ? 2 * sets : sets;
        finish(dst, groups, words, indices, d);
        dst += (unsigned)(groups / 2) * bytes;
        index += (uint64_t)(2 * V_LANES * sets) * step;
        count -= (size_t)(2 * V_LANES * sets);
    }
}

V_INLINE void column(char *dst, uint64_t index, uint64_t step, size_t count,
                     const winit_distribution *d, const winit_stream *s, const kernel *f) {
    make_column(dst, index, step, count, d, s, f->per_block, (unsigned)group_bytes(f),
                f->finish_column);
}

#endif
