"""Write csrc/coefficients.h: fit every polynomial of stream version 1 again.

    python tools/fit_coefficients.py > csrc/coefficients.h

Needs mpmath. The result is frozen with the stream version: run this to see where the numbers come
from.
"""

import functools
import sys

from mpmath import mp, mpf
from remez import fit

mp.dps = 40

TINY = mpf("1e-12")
HALF_PI = mp.pi / 2


def log_rest(f: mpf) -> mpf:
    """(ln(1 + f) - f) / f^2, so that ln(1 + f) = f + f^2 log_rest(f) keeps the precision of f."""
    return (mp.log1p(f) - f) / f**2 if abs(f) > mpf("1e-15") else -mpf(1) / 2 + f / 3


def log_weight(f: mpf) -> mpf:
    return max(TINY, abs(f**2 / mp.log1p(f))) if f != 0 else TINY


def sin_quotient(y: mpf) -> mpf:
    """sin(pi/2 x) / x, where y = x^2."""
    x = mp.sqrt(y)
    return mp.sin(HALF_PI * x) / x if y > 0 else HALF_PI


def cos_rest(y: mpf) -> mpf:
    """(cos(pi/2 x) - 1) / y, where y = x^2."""
    return (mp.cos(HALF_PI * mp.sqrt(y)) - 1) / y if y > mpf("1e-20") else -(HALF_PI**2) / 2


def upper_tail(z: mpf) -> mpf:
    return mp.erfc(z / mp.sqrt(2)) / 2


@functools.cache
def quantile(w: mpf) -> mpf:
    """Find the z >= 0 with w = -ln(4 Q(z) (1 - Q(z))), by Newton's method."""
    z = mp.sqrt(w * HALF_PI) if w < 2 else mp.sqrt(2 * w) * mpf("0.8")
    for _ in range(200):
        q = upper_tail(z)
        density = mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)
        step = (-mp.log(4 * q * (1 - q)) - w) * q * (1 - q) / (density * (1 - 2 * q))
        z -= step
        if abs(step) < abs(z) * mpf(10) ** -36:
            break
    return z


def quantile_quotient(w: mpf) -> mpf:
    """z / (1 - 2 Q(z)): the normal quantile divided by t = 2p - 1, an even function of t.

    M. Giles, "Approximating the erfinv function", GPU Computing Gems 2 (2011), chose this form.
    """
    if w < mpf("1e-25"):
        return mp.sqrt(HALF_PI)
    z = quantile(w)
    return z / (1 - 2 * upper_tail(z))


def numbers(ctype: str, values: list[mpf]) -> str:
    digits, suffix = (9, "f") if ctype == "float" else (17, "")
    return ", ".join(mp.nstr(c, digits, min_fixed=1, max_fixed=0) + suffix for c in values)


def line(name: str, ctype: str, values: list[mpf]) -> str:
    return f"static const {ctype} {name}[{len(values)}] = {{{numbers(ctype, values)}}};"


def emit(ctype: str, bits: int, degrees: dict[str, int]) -> None:
    tag = "f32" if ctype == "float" else "f64"
    third, quarter = mpf(1) / 3, mpf(1) / 4

    def report(what: str, error: mpf) -> None:
        print(f"/* {what}: relative error 2^{mp.nstr(mp.log(error, 2), 4)} */")

    print(line(f"ln2_{tag}", ctype, [mp.ln2]))
    c, e = fit(log_rest, log_weight, -third, third, degrees["log"], bits)
    report("ln(1 + f) = f + f^2 P(f), f in [-1/3, 1/3]", e)
    print(line(f"log_{tag}", ctype, c))
    # factor ln(1 + f) as a function of g = factor f: for powers of two this causes no rounding.
    for name, factor in ("minus_log", mpf(-1)), ("minus_two_log", mpf(-2)):
        scaled = [c_k / factor ** (k + 1) for k, c_k in enumerate(c)]
        print(line(f"{name}_{tag}", ctype, scaled))

    c, e = fit(
        sin_quotient,
        lambda y: 1 / sin_quotient(y),
        mpf(0),
        quarter,
        degrees["sin"],
        bits,
        head=True,
    )
    report("sin(pi/2 x) = x (C + P(x^2)), x in [-1/2, 1/2]", e)
    print(line(f"sin_head_{tag}", ctype, c[:1]))
    print(line(f"sin_{tag}", ctype, c[1:]))

    c, e = fit(
        cos_rest,
        lambda y: max(y, TINY) / mp.cos(HALF_PI * mp.sqrt(y)),
        mpf(0),
        quarter,
        degrees["cos"],
        bits,
    )
    report("cos(pi/2 x) = 1 + x^2 P(x^2), x in [-1/2, 1/2]", e)
    print(line(f"cos_{tag}", ctype, c))

    if "central" in degrees:
        smallest = mp.sqrt(1 - (1 - 2 * upper_tail(mpf(2))) ** 2)

        def central(x: mpf) -> mpf:
            return quantile_quotient(-2 * mp.log(min(x + mpf(5) / 8, mpf(1))))

        c, e = fit(
            central,
            lambda x: 1 / central(x),
            smallest - mpf(5) / 8,
            mpf(3) / 8,
            degrees["central"],
            bits,
            head=True,
        )
        report("normal quantile z = t (C + P(sqrt(1 - t^2) - 5/8)), |z| <= 2", e)
        print(line(f"quantile_root_head_{tag}", ctype, c[:1]))
        print(line(f"quantile_root_{tag}", ctype, c[1:]))

    segments, errors = [], []
    for k in range(8):
        octave = 4 * mpf(2) ** k
        c, e = fit(
            lambda x, o=octave: quantile_quotient(max(o * (x + 1) - 4, mpf(0))),
            lambda x, o=octave: 1 / quantile_quotient(max(o * (x + 1) - 4, mpf(0))),
            mpf(0),
            mpf(1),
            degrees["quantile"],
            bits,
            head=True,
        )
        segments.append(c)
        errors.append(e)
    report(
        "normal quantile z = t (C_k + P_k(m - 1)), w = -ln(1 - t^2), w + 4 = m 2^(k+2)",
        max(errors),
    )
    print(line(f"quantile_head_{tag}", ctype, [c[0] for c in segments]))
    print(f"static const {ctype} quantile_{tag}[{degrees['quantile'] + 1}][8] = {{")
    for power in range(1, degrees["quantile"] + 2):
        print(f"    {{{numbers(ctype, [c[power] for c in segments])}}},")
    print("};")


def main() -> None:
    print("/* Made by tools/fit_coefficients.py; frozen with Stream v1. Lowest power first. */")
    print("#ifndef WINIT_COEFFICIENTS_H\n#define WINIT_COEFFICIENTS_H\n\n/* clang-format off */")
    emit("float", 24, {"log": 8, "sin": 3, "cos": 3, "central": 11, "quantile": 8})
    print()
    emit("double", 53, {"log": 20, "sin": 6, "cos": 6, "quantile": 22})
    print("/* clang-format on */\n\n#endif")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
