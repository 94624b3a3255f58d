/* In place of dispatch.c: only the kernels for AVX-512, without asking the processor. */
#include <string.h>

#include "kernels.h"

static const winit_kernels *const only = &winit_kernels_avx512;

const winit_kernels *winit_table(void) { return only; }

const winit_householder *winit_reflections(void) { return &only->householder; }

const char *winit_isa(void) { return only->name; }

const char *winit_isa_supported(int k) { return k == 0 ? only->name : NULL; }

int winit_isa_choose(const char *name) { return name && strcmp(name, only->name) ? -1 : 0; }
