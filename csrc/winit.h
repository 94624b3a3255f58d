/* winit: bulk random numbers that are pure functions of (seed, stream, logical index).
 *
 * This is the whole C interface. It has no threads, no allocation, and no state except the chosen
 * instruction set. The caller checks all arguments. docs/contract.md defines the numbers. */
#ifndef WINIT_H
#define WINIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The types: X(with, NAME, short name, working type, name, bytes, bits of the significand, exponent
 * of the smallest normal number, largest number). `with` is passed on to X. */
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
int winit_per_block(int type); /* number of elements made from one block of four words */

/* The distributions that a user can ask for: X(name). Raw words ("bits") are uint64 if the type is
 * WINIT_F64, uint32 if it is WINIT_F32. */
#define WINIT_EACH_DISTRIBUTION(X) X(bits) X(uniform) X(normal) X(truncated_normal)

/* The kernels: X(NAME, name, whether half of the words become radii first, whether the transform is
 * several loops). The kernel for raw words is not in this list. */
/* clang-format off */
#define WINIT_EACH_KERNEL(X) \
    X(UNIFORM, uniform, 0, 0) \
    X(INSIDE, inside, 0, 0) /* a uniform that need not be clamped to its lower bound */ \
    X(NORMAL, normal, 1, 0) \
    X(TRUNCATED, truncated, 0, 1) \
    X(CENTRAL, central, 0, 1) /* a truncated normal, symmetric and within 2 sigma */
/* clang-format on */

typedef enum {
    WINIT_BITS,
#define X(NAME, ...) WINIT_##NAME,
    WINIT_EACH_KERNEL(X)
#undef X
        WINIT_KERNELS
} winit_kernel;

const char *winit_kernel_name(int kernel);

/* A stream: the Philox key and the upper half of its counter. */
typedef struct {
    uint64_t seed;
    uint64_t stream;
} winit_stream;

/* The window of a truncated normal, computed in higher precision than double by truncation.py.
 * truncated-inl.h explains the members. Index 0 is for numbers above zero, 1 for those below. */
typedef struct {
    int flip;
    uint64_t kappa;
    double tail_step, tail_start[2];
    double t_step, t_step_rest, t_start[2]; /* the step is t_step + t_step_rest */
    int t_exponent, tail_exponent;          /* t and the tail are scaled by 2 to these powers */
} winit_window;

/* The user's parameters; a distribution uses those that it has. */
typedef struct {
    double loc, scale;
    double low, high;
    winit_window window;
} winit_parameters;

/* A distribution with its parameters in the form that kernels use; made by winit_set. If the
 * working type is float32, every double here is a float32 number. */
typedef struct {
    int kernel, type;
    double loc, scale; /* uniform: middle and half width, the latter times 2^-31 for INSIDE */
    double low, high;  /* bounds for clamping; both are numbers of the destination type */
    /* for truncated normals only */
    uint64_t flip, kappa;
    double tail_step, tail_start[2];
    double t_step, t_step_rest, t_start[2];
    double t_unit, log_shift; /* log_shift counts in units of the exponent's last bit */
} winit_distribution;

/* Prepares a distribution, given its name. Returns 0, or one of these. */
enum {
    WINIT_NO_VALUE = -1,   /* the type has no number between the bounds */
    WINIT_NOT_FINITE = -2, /* a parameter is not finite after rounding to the working type */
    WINIT_UNKNOWN = -3     /* no distribution has the name */
};
int winit_set(winit_distribution *d, const char *name, int type, const winit_parameters *p);

/* One axis of a box in memory: its extent, and the strides of the logical index and of the address.
 * winit_merge sorts the axes by stride in memory, the largest first, drops those of extent 1, joins
 * those that are contiguous in index and in memory, and returns the number of axes left. */
typedef struct {
    int64_t extent, index_stride, byte_stride;
} winit_axis;
int winit_merge(winit_axis *axes, int n);

/* Fills a box. Element (i0, i1, ...) of the box is logical element index + sum(ik *
 * index_strides[k]) and is written to dst + sum(ik * byte_strides[k]). No two elements may share a
 * byte or a logical index. There are at most WINIT_MAX_AXES axes with at least one element each; at
 * most one of them may have index stride 1. streaming: use non-temporal stores. */
enum { WINIT_MAX_AXES = 64 };
void winit_fill(const winit_distribution *d, const winit_stream *s, void *dst, uint64_t index,
                int axes, const int64_t *shape, const int64_t *index_strides,
                const int64_t *byte_strides, int streaming);

/* The four words of one counter, computed by the kernels of the chosen instruction set. */
void winit_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* The words of a stream one after another, computed WINIT_BUFFERED at a time. The period is 2^64
 * words. A 64-bit number is the next two words, the low one first, at any position. The next_*
 * functions have the signatures of NumPy's bitgen_t and take a winit_words, which only one thread
 * may use at a time. */
enum { WINIT_BUFFERED = 1024 };
typedef struct {
    winit_stream stream;
    uint64_t first; /* position of words[0] */
    int next;       /* index of the next word in words[] */
    uint32_t words[WINIT_BUFFERED];
} winit_words;
void winit_words_seek(winit_words *w, const winit_stream *s, uint64_t position);
uint64_t winit_words_position(const winit_words *w);
uint32_t winit_words_next_u32(void *words);
uint64_t winit_words_next_u64(void *words);
double winit_words_next_double(void *words);

/* Instruction sets, by their names in sets.h. winit_isa_choose chooses the best one for NULL. It
 * returns 0, or -1 without a change if the name is unknown or the CPU lacks the set. */
const char *winit_isa(void);
const char *winit_isa_supported(int k); /* the k-th, best first; NULL past the last */
int winit_isa_choose(const char *name);

#ifdef __cplusplus
}
#endif

#endif
