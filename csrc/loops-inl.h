/* What the loops of all instruction sets have in common: kernels, rows, and places of groups. */
#ifndef WINIT_LOOPS_INL_H
#define WINIT_LOOPS_INL_H

#include <string.h>

#include "kernels.h"

#include "narrow-inl.h"
#include "philox-inl.h"

/* Where a group of V_LANES blocks is stored: its first `skip` elements are dropped, and the next
 * `own` elements go to dst. */
typedef struct {
    char *dst;
    unsigned skip, own;
} place;

/* A group of consecutive blocks, from `block` on, and its place. */
typedef struct {
    place to;
    uint64_t block;
} listed;

/* The parts of the loops that differ between kernels, where they are functions: see chunks-inl.h.
 */
typedef void run_function(char *dst, uint64_t block, uint64_t chunks, const philox_keys *k,
                          const winit_distribution *d, int streaming);
typedef void list_function(listed *list, int groups, vu *words, const winit_distribution *d,
                           int streaming);
typedef void whole_function(listed *list, const philox_keys *k, const winit_distribution *d,
                            int streaming);
typedef void column_function(char *dst, int groups, vu *words, const vu *indices,
                             const winit_distribution *d);

/* The functions and constants of a kernel. Wherever a kernel is used they are compile-time
 * constants, so compilers inline the calls. */
typedef struct {
    /* Transforms the words of n groups of V_LANES blocks, in the order of philox_end, to results:
     * the even elements of group i in out[2 i], the odd ones in out[2 i + 1]. A transform of radii
     * and angles has a first half, which replaces half of the words by the squares of the radii. */
    void (*transform)(const vu *w, const winit_distribution *d, const int n, vu *out);
    void (*squared_radius)(vu *w, const int n);
    int has_radius;
    int in_loops; /* the transform is several loops, which are fastest on all groups of a chunk */
    void (*put)(void *p, const vu x[2], int streaming);
    int size, per_block;
    run_function *chunks;
    list_function *finish;
    whole_function *finish_whole;
    column_function *finish_column;
    void (*put_in_order)(void *p, const vu x[2], int streaming); /* NULL if there is none */
} kernel;

V_INLINE int group_bytes(const kernel *f) { return V_LANES * f->per_block * f->size; }

/* What streaming stores of a group need. */
V_INLINE unsigned stream_align(const kernel *f) {
    return (unsigned)(V_STREAM_ALIGN < group_bytes(f) ? V_STREAM_ALIGN : group_bytes(f));
}

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

/* V_LANES consecutive block numbers from `block` on; in_order, number k in lane k. */
static const uint64_t from_zero[WINIT_MAX_LANES] = {0, 1, 2, 3, 4, 5, 6, 7};
V_INLINE vu consecutive(uint64_t block) {
    return v_add64(v_load_blocks(from_zero), v_set64(block));
}
V_INLINE vu consecutive_in_order(uint64_t block) {
    return v_add64(v_load(from_zero), v_set64(block));
}

/* The remaining rows. `count` elements of the current row remain, from element `skip` on of the
 * group that begins with `block`. Streaming stores need an address that is a multiple of `align`.
 */
typedef struct {
    char *dst;
    uint64_t block, count;
    unsigned skip, align;
    winit_rows rows;
    char *row;
    uint64_t index;
} cursor;

/* Moves the cursor to the start of its row. With streaming stores, groups start at the aligned
 * address before the row, and `skip` leaves out the elements before it. */
V_INLINE void start_row(cursor *c, uint64_t count, int streaming, const kernel *f) {
    const unsigned size = (unsigned)f->size, per_block = (unsigned)f->per_block;
    c->dst = c->row;
    c->count = count;
    c->block = c->index / per_block;
    c->skip = (unsigned)(c->index % per_block);
    if (streaming) {
        const unsigned past = (unsigned)(((uintptr_t)c->row - c->skip * size) % c->align);
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

/* Sets the cursor to the first row. Returns whether streaming stores are to be used: they require
 * that blocks are aligned in every row. */
V_INLINE int start(cursor *c, char *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                   int streaming, unsigned align, const kernel *f) {
    const unsigned size = (unsigned)f->size;
    const uint64_t shift = (uint64_t)(uintptr_t)dst - index * size;
    const uint64_t row_shift = (uint64_t)rows->byte_stride - (uint64_t)rows->index_stride * size;
    if ((shift | row_shift) % ((unsigned)f->per_block * size)) streaming = 0;
    *c = (cursor){.index = index, .row = dst, .rows = *rows, .align = align};
    start_row(c, count, streaming, f);
    return streaming;
}

/* Copies the elements of a group that belong to its row. The cache lines at the ends of a row may
 * also hold other data: streaming stores write our part without reading them. */
V_INLINE void put_part(const place *p, const char *group, int streaming, const kernel *f) {
    const unsigned bytes = p->own * (unsigned)f->size;
    const char *from = group + p->skip * (unsigned)f->size;
    if (streaming && ((uintptr_t)p->dst | bytes) % 16 == 0) {
        for (unsigned i = 0; i < bytes; i += 16) v_put_16(p->dst + i, from + i, 1);
    } else if (bytes) {
        copy(p->dst, from, bytes);
    }
}

/* Columns are drawn this many elements at a time, or half as many if a block has two. */
enum { COLUMN_AT_ONCE = 4 * V_LANES };

/* For each lane its number times `step`. */
V_INLINE void multiples(uint64_t step, uint64_t *numbers) {
    for (int i = 0; i < V_LANES; i++) numbers[i] = (uint64_t)i * step;
}

/* Chooses one element of each lane from the results of a group, by the lowest bit of its index. */
V_INLINE vu chosen(const vu x[2], vu indices, const kernel *f) {
    return f->per_block == 2 ? v_select64(v_any64(indices, v_set64(1)), x[1], x[0])
                             : v_select32(v_any32(indices, v_set32(1)), x[1], x[0]);
}

/* The same from the words of two groups, as the words of one: kernels that make each element from
 * its own word then transform only the chosen ones. */
V_INLINE void choose_words(const vu w[4], const vu indices[2], vu made[2], const kernel *f) {
    vu x[4] = {w[0], w[1], w[2], w[3]};
    if (f->per_block == 2) double_words(w, 2, x);
    const vu even = chosen(x, indices[0], f), odd = chosen(x + 2, indices[1], f);
    made[0] = f->per_block == 2 ? v_pack_low(even, odd) : even;
    made[1] = f->per_block == 2 ? v_pack_high(even, odd) : odd;
}

#endif
