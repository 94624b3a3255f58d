/* The vector operations in plain C, for any machine: two 64-bit or four 32-bit lanes in a struct.
 *
 * fma rounds once. It is an instruction if the target has one; otherwise it is emulated. */
#ifndef WINIT_VEC_SCALAR_H
#define WINIT_VEC_SCALAR_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "float arithmetic must be float arithmetic: compile with -msse2 -mfpmath=sse or the like"
#endif

#define V_SET scalar
#define V_REGISTERS 0
#define V_SCHEDULE 1
#define V_PACKED 0
enum { V_LANES = 2, V_GROUPS = 1, V_TOGETHER = 1, V_STREAM_ALIGN = 16 };
enum { V_MIN_RUN = 48 };
enum { V_PANEL = 4 }; /* vectors in a row of a panel: householder_real-inl.h */

/* Without always_inline compilers call some of these functions, with operands in memory. */
#if defined(__GNUC__)
#define V_OP static inline __attribute__((always_inline))
#else
#define V_OP static inline
#endif

typedef struct {
    uint64_t q[2]; /* 32-bit lane 2k is the low half of q[k], lane 2k + 1 the high half */
} vu;
typedef struct {
    float f[4];
} vf;
typedef struct {
    double d[2];
} vd;
typedef vu vm32; /* all bits of a lane, or none */
typedef vu vm64;

#define V_EACH for (int k = 0; k < 2; k++)
#define V_EACHF for (int k = 0; k < 4; k++)

V_OP uint32_t v_low(uint64_t q) { return (uint32_t)q; }
V_OP uint32_t v_high(uint64_t q) { return (uint32_t)(q >> 32); }
V_OP uint64_t v_pair(uint32_t low, uint32_t high) { return low | (uint64_t)high << 32; }
V_OP uint32_t v_lane(vu a, int k) { return (uint32_t)(a.q[k >> 1] >> (k & 1) * 32); }

/* One operation on every 32-bit lane: x (and y) are the operands' lanes. */
#define V_MAP2(name, expression)                                              \
    V_OP uint32_t v_one_##name(uint32_t x, uint32_t y) { return expression; } \
    V_OP vu v_##name(vu a, vu b) {                                            \
        V_EACH a.q[k] = v_pair(v_one_##name(v_low(a.q[k]), v_low(b.q[k])),    \
                               v_one_##name(v_high(a.q[k]), v_high(b.q[k]))); \
        return a;                                                             \
    }
#define V_MAP64(name, expression)                                             \
    V_OP uint64_t v_one_##name(uint64_t x, uint64_t y) { return expression; } \
    V_OP vu v_##name(vu a, vu b) {                                            \
        V_EACH a.q[k] = v_one_##name(a.q[k], b.q[k]);                         \
        return a;                                                             \
    }

/* integers */
V_OP vu v_set64(uint64_t x) { return (vu){{x, x}}; }
V_OP vu v_set32(uint32_t x) { return v_set64(v_pair(x, x)); }
/* Lane k gets element k: with only two lanes nothing is reordered. */
V_OP vu v_load_blocks(const uint64_t *p) { return (vu){{p[0], p[1]}}; }
V_OP vu v_load(const void *p) {
    uint32_t w[4];
    memcpy(w, p, sizeof w);
    return (vu){{v_pair(w[0], w[1]), v_pair(w[2], w[3])}};
}
V_OP void v_store(void *p, vu a) {
    const uint32_t w[4] = {v_lane(a, 0), v_lane(a, 1), v_lane(a, 2), v_lane(a, 3)};
    memcpy(p, w, sizeof w);
}
V_MAP64(add64, x + y)
V_MAP64(sub64, x - y)
V_MAP2(add32, x + y)
V_MAP2(sub32, x - y)
V_MAP2(min32, x < y ? x : y)
V_MAP64(and, x &y)
V_MAP64(or, x | y)
V_MAP64(xor, x ^ y)
V_OP vu v_xor3(vu a, vu b, vu c) { return v_xor(v_xor(a, b), c); }
V_OP vu v_and_or(vu a, vu mask, vu bits) { return v_or(v_and(a, mask), bits); }
V_OP vu v_xor_and(vu a, vu b, vu mask) { return v_xor(a, v_and(b, mask)); }
/* In each 64-bit lane, the 64-bit product of the low halves. */
V_MAP64(mul_low, (x & 0xFFFFFFFFu) * (y & 0xFFFFFFFFu))
V_OP vu v_shr64(vu a, int n) {
    V_EACH a.q[k] >>= n;
    return a;
}
V_OP vu v_shl64(vu a, int n) {
    V_EACH a.q[k] <<= n;
    return a;
}
V_OP vu v_shr32(vu a, int n) {
    V_EACH a.q[k] = v_pair(v_low(a.q[k]) >> n, v_high(a.q[k]) >> n);
    return a;
}
V_OP vu v_shl32(vu a, int n) {
    V_EACH a.q[k] = v_pair(v_low(a.q[k]) << n, v_high(a.q[k]) << n);
    return a;
}
/* Complementing negative numbers before and after, so that only non-negative ones are shifted: C
 * does not define the shift of a negative number. */
