/* Plain C. */
#include "vec_scalar.h"

#include "kernels-inl.h"
