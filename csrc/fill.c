/* Boxes of logical tensors to memory of any layout.
 *
 * Long rows that are contiguous in memory are written by the kernels' runs directly. Elements that
 * are close together in the tensor are drawn as runs into a buffer and copied from there. The rest
 * becomes a list of blocks: the kernel computes the blocks, and the elements of each row are copied
 * to their places. */
#include <string.h>

#include "environment.h"
#include "kernels.h"

enum {
    MIN_RUN = 48,         /* elements of a row from which a run is cheaper than a list */
    MIN_ROW = 16,         /* the same for a tile with more than one row */
    TILE_BYTES = 1 << 14, /* a buffer that stays in the L1 cache */
    NEAR_BYTES = 128,     /* adjacent bytes that are stored together: two cache lines */
    LIST_BLOCKS = 192,    /* blocks per call, enough to make the call's overhead negligible */
    MAX_ROW_BLOCKS = 25,  /* most blocks, of two elements each, in a row shorter than MIN_RUN */
    WHOLE_BLOCKS = 256,   /* blocks in a list that the kernel stores itself */
    COLUMN_BYTES = 1536,  /* of a column per call, if its elements are not adjacent in memory */
    MIN_COLUMN = 28       /* elements of a column from which its kernel is cheaper than a list */
};

/* The elements of a list go to lines that are seldom in a cache, so the lines are prefetched while
 * the kernel computes the elements. */
#if defined(__GNUC__)
#define PREFETCH_FOR_WRITING(address) __builtin_prefetch(address, 1)
#else
#define PREFETCH_FOR_WRITING(address) ((void)(address))
#endif

typedef winit_axis axis;

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* Largest stride first, so that the innermost loop writes adjacent memory. */
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

/* Merges axes that are contiguous in index and in memory, and returns how many are left. */
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

int winit_merge(winit_axis *axes, int n) {
    int left = 0;
    for (int k = 0; k < n; k++) {
        if (axes[k].extent != 1) axes[left++] = axes[k];
    }
    sort_axes(axes, left);
    return merge_axes(axes, left);
}

/* Removes the axis with index stride 1, if there is one, from the axes, and returns it in `row`. */
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

/* The place of the first element: only the axes that there are, since a small fill would notice. */
static void set_to_zero(int64_t *place, int n) {
    for (int k = 0; k < n; k++) place[k] = 0;
}

/* Advances to the next place; returns 0 after the last one. */
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
    int64_t place[WINIT_MAX_AXES];
    if (n) { /* the innermost axis is the kernel's own loop */
        n--;
        rows = (winit_rows){axes[n].extent, axes[n].index_stride, axes[n].byte_stride};
    }
    set_to_zero(place, n);
    do {
        run(dst, index, (uint64_t)row, &rows, d, s, streaming);
    } while (advance(axes, n, place, &dst, &index));
    if (streaming) winit_table()->fence();
}

#define COPY(bytes) \
    for (int64_t k = 0; k < count; k++) memcpy(dst + k * to, src + k * from, bytes)

/* Copies elements that are `from` bytes apart to places that are `to` bytes apart. */
static void copy_strided(char *dst, int64_t to, const char *src, int64_t from, int64_t count,
                         int size) {
    switch (size) {
        case 1: COPY(1); break;
        case 2: COPY(2); break;
        case 4: COPY(4); break;
        default: COPY(8); break;
    }
}

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

/* A part of the box that is drawn into a buffer: `steps` along each axis. The elements along the
 * `joined` axes lie within `span` elements of the tensor, which are drawn as one run. If the axis
 * with the smallest stride in memory is not joined, the tile has one run for each step along it. */
typedef struct {
    int64_t steps[WINIT_MAX_AXES], span;
    int joined[WINIT_MAX_AXES];
} tile;

/* Joins axes, those with the smallest index strides first, as long as the tile fits into the
 * buffer, has room for some adjacent elements in memory, and has few gaps. */
static tile choose_tile(const axis *axes, int n, int size, int64_t spread) {
    tile t;
    const int near = n - 1;
    const int64_t all = TILE_BYTES / size;
    int64_t elements = 1, room = n ? all / min(axes[near].extent, NEAR_BYTES / size) : 1;
    for (int k = 0; k < n; k++) {
        t.steps[k] = 1;
        t.joined[k] = 0;
    }
    t.span = 1;
    for (;;) {
        int next = -1;
        for (int k = 0; k < n; k++) {
            if (!t.joined[k] && axes[k].index_stride >= t.span &&
                (next < 0 || axes[k].index_stride < axes[next].index_stride)) {
                next = k;
            }
        }
        if (next < 0) break;
        if (next == near) room = all;
        const axis a = axes[next];
        const int64_t steps = min(a.extent, 1 + (room - t.span) / a.index_stride);
        const int64_t span = t.span + (steps - 1) * a.index_stride;
        elements *= steps;
        if (steps < 2 || span > spread * elements) break;
        t.joined[next] = 1;
        t.steps[next] = steps;
        t.span = span;
        if (steps < a.extent) break;
    }
    if (n && !t.joined[near]) t.steps[near] = min(axes[near].extent, all / t.span);
    return t;
}

