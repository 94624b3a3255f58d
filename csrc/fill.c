/* Boxes of logical tensors to memory of any layout.
 *
 * Rows that are contiguous in memory and long go straight through the kernels' runs. Everything
 * else is a list of blocks: the kernel makes them all, then each block's elements go where they
 * belong. */
#include <string.h>

#include "environment.h"
#include "kernels.h"

enum {
    MIN_RUN = 48,      /* elements of a row from which a run is cheaper than a list */
    LIST_BLOCKS = 32,  /* blocks made at a time: their lines stay in the ways of one cache set, and
                         their stores in the processor's queue while the next blocks are made */
    WHOLE_BLOCKS = 256 /* blocks in a list that the kernel itself puts away */
};

/* A list's elements go to lines that are seldom in a cache: they are asked for while the kernel is
 * still making the elements. */
#if defined(__GNUC__)
#define PREFETCH_FOR_WRITING(address) __builtin_prefetch(address, 1)
#else
#define PREFETCH_FOR_WRITING(address) ((void)(address))
#endif

typedef struct {
    int64_t extent, index_stride, byte_stride;
} axis;

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* Slowest in memory first, so that the innermost loop writes neighbours. */
static void sort_axes(axis *axes, int n) {
    for (int i = 1; i < n; i++) {
        const axis a = axes[i];
        int j = i;
        for (; j > 0 && magnitude(axes[j - 1].byte_stride) < magnitude(a.byte_stride); j--) {
            axes[j] = axes[j - 1];
        }
        axes[j] = a;
    }
}

/* Joins axes that continue one another in index and in memory, and returns how many are left. */
static int merge_axes(axis *axes, int n) {
    int last = 0;
    for (int k = 1; k < n; k++) {
        const axis inner = axes[k];
        axis *outer = &axes[last];
        const uint64_t extent = (uint64_t)inner.extent;
        if ((uint64_t)outer->index_stride == extent * (uint64_t)inner.index_stride &&
            (uint64_t)outer->byte_stride == extent * (uint64_t)inner.byte_stride) {
            *outer = (axis){outer->extent * inner.extent, inner.index_stride, inner.byte_stride};
        } else {
            axes[++last] = inner;
        }
    }
    return n ? last + 1 : 0;
}

/* Takes the axis along which the logical index steps by 1, if there is one, out of the others. */
static int take_row(axis *axes, int n, axis *row) {
    int left = 0;
    for (int k = 0; k < n; k++) {
        if (axes[k].index_stride == 1) {
            *row = axes[k];
        } else {
            axes[left++] = axes[k];
        }
    }
    return left;
}

/* On to the next place; 0 after the last one. */
static int advance(const axis *axes, int n, int64_t *place, char **dst, uint64_t *index) {
    for (int k = n - 1; k >= 0; k--) {
        *dst += axes[k].byte_stride;
        *index += (uint64_t)axes[k].index_stride;
        if (++place[k] < axes[k].extent) return 1;
        *dst -= axes[k].extent * axes[k].byte_stride;
        *index -= (uint64_t)axes[k].extent * (uint64_t)axes[k].index_stride;
        place[k] = 0;
    }
    return 0;
}

static void fill_runs(const winit_distribution *d, const winit_stream *s, char *dst, uint64_t index,
                      const axis *axes, int n, int64_t row, int streaming) {
    winit_run *run = winit_table()->run[d->kernel][d->type];
    winit_rows rows = {1, 0, 0};
    int64_t place[WINIT_MAX_AXES] = {0};
    if (n) { /* the innermost axis is the kernel's own loop */
        n--;
        rows = (winit_rows){axes[n].extent, axes[n].index_stride, axes[n].byte_stride};
    }
    do {
        run(dst, index, (uint64_t)row, &rows, d, s, streaming);
    } while (advance(axes, n, place, &dst, &index));
    if (streaming) winit_table()->fence();
}

/* Part of one block: `count` of its elements from `first` on, to dst and on by the list's stride.
 */
typedef struct {
    char *dst;
    int first, count;
} part;

typedef struct {
    const winit_distribution *d;
    const winit_stream *s;
    int64_t stride;
    int size, per_block, used;
    uint64_t blocks[LIST_BLOCKS];
    part parts[LIST_BLOCKS];
} block_list;

