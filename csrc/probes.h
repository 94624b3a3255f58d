/* Probes: single parts of the kernels, for the tests of their accuracy. */
#ifndef WINIT_PROBES_H
#define WINIT_PROBES_H

#include "winit.h"

/* Transforms `count` blocks of four given words to elements, in order. */
void winit_transform_words(const winit_distribution *d, const uint32_t *words, void *dst,
                           size_t count);

/* The elementary functions, of n elements. The angle is 2 pi a / 2^32 (2^64); log takes (0, 1].
 */
void winit_log_f32(const float *x, float *y, size_t n);
void winit_log_f64(const double *x, double *y, size_t n);
void winit_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n);
void winit_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n);

/* The same functions of one instruction set; count is a multiple of the set's lanes. */
typedef void winit_transform(void *dst, const uint32_t *words, size_t count,
                             const winit_distribution *d);
typedef struct {
    winit_transform *transform[WINIT_KERNELS][WINIT_TYPES];
    void (*log_f32)(const float *x, float *y, size_t n);
    void (*log_f64)(const double *x, double *y, size_t n);
    void (*sincos_f32)(const uint32_t *a, float *sin, float *cos, size_t n);
    void (*sincos_f64)(const uint64_t *a, double *sin, double *cos, size_t n);
} winit_probes;

#endif
