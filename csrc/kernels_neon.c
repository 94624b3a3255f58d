/* NEON on aarch64. */
#include "vec_neon.h"

#include "kernels-inl.h"