/* Draws one tile and copies it to its place. The index strides of the axes are also the strides in
 * the buffer, except for rows, which are t->span elements apart there. */
static void fill_tile(const winit_distribution *d, const winit_stream *s, char *dst, uint64_t index,
                      const axis *axes, int n, const tile *t, const int64_t *extents) {
    const int size = (int)winit_type_size(d->type), near = n - 1;
    char made[TILE_BYTES];
    axis loops[WINIT_MAX_AXES];
    int64_t place[WINIT_MAX_AXES], span = 1;
    winit_rows rows = {1, 0, 0};
    int m = 0;
    for (int k = 0; k < n; k++) {
        const int64_t index_stride = axes[k].index_stride;
        if (t->joined[k]) {
            loops[m++] = (axis){extents[k], index_stride, axes[k].byte_stride};
            span += (extents[k] - 1) * index_stride;
        } else if (k == near) {
            loops[m++] = (axis){extents[k], t->span, axes[k].byte_stride};
            rows = (winit_rows){extents[k], index_stride, t->span * size};
        }
    }
    winit_table()->run[d->kernel][d->type](made, index, (uint64_t)span, &rows, d, s, 0);
    const axis inner = loops[--m];
    uint64_t from = 0;
    set_to_zero(place, m);
    do {
        copy_strided(dst, inner.byte_stride, made + from * (unsigned)size,
                     inner.index_stride * size, inner.extent, size);
    } while (advance(loops, m, place, &dst, &from));
}

static void fill_tiles(const winit_distribution *d, const winit_stream *s, char *dst,
                       uint64_t index, const axis *axes, int n, const tile *t) {
    axis tiles[WINIT_MAX_AXES];
    int64_t place[WINIT_MAX_AXES], extents[WINIT_MAX_AXES];
    for (int k = 0; k < n; k++) {
        const int64_t steps = t->steps[k];
        tiles[k] = (axis){(axes[k].extent + steps - 1) / steps,
                          (int64_t)((uint64_t)axes[k].index_stride * (uint64_t)steps),
                          axes[k].byte_stride * steps};
    }
    set_to_zero(place, n);
    do {
        for (int k = 0; k < n; k++) {
            extents[k] = min(t->steps[k], axes[k].extent - place[k] * t->steps[k]);
        }
        fill_tile(d, s, dst, index, axes, n, t, extents);
    } while (advance(tiles, n, place, &dst, &index));
}

/* Pads a list of blocks to a multiple of the blocks that kernels compute at once. */
static size_t fill_up(uint64_t *blocks, size_t used, size_t lanes) {
    const size_t whole = (used + lanes - 1) / lanes * lanes;
    for (size_t i = used; i < whole; i++) blocks[i] = 0;
    return whole;
}

/* The destination of a row of the list, and the place of its first element in the buffer. */
typedef struct {
    char *dst;
    const char *made;
} listed_row;

#define PUT(bytes)                                                         \
    for (int k = 0; k < count; k++) {                                      \
        char *dst = rows[k].dst;                                           \
        const char *made = rows[k].made;                                   \
        for (int64_t i = 0; i < row.extent; i++, dst += row.byte_stride) { \
            memcpy(dst, made + i * bytes, bytes);                          \
        }                                                                  \
    }

static void put_rows(const listed_row *rows, int count, axis row, int size) {
    switch (size) {
        case 1: PUT(1) break;
        case 2: PUT(2) break;
        case 4: PUT(4) break;
        default: PUT(8) break;
    }
}

/* Short rows that are far apart in the tensor: the blocks of many rows are computed together. */
static void fill_list(const winit_distribution *d, const winit_stream *s, char *dst, uint64_t index,
                      const axis *axes, int n, axis row, int log2_per_block) {
    const winit_kernels *table = winit_table();
    const int size = (int)winit_type_size(d->type);
    const uint64_t inside = ((uint64_t)1 << log2_per_block) - 1, last = (uint64_t)row.extent - 1;
    char made[LIST_BLOCKS * 16]; /* a block has at most 16 bytes */
    uint64_t blocks[LIST_BLOCKS];
    listed_row rows[LIST_BLOCKS];
    int64_t place[WINIT_MAX_AXES];
    const axis inner = n ? axes[n - 1] : (axis){1, 0, 0}; /* a plain loop */
    size_t used = 0;
    int listed = 0, more;
    set_to_zero(place, n);
    do {
        char *at = dst;
        uint64_t i = index;
        int64_t left = inner.extent;
        more = advance(axes, n - (n > 0), place, &dst, &index);
        do {
            while (left && used + MAX_ROW_BLOCKS <= LIST_BLOCKS) {
                const uint64_t first = i >> log2_per_block, end = (i + last) >> log2_per_block;
                PREFETCH_FOR_WRITING(at);
                rows[listed++] = (listed_row){at, made + ((used << log2_per_block) + (i & inside)) *
                                                             (unsigned)size};
                for (uint64_t block = first; block <= end; block++) blocks[used++] = block;
                at += inner.byte_stride;
                i += (uint64_t)inner.index_stride;
                left--;
            }
            if (left || !more) {
                used = fill_up(blocks, used, table->lanes);
                table->gather[d->kernel][d->type](made, NULL, blocks, used, d, s, 0);
                put_rows(rows, listed, row, size);
                used = 0;
                listed = 0;
            }
        } while (left);
    } while (more);
}