V_OP uint32_t v_one_sar32(uint32_t x, int n) {
    const uint32_t sign = (uint32_t)0 - (x >> 31);
    return ((x ^ sign) >> n) ^ sign;
}
V_OP vu v_sar32(vu a, int n) {
    V_EACH a.q[k] = v_pair(v_one_sar32(v_low(a.q[k]), n), v_one_sar32(v_high(a.q[k]), n));
    return a;
}
/* In each 64-bit lane, the low (high) half of a in the low half, that of b in the high half. */
V_MAP64(pack_low, v_pair(v_low(x), v_low(y)))
V_MAP64(pack_high, v_pair(v_high(x), v_high(y)))
V_OP vu v_unpack_low64(vu a, vu b) { return (vu){{a.q[0], b.q[0]}}; }
V_OP vu v_unpack_high64(vu a, vu b) { return (vu){{a.q[1], b.q[1]}}; }
V_OP vu v_unpack_low32(vu a, vu b) {
    return (vu){{v_pair(v_low(a.q[0]), v_low(b.q[0])), v_pair(v_high(a.q[0]), v_high(b.q[0]))}};
}
V_OP vu v_unpack_high32(vu a, vu b) {
    return (vu){{v_pair(v_low(a.q[1]), v_low(b.q[1])), v_pair(v_high(a.q[1]), v_high(b.q[1]))}};
}

/* masks */
V_MAP2(less32, (uint32_t)0 - (uint32_t)(x < y))
V_MAP64(less64, (uint64_t)0 - (uint64_t)(x < y))
V_MAP2(any32, (uint32_t)0 - (uint32_t)((x & y) != 0))
V_MAP64(any64, (uint64_t)0 - (uint64_t)((x & y) != 0))
V_OP vm32 v_second_bit32(vu a) { return v_any32(a, v_set32(0x40000000u)); }
V_OP vm64 v_second_bit64(vu a) { return v_any64(a, v_set64(0x4000000000000000u)); }
V_OP vu v_select64(vm64 m, vu yes, vu no) {
    V_EACH no.q[k] = (m.q[k] & yes.q[k]) | (~m.q[k] & no.q[k]);
    return no;
}
V_OP vu v_select32(vm32 m, vu yes, vu no) { return v_select64(m, yes, no); }

/* float32 */
V_OP float v_float_bits(uint32_t x) {
    float f;
    memcpy(&f, &x, sizeof f);
    return f;
}
V_OP uint32_t v_bits_float(float f) {
    uint32_t x;
    memcpy(&x, &f, sizeof x);
    return x;
}
V_OP vf v_setf(float x) { return (vf){{x, x, x, x}}; }
V_OP vf v_as_f(vu a) {
    vf r;
    V_EACHF r.f[k] = v_float_bits(v_lane(a, k));
    return r;
}
V_OP vu v_f_as_u(vf a) {
    vu r;
    V_EACH r.q[k] = v_pair(v_bits_float(a.f[2 * k]), v_bits_float(a.f[2 * k + 1]));
    return r;
}
V_OP vf v_addf(vf a, vf b) {
    V_EACHF a.f[k] += b.f[k];
    return a;
}
V_OP vf v_subf(vf a, vf b) {
    V_EACHF a.f[k] -= b.f[k];
    return a;
}
V_OP vf v_mulf(vf a, vf b) {
    V_EACHF a.f[k] *= b.f[k];
    return a;
}
/* If the target has no fma instruction, fmaf and fma of the C library are calls, and slow ones if
 * the processor has none either. So they are emulated with exact sums, of which only one is rounded
 * (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 57,
 * 2008). v_two_sum returns a + b and stores the error of this sum, which is exact. */
