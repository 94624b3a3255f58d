"""The correction for truncation in variance scaling, as in Keras and JAX.

Truncating a normal distribution at two standard deviations multiplies its standard deviation by
0.8796. Variance scaling divides by that factor, to have the right variance after truncation.
`TruncatedNormal` does not: its ``stddev`` is that of the normal before truncation.
"""

TRUNCATED_AT = 2.0
"""Where these schemes truncate, in standard deviations."""

TRUNCATED_STDDEV = 0.87962566103423978
"""Standard deviation of the standard normal truncated to +-2."""


def corrected(stddev: float) -> float:
    """Return the deviation before truncation at +-2 deviations that gives ``stddev`` after it.

    Examples
    --------
    >>> corrected(TRUNCATED_STDDEV)
    1.0
    """
    return stddev / TRUNCATED_STDDEV
