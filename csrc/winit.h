/* winit: bulk random numbers that are pure functions of (seed, stream, logical index).
 *
 * The whole C interface. No threads, no allocation, no state but the chosen instruction set; the
 * caller has checked all arguments. docs/contract.md says what the numbers are. */
#ifndef WINIT_H
#define WINIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    WINIT_F64,
    WINIT_F32,
    WINIT_F16,
    WINIT_BF16,
    WINIT_E4M3FN,
    WINIT_E5M2,
    WINIT_TYPES
} winit_type;

typedef enum {
    WINIT_BITS, /* raw words: uint64 as WINIT_F64, uint32 as WINIT_F32 */
    WINIT_UNIFORM,
    WINIT_INSIDE, /* a uniform whose lower bound holds by itself */
    WINIT_NORMAL,
    WINIT_TRUNCATED,
    WINIT_CENTRAL, /* a truncated normal whose window is symmetric and within 2 sigma */
    WINIT_KINDS
} winit_kind;

/* Which numbers: the Philox key and the upper half of its counter. */
typedef struct {
    uint64_t seed;
    uint64_t stream;
} winit_stream;

/* A distribution with its parameters as a kernel wants them. Where the type computes in float32,
 * every double here is a float32 number. Made by the winit_set_* functions below. */
typedef struct {
    int kind, type;
    double loc, scale; /* uniform: middle and half width, the latter times 2^-31 for INSIDE */
    double low, high;  /* bounds held in the destination type; both are numbers of that type */
    /* Truncated normal; truncated-inl.h tells the parts. [0] above zero, [1] below. */
    uint64_t flip, kappa;
    double tail_step, tail_start[2];
    double t_step, t_step_rest, t_start[2]; /* the step as a sum of two */
    double t_unit, log_shift;               /* the shift in units of the last exponent bit */
} winit_distribution;

size_t winit_type_size(int type);

/* The window of a truncated normal, from mathematics of more precision than double: truncation.py.
 */
typedef struct {
    int flip;
    uint64_t kappa;
    double tail_step, tail_start[2];
    double t_step, t_step_rest, t_start[2];
    int t_exponent, tail_exponent; /* the numbers above are scaled by 2 to these */
} winit_window;

/* Each returns 0, or -1 where the type has no number between the bounds, or -2 where a parameter
 * is not finite once rounded to the type of the arithmetic. */
void winit_set_bits(winit_distribution *d, int type);
int winit_set_uniform(winit_distribution *d, int type, double low, double high);
int winit_set_normal(winit_distribution *d, int type, double loc, double scale);
int winit_set_truncated(winit_distribution *d, int type, double loc, double scale, double low,
                        double high, const winit_window *window);

/* Element (i0, i1, ...) of the box is logical element index + sum(ik * index_strides[k]) and goes
 * to dst + sum(ik * byte_strides[k]). No two elements share a byte, or a logical index. At most
 * WINIT_MAX_AXES axes of at least one element each, of which one may step by 1 through the index.
 * streaming: do not keep what is written in the caches. */
enum { WINIT_MAX_AXES = 64 };
void winit_fill(const winit_distribution *d, const winit_stream *s, void *dst, uint64_t index,
                int axes, const int64_t *shape, const int64_t *index_strides,
                const int64_t *byte_strides, int streaming);

/* The four words of one counter, from the chosen set's kernels. */
void winit_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* A stream's words one after another, WINIT_BUFFERED made at a time; after the last of 2^64 comes
 * the first. Two words make a number of 64 bits, the low one first, wherever they stand. The next_*
 * functions have the signatures of NumPy's bitgen_t; they take a winit_words, which one thread uses
 * at a time. */
enum { WINIT_BUFFERED = 1024 };
typedef struct {
    winit_stream stream;
    uint64_t first; /* position of words[0] */
    int next;       /* which of the words comes next */
    uint32_t words[WINIT_BUFFERED];
} winit_words;
void winit_words_seek(winit_words *w, const winit_stream *s, uint64_t position);
uint64_t winit_words_position(const winit_words *w);
uint32_t winit_words_next_u32(void *words);
uint64_t winit_words_next_u64(void *words);
double winit_words_next_double(void *words);

/* What the words of `count` blocks become, in the order of their elements; count is a multiple of
 * WINIT_MAX_LANES. For the accuracy tests. */
enum { WINIT_MAX_LANES = 8 };
void winit_transform_words(const winit_distribution *d, const uint32_t *words, void *dst,
                           size_t count);

/* The elementary functions by themselves, for the accuracy tests: n elements each. The angle is
 * 2 pi a / 2^32 (2^64); log takes (0, 1]. */
void winit_log_f32(const float *x, float *y, size_t n);
void winit_log_f64(const double *x, double *y, size_t n);
void winit_sincos_f32(const uint32_t *a, float *sin, float *cos, size_t n);
void winit_sincos_f64(const uint64_t *a, double *sin, double *cos, size_t n);

/* Instruction sets: "scalar", "avx2", "avx512", "neon". winit_isa_choose takes NULL for the best
 * one and returns 0, or -1 for a name that is unknown or that this CPU lacks, changing nothing. */
const char *winit_isa(void);
const char *winit_isa_supported(int k); /* the k-th, best first; NULL past the last */
int winit_isa_choose(const char *name);

#ifdef __cplusplus
}
#endif

#endif
