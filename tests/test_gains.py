"""Gains: PyTorch's table; exact gains compared with other computations; and their effect."""

import math

import mpmath
import numpy as np
import pytest

import winit_fast as wf
from winit_fast.initializers import activations, gains

GATED = ["glu", "reglu", "geglu", "swiglu"]
EXACT = [name for name in activations.NAMES if name not in ("tanh", "selu", "sigmoid", *GATED)]
JUMPS = ["hard_shrink"]  # activations without a derivative


@pytest.mark.parametrize(
    ("activation", "param", "expected"),
    [
        ("linear", None, 1.0),
        ("conv1d", None, 1.0),
        ("conv_transpose3d", None, 1.0),
        ("sigmoid", None, 1.0),
        ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)),
        ("leaky_relu", None, math.sqrt(2 / (1 + 0.01**2))),
        ("leaky_relu", 0.2, math.sqrt(2 / (1 + 0.2**2))),
        ("leaky_relu", 1, 1.0),
        ("selu", None, 3 / 4),
    ],
)
def test_the_table_of_pytorch_to_the_last_bit(activation, param, expected):
    assert wf.gain(activation, param) == expected


def test_other_names_of_the_same():
    for name, same in (("gelu_new", "gelu_tanh"), ("relu2", "relu_squared")):
        assert wf.gain(name) == wf.gain(same) != 1.0
        assert wf.gradient_gain(name) == wf.gradient_gain(same)
    assert wf.gain("quickGELU") == wf.gain("quick_gelu") != wf.gain("gelu")


def test_gated_units():
    """The mean square of f(z) v; 4 * P(|z| > 6) = 8e-9 is the rate of false alarms."""
    z, v = wf.Stream(0, "gates").normal(shape=(2, 1 << 18), dtype="float64")
    gates = {
        "glu": 1 / (1 + np.exp(-z)),
        "reglu": np.maximum(z, 0),
        "geglu": z * np.vectorize(math.erfc)(-z / math.sqrt(2)) / 2,
        "swiglu": z / (1 + np.exp(-z)),
    }
    for name in GATED:
        squares = np.square(gates[name] * v)
        error = squares.std() / math.sqrt(squares.size)
        assert abs(squares.mean() - wf.gain(name) ** -2) < 6 * error, name
        with pytest.raises(ValueError, match=f"one input for gradient_gain, got '{name}'"):
            wf.gradient_gain(name)
    with pytest.raises(ValueError, match="param must not be given for 'swiglu', .* got 2.0"):
        wf.gain("swiglu", 2.0)


def test_relu_gives_he_to_the_last_bit():
    assert gains.squared_gain("relu") == gains.squared_gain("relu", gradient=True) == 2.0
    assert wf.HeNormal().scale == wf.HeUniform().scale == 2.0


SQRT3 = math.sqrt(3)


