/* Householder reflectors of an orthogonal matrix: making them, and applying them.
 *
 * A panel is a row-major array with one reflector v_r a row, H_r = I - tau_r v_r v_r'. Row r starts
 * at column r: v_rr = 1, and before it is 0. Strides are in elements. Every function uses correctly
 * rounded operations in one fixed order only, so that all instruction sets give the same bits. None
 * allocates. */
#ifndef WINIT_HOUSEHOLDER_H
#define WINIT_HOUSEHOLDER_H

#include <stddef.h>

/* Columns of a panel of a matrix, and reflectors that are applied to it together: as many as keep
 * their sums in the registers of AVX2. */
enum { WINIT_COLUMNS = 16, WINIT_GROUP = 4 };

typedef struct {
    /* In place, vectors x_r into reflectors v_r with H_r x_r = -sign_r |x_r| e_r. Row r has
     * length - r elements from column r on; the r elements before are set to 0. */
    void (*reflectors_f32)(float *v, size_t rows, size_t length, size_t stride, float *tau,
                           float *sign);
    void (*reflectors_f64)(double *v, size_t rows, size_t length, size_t stride, double *tau,
                           double *sign);

    /* -T, where the product of a group is I - V T V': upper triangular, count x WINIT_GROUP for all
     * groups. Here and below count is a multiple of WINIT_GROUP: rows of 0 with tau = 0 stand in
     * for what is missing in the last group. */
    void (*factors_f32)(const float *v, size_t count, size_t length, size_t stride,
                        const float *tau, float *factors);
    void (*factors_f64)(const double *v, size_t count, size_t length, size_t stride,
                        const double *tau, double *factors);

    /* H_0 H_1 ... H_{count-1} q or, transposed, H_{count-1} ... H_1 H_0 q, in place. q has panels
     * of WINIT_COLUMNS columns, each row-major and of `length` rows; groups of reflectors that
     * begin at or after a panel's stop leave it as it is. */
    void (*apply_f32)(const float *v, size_t count, size_t length, size_t stride,
                      const float *factors, int transposed, float *q, size_t panels,
                      const size_t *stops);
    void (*apply_f64)(const double *v, size_t count, size_t length, size_t stride,
                      const double *factors, int transposed, double *q, size_t panels,
                      const size_t *stops);
} winit_householder;

/* Those of the chosen instruction set. */
const winit_householder *winit_reflections(void);

#endif
