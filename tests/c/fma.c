/* Compares the emulated fma of plain C with that of the C library: see test_build.py. */
#include <stdio.h>

#include "vec_scalar.h"

/* An xorshift generator (G. Marsaglia, 2003). */
static uint64_t state = UINT64_C(88172645463325252);
static uint64_t word(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static double any_bits(void) {
    const uint64_t u = word();
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

static int power(int from, int to) { return from + (int)(word() % (uint64_t)(to - from)); }
static double sign(void) { return word() & 1 ? 1 : -1; }
static double unit(void) { return ldexp((double)(word() >> 11), -53); }

enum { KINDS = 6 };

/* Operands whose fma is difficult in one way each. */
static void operands(int kind, double x[3]) {
    switch (kind) {
        case 0: /* infinities and NaN among them */
            for (int k = 0; k < 3; k++) x[k] = any_bits();
            break;
        case 1: /* as in a polynomial */
            for (int k = 0; k < 3; k++) x[k] = sign() * unit();
            x[2] = ldexp(x[2], power(-120, 1));
            break;
        case 2: /* the sum cancels, up to the rounding error of the product */
            for (int k = 0; k < 2; k++) x[k] = sign() * unit();
            x[2] = -x[0] * x[1];
            if (word() & 1) x[2] = nextafter(x[2], 0);
            break;
        case 3: /* halfway between two numbers, or a very small distance from there */
            x[0] = 1 + ldexp((double)(word() >> 12), -52);
            x[1] = 1 + ldexp((double)(word() % 4), -26);
            x[2] = sign() * ldexp(1, power(-110, 20));
            break;
        case 4: /* overflow, and results that are subnormal */
            x[0] = ldexp(1 + unit(), power(-950, 950));
            x[1] = ldexp(1 + unit(), power(-200, 200));
            x[2] = sign() * ldexp(1, power(-1070, 1020));
            break;
        default: /* zeros of both signs */
            for (int k = 0; k < 3; k++) x[k] = sign() * (double)(word() % 2);
    }
}

/* Whether two numbers have the same bits, or are both NaN. */
static int same(double a, double b) {
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

int main(void) {
    for (int i = 0; i < 600000; i++) {
        double x[3];
        operands(i % KINDS, x);
        const float f[3] = {(float)x[0], (float)x[1], (float)x[2]};
        if (!same(v_one_fmad(x[0], x[1], x[2]), fma(x[0], x[1], x[2]))) {
            printf("fma(%a, %a, %a) = %a\n", x[0], x[1], x[2], v_one_fmad(x[0], x[1], x[2]));
            return 1;
        }
        if (!same(v_one_fmaf(f[0], f[1], f[2]), fmaf(f[0], f[1], f[2]))) {
            printf("fmaf(%a, %a, %a) = %a\n", (double)f[0], (double)f[1], (double)f[2],
                   (double)v_one_fmaf(f[0], f[1], f[2]));
            return 1;
        }
    }
    return 0;
}