V_OP double v_two_sum(double a, double b, double *error) {
    const double sum = a + b, part = sum - a;
    *error = (a - (sum - part)) + (b - part);
    return sum;
}
/* a + b rounded to odd: if it is not exact, to the neighbour whose last bit is 1. */
V_OP double v_odd_sum(double a, double b) {
    double error, sum = v_two_sum(a, b, &error);
    if (!(fabs(sum) < (double)INFINITY)) return sum;
    uint64_t u;
    memcpy(&u, &sum, sizeof u);
    const uint64_t outward = (error > 0) == (sum > 0);
    u += error != 0 && !(u & 1) ? 2 * outward - 1 : 0;
    memcpy(&sum, &u, sizeof u);
    return sum;
}
/* The product of floats is exact in double precision. Because a double has more than twice the bits
 * of a float, rounding the sum to odd first gives the same as rounding the exact sum once. */
V_OP float v_one_fmaf(float a, float b, float c) {
#if defined(FP_FAST_FMAF)
    return fmaf(a, b, c);
#else
    return (float)v_odd_sum((double)a * (double)b, (double)c);
#endif
}
/* The upper 26 bits of a: the products of such halves are exact (T. Dekker, Numer. Math. 18, 1971).
 */
V_OP double v_upper_half(double a) {
    const double b = a * 0x1.0000002p27;
    return b - (b - a);
}
/* high + low is the exact product, upper + rest + low the exact sum. The library rounds the rare
 * numbers whose parts might overflow or be subnormal. */
V_OP double v_one_fmad(double a, double b, double c) {
#if defined(FP_FAST_FMA)
    return fma(a, b, c);
#else
    const double high = a * b, size = fabs(high);
    if (!(size > 0x1p-900 && size + fabs(a) + fabs(b) + fabs(c) < 0x1p900)) return fma(a, b, c);
    const double a1 = v_upper_half(a), b1 = v_upper_half(b), a2 = a - a1, b2 = b - b1;
    const double low = a2 * b2 - (((high - a1 * b1) - a2 * b1) - a1 * b2);
    double rest, error;
    const double sum = v_two_sum(c, low, &error), upper = v_two_sum(high, sum, &rest);
    return upper + v_odd_sum(error, rest);
#endif
}
V_OP vf v_fmaf(vf a, vf b, vf c) {
    V_EACHF c.f[k] = v_one_fmaf(a.f[k], b.f[k], c.f[k]);
    return c;
}
V_OP vf v_sqrtf(vf a) {
    V_EACHF a.f[k] = sqrtf(a.f[k]);
    return a;
}
/* Return the second operand if both are equal, as x86 does: this matters for -0 and 0. */
V_OP vf v_minf(vf a, vf b) {
    V_EACHF b.f[k] = a.f[k] < b.f[k] ? a.f[k] : b.f[k];
    return b;
}
V_OP vf v_maxf(vf a, vf b) {
    V_EACHF b.f[k] = a.f[k] > b.f[k] ? a.f[k] : b.f[k];
    return b;
}
/* int32 to float without the cast of a large unsigned number to int32_t, whose result C leaves to
 * the implementation. Both parts are exact, and the sum is rounded once. */
V_OP vf v_float_i32(vu a) {
    vf r;
    V_EACHF {
        const uint32_t x = v_lane(a, k);
        r.f[k] = (float)((double)(x & 0x7FFFFFFFu) - (double)(x & 0x80000000u));
    }
    return r;
}
V_OP vf v_float_u32(vu a) {
    vf r;
    V_EACHF r.f[k] = (float)v_lane(a, k);
    return r;
}
V_OP vf v_selectf(vm32 m, vf yes, vf no) {
    V_EACHF no.f[k] = v_lane(m, k) ? yes.f[k] : no.f[k];
    return no;
}
V_OP vf v_lookupf(const float table[8], vu index) {
    vf r;
    V_EACHF r.f[k] = table[v_lane(index, k) & 7];
    return r;
}

/* float64 */
V_OP vd v_setd(double x) { return (vd){{x, x}}; }
V_OP vd v_as_d(vu a) {
    vd r;
    V_EACH memcpy(&r.d[k], &a.q[k], sizeof r.d[k]);
    return r;
}
V_OP vu v_d_as_u(vd a) {
    vu r;
    V_EACH memcpy(&r.q[k], &a.d[k], sizeof r.q[k]);
    return r;
}
V_OP vd v_addd(vd a, vd b) {
    V_EACH a.d[k] += b.d[k];
    return a;
}
V_OP vd v_subd(vd a, vd b) {
    V_EACH a.d[k] -= b.d[k];
    return a;
}
V_OP vd v_muld(vd a, vd b) {
    V_EACH a.d[k] *= b.d[k];
    return a;
}
V_OP vd v_fmad(vd a, vd b, vd c) {
    V_EACH c.d[k] = v_one_fmad(a.d[k], b.d[k], c.d[k]);
    return c;
}
V_OP vd v_sqrtd(vd a) {
    V_EACH a.d[k] = sqrt(a.d[k]);
    return a;
}
V_OP vd v_mind(vd a, vd b) {
    V_EACH b.d[k] = a.d[k] < b.d[k] ? a.d[k] : b.d[k];
    return b;
}
V_OP vd v_maxd(vd a, vd b) {
    V_EACH b.d[k] = a.d[k] > b.d[k] ? a.d[k] : b.d[k];
    return b;
}
V_OP vd v_double_u64(vu a) {
    vd r;
    V_EACH r.d[k] = (double)a.q[k];
    return r;
}
/* int64 to double by sign and magnitude, since rounding to nearest is symmetric. The magnitude of
 * -2^63, which is 2^63, fits into a uint64_t. */
