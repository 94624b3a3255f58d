/* Converts the user's parameters to the constants of a kernel, and bounds to numbers of a type. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "environment.h"
#include "winit.h"

typedef struct {
    const char *name;
    size_t size;
    int precision, min_exponent; /* significand bits; 2^min_exponent is the smallest normal */
    double max;
} format;

static const format formats[WINIT_TYPES] = {
#define X(with, NAME, short_name, arithmetic, name, ...) [WINIT_##NAME] = {#name, __VA_ARGS__},
    WINIT_EACH_TYPE(X, )
#undef X
};

const char *winit_type_name(int type) {
    return type >= 0 && type < WINIT_TYPES ? formats[type].name : NULL;
}

#define X(NAME, name, ...) #name,
static const char *const kernels[WINIT_KERNELS] = {"bits", WINIT_EACH_KERNEL(X)};
#undef X

const char *winit_kernel_name(int kernel) { return kernels[kernel]; }

size_t winit_type_size(int type) { return formats[type].size; }

int winit_per_block(int type) { return type == WINIT_F64 ? 2 : 4; }

static int is_f64(int type) { return type == WINIT_F64; }

/* x rounded to the working type; a zero is +0. */
static double working(int type, double x) { return (is_f64(type) ? x : (double)(float)x) + 0.0; }

/* The distance between numbers of the format near x. */
static double unit_near(const format *f, double x) {
    int e = 0;
    frexp(x, &e); /* |x| in [2^(e-1), 2^e) */
    e -= 1;
    if (x == 0 || e < f->min_exponent) e = f->min_exponent;
    return ldexp(1.0, e - f->precision + 1);
}

/* The smallest number of the format that is >= x; infinite if there is none. A zero is +0. */
static double round_up(const format *f, double x) {
    if (isinf(x)) return x < 0 ? -f->max : INFINITY;
    const double unit = unit_near(f, x), y = ceil(x / unit) * unit;
    if (y < -f->max) return -f->max;
    return y > f->max ? INFINITY : y + 0.0;
}

static double round_down(const format *f, double x) { return -round_up(f, -x) + 0.0; }

/* The largest number of the format below x. */
static double below(const format *f, double x) {
    const double y = round_down(f, x);
    return y < x ? y : y - unit_near(f, y > 0 ? nextafter(y, 0) : y);
}

static int set_bits(winit_distribution *d, int type, const winit_parameters *p) {
    (void)p;
    *d = (winit_distribution){.kernel = WINIT_BITS, .type = type};
    return 0;
}

static int set_uniform(winit_distribution *d, int type, const winit_parameters *p) {
    const format *f = &formats[type];
    const double low = p->low, high = p->high;
    *d = (winit_distribution){
        .kernel = WINIT_UNIFORM,
        .type = type,
        .scale = working(type, (high - low) / 2),
        .loc = working(type, (high + low) / 2),
        .low = round_up(f, low),
        .high = below(f, high),
    };
    if (!isfinite(d->scale) || !isfinite(d->loc)) return WINIT_NOT_FINITE;
    if (d->low > d->high) return WINIT_NO_VALUE;
    /* The smallest result that the kernel can compute. A half width of at least 2^-94 is still a
     * normal number after scaling by 2^-31, so it keeps all its bits. */
    const float smallest = fmaf(-1 + 0x1p-24f, (float)d->scale, (float)d->loc);
    if (!is_f64(type) && d->scale >= 0x1p-94 && smallest >= d->low) {
        d->kernel = WINIT_INSIDE;
        d->scale *= 0x1p-31;
    }
    return 0;
}

static int set_normal(winit_distribution *d, int type, const winit_parameters *p) {
    *d = (winit_distribution){
        .kernel = WINIT_NORMAL,
        .type = type,
        .scale = working(type, p->scale),
        .loc = working(type, p->loc),
    };
    return isfinite(d->scale) && isfinite(d->loc) ? 0 : WINIT_NOT_FINITE;
}

static int set_truncated_normal(winit_distribution *d, int type, const winit_parameters *p) {
    if (p->scale == 0) return set_normal(d, type, p); /* every element is loc */
    const format *f = &formats[type];
    const winit_window *w = &p->window;
    const double loc = p->loc, scale = p->scale, low = p->low, high = p->high;
    const double t_step = working(type, w->t_step);
    const int central = low == -high && high <= 2 && w->t_exponent == 0;
    *d = (winit_distribution){
        .kernel = central ? WINIT_CENTRAL : WINIT_TRUNCATED,
        .type = type,
        .scale = working(type, working(type, scale) * ldexp(1.0, -w->t_exponent)),
        .loc = working(type, loc),
        .low = round_up(f, loc + low * scale),
        .high = round_down(f, loc + high * scale),
        .flip = w->flip ? ~(uint64_t)0 : 0,
        .kappa = w->kappa,
        .tail_step = working(type, w->tail_step),
        .tail_start = {working(type, w->tail_start[0]), working(type, w->tail_start[1])},
        .t_step = t_step,
        .t_step_rest = working(type, (w->t_step - t_step) + w->t_step_rest),
        .t_start = {working(type, w->t_start[0]), working(type, w->t_start[1])},
        .t_unit = working(type, ldexp(1.0, -w->t_exponent)),
        .log_shift = -(double)w->tail_exponent * (is_f64(type) ? 0x1p52 : 0x1p23),
    };
    if (!isfinite(d->scale) || !isfinite(d->loc)) return WINIT_NOT_FINITE;
    return d->low <= d->high ? 0 : WINIT_NO_VALUE;
}

/* Like the numbers, the parameters must not depend on the caller's rounding mode. A compiler does
 * not know that arithmetic depends on it, and might move arithmetic past environment_enter, but it
 * cannot move a call through a volatile function pointer. */
static int (*volatile const setters[])(winit_distribution *, int, const winit_parameters *) = {
#define X(name) set_##name,
    WINIT_EACH_DISTRIBUTION(X)
#undef X
};
static const char *const names[] = {
#define X(name) #name,
    WINIT_EACH_DISTRIBUTION(X)
#undef X
};

int winit_set(winit_distribution *d, const char *name, int type, const winit_parameters *p) {
    size_t k = 0;
    while (k < sizeof names / sizeof *names && strcmp(name, names[k]) != 0) k++;
    if (k == sizeof names / sizeof *names) return WINIT_UNKNOWN;
    const environment callers = environment_enter();
    const int status = setters[k](d, type, p);
    environment_leave(callers);
    return status;
}
