#if !defined(__AVX2__)
#error "compile with -mavx2 -mfma"
#endif
#define TABLE winit_householder_avx2
#include "householder-inl.h"
