/* The list of the instruction sets; setup.py reads it too.
 *
 * ON_ARCHITECTURE(X(name, "compiler flags")), best first. A set has its vector operations in
 * vec_NAME.h, kernels_NAME.c, which is compiled with these flags, and has_NAME in dispatch.c, which
 * detects the set at run time. */
#ifndef WINIT_SETS_H
#define WINIT_SETS_H

#if defined(__x86_64__) || defined(_M_X64)
#define WINIT_X86_64 1
#define ON_X86_64(...) __VA_ARGS__
#else
#define WINIT_X86_64 0
#define ON_X86_64(...)
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define WINIT_AARCH64 1
#define ON_AARCH64(...) __VA_ARGS__
#else
#define WINIT_AARCH64 0
#define ON_AARCH64(...)
#endif
#define ON_ANY(...) __VA_ARGS__

/* clang-format off */
#define WINIT_EACH_SET(X) \
    ON_X86_64(X(avx512, "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c")) \
    ON_X86_64(X(avx2, "-mavx2 -mfma -mf16c")) \
    ON_AARCH64(X(neon, "")) \
    ON_ANY(X(scalar, ""))
/* clang-format on */

#endif
