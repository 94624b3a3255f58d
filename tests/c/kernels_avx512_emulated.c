/* AVX-512's kernels, emulated. They are not inlined as without the emulation, which would take the
 * compiler hours. */
#include "avx512_emulated.h"

#include "vec_avx512.h"
#undef V_REGISTERS
#define V_REGISTERS 0

#include "kernels-inl.h"
