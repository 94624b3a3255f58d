#if !defined(__AVX512F__) || !defined(__AVX512DQ__)
#error "compile with -mavx512f -mavx512dq -mavx512bw -mavx512vl"
#endif
#define TABLE winit_householder_avx512
#include "householder-inl.h"
