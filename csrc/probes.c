/* The probes of the chosen instruction set. */
#include "probes.h"

#include <string.h>

#include "environment.h"
#include "kernels.h"

void winit_transform_words(const winit_distribution *d, const uint32_t *words, void *dst,
                           size_t count) {
    winit_transform *transform = winit_table()->probes.transform[d->kernel][d->type];
    const size_t rest = count % WINIT_MAX_LANES, whole = count - rest;
    const size_t block_bytes = winit_type_size(d->type) * (size_t)winit_per_block(d->type);
    const environment callers = environment_enter();
    transform(dst, words, whole, d);
    if (rest) {
        uint32_t last[4 * WINIT_MAX_LANES] = {0};
        char made[16 * WINIT_MAX_LANES];
        memcpy(last, words + 4 * whole, 4 * rest * sizeof *words);
        transform(made, last, WINIT_MAX_LANES, d);
        memcpy((char *)dst + whole * block_bytes, made, rest * block_bytes);
    }
    environment_leave(callers);
}

void winit_log_f32(const float *x, float *y, size_t n) {
    const environment callers = environment_enter();
    winit_table()->probes.log_f32(x, y, n);
    environment_leave(callers);
}

void winit_log_f64(const double *x, double *y, size_t n) {
    const environment callers = environment_enter();
    winit_table()->probes.log_f64(x, y, n);
    environment_leave(callers);
}

void winit_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n) {
    const environment callers = environment_enter();
    winit_table()->probes.sincos_f32(a, sin, cos, n);
    environment_leave(callers);
}

void winit_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n) {
    const environment callers = environment_enter();
    winit_table()->probes.sincos_f64(a, sin, cos, n);
    environment_leave(callers);
}
