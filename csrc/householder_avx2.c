#include "vec_avx2.h"

#define TABLE winit_householder_avx2
#include "householder-inl.h"