@pytest.mark.parametrize(
    ("activation", "mean_square", "of_gradient"),
    [
        # Integration by parts: E[z^2 Phi^2] = E[Phi^2] + 2 E[z Phi phi], E[Phi^2] = 1/3.
        ("gelu", 1 / 3 + 1 / (2 * math.pi * SQRT3), None),
        ("relu_squared", 3 / 2, 2.0),
        ("exponential", math.exp(2), math.exp(2)),
        ("sin", (1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
        ("selu_exact", 1.0, None),  # the property that the constants of SELU were solved for
        ("prelu", (1 + 0.25**2) / 2, (1 + 0.25**2) / 2),
        ("hard_tanh", None, math.erf(1 / math.sqrt(2))),
        ("relu6", None, math.erf(6 / math.sqrt(2)) / 2),
        ("soft_shrink", None, math.erfc(0.5 / math.sqrt(2))),
        ("squareplus", 3 / 2, None),  # E[((z + s) / 2)^2], where s^2 = z^2 + 4 and s is even
        (lambda z: z**3, 15.0, 27.0),
        (lambda z: abs(z), 1.0, 1.0),
        (lambda z: z > 0.3, math.erfc(0.3 / math.sqrt(2)) / 2, None),
        (lambda z: np.maximum(z - 0.3, 0), None, math.erfc(0.3 / math.sqrt(2)) / 2),
        (lambda z: 3.0, 9.0, None),
        (lambda z: max(z, 0.0), 1 / 2, 1 / 2),  # a function of a single number
        (math.exp, math.exp(2), math.exp(2)),
    ],
)
def test_closed_forms(activation, mean_square, of_gradient):
    if mean_square is not None:
        assert math.isclose(wf.gain(activation) ** -2, mean_square, rel_tol=2e-11)
    if of_gradient is not None:
        assert math.isclose(wf.gradient_gain(activation) ** -2, of_gradient, rel_tol=2e-10)


def _piecewise_mean(square, kinks):
    """An integral over the normal distribution to 30 digits, split where f is not smooth."""
    ends = [-mpmath.inf, -12, -6, *sorted({-2, 0, 2, *kinks}), 12, mpmath.inf]
    with mpmath.workdps(30):
        return float(mpmath.quad(lambda z: square(z) * mpmath.npdf(z), ends))


REFERENCES = {
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: (
        z * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + 0.044715 * z**3))) / 2
    ),
    "quick_gelu": lambda z: z / (1 + mpmath.exp(-1.702 * z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "mish": lambda z: z * mpmath.tanh(mpmath.log1p(mpmath.exp(z))),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "log_sigmoid": lambda z: -mpmath.log1p(mpmath.exp(-z)),
    "tanh_exact": mpmath.tanh,
    "sigmoid_exact": lambda z: 1 / (1 + mpmath.exp(-z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "tanh_shrink": lambda z: z - mpmath.tanh(z),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "celu": lambda z: z if z > 0 else mpmath.expm1(z),
    "selu_exact": lambda z: (
        activations.SELU_SCALE * (z if z > 0 else activations.SELU_ALPHA * mpmath.expm1(z))
    ),
    "hard_swish": lambda z: z * min(max(z + 3, 0), 6) / 6,
    "hard_sigmoid": lambda z: min(max(z + 3, 0), 6) / mpmath.mpf(6),
    "hard_shrink": lambda z: z if abs(z) > 0.5 else mpmath.mpf(0),
    "sparse_plus": lambda z: z if z > 1 else max(z + 1, 0) ** 2 / mpmath.mpf(4),
}
KINKS = {
    "hard_swish": [-3, 3],
    "hard_sigmoid": [-3, 3],
    "hard_shrink": [-0.5, 0.5],
    "sparse_plus": [-1, 1],
}


QUICK = {"gelu_tanh", "mish", "softplus", "elu", "hard_swish", "sparse_plus"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in REFERENCES],
)
def test_against_thirty_digits(name):
    function, kinks = REFERENCES[name], KINKS.get(name, [])
    expected = _piecewise_mean(lambda z: function(z) ** 2, kinks)
    assert math.isclose(wf.gain(name) ** -2, expected, rel_tol=1e-11)
    if name not in JUMPS:
        expected = _piecewise_mean(lambda z: mpmath.diff(function, z) ** 2, kinks)
        assert math.isclose(wf.gradient_gain(name) ** -2, expected, rel_tol=1e-10)


# Functions written from the formulas of the papers, with parameters other than the defaults, and
# the positions of their kinks.
OF_PARAMETERS = {
    ("elu", 0.7): (lambda z: z if z > 0 else 0.7 * mpmath.expm1(z), []),
    ("celu", 2.5): (lambda z: z if z > 0 else 2.5 * mpmath.expm1(z / 2.5), []),
    ("silu", 1.7): (lambda z: z / (1 + mpmath.exp(-1.7 * z)), []),
    ("softplus", 2.5): (lambda z: mpmath.log1p(mpmath.exp(2.5 * z)) / 2.5, []),
    ("hard_shrink", 1.25): (lambda z: z if abs(z) > 1.25 else mpmath.mpf(0), [-1.25, 1.25]),
    ("soft_shrink", 0.75): (
        lambda z: z - 0.75 if z > 0.75 else z + 0.75 if z < -0.75 else mpmath.mpf(0),
        [-0.75, 0.75],
    ),
    ("squareplus", 0.5): (lambda z: (z + mpmath.sqrt(z * z + 0.5)) / 2, []),
    ("leaky_relu", -0.4): (lambda z: z if z > 0 else -0.4 * z, []),
    ("prelu", 0.4): (lambda z: z if z > 0 else 0.4 * z, []),
}


@pytest.mark.parametrize(("name", "param"), OF_PARAMETERS)
def test_parameters_against_thirty_digits(name, param):
    function, kinks = OF_PARAMETERS[name, param]
    expected = _piecewise_mean(lambda z: function(z) ** 2, kinks)
    assert math.isclose(wf.gain(name, param) ** -2, expected, rel_tol=1e-11)
    if name not in JUMPS:
        expected = _piecewise_mean(lambda z: mpmath.diff(function, z) ** 2, kinks)
        assert math.isclose(wf.gradient_gain(name, param) ** -2, expected, rel_tol=1e-10)


def test_every_parameter_has_a_reference_of_its_own():
    functions = {
        name: function for name, (function, default) in activations.TABLE.items() if default
    }
    covered = {functions[name] for name, _ in OF_PARAMETERS}
    assert set(functions.values()) == covered


def test_against_monte_carlo():
    """Every activation with 2^18 draws: within 6 standard errors of the estimate.

    There are two means for each of about 40 activations: 80 * P(|z| > 6) = 2e-7 is the rate of
    false alarms, if the means are normal. The gradient is a central difference; its own error of
    1e-6 is allowed for, and few draws lie so near a kink that it matters.
    """
    z = wf.Stream(0, "gains").normal(shape=1 << 18, dtype="float64")
    step = 1e-6
    for name in EXACT:
        function, default = activations.TABLE[name]
        parameters = () if default is None else (default,)
        squares = {wf.gain: function(z, *parameters) ** 2}
        if name not in JUMPS:
            rise = function(z + step, *parameters) - function(z - step, *parameters)
            squares[wf.gradient_gain] = (rise / (2 * step)) ** 2
        for gain, square in squares.items():
            error = square.std() / math.sqrt(z.size)
            assert abs(square.mean() - gain(name) ** -2) <= 6 * error + 1e-5, (name, gain)


def _after_layers(name, scheme, layers=100, width=512, networks=8):
    """Mean square of the last layer of random networks; the mean square of the input is 1."""
    function, default = activations.TABLE[name]
    parameters = () if default is None else (default,)
    squares = []
    for seed in range(networks):
        x = wf.Stream(seed, "input").normal(shape=width)
        for layer in range(layers):
            w = scheme((width, width), seed=seed, name=f"{layer}.weight")
            x = function(x, *parameters).astype(np.float32) @ w
        squares.append(np.square(x, dtype=np.float64).mean())
    return np.mean(squares)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param("tanh_exact", "relu", marks=pytest.mark.slow),
        ("selu_exact", "selu"),
        pytest.param("sigmoid_exact", "sigmoid", marks=pytest.mark.slow),
        pytest.param("softplus", "relu", marks=pytest.mark.slow),
    ],
)
def test_a_hundred_layers_keep_their_variance(name, wrong):
    """Within 20 % with the exact gain, and outside with a wrong one.

    In units of 1 / width, a layer adds b = E[f^4] / E[f^2]^2 - 1 to the variance of the relative
    error and multiplies it by s^2, where s = E[z f f'] / E[f^2]; the last mean square adds 2. SELU
    is the worst case, with b = 1.5 and s = 0.78: the mean of eight networks has a standard
    deviation of sqrt((b / (1 - s^2) + 2) / 512 / 8) = 3.8 %. 20 % is 5.2 of these: the rate of
    false alarms is 2e-7.
    """
    assert 0.8 < _after_layers(name, wf.HeNormal(nonlinearity=name)) < 1.2
    changed = _after_layers(name, wf.HeNormal(nonlinearity=wrong), networks=1)
    assert not 0.8 < changed < 1.2


