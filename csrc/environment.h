/* The floating-point environment of all kernels: rounding to nearest, subnormals kept, no traps.
 *
 * It must be set explicitly, because libraries built with -ffast-math change it for the whole
 * process, and callers may change it too. */
#ifndef WINIT_ENVIRONMENT_H
#define WINIT_ENVIRONMENT_H

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "the bits rest on exact arithmetic: compile without -ffast-math and its parts"
#endif

#include <stdint.h>

#include "sets.h"

#if WINIT_X86_64
#include <immintrin.h>

typedef unsigned environment;
static inline environment environment_enter(void) {
    const environment callers = _mm_getcsr();
    _mm_setcsr(0x1F80);
    return callers;
}
static inline void environment_leave(environment callers) { _mm_setcsr(callers); }

#elif WINIT_AARCH64 && defined(__GNUC__)
typedef uint64_t environment;
static inline environment environment_enter(void) {
    environment callers;
    __asm__ volatile("mrs %0, fpcr" : "=r"(callers));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return callers;
}
static inline void environment_leave(environment callers) {
    __asm__ volatile("msr fpcr, %0" : : "r"(callers) : "memory");
}

#else
#include <fenv.h>

typedef fenv_t environment;
static inline environment environment_enter(void) {
    environment callers;
    fegetenv(&callers);
    fesetenv(FE_DFL_ENV);
    return callers;
}
static inline void environment_leave(environment callers) { fesetenv(&callers); }
#endif

#endif
