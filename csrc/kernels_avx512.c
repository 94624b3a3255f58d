/* AVX-512 F, BW, DQ, VL. */
#include "vec_avx512.h"

#include "kernels-inl.h"
