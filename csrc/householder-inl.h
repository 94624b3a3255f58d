/* The Householder kernels of one instruction set: householder_real-inl.h, once for float and once
 * for double. Included after the set's vec_*.h. */
#ifndef WINIT_HOUSEHOLDER_INL_H
#define WINIT_HOUSEHOLDER_INL_H

#include <assert.h>
#include <math.h>
#include <string.h>

#include "environment.h"
#include "householder.h"

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif
/* A loop's own instructions take a tenth of the time of its body wherever a core is shared by two
 * threads. */
#if defined(__clang__)
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__)
#define UNROLL_4 _Pragma("GCC unroll 4")
#else
#define UNROLL_4
#endif
#define LANES 16 /* partial sums of a dot product */
#define GROUP WINIT_GROUP
#define ROWS_AT_ONCE \
    16 /* rows stored at a time: their cache lines stay in L1 while a panel is read */

#define REAL float
#define NAME(function) function##_f32
#define FMA fmaf
#define VECTOR vf
#define V(operation) v_##operation##f
#define AS_WORDS v_f_as_u
#include "householder_real-inl.h"
#undef REAL
#undef NAME
#undef FMA
#undef VECTOR
#undef V
#undef AS_WORDS

#define REAL double
#define NAME(function) function##_f64
#define FMA fma
#define VECTOR vd
#define V(operation) v_##operation##d
#define AS_WORDS v_d_as_u
#include "householder_real-inl.h"
#undef REAL
#undef NAME
#undef FMA
#undef VECTOR
#undef V
#undef AS_WORDS

#undef LANES
#undef GROUP
#undef ROWS_AT_ONCE
#undef PREFETCH
#undef UNROLL_4

#define HOUSEHOLDER                                                                               \
    {                                                                                             \
        .columns_f32 = columns_f32, .columns_f64 = columns_f64, .reflectors_f32 = reflectors_f32, \
        .reflectors_f64 = reflectors_f64, .groups_f32 = groups_f32, .groups_f64 = groups_f64,     \
        .apply_f32 = apply_f32, .apply_f64 = apply_f64, .store_f32 = store_f32,                   \
        .store_f64 = store_f64,                                                                   \
    }

#endif
