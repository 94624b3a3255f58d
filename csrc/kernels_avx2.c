/* AVX2 with FMA and F16C. */
#include "vec_avx2.h"

#include "kernels-inl.h"
