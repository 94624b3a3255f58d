"""The window of a truncated normal, computed exactly enough to be the same on every machine.

A kernel needs a few probabilities of the standard normal distribution. They decide bits of the
stream, so they may not come from a libm, whose last bits differ between systems, and they are
differences of numbers that can be almost equal or tiny (a window from 29 to 30 sigma holds
10^-185). Decimal arithmetic of 100 digits settles both, of more where a window is narrower than
that; a window is computed once and kept.
"""

from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

_DIGITS = 100
_GUARD = 25


class Window(NamedTuple):
    """What csrc/truncated-inl.h computes with; the names are those of ``winit_window``."""

    flip: bool
    kappa: int
    tail_step: float
    tail_start: tuple[float, float]
    t_step: float
    t_step_rest: float
    t_start: tuple[float, float]
    t_exponent: int
    tail_exponent: int


def _upper_tail(x: Decimal) -> Decimal:
    """Q(x) = 1 - Phi(x) for x >= 0, to the context's relative precision less a few digits."""
    if x == Decimal("Infinity"):
        return Decimal(0)
    square = x * x
    density = (-square / 2).exp() / (2 * _PI).sqrt()
    if x < 6:
        # Phi(x) - 1/2 = density (x + x^3/3 + x^5/(3 5) + ...): all terms of one sign.
        # At 6 the difference to 1/2 costs nine digits, which the guard digits pay.
        term = total = x
        n = 1
        while term > total.scaleb(-_DIGITS - _GUARD):
            n += 2
            term = term * square / n
            total += term
        return Decimal("0.5") - density * total
    # Laplace's continued fraction Q = density / (x + 1/(x + 2/(x + 3/(x + ...)))) from its end.
    # 2 n^(1/2) x is above ln(10) times the digits wanted for the n taken here.
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
    """The float64 nearest to x.

    Integer division rounds correctly by itself; float(Decimal) would go through the C library's
    parser, which trusts the caller's rounding mode.
    """
    fraction = Fraction(x)
    return fraction.numerator / fraction.denominator


def _exponent(x: Decimal) -> int:
    """e with 2^(e-1) <= x < 2^(e+1)."""
    fraction = Fraction(x)
    return fraction.numerator.bit_length() - fraction.denominator.bit_length()


def _context(low: float, high: float) -> Context:
    """Give the arithmetic for a window: all digits that two tails of about 1/2 have in common more.

    Wider windows than 10^-100 have enough of them; what they are is frozen.
    """
    context = _CONTEXT.copy()
    width = _CONTEXT.subtract(Decimal(high), Decimal(low))
    if width.is_finite() and -width.adjusted() > _DIGITS:
        context.prec -= width.adjusted()
    return context


@lru_cache(maxsize=256)
def window(low: float, high: float, bits: int) -> Window:
    """The window from low to high standard deviations for words of `bits` bits.

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
        If no probability is left between the bounds in double precision.

    Notes
    -----
    With u = (w + 1/2) / 2^bits and D = Phi(high) - Phi(low), t = 2 (Phi(low) + u D) - 1 is zero at
    the word K - 1/2, K = 2^bits (1/2 - Phi(low)) / D. Words from kappa = ceil(K - 1/2) on lie
    above zero. A window whose larger part is below zero is turned over, which takes every word to
    its complement: then K is at most half of the words.
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
            zero = (half - tail_a) / probability * words  # K
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
