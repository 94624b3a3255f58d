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
    [WINIT_F64] = {8, 53, -1022, DBL_MAX},
    [WINIT_F32] = {4, 24, -126, FLT_MAX},
    [WINIT_F16] = {2, 11, -14, 65504.0},
    [WINIT_BF16] = {2, 8, -126, 0x1.FEp127},
    [WINIT_E4M3FN] = {1, 4, -6, 448.0},
    [WINIT_E5M2] = {1, 3, -14, 57344.0},
};

size_t winit_type_size(int type) { return formats[type].size; }

static int is_f64(int type) { return type == WINIT_F64; }

/* x as the type's arithmetic holds it. */
static double working(int type, double x) { return is_f64(type) ? x : (double)(float)x; }

/* The distance between numbers of the format near x. */
static double unit_near(const format *f, double x) {
    int e;
    frexp(x, &e); /* |x| in [2^(e-1), 2^e) */
    e -= 1;
    if (x == 0 || e < f->min_exponent) e = f->min_exponent;
    return ldexp(1.0, e - f->precision + 1);
}

/* The smallest number of the format that is >= x + rest, where |rest| is far below x's unit in
 * double. Infinite if there is none. */
static double round_up(const format *f, double x, double rest) {
    if (isinf(x)) return x < 0 ? -f->max : INFINITY;
    const double unit = unit_near(f, x);
    double y = ceil(x / unit) * unit;
    if (y == x && rest > 0) y += unit_near(f, x < 0 ? nextafter(x, 0) : x);
    if (y < -f->max) return -f->max;
    return y > f->max ? INFINITY : y;
}

static double round_down(const format *f, double x, double rest) {
    return -round_up(f, -x, -rest);
}

static double nearest(const format *f, double x) {
    const double unit = unit_near(f, x);
    return rint(x / unit) * unit;
}

/* The largest number of the format below x. */
static double below(const format *f, double x) {
    const double y = round_down(f, x, 0.0);
    return y < x ? y : round_down(f, x, -DBL_TRUE_MIN);
}

/* a b + c as a sum of two doubles (T. Dekker 1971; D. Knuth, TAOCP 4.2.2). */
static double multiply_add(double a, double b, double c, double *rest) {
    const double product = a * b, product_rest = fma(a, b, -product);
    const double sum = product + c, part = sum - product;
    const double sum_rest = (product - (sum - part)) + (c - part);
    *rest = isfinite(sum) ? sum_rest + product_rest : 0.0;
    return sum;
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
        .low = round_up(f, low, 0.0),
        .high = below(f, high),
    };
    if (!isfinite(d->scale) || !isfinite(d->loc)) return -2;
    return d->low <= d->high ? 0 : -1;
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
    const format *f = &formats[type];
    double low_rest = 0.0, high_rest = 0.0;
    double low_bound = nearest(f, loc), high_bound = low_bound; /* as they are for scale 0 */
    if (scale > 0) {
        low_bound = multiply_add(low, scale, loc, &low_rest);
        high_bound = multiply_add(high, scale, loc, &high_rest);
    }
    *d = (winit_distribution){
        .kind = WINIT_TRUNCATED,
        .type = type,
        .scale = working(type, working(type, scale) * ldexp(1.0, -w->t_exponent)),
        .loc = working(type, loc),
        .low = round_up(f, low_bound, low_rest),
        .high = round_down(f, high_bound, high_rest),
        .flip = w->flip ? ~(uint64_t)0 : 0,
        .kappa = w->kappa,
        .tail_step = working(type, w->tail_step),
        .tail_start = {working(type, w->tail_start[0]), working(type, w->tail_start[1])},
        .t_step = working(type, w->t_step),
        .t_start = {working(type, w->t_start[0]), working(type, w->t_start[1])},
        .t_unit = working(type, ldexp(1.0, -w->t_exponent)),
        .log_shift = -(double)w->tail_exponent,
    };
    if (!isfinite(d->scale) || !isfinite(d->loc)) return -2;
    return d->low <= d->high ? 0 : -1;
}

/* The caller's rounding mode must not show in the parameters either. */
int winit_set_uniform(winit_distribution *d, int type, double low, double high) {
    const environment callers = environment_enter();
    const int status = set_uniform(d, type, low, high);
    environment_leave(callers);
    return status;
}

int winit_set_normal(winit_distribution *d, int type, double loc, double scale) {
    const environment callers = environment_enter();
    const int status = set_normal(d, type, loc, scale);
    environment_leave(callers);
    return status;
}

int winit_set_truncated(winit_distribution *d, int type, double loc, double scale, double low,
                        double high, const winit_window *window) {
    const environment callers = environment_enter();
    const int status = set_truncated(d, type, loc, scale, low, high, window);
    environment_leave(callers);
    return status;
}