V_OP vd v_double_i64(vu a) {
    vd r;
    V_EACH {
        const uint64_t sign = (uint64_t)0 - (a.q[k] >> 63);
        const double magnitude = (double)((a.q[k] ^ sign) - sign);
        r.d[k] = sign ? -magnitude : magnitude;
    }
    return r;
}
V_OP vd v_double_high(vu a) { return v_double_i64(a); }
V_OP vd v_fraction_i64(vu a) { return v_muld(v_double_i64(a), v_setd(0x1p-64)); }
/* (s + 1/2) 2^-52, where s is the signed number in the upper 53 bits: flipping the sign bit adds
 * 2^52 to s, so that a logical shift is enough. */
V_OP vd v_centred_i53(vu a) {
    const vu s = v_shr64(v_xor(a, v_set64(0x8000000000000000u)), 11);
    return v_muld(v_subd(v_double_u64(s), v_setd(0x1p52 - 0.5)), v_setd(0x1p-52));
}
V_OP vd v_selectd(vm64 m, vd yes, vd no) {
    V_EACH no.d[k] = m.q[k] ? yes.d[k] : no.d[k];
    return no;
}
V_OP vd v_lookupd(const double table[8], vu index) {
    vd r;
    V_EACH r.d[k] = table[index.q[k] & 7];
    return r;
}

/* stores of two registers to consecutive memory; `streaming` is ignored, since plain C has no
 * streaming stores */
V_OP void v_put32(void *p, vu a, vu b, int streaming) {
    (void)streaming;
    v_store(p, a);
    v_store((char *)p + 16, b);
}
V_OP void v_put64(void *p, vu a, vu b, int streaming) {
    (void)streaming;
    const uint64_t q[4] = {a.q[0], a.q[1], b.q[0], b.q[1]};
    memcpy(p, q, sizeof q);
}
/* Stores the high 16 bits of even elements in one register and odd ones in the other. */
V_OP void v_put_high16(void *p, vu even, vu odd, int streaming) {
    (void)streaming;
    uint16_t h[8];
    V_EACHF h[2 * k] = (uint16_t)(v_lane(even, k) >> 16);
    V_EACHF h[2 * k + 1] = (uint16_t)(v_lane(odd, k) >> 16);
    memcpy(p, h, sizeof h);
}
/* Stores the low 8 bits of each 32-bit lane; the others must be 0. */
V_OP void v_put8(void *p, vu a, vu b, int streaming) {
    (void)streaming;
    uint8_t c[8];
    V_EACHF c[k] = (uint8_t)v_lane(a, k);
    V_EACHF c[4 + k] = (uint8_t)v_lane(b, k);
    memcpy(p, c, sizeof c);
}
/* Rounds to nearest even. Below 2^-14 the last bit of a float16 has the value 2^-24, like that of a
 * float near 1/2, so adding 1/2 rounds there. */
static inline uint16_t v_one_f16(float f) {
    const uint32_t u = v_bits_float(f), sign = u >> 16 & 0x8000u, a = u & 0x7FFFFFFFu;
    uint32_t h;
    if (a < 0x38800000u) {
        h = v_bits_float(v_float_bits(a) + 0.5f) - 0x3F000000u;
    } else {
        h = (a + 0xFFFu + (a >> 13 & 1u) - 0x38000000u) >> 13;
        h = h < 0x7C00u ? h : 0x7C00u;
    }
    return (uint16_t)(sign | h);
}
V_OP void v_put_f16(void *p, vf even, vf odd, int streaming) {
    (void)streaming;
    uint16_t h[8];
    V_EACHF h[2 * k] = v_one_f16(even.f[k]);
    V_EACHF h[2 * k + 1] = v_one_f16(odd.f[k]);
    memcpy(p, h, sizeof h);
}
V_OP void v_put_16(char *p, const char *from, int streaming) {
    (void)streaming;
    memcpy(p, from, 16);
}
V_OP void v_fence(void) {}

#endif
