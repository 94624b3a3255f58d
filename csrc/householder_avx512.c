#include "vec_avx512.h"

#define TABLE winit_householder_avx512
#include "householder-inl.h"
