/* From a user's parameters to what a kernel multiplies with, and the bounds in a type's numbers. */
#include <float.h>
#include <math.h>

#include "environment.h"
#include "winit.h"

typedef struct {
    size_t size;
    int precision, min_exponent; /* bits of the significand; 2^min_exponent is the first normal */
    double max;
} format;

static const format formats[WINIT_TYPES] = {
    [WINIT_F64] = {8, 53, -1022, DBL_MAX}, [WINIT_F32] = {4, 24, -126, FLT_MAX},
    [WINIT_F16] = {2, 11, -14, 65504.0},   [WINIT_BF16] = {2, 8, -126, 0x1.FEp127},
    [WINIT_E4M3FN] = {1, 4, -6, 448.0},    [WINIT_E5M2] = {1, 3, -14, 57344.0},
};

size_t winit_type_size(int type) { return formats[type].size; }

static int is_f64(int type) { return type == WINIT_F64; }

/* x as the type's arithmetic holds it; a zero is +0. */
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

void winit_set_bits(winit_distribution *d, int type) {
    *d = (winit_distribution){.kind = WINIT_BITS, .type = type};
}

static int set_uniform(winit_distribution *d, int type, double low, double high) {
    const format *f = &formats[type];
    *d = (winit_distribution){
        .kind = WINIT_UNIFORM,
        .type = type,
        .scale = working(type, (high - low) / 2),
        .loc = working(type, (high + low) / 2),
        .low = round_up(f, low),
        .high = below(f, high),
    };
    if (!isfinite(d->scale) || !isfinite(d->loc)) return -2;
    if (d->low > d->high) return -1;
    /* The smallest result, as the kernel would make it. A half width of 2^-94 or more keeps all its
     * bits when it is scaled. */
    const float smallest = fmaf(-1 + 0x1p-24f, (float)d->scale, (float)d->loc);
    if (!is_f64(type) && d->scale >= 0x1p-94 && smallest >= d->low) {
        d->kind = WINIT_INSIDE;
        d->scale *= 0x1p-31;
    }
    return 0;
}

static int set_normal(winit_distribution *d, int type, double loc, double scale) {
    *d = (winit_distribution){
        .kind = WINIT_NORMAL,
        .type = type,
        .scale = working(type, scale),
        .loc = working(type, loc),
    };
    return isfinite(d->scale) && isfinite(d->loc) ? 0 : -2;
}

static int set_truncated(winit_distribution *d, int type, double loc, double scale, double low,
                         double high, const winit_window *w) {
    if (scale == 0) return set_normal(d, type, loc, scale); /* there is no window */
    const format *f = &formats[type];
    const double t_step = working(type, w->t_step);
    const int central = low == -high && high <= 2 && w->t_exponent == 0;
    *d = (winit_distribution){
        .kind = central ? WINIT_CENTRAL : WINIT_TRUNCATED,
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
    if (!isfinite(d->scale) || !isfinite(d->loc)) return -2;
    return d->low <= d->high ? 0 : -1;
}

/* The caller's rounding mode must not show in the parameters either. Compilers do not know that
 * arithmetic depends on it (clang moves a conversion to before the change): volatile parameters are
 * read where that is written. */
int winit_set_uniform(winit_distribution *d, int type, volatile double low, volatile double high) {
    const environment callers = environment_enter();
    const int status = set_uniform(d, type, low, high);
    environment_leave(callers);
    return status;
}

int winit_set_normal(winit_distribution *d, int type, volatile double loc, volatile double scale) {
    const environment callers = environment_enter();
    const int status = set_normal(d, type, loc, scale);
    environment_leave(callers);
    return status;
}

int winit_set_truncated(winit_distribution *d, int type, volatile double loc, volatile double scale,
                        volatile double low, volatile double high, const winit_window *window) {
    const environment callers = environment_enter();
    const int status = set_truncated(d, type, loc, scale, low, high, window);
    environment_leave(callers);
    return status;
}
