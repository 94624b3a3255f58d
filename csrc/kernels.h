/* The interface of an instruction set: one const table of functions. */
#ifndef WINIT_KERNELS_H
#define WINIT_KERNELS_H

#include "householder.h"
#include "probes.h"
#include "sets.h"
#include "winit.h"

enum { WINIT_MAX_LANES = 8, WINIT_MAX_COLUMN = 4 * WINIT_MAX_LANES };

typedef struct {
    int64_t count, index_stride, byte_stride;
} winit_rows;

/* Writes elements [index, index + count) to consecutive places from dst on, and then the other
 * rows->count - 1 rows, each at the strides of `rows` from the one before. */
typedef void winit_run(void *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                       const winit_distribution *d, const winit_stream *s, int streaming);
/* Writes all elements of the listed blocks to dst, in the order of the list. count is a multiple of
 * `lanes` of the table below. If `to` is not NULL, each block is 16 bytes and goes to its own
 * address in `to` instead of dst; for streaming stores these must be aligned to 16 bytes. */
typedef void winit_gather(void *dst, char *const *to, const uint64_t *blocks, size_t count,
                          const winit_distribution *d, const winit_stream *s, int streaming);
/* Writes elements index, index + step, ... to consecutive places. count is a multiple of the
 * table's column_at_once. */
typedef void winit_column(void *dst, uint64_t index, uint64_t step, size_t count,
                          const winit_distribution *d, const winit_stream *s);

typedef struct {
    const char *name;
    size_t lanes; /* blocks computed at one time; at most WINIT_MAX_LANES */
    winit_run *run[WINIT_KERNELS][WINIT_TYPES];
    int64_t min_run;     /* elements of a row from which a run is cheaper than a list of blocks */
    void (*fence)(void); /* after streaming stores, before another thread may read the result */
    winit_gather *gather[WINIT_KERNELS][WINIT_TYPES];
    size_t column_at_once; /* at most WINIT_MAX_COLUMN */
    winit_column *column[WINIT_KERNELS][WINIT_TYPES];
    winit_householder householder;
    winit_probes probes;
} winit_kernels;

#define X(name, flags) extern const winit_kernels winit_kernels_##name;
WINIT_EACH_SET(X)
#undef X

/* The table in use. */
const winit_kernels *winit_table(void);

#endif
