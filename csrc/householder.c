/* Which table goes by which name: those of the architecture that this is built for. */
#include "householder.h"

#include <string.h>

#include "kernels.h"

#if WINIT_X86_64
#define TABLES X(scalar) X(avx2) X(avx512)
#elif WINIT_AARCH64
#define TABLES X(scalar) X(neon)
#else
#define TABLES X(scalar)
#endif

#define X(isa) extern const struct winit_householder winit_householder_##isa;
TABLES
#undef X

const struct winit_householder *winit_householder(const char *isa) {
#define X(name) \
    if (strcmp(isa, #name) == 0) return &winit_householder_##name;
    TABLES
#undef X
    return NULL;
}