def test_where_deviations_grow():
    """What the docstring says about activations for which a mean square of 1 is not stable."""
    z = wf.Stream(0, "gains").normal(shape=1 << 18, dtype="float64")
    growth = {}
    for name in ("tanh_exact", "selu_exact", "elu", "softplus", "relu", "gelu", "silu", "mish"):
        function, default = activations.TABLE[name]
        parameters = () if default is None else (default,)
        larger, smaller = (np.square(function(z * c, *parameters)).mean() for c in (1.01, 0.99))
        growth[name] = math.log(larger / smaller) / math.log(1.01 / 0.99) / 2
    assert max(growth[name] for name in ("tanh_exact", "selu_exact", "elu", "softplus")) < 0.95
    assert math.isclose(growth["relu"], 1)
    assert 1.05 < min(growth[name] for name in ("gelu", "silu", "mish")) < 1.25


def test_params():
    z_above = (1 + 0.3**2) / 2
    assert math.isclose(wf.gain("leaky_relu", 0.3) ** -2, z_above)
    assert wf.gain("prelu", 0.01) == wf.gain("leaky_relu")
    assert math.isclose(wf.gain("elu", 0.0), wf.gain("relu"), rel_tol=1e-11)
    assert math.isclose(wf.gain("swish", 1.702), wf.gain("quick_gelu"), rel_tol=1e-11)
    assert math.isclose(wf.gain("soft_shrink", 0.0), 1.0, rel_tol=1e-11)
    for name, param in [("celu", 0.7), ("softplus", 3.0), ("hard_shrink", 0.37), ("squareplus", 1)]:
        function = activations.TABLE[name][0]
        exact = wf.gain(lambda z, f=function, p=param: f(z, float(p)))
        assert math.isclose(wf.gain(name, param), exact, rel_tol=1e-11)


