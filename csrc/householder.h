/*
 * Householder reflectors of an orthogonal matrix: making them, and applying few of them at once.
 *
 * A panel is a row-major array with one reflector v_r a row, H_r = I - tau_r v_r v_r'. Row r starts
 * at column r: v_rr = 1, and what stands before it counts as 0. Strides are in elements. Every
 * function uses correctly rounded operations in one fixed order only, so that all instruction sets
 * give the same bits. None allocates.
 */
#ifndef WINIT_HOUSEHOLDER_H
#define WINIT_HOUSEHOLDER_H

#include <stddef.h>

/* Columns of a matrix that `columns` computes at once: its destination is that wide. */
#define WINIT_COLUMNS 32

struct winit_householder {
    /* In place, vectors x_r into reflectors v_r with H_r x_r = -sign_r |x_r| e_r. Row r has
     * length - r elements from column r on; the r elements before are set to 0. */
    void (*reflectors_f32)(float *v, size_t rows, size_t length, size_t stride, float *tau,
                           float *sign);
    void (*reflectors_f64)(double *v, size_t rows, size_t length, size_t stride, double *tau,
                           double *sign);

    /* factor = -T, upper triangular, of H_0 ... H_{n-1} = I - V T V', from the strict upper triangle
     * of V'V and tau. The lower triangle is set to 0. */
    void (*factor_f32)(const float *products, size_t products_stride, const float *tau, size_t n,
                       float *factor, size_t factor_stride);
    void (*factor_f64)(const double *products, size_t products_stride, const double *tau, size_t n,
                       double *factor, size_t factor_stride);

    /* Columns first ... first + WINIT_COLUMNS - 1 of H_0 ... H_{n-1} diag(sign), of length rows >= n,
     * into q, rows x WINIT_COLUMNS. Those from column n on are 0. */
    void (*columns_f32)(const float *v, size_t stride, const float *tau, const float *sign,
                        size_t rows, size_t n, size_t first, float *q);
    void (*columns_f64)(const double *v, size_t stride, const double *tau, const double *sign,
                        size_t rows, size_t n, size_t first, double *q);
};

/* NULL for an instruction set that this build lacks. The caller asks the CPU. */
const struct winit_householder *winit_householder(const char *isa);

#endif