#define COPY(bytes)                                                                \
    for (int k = 0; k < p->count; k++) {                                           \
        memcpy(p->dst + k * list->stride, from + (p->first + k) * (bytes), bytes); \
    }

static void scatter(const block_list *list, const char *made) {
    const int block_bytes = list->size * list->per_block;
    const int whole_16 = list->stride == list->size && block_bytes == 16;
    for (int i = 0; i < list->used; i++) {
        const part *p = &list->parts[i];
        const char *from = made + i * block_bytes;
        if (whole_16 && p->count == list->per_block) {
            memcpy(p->dst, from, 16);
        } else {
            switch (list->size) {
                case 1: COPY(1) break;
                case 2: COPY(2) break;
                case 4: COPY(4) break;
                default: COPY(8) break;
            }
        }
    }
}

/* Kernels make some lanes of blocks at a time: a list is filled up to that. */
static size_t fill_up(uint64_t *blocks, size_t used) {
    const size_t lanes = winit_table()->lanes, whole = (used + lanes - 1) / lanes * lanes;
    for (size_t i = used; i < whole; i++) blocks[i] = 0;
    return whole;
}

static void flush(block_list *list) {
    char made[LIST_BLOCKS * 16]; /* no block is longer */
    const size_t count = fill_up(list->blocks, (size_t)list->used);
    winit_table()->gather[list->d->kernel][list->d->type](made, NULL, list->blocks, count, list->d,
                                                          list->s, 0);
    scatter(list, made);
    list->used = 0;
}

/* The row's elements are cut at block borders. The k-th of its blocks has its place in memory from
 * k, so that k is one more axis, the one without an index stride of its own. */
static void fill_list(const winit_distribution *d, const winit_stream *s, char *dst, uint64_t index,
                      const axis *outer, int n, axis row, int log2_per_block) {
    const int64_t per_block = (int64_t)1 << log2_per_block,
                  block_stride = row.byte_stride * per_block;
    const uint64_t inside = (uint64_t)per_block - 1;
    block_list list = {.d = d,
                       .s = s,
                       .stride = row.byte_stride,
                       .size = (int)winit_type_size(d->type),
                       .per_block = (int)per_block};
    axis axes[WINIT_MAX_AXES + 1];
    int64_t place[WINIT_MAX_AXES + 1] = {0};
    /* Where rows start at different places of a block, some touch one block more than others. */
    int64_t farthest_start = (int64_t)(index & inside);
    for (int k = 0; k < n; k++) {
        axes[k] = outer[k];
        if ((uint64_t)outer[k].index_stride & inside) farthest_start = per_block - 1;
    }
    axes[n] = (axis){((farthest_start + row.extent - 1) >> log2_per_block) + 1, 0, block_stride};
    sort_axes(axes, n + 1);
    /* The innermost axis is a plain loop. An axis steps either through the index or, being that of
     * the blocks, through their number. */
    const axis inner = axes[n];
    const int64_t *number_outside = NULL;
    for (int k = 0; k < n; k++) {
        if (axes[k].index_stride == 0) number_outside = &place[k];
    }
    do {
        char *at = dst;
        uint64_t i = index;
        for (int64_t k = 0; k < inner.extent; k++) {
            const int64_t number = number_outside ? *number_outside : k;
            const int64_t start = (int64_t)(i & inside);
            /* this block's elements, counted from the row's first one */
            const int64_t block_start = number * per_block - start;
            const int64_t from = block_start > 0 ? block_start : 0;
            const int64_t end = block_start + per_block;
            const int64_t to = end < row.extent ? end : row.extent;
            if (from < to) {
                const int64_t first = from - block_start;
                list.blocks[list.used] = (i >> log2_per_block) + (uint64_t)number;
                char *to_write = at + (first - start) * row.byte_stride;
                list.parts[list.used] = (part){to_write, (int)first, (int)(to - from)};
                PREFETCH_FOR_WRITING(to_write);
                if (++list.used == LIST_BLOCKS) flush(&list);
            }
            at += inner.byte_stride;
            i += (uint64_t)inner.index_stride;
        }
    } while (advance(axes, n, place, &dst, &index));
    if (list.used) flush(&list);
}

/* Rows that begin and end with a block of 16 bytes: short runs, each to a place far from the last
 * one's. Where stores stream, the lines that they lie in need not be read. */
