"""The window of a truncated normal, computed with so many digits that all machines agree.

A kernel needs a few probabilities of the standard normal distribution. They determine bits of the
stream, so they must not come from a libm, whose last bits differ between systems. They are also
differences of numbers that can be almost equal or tiny (the probability of a window from 29 to 30
sigma is 10^-185). So they are computed in decimal arithmetic with 100 digits, or more for a very
narrow window. The result is cached.
"""

from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import inf, isfinite, nextafter
from typing import NamedTuple

_DIGITS = 100
_GUARD = 25


class Window(NamedTuple):
    """The constants of csrc/truncated-inl.h, under the names of ``winit_window``."""

    flip: bool
    kappa: int
    tail_step: float
    tail_start: tuple[float, float]
    t_step: float
    t_step_rest: float
    t_start: tuple[float, float]
    t_exponent: int
    tail_exponent: int


def relative_bounds(mean: float, std: float, a: float, b: float) -> tuple[float, float]:
    """Convert absolute bounds to standard deviations from the mean, never outside of [a, b].

    Examples
    --------
    >>> relative_bounds(0.0, 0.5, -1.0, 1.0)
    (-2.0, 2.0)
    """
    low, high = (a - mean) / std, (b - mean) / std
    # After rounding in both directions, the interval may be slightly too wide.
    if isfinite(low) and mean + low * std < a:
        low = nextafter(low, inf)
    if isfinite(high) and mean + high * std > b:
        high = nextafter(high, -inf)
    return low, high


def _upper_tail(x: Decimal) -> Decimal:
    """Q(x) = 1 - Phi(x) for x >= 0, to the relative precision of the context minus a few digits."""
    if x == Decimal("Infinity"):
        return Decimal(0)
    square = x * x
    density = (-square / 2).exp() / (2 * _PI).sqrt()
    if x < 6:
        # Phi(x) - 1/2 = density (x + x^3/3 + x^5/(3 5) + ...): all terms of one sign.
        # For x = 6 subtracting from 1/2 cancels nine digits; the guard digits allow for that.
        term = total = x
        n = 1
        while term > total.scaleb(-_DIGITS - _GUARD):
            n += 2
            term = term * square / n
            total += term
        return Decimal("0.5") - density * total
    # Laplace's continued fraction Q = density / (x + 1/(x + 2/(x + 3/(x + ...)))), evaluated from
    # the innermost term. n terms give about 2 sqrt(n) x / ln(10) digits; `terms` gives enough.
    terms = int(((_DIGITS + _GUARD) * Decimal("2.4") / x) ** 2) // 4 + 100
    fraction = x
    for n in range(terms, 0, -1):
        fraction = x + n / fraction
    return density / fraction


def _pi() -> Decimal:
    """Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_inverse(n: int) -> Decimal:
        power = total = Decimal(1) / n
        k = 1
        while abs(power) > Decimal(10) ** (-_DIGITS - _GUARD):
            power /= -n * n
            k += 2
            total += power / k
        return total

    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)


_CONTEXT = Context(prec=_DIGITS + _GUARD, Emin=-999999, Emax=999999)
with localcontext(_CONTEXT):
    _PI = _pi()


def _nearest(x: Decimal) -> float:
    """Return the float64 nearest to x.

    Python's integer division rounds correctly. float(Decimal) would use the C library's parser,
    whose result depends on the caller's rounding mode.
    """
    fraction = Fraction(x)
    return fraction.numerator / fraction.denominator


def _exponent(x: Decimal) -> int:
    """Return an e with 2^(e-1) <= x < 2^(e+1)."""
    fraction = Fraction(x)
    return fraction.numerator.bit_length() - fraction.denominator.bit_length()


def _context(low: float, high: float) -> Context:
    """Return the decimal context for a window.

    For a window narrower than 10^-100 it has more digits: as many as cancel when two tails of about
    1/2 are subtracted. For all other windows the number of digits is frozen.
    """
    context = _CONTEXT.copy()
    width = _CONTEXT.subtract(Decimal(high), Decimal(low))
    if width.is_finite() and -width.adjusted() > _DIGITS:
        context.prec -= width.adjusted()
    return context


@lru_cache(maxsize=256)
def window(low: float, high: float, bits: int) -> Window:
    """Compute the window from low to high standard deviations for words of `bits` bits.

    Parameters
    ----------
    low, high : float
        Bounds in standard deviations, low < high; infinite ones are allowed.
    bits : int
        Size of a word: 32 for float32 and narrower types, 64 for float64.

    Returns
    -------
    Window

    Raises
    ------
    ValueError
        If the probability between the bounds underflows in float64.

    Notes
    -----
    With u = (w + 1/2) / 2^bits and D = Phi(high) - Phi(low), t = 2 (Phi(low) + u D) - 1 is zero at
    the word K - 1/2, K = 2^bits (1/2 - Phi(low)) / D. Words from kappa = ceil(K - 1/2) on give a
    positive t. A window whose larger part is below zero is mirrored at zero, and every word is
    replaced by its complement, so that K is at most half the number of words.
    """
    with localcontext(_context(low, high)):
        flip = -low > high
        a, b = (Decimal(-high), Decimal(-low)) if flip else (Decimal(low), Decimal(high))
        straddles = a < 0
        tail_a, tail_b = _upper_tail(abs(a)), _upper_tail(b)
        probability = 1 - tail_a - tail_b if straddles else tail_a - tail_b
        if _nearest(probability) == 0.0:
            raise ValueError(
                f"no probability is left between low = {low!r} and high = {high!r} "
                "standard deviations in double precision"
            )
        words = Decimal(2) ** bits
        step = 2 * probability / words
        half = Decimal("0.5")
        if straddles:
            # the word that gives zero, as a real number
            zero = (half - tail_a) / probability * words
            kappa = int((zero - half).to_integral_value(ROUND_CEILING))
            t_start = step * (kappa + half - zero), step * (zero + half - kappa)
            tail_start = 2 * tail_b + step / 2, 2 * tail_a + step / 2
            largest_tail = Decimal(1)
        else:
            kappa = 0
            t_start = 1 - 2 * tail_a + step / 2, Decimal(0)
            tail_start = 2 * tail_b + step / 2, Decimal(0)
            largest_tail = 2 * tail_a
        largest_t = max(1 - 2 * tail_b, step)
        t_exponent = max(0, -_exponent(largest_t))
        tail_exponent = max(0, -_exponent(largest_tail))
        t_unit, tail_unit = Decimal(2) ** t_exponent, Decimal(2) ** tail_exponent
        t_step = step * t_unit
        t_head = _nearest(t_step)
        return Window(
            flip=flip,
            kappa=kappa,
            tail_step=_nearest(step * tail_unit),
            tail_start=(_nearest(tail_start[0] * tail_unit), _nearest(tail_start[1] * tail_unit)),
            t_step=t_head,
            t_step_rest=_nearest(t_step - Decimal(t_head)),
            t_start=(_nearest(t_start[0] * t_unit), _nearest(t_start[1] * t_unit)),
            t_exponent=t_exponent,
            tail_exponent=tail_exponent,
        )
