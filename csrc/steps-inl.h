/* The loops of sets without packed lanes: steps of V_GROUPS groups in registers. */
#ifndef WINIT_STEPS_INL_H
#define WINIT_STEPS_INL_H

#include "loops-inl.h"

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
        if (f->has_radius) f->squared_radius(w + 2 * g, n);
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

/* Computes the words of V_GROUPS groups, and advances `product` to the next groups. */
V_INLINE void next_groups(const philox_keys *k, vu *product, vu *words) {
    vu w[V_GROUPS][4];
    EACH(g, V_GROUPS) {
        philox_begin_run(k, product[g], w[g]);
        product[g] = v_add64(product[g], v_set64((uint64_t)PHILOX_M0 * V_LANES * V_GROUPS));
    }
    philox_end(k, w, V_GROUPS, words);
}

/* Copies from the groups in `made` the elements that belong to the rows. */
V_INLINE void put_places(const place *places, const char *made, int streaming, const kernel *f) {
    for (int g = 0; g < V_GROUPS; g++) {
        put_part(&places[g], made + g * group_bytes(f), streaming, f);
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

/* Runs `steps` whole steps from `block` on, below the next multiple of 2^32. The words of a step
 * are computed while those of the previous step are transformed, because integer and floating-point
 * multiplications use different units of a processor. The results of `ready` go to `to`, the others
 * to `following` and after. The words of the last step stay in `ready`; their destination is
 * returned. `streaming` is a constant, so that a step is one basic block, which the compiler can
 * schedule. */
V_INLINE char *run_steps(char *to, char *following, uint64_t block, uint64_t steps,
                         const philox_keys *k, vu *ready, const winit_distribution *d,
                         const int streaming, const kernel *f) {
    vu product[V_GROUPS];
    product[0] = v_mul_low(consecutive(block), k->m0);
    V_UNROLL for (int g = 1; g < V_GROUPS; g++) {
        product[g] = v_add64(product[g - 1], v_set64((uint64_t)PHILOX_M0 * V_LANES));
    }
    for (; steps; steps--) {
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
    const unsigned per_group = V_LANES * (unsigned)f->per_block, per_step = V_GROUPS * per_group;
    philox_keys k;
    philox_schedule(&k, s);
    cursor c;
    streaming = start(&c, dst, index, count, rows, streaming, stream_align(f), f);
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

/* Moves the half of each lane that the second bit of its index selects to the low half. */
V_INLINE vu half(vu words, vu indices) {
    return v_select64(v_any64(indices, v_set64(2)), v_shr64(words, 32), words);
}

/* Single elements, which one store puts to consecutive places. Of a block with four elements only a
 * pair of words is needed, the low half or the high half of a lane: the pairs of two groups become
 * one group before the transform. */
V_INLINE void column(char *dst, uint64_t index, uint64_t step, size_t count,
                     const winit_distribution *distribution, const winit_stream *s,
                     const kernel *f) {
    const winit_distribution d = *distribution;
    const int whole = f->per_block == 2, groups = f->per_block;
    uint64_t numbers[WINIT_MAX_LANES];
    multiples((uint64_t)groups * step, numbers);
    const vu first = v_load_blocks(numbers);
    philox_keys k;
    philox_schedule(&k, s);
    for (; count; count -= (unsigned)(groups * V_LANES)) {
        vu w[4][4], at[4] = {0}, words[8], indices[2], x[4], made[2];
        EACH(g, groups) {
            /* elements 0 and 1 of each lane, or 0, 2, 1 and 3 */
            const int place = whole ? g : g / 2 + g % 2 * 2;
            at[g] = v_add64(first, v_set64(index + (uint64_t)place * step));
            philox_begin(&k, v_shr64(at[g], whole ? 1 : 2), w[g]);
        }
        philox_end(&k, w, groups, words);
        EACH(g, 2) {
            if (whole) {
                indices[g] = at[g];
            } else {
                const vu *a = words + 4 * g, *b = a + 2;
                indices[g] = v_pack_low(at[2 * g], at[2 * g + 1]);
                EACH(j, 2) {
                    words[2 * g + j] = v_pack_low(half(a[j], at[2 * g]), half(b[j], at[2 * g + 1]));
                }
            }
        }
        if (f->has_radius) {
            f->squared_radius(words, 2);
            f->transform(words, &d, 2, x);
            EACH(g, 2) made[g] = chosen(x + 2 * g, indices[g], f);
        } else {
            choose_words(words, indices, x, f);
            f->transform(x, &d, 1, made);
        }
        f->put(dst, made, 0);
        dst += group_bytes(f);
        index += (uint64_t)(groups * V_LANES) * step;
    }
}

/* All loops are inlined. */
#define PARTS_OF_LOOPS(name)
#define LIST_OF_PARTS(name, put_in_order) NULL, NULL, NULL, NULL, NULL

#endif
