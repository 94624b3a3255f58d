"""A correct fma for Triton's interpreter, whose own rounds twice: it computes x * y, then adds z.

The kernels rest on an fma that rounds once, as every device has it. So the tests put this one in
the interpreter's place. test_gpu_kernels.py compares it with rational arithmetic.
"""

from fractions import Fraction

import numpy as np


def _two_sum(a, b):
    """The sum a + b, and its error, which is exact (D. Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _odd_sum(a, b):
    """The sum rounded to odd: if it is not exact, to the neighbour whose last bit is 1."""
    total, error = _two_sum(a, b)
    bits = total.view(np.int64)
    outward = np.where((error > 0) == (total > 0), 1, -1)
    move = (error != 0) & (bits & 1 == 0) & np.isfinite(total)
    return np.where(move, bits + outward, bits).view(np.float64)


def _fma32(x, y, z):
    """The product is exact in float64; rounding the sum to odd first changes no rounding."""
    x, y, z = (np.asarray(each, np.float64) for each in (x, y, z))
    return _odd_sum(x * y, z).astype(np.float32)


def _fma64(x, y, z):
    """S. Boldo and G. Melquiond, IEEE Trans. Computers 57 (2008), as csrc/vec_scalar.h does it.

    Numbers whose parts might overflow or be subnormal are computed as fractions.
    """
    x, y, z = np.broadcast_arrays(x, y, z)
    high = x * y
    size = abs(high)
    safe = (size > 2.0**-900) & (size + abs(x) + abs(y) + abs(z) < 2.0**900)
    zero = (x == 0) | (y == 0)
    a, b, c = (np.where(safe, each, 1.0) for each in (x, y, z))
    high = a * b
    a1, b1 = (each * 134217729.0 - (each * 134217729.0 - each) for each in (a, b))
    a2, b2 = a - a1, b - b1
    low = a2 * b2 - (((high - a1 * b1) - a2 * b1) - a1 * b2)
    total, error = _two_sum(c, low)
    upper, rest = _two_sum(high, total)
    result = np.where(zero, x * y + z, upper + _odd_sum(error, rest))
    for at in zip(*np.nonzero(~safe & ~zero), strict=True):
        result[at] = fma_of_fractions(float(x[at]), float(y[at]), float(z[at]))
    return result


def fma_of_fractions(x, y, z):
    """x y + z by rational arithmetic, rounded once to float64."""
    if not np.isfinite([x, y, z]).all():
        return x * y + z
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    return exact.numerator / exact.denominator


def fma(x, y, z):
    """x y + z of float32 or float64 arrays, rounded once."""
    with np.errstate(all="ignore"):
        return (_fma32 if z.dtype == np.float32 else _fma64)(x, y, z)


def install():
    """Let the interpreter use this fma."""
    from triton.runtime import interpreter

    def create_fma(self, x, y, z):
        return interpreter.TensorHandle(fma(x.data, y.data, z.data), z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = create_fma
