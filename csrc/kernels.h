/* What every instruction set provides: one const table of functions. */
#ifndef WINIT_KERNELS_H
#define WINIT_KERNELS_H

#include "winit.h"

typedef struct {
    int64_t count, index_stride, byte_stride;
} winit_rows;

/* Elements [index, index + count) to consecutive places from dst on, and the same for the rows
 * after this one. */
typedef void winit_run(void *dst, uint64_t index, uint64_t count, const winit_rows *rows,
                       const winit_distribution *d, const winit_stream *s, int streaming);
/* All elements of the listed blocks, in their order. count is a multiple of the table's lanes.
 * Blocks of 16 bytes may each go to a place of its own instead, if `to` is not NULL; streaming
 * stores need those aligned to 16. */
typedef void winit_gather(void *dst, char *const *to, const uint64_t *blocks, size_t count,
                          const winit_distribution *d, const winit_stream *s, int streaming);

/* What `count` blocks of four given words become: for the accuracy tests. */
typedef void winit_transform(void *dst, const uint32_t *words, size_t count,
                             const winit_distribution *d);

typedef struct {
    const char *name;
    size_t lanes; /* blocks that are made at a time; at most WINIT_MAX_LANES */
    winit_run *run[WINIT_KINDS][WINIT_TYPES];
    void (*fence)(void); /* after streaming stores, before anybody else may read */
    winit_gather *gather[WINIT_KINDS][WINIT_TYPES];
    winit_transform *transform[WINIT_KINDS][WINIT_TYPES];
    void (*log_f32)(const float *x, float *y, size_t n);
    void (*log_f64)(const double *x, double *y, size_t n);
    void (*sincos_f32)(const uint32_t *a, float *sin, float *cos, size_t n);
    void (*sincos_f64)(const uint64_t *a, double *sin, double *cos, size_t n);
} winit_kernels;

#if defined(__x86_64__) || defined(_M_X64)
#define WINIT_X86_64 1
#else
#define WINIT_X86_64 0
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define WINIT_AARCH64 1
#else
#define WINIT_AARCH64 0
#endif

extern const winit_kernels winit_kernels_scalar;
#if WINIT_X86_64
extern const winit_kernels winit_kernels_avx2;
extern const winit_kernels winit_kernels_avx512;
#endif
#if WINIT_AARCH64
extern const winit_kernels winit_kernels_neon;
#endif

/* memcpy, and a call of it: where compilers know that there is little to copy, they do it inline by
 * an instruction that takes longer than a dozen elements. */
void winit_copy(char *dst, const char *src, size_t bytes);

/* The table in use. */
const winit_kernels *winit_table(void);

#endif
