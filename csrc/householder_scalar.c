#include "vec_scalar.h"

#define TABLE winit_householder_scalar
#include "householder-inl.h"