static void fill_whole_blocks(const winit_distribution *d, const winit_stream *s, char *dst,
                              uint64_t index, const axis *axes, int n, int64_t row_blocks,
                              int log2_per_block, int streaming) {
    const winit_kernels *table = winit_table();
    winit_gather *gather = table->gather[d->kernel][d->type];
    _Alignas(16) char nowhere[16];
    uint64_t blocks[WHOLE_BLOCKS];
    char *to[WHOLE_BLOCKS];
    int64_t place[WINIT_MAX_AXES] = {0};
    size_t used = 0;
    const axis rows = n ? axes[n - 1] : (axis){1, 0, 0}; /* the innermost loop */
    const int64_t step = rows.index_stride / ((int64_t)1 << log2_per_block);
    do {
        uint64_t block = index >> log2_per_block;
        char *at = dst;
        for (int64_t row = 0; row < rows.extent; row++) {
            for (int64_t k = 0; k < row_blocks; k++) {
                if (used == WHOLE_BLOCKS) {
                    gather(NULL, to, blocks, used, d, s, streaming);
                    used = 0;
                }
                blocks[used] = block + (uint64_t)k;
                to[used++] = at + 16 * k;
            }
            block += (uint64_t)step;
            at += rows.byte_stride;
        }
    } while (advance(axes, n - (n > 0), place, &dst, &index));
    if (used) {
        const size_t count = fill_up(blocks, used);
        for (size_t i = used; i < count; i++) to[i] = nowhere;
        gather(NULL, to, blocks, count, d, s, streaming);
    }
    if (streaming) table->fence();
}

/* Whether all rows begin with a block, have whole blocks of 16 bytes, and, for streams, are aligned
 * to them. */
static int whole_blocks(const char *dst, uint64_t index, const axis *axes, int n, axis row,
                        int size, int per_block, int streaming) {
    const uint64_t inside = (uint64_t)per_block - 1;
    uint64_t indices = index | (uint64_t)row.extent, places = (uint64_t)(uintptr_t)dst;
    for (int k = 0; k < n; k++) {
        indices |= (uint64_t)axes[k].index_stride;
        places |= (uint64_t)axes[k].byte_stride;
    }
    return row.byte_stride == size && size * per_block == 16 && !(indices & inside) &&
           (!streaming || !(places & 15));
}

void winit_fill(const winit_distribution *d, const winit_stream *s, void *dst, uint64_t index,
                int count, const int64_t *shape, const int64_t *index_strides,
                const int64_t *byte_strides, int streaming) {
    const int size = (int)winit_type_size(d->type);
    axis axes[WINIT_MAX_AXES], row = {1, 1, size};
    int n = 0;
    for (int k = 0; k < count; k++) {
        if (shape[k] > 1) axes[n++] = (axis){shape[k], index_strides[k], byte_strides[k]};
    }
    sort_axes(axes, n);
    n = merge_axes(axes, n);
    n = take_row(axes, n, &row);
    const environment callers = environment_enter();
    const int per_block = winit_per_block(d->type), log2_per_block = per_block / 2;
    if (row.byte_stride == size && row.extent >= MIN_RUN) {
        fill_runs(d, s, dst, index, axes, n, row.extent, streaming);
    } else if (whole_blocks(dst, index, axes, n, row, size, per_block, streaming)) {
        fill_whole_blocks(d, s, dst, index, axes, n, row.extent >> log2_per_block, log2_per_block,
                          streaming);
    } else {
        fill_list(d, s, dst, index, axes, n, row, log2_per_block);
    }
    environment_leave(callers);
}

void winit_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
    const winit_kernels *table = winit_table();
    const winit_stream s = {key[0] | (uint64_t)key[1] << 32,
                            counter[2] | (uint64_t)counter[3] << 32};
    uint64_t blocks[WINIT_MAX_LANES] = {counter[0] | (uint64_t)counter[1] << 32};
    uint32_t made[WINIT_MAX_LANES][4];
    winit_distribution d;
    winit_set(&d, "bits", WINIT_F32, &(winit_parameters){0});
    table->gather[d.kernel][d.type](made, NULL, blocks, table->lanes, &d, &s, 0);
    memcpy(words, made[0], sizeof made[0]);
}
