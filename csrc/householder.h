/* Householder reflectors of an orthogonal matrix: computing them, and applying them.
 *
 * Reflectors are a row-major array v with one reflector v_r in each row, H_r = I - tau_r v_r v_r'.
 * Row r is 0 before column r, and v_rr = 1. Strides are in elements. Every function uses only
 * correctly rounded operations in one fixed order, so that all instruction sets give the same bits.
 * No function allocates. */
#ifndef WINIT_HOUSEHOLDER_H
#define WINIT_HOUSEHOLDER_H

#include <stddef.h>

/* Reflectors that are applied together, as one group. */
enum { WINIT_GROUP = 4 };

/* Number of elements of the first `count` reflectors when packed; count is a multiple of
 * WINIT_GROUP. Of each group come the four first elements, then the four second ones, and so on,
 * from the row before which all four are 0. So a loop over the rows reads memory in sequence. */
static inline size_t winit_packed(size_t count, size_t length) {
    return count * length - count * (count - WINIT_GROUP) / 2;
}

typedef struct {
    /* Columns of a panel, which are worked on together: V_PANEL vectors (vec_*.h). */
    size_t columns_f32, columns_f64;

    /* Converts vectors x_r to reflectors v_r in place, with H_r x_r = -sign_r |x_r| e_r. x_r has
     * length - r elements, from column r of row r on; the r elements before are set to 0. */
    void (*reflectors_f32)(float *v, size_t rows, size_t length, size_t stride, float *tau,
                           float *sign);
    void (*reflectors_f64)(double *v, size_t rows, size_t length, size_t stride, double *tau,
                           double *sign);

    /* Computes -T for each group, where the product of its reflectors is I - V T V', and packs V. T
     * is upper triangular; factors is count x WINIT_GROUP for all groups. Here and in apply, count
     * is a multiple of WINIT_GROUP: an incomplete last group is padded with rows of 0 and tau = 0.
     */
    void (*groups_f32)(const float *v, size_t count, size_t length, size_t stride, const float *tau,
                       float *factors, float *packed);
    void (*groups_f64)(const double *v, size_t count, size_t length, size_t stride,
                       const double *tau, double *factors, double *packed);

    /* Computes H_0 H_1 ... H_{count-1} q or, if transposed, H_{count-1} ... H_1 H_0 q, in place. q
     * has `panels` panels, each row-major with `length` rows. Groups of reflectors that begin at or
     * after stops[k] are not applied to panel k. */
    void (*apply_f32)(const float *packed, size_t count, size_t length, const float *factors,
                      int transposed, float *q, size_t panels, const size_t *stops);
    void (*apply_f64)(const double *packed, size_t count, size_t length, const double *factors,
                      int transposed, double *q, size_t panels, const size_t *stops);

    /* Writes the first `width` columns of panels, the first `scaled` rows times their scales, the
     * others times `rest`; these factors are rounded to the type. Strides are in elements. */
    void (*store_f32)(const float *q, size_t length, size_t width, const double *scales,
                      size_t scaled, double rest, float *out, ptrdiff_t row_stride,
                      ptrdiff_t column_stride);
    void (*store_f64)(const double *q, size_t length, size_t width, const double *scales,
                      size_t scaled, double rest, double *out, ptrdiff_t row_stride,
                      ptrdiff_t column_stride);
} winit_householder;

/* The functions of the chosen instruction set. */
const winit_householder *winit_reflections(void);

#endif
