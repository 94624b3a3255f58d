#include "vec_neon.h"

#define TABLE winit_householder_neon
#include "householder-inl.h"
