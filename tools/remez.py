"""Weighted minimax polynomials by the Remez exchange, in arbitrary precision.

E. Ya. Remez (1934). The exchange follows N. Brisebarre and S. Chevillard, "Efficient polynomial
L-infinity approximations" (ARITH 2007), without their lattice step: coefficients are rounded to
nearest, which costs little here, because all variables are centred or small.
"""

from collections.abc import Callable

from mpmath import mp, mpf

Function = Callable[[mpf], mpf]


def remez(
    f: Function, weight: Function, low: mpf, high: mpf, powers: list[int]
) -> tuple[list[mpf], mpf]:
    """Minimise max |weight(x) (f(x) - sum_k c_k x^powers[k])| over [low, high].

    Returns the coefficients c_k and the largest weighted error.
    """
    n = len(powers)
    middle, half = (high + low) / 2, (high - low) / 2
    nodes = [middle - half * mp.cos(mp.pi * i / n) for i in range(n + 1)]
    # The grid is denser at the ends of the interval, because the extrema of the error are.
    size = 24 * (n + 1)
    grid = [middle - half * mp.cos(mp.pi * i / size) for i in range(size + 1)]
    values = [(f(x), weight(x)) for x in grid]
    coefficients: list[mpf] = []
    worst = mpf(0)
    for _ in range(40):
        rows = mp.matrix(n + 1, n + 1)
        right = mp.matrix(n + 1, 1)
        for i, x in enumerate(nodes):
            for k, power in enumerate(powers):
                rows[i, k] = x**power
            rows[i, n] = (-1) ** i / weight(x)
            right[i] = f(x)
        solution = mp.lu_solve(rows, right)
        coefficients = [solution[k] for k in range(n)]
        levelled = abs(solution[n])
        errors = [
            w * (y - sum(c * x**p for c, p in zip(coefficients, powers, strict=True)))
            for x, (y, w) in zip(grid, values, strict=True)
        ]
        worst = max(abs(e) for e in errors)
        if worst <= levelled * mpf("1.001"):
            break
        # Keep one extremum of each run of errors with the same sign.
        extrema: list[int] = []
        for i, error in enumerate(errors):
            if extrema and (error > 0) == (errors[extrema[-1]] > 0):
                if abs(error) > abs(errors[extrema[-1]]):
                    extrema[-1] = i
            else:
                extrema.append(i)
        while len(extrema) > n + 1:
            ends = abs(errors[extrema[0]]) < abs(errors[extrema[-1]])
            extrema.pop(0 if ends else -1)
        if len(extrema) < n + 1:
            break
        nodes = [grid[i] for i in extrema]
    return coefficients, worst


def rounded(x: mpf, bits: int) -> mpf:
    """Round x to nearest, to a significand of `bits` bits."""
    if x == 0:
        return mpf(0)
    exponent = int(mp.floor(mp.log(abs(x), 2)))
    unit = mpf(2) ** (exponent - bits + 1)
    return mp.nint(x / unit) * unit


def fit(
    f: Function, weight: Function, low: mpf, high: mpf, degree: int, bits: int, head: bool = False
) -> tuple[list[mpf], mpf]:
    """Find the minimax polynomial with coefficients rounded to `bits` bits, and its error.

    With `head`, the constant term is stored as two numbers: the rounded term, and the error of its
    rounding. A kernel adds the second one early, where the partial sums are still small, and
    multiplies by the first one in its last fma. So the rounding of the constant term costs nothing,
    and that of the sum costs less.
    """
    exact, _ = remez(f, weight, low, high, list(range(degree + 1)))
    first = rounded(exact[0], bits) if head else mpf(0)
    rest = [rounded(c, bits) for c in [exact[0] - first, *exact[1:]]]
    middle, half = (high + low) / 2, (high - low) / 2
    grid = [middle - half * mp.cos(mp.pi * i / 500) for i in range(501)]
    worst = max(
        abs(weight(x) * (f(x) - first - sum(c * x**k for k, c in enumerate(rest)))) for x in grid
    )
    return ([first] if head else []) + rest, worst