/* A buffer holds as many elements as the kernel makes, which are a multiple of column_at_once. */
_Static_assert(COLUMN_BYTES / 8 % WINIT_MAX_COLUMN == 0, "whole columns at one time");

/* Single elements that are far apart in the tensor. */
static void fill_column(const winit_distribution *d, const winit_stream *s, char *dst,
                        uint64_t index, const axis *axes, int n) {
    const winit_kernels *table = winit_table();
    winit_column *const kernel = table->column[d->kernel][d->type];
    const int size = (int)winit_type_size(d->type);
    const int64_t at_once = (int64_t)table->column_at_once;
    const axis column = axes[--n];
    const uint64_t step = (uint64_t)column.index_stride;
    const int direct = column.byte_stride == size && column.extent * size > COLUMN_BYTES;
    char made[COLUMN_BYTES];
    int64_t place[WINIT_MAX_AXES];
    set_to_zero(place, n);
    do {
        int64_t first = 0;
        if (direct) {
            first = column.extent / at_once * at_once;
            kernel(dst, index, step, (size_t)first, d, s);
        }
        while (first < column.extent) {
            const int64_t count = min(COLUMN_BYTES / size, column.extent - first);
            const int64_t whole = (count + at_once - 1) / at_once * at_once;
            kernel(made, index + (uint64_t)first * step, step, (size_t)whole, d, s);
            copy_strided(dst + first * column.byte_stride, column.byte_stride, made, size, count,
                         size);
            first += count;
        }
    } while (advance(axes, n, place, &dst, &index));
}

/* Rows that begin and end at blocks of 16 bytes: short runs to distant places. With non-temporal
 * stores their cache lines need not be read first. */
static void fill_whole_blocks(const winit_distribution *d, const winit_stream *s, char *dst,
                              uint64_t index, const axis *axes, int n, int64_t row_blocks,
                              int log2_per_block, int streaming) {
    const winit_kernels *table = winit_table();
    winit_gather *gather = table->gather[d->kernel][d->type];
    _Alignas(16) char nowhere[16];
    uint64_t blocks[WHOLE_BLOCKS];
    char *to[WHOLE_BLOCKS];
    int64_t place[WINIT_MAX_AXES];
    size_t used = 0;
    const axis rows = n ? axes[n - 1] : (axis){1, 0, 0}; /* the innermost loop */
    const int64_t step = rows.index_stride / ((int64_t)1 << log2_per_block);
    set_to_zero(place, n);
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
        const size_t count = fill_up(blocks, used, table->lanes);
        for (size_t i = used; i < count; i++) to[i] = nowhere;
        gather(NULL, to, blocks, count, d, s, streaming);
    }
    if (streaming) table->fence();
}

/* Whether all rows begin at a block, consist of whole blocks of 16 bytes, and, for non-temporal
 * stores, are aligned to 16 bytes. */
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
    axis all[WINIT_MAX_AXES], axes[WINIT_MAX_AXES], row = {1, 1, size};
    for (int k = 0; k < count; k++) {
        all[k] = (axis){shape[k], index_strides[k], byte_strides[k]};
    }
    count = winit_merge(all, count);
    memcpy(axes, all, (size_t)count * sizeof *axes);
    const int n = take_row(axes, count, &row);
    const environment callers = environment_enter();
    const int per_block = winit_per_block(d->type), log2_per_block = per_block / 2;
    if (row.byte_stride == size && (row.extent >= winit_table()->min_run || !n)) {
        fill_runs(d, s, dst, index, axes, n, row.extent, streaming);
    } else if (whole_blocks(dst, index, axes, n, row, size, per_block, streaming)) {
        fill_whole_blocks(d, s, dst, index, axes, n, row.extent >> log2_per_block, log2_per_block,
                          streaming);
    } else {
        /* Most elements that a run may draw for each one used: beyond it a list is cheaper. */
        const int64_t spread = row.extent == 1 && per_block == 4 ? 3 : 2;
        const tile t = choose_tile(all, count, size, spread);
        const int rows = count && !t.joined[count - 1];
        if (t.span >= (rows ? MIN_ROW : MIN_RUN)) {
            fill_tiles(d, s, dst, index, all, count, &t);
        } else if (row.extent == 1 && n && axes[n - 1].extent >= MIN_COLUMN) {
            fill_column(d, s, dst, index, axes, n);
        } else {
            fill_list(d, s, dst, index, axes, n, row, log2_per_block);
        }
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
