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

/* The types: X(with, NAME, short name, that of the arithmetic, name, bytes, bits of the
 * significand, exponent of the first normal number, largest number). `with` is what the caller
 * wants to have. */
/* clang-format off */
#define WINIT_EACH_TYPE(X, with) \
    X(with, F64, f64, f64, float64, 8, 53, -1022, DBL_MAX) \
    X(with, F32, f32, f32, float32, 4, 24, -126, FLT_MAX) \
    X(with, F16, f16, f32, float16, 2, 11, -14, 65504.0) \
    X(with, BF16, bf16, f32, bfloat16, 2, 8, -126, 0x1.FEp127) \
    X(with, E4M3FN, e4m3fn, f32, float8_e4m3fn, 1, 4, -6, 448.0) \
    X(with, E5M2, e5m2, f32, float8_e5m2, 1, 3, -14, 57344.0)
/* clang-format on */

typedef enum {
#define X(with, NAME, ...) WINIT_##NAME,
    WINIT_EACH_TYPE(X, )
#undef X
        WINIT_TYPES
} winit_type;

const char *winit_type_name(int type); /* NULL past the last */
size_t winit_type_size(int type);
int winit_per_block(int type); /* elements that a block of four words makes */

/* What a user asks for: X(name). Raw words are uint64 as WINIT_F64, uint32 as WINIT_F32. */
#define WINIT_EACH_DISTRIBUTION(X) X(bits) X(uniform) X(normal) X(truncated_normal)

/* How it is made: X(NAME, name, whether a kernel leaves the even elements in one register and the
 * odd ones in the other). Raw words have theirs besides. */
/* clang-format off */
#define WINIT_EACH_KERNEL(X) \
    X(UNIFORM, uniform, 0) \
    X(INSIDE, inside, 0) /* a uniform whose lower bound holds by itself */ \
    X(NORMAL, normal, 1) \
    X(TRUNCATED, truncated, 0) \
    X(CENTRAL, central, 0) /* a truncated normal, symmetric and within 2 sigma */
/* clang-format on */

typedef enum {
    WINIT_BITS,
#define X(NAME, ...) WINIT_##NAME,
    WINIT_EACH_KERNEL(X)
#undef X
        WINIT_KERNELS
} winit_kernel;

/* Which numbers: the Philox key and the upper half of its counter. */
typedef struct {
    uint64_t seed;
    uint64_t stream;
} winit_stream;

/* The window of a truncated normal, from mathematics of more precision than double: truncation.py.
 * truncated-inl.h tells the parts. [0] above zero, [1] below. */
typedef struct {
    int flip;
    uint64_t kappa;
    double tail_step, tail_start[2];
    double t_step, t_step_rest, t_start[2]; /* the step as a sum of two */
    int t_exponent, tail_exponent;          /* the numbers above are scaled by 2 to these */
} winit_window;

/* What a user gives; a distribution takes what it has a use for. */
typedef struct {
    double loc, scale;
    double low, high;
    winit_window window;
} winit_parameters;

/* A distribution with its parameters as a kernel wants them. Where the type computes in float32,
 * every double here is a float32 number. Made by winit_set. */
typedef struct {
    int kernel, type;
    double loc, scale; /* uniform: middle and half width, the latter times 2^-31 for INSIDE */
    double low, high;  /* bounds held in the destination type; both are numbers of that type */
    /* of a window */
    uint64_t flip, kappa;
    double tail_step, tail_start[2];
    double t_step, t_step_rest, t_start[2];
    double t_unit, log_shift; /* the shift in units of the last exponent bit */
} winit_distribution;

/* By the distribution's name. 0, or one of these. */
enum {
    WINIT_NO_VALUE = -1,   /* the type has no number between the bounds */
    WINIT_NOT_FINITE = -2, /* a parameter, once rounded to the type of the arithmetic */
    WINIT_UNKNOWN = -3     /* no distribution has the name */
};
int winit_set(winit_distribution *d, const char *name, int type, const winit_parameters *p);

/* One axis of a box in memory: its extent, and what a step adds to the logical index and to the
 * address. winit_merge sorts axes, the slowest in memory first, leaves out those of extent 1, joins
 * those that continue one another in index and in memory, and returns how many are left. */
typedef struct {
    int64_t extent, index_stride, byte_stride;
} winit_axis;
int winit_merge(winit_axis *axes, int n);

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

/* Instruction sets, by their names in sets.h. winit_isa_choose takes NULL for the best one and
 * returns 0, or -1 for a name that is unknown or that this CPU lacks, changing nothing. */
const char *winit_isa(void);
const char *winit_isa_supported(int k); /* the k-th, best first; NULL past the last */
int winit_isa_choose(const char *name);

#ifdef __cplusplus
}
#endif

#endif