def test_spellings():
    assert wf.gain("LeakyReLU", 0.1) == wf.gain("leaky-relu", 0.1) == wf.gain("leaky_relu", 0.1)
    assert wf.gain("hardswish") == wf.gain("Hard_Swish") == wf.gain("hard_silu")


def test_functions_in_float32():
    def kinked(z):
        return np.maximum(np.asarray(z, np.float32) - np.float32(0.123), np.float32(0))

    for gain in (wf.gain, wf.gradient_gain):
        assert math.isclose(gain(kinked), gain(lambda z: np.maximum(z - 0.123, 0)), rel_tol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("geluu",), ValueError, r"activation must be one of .*, got 'geluu'; did you mean 'gelu'"),
        (("relu", 0.1), ValueError, r"param must not be given for 'relu', .* got 0.1"),
        (("leaky_relu", math.nan), ValueError, r"param must be finite, got nan"),
        (("leaky_relu", True), TypeError, r"param must be a real number, got True"),
        (("leaky_relu", "x"), TypeError, r"param must be a real number, got 'x'"),
        (
            (np.tanh, 0.1),
            ValueError,
            r"param must not be given with a function as activation, got 0.1",
        ),
        ((3,), TypeError, r"activation must be a name or a function, got 3"),
        ((lambda z: 0 * z,), ValueError, r"E\[f\(z\)\^2\] is 0"),
        ((lambda z: np.exp(z * z / 4),), ValueError, r"E\[f\(z\)\^2\] is not finite"),
        ((lambda z: np.exp(z * z),), ValueError, r"is not finite"),
        ((lambda z: 1 / z,), ValueError, r"is not finite"),
        ((np.tan,), ValueError, r"is not finite"),
        ((lambda z: z * np.nan,), ValueError, r"is not finite"),
        (("leaky_relu", 1e200), ValueError, r"is not finite.*leaky_relu with param 1e\+200"),
        (("softplus", 0.0), ValueError, r"is not finite.*softplus with param 0.0"),
        ((lambda z: 1j * z,), TypeError, r"must return float64 or float32, got complex128"),
        ((lambda z: z[0],), ValueError, r"must work element by element"),
        ((lambda: 0,), TypeError, r"must be a function of a NumPy array or of a number"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        wf.gain(*arguments)


@pytest.mark.parametrize("activation", [np.sign, "hard_shrink", lambda z: z > 0.3, lambda z: 1.0])
def test_no_gradient(activation):
    with pytest.raises(ValueError, match=r"E\[f'\(z\)\^2\] is"):
        wf.gradient_gain(activation)


@pytest.mark.parametrize("cls", [wf.HeNormal, wf.HeUniform])
def test_he_refuses(cls):
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        cls(nonlinearity="rellu")
    with pytest.raises(ValueError, match="'relu', which has no parameter, got 0.1"):
        cls(param=0.1)
    with pytest.raises(TypeError, match="nonlinearity must be the name of an activation"):
        cls(nonlinearity=np.tanh)
