"""The mean-field theory: critical points that are known, closed forms, and random networks."""

import math

import numpy as np
import pytest
from strategies import depth

import winit_fast as wf
from winit_fast.diagnosis import theory


def test_a_rectifier_is_critical_where_he_found_it():
    he = theory("relu", math.sqrt(2), depth=60)
    assert he.phase == "critical" and he.chi == pytest.approx(1, abs=1e-8)
    np.testing.assert_allclose(he.variances, 2, rtol=1e-9)
    np.testing.assert_allclose(he.gradients, 1, rtol=1e-7)
    assert he.fixed_correlation == 1.0 and he.depth_scale == math.inf
    for sigma, phase, end in ((1.3, "ordered", 0.0), (1.5, "chaotic", math.inf)):
        other = theory("relu", sigma)
        assert other.phase == phase and other.fixed_point == end
        assert other.chi == pytest.approx(sigma**2 / 2, rel=1e-8)
    slope = theory("leaky_relu", math.sqrt(2 / (1 + 0.2**2)), param=0.2)
    assert slope.phase == "critical"


@pytest.mark.parametrize("activation", ["tanh", "softsign", "hard_tanh", "linear"])
def test_odd_functions_of_slope_1_are_critical_at_1_and_0(activation):
    assert theory(activation, 1.0).phase == "critical"
    assert theory(activation, 0.9).phase == "ordered"
    assert theory(activation, 1.1).phase == "chaotic"


def erf(z):
    return np.vectorize(math.erf)(z)


def test_erf_agrees_with_its_closed_form():
    """E[erf(u) erf(v)] = 2/pi asin(2 q c / (1 + 2 q)): Williams, 1996."""
    assert theory(erf, math.sqrt(math.pi) / 2).phase == "critical"  # the slope at 0 is 2/sqrt(pi)
    found = theory(erf, 1.5, 0.3)
    for q in (0.1, 1.0, 7.0):
        expected = 1.5**2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + 0.3**2
        assert found.variance_map(q) == pytest.approx(expected, rel=1e-10)
        chi = 1.5**2 * 4 / math.pi / math.sqrt(1 + 4 * q)
        assert found.gradient_factor(q) == pytest.approx(chi, rel=1e-8)
        for c in (-0.5, 0.0, 0.9, 1.0):
            angle = math.asin(2 * q * c / (1 + 2 * q))
            part = 1.5**2 * 2 / math.pi * angle + 0.3**2
            assert found.correlation_map(c, q) == pytest.approx(part / expected, abs=1e-8)
    q = found.fixed_point
    assert found.variance_map(q) == pytest.approx(q, rel=1e-9)
    c = found.fixed_correlation
    assert 0 < c < 1 and found.correlation_map(c) == pytest.approx(c, abs=1e-9)


def test_the_correlation_map_of_a_rectifier_is_the_arc_cosine_kernel():
    """Cho and Saul, 2009: (sqrt(1 - c^2) + c (pi - acos c)) / pi."""
    he = theory("relu", math.sqrt(2))
    for c in (-1.0, -0.7, 0.0, 0.3, 0.99, 1.0):
        expected = (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / math.pi
        assert he.correlation_map(c, 1.0) == pytest.approx(expected, abs=2e-5), c


def test_the_slope_of_the_correlation_map_at_1_is_chi():
    """Poole et al., 2016, eq. 8, at the fixed point of the variance."""
    for activation, sigma_w, sigma_b in (
        ("tanh", 1.7, 0.4),
        ("gelu", 1.2, 0.5),
        ("silu", 1.0, 1.0),
    ):
        found = theory(activation, sigma_w, sigma_b)
        step = 1e-4
        ends = [found.correlation_map(1 - k * step) for k in (0, 1, 2)]
        slope = (1.5 * ends[0] - 2 * ends[1] + 0.5 * ends[2]) / step
        assert slope == pytest.approx(found.chi, rel=1e-3)
        assert (found.fixed_correlation < 1) == (found.phase == "chaotic")


def test_correlations_approach_the_fixed_one():
    chaotic = theory("tanh", 2.0, 0.2, depth=100)
    along = chaotic.correlations(0.9)
    assert along[-1] == pytest.approx(chaotic.fixed_correlation, abs=1e-4)
    assert chaotic.fixed_correlation < 0.5
    ordered = theory("tanh", 0.8, 0.5, depth=40)
    assert ordered.correlations(0.0)[-1] == pytest.approx(1, abs=1e-4)


# Biases keep silu from growing.
NETWORKS = {
    "relu": (math.sqrt(2), 0.0),
    "tanh": (1.5, 0.1),
    "silu": (1.0, 0.5),
    "selu": (1.0, 0.0),
    "leaky_relu": (math.sqrt(2), 0.1),
    "sigmoid": (2.0, 0.2),
}
WIDTH, DEPTH = 1000, 50


def activation_of(name):
    from winit_fast.initializers.activations import activation_function

    return activation_function(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_of_many_networks(name):
    """Within 5 % of the theory, with a standard error below 2 %, at width 1000 and depth 50.

    Given the layer before, the preactivations of a layer of normal weights and biases are
    independent and normal, with the variance that the mean square of that layer gives. So they
    are drawn themselves: a thousand networks cost as many numbers as one network's weights.
    """
    sigma_w, sigma_b = NETWORKS[name]
    function, networks = activation_of(name), depth(1000, share=3)
    expected = theory(name, sigma_w, sigma_b, DEPTH)
    q = np.full(networks, expected.variances[0])
    for layer in range(DEPTH):
        z = wf.Stream(0, f"{name}.{layer}").normal(shape=(networks, WIDTH))
        h = z * np.sqrt(q)[:, None].astype(np.float32)
        square = np.mean(h * h, 1, dtype=np.float64)
        if layer < DEPTH - 1:
            values = function(h)
            q = sigma_w**2 * np.mean(values * values, 1, dtype=np.float64) + sigma_b**2
    error = square.std() / math.sqrt(networks) / square.mean()
    assert error < 0.02
    assert abs(square.mean() / expected.variances[-1] - 1) < 0.05
    # The deviation of one network; that of a sample of 1000 is known to about 5 % here.
    assert square.std() / square.mean() == pytest.approx(expected.spread(WIDTH)[-1], rel=0.25)


@pytest.mark.slow  # the other one is quick, and has the same theory
@pytest.mark.parametrize("name", NETWORKS)
def test_one_network_of_weights(name):
    """A network made by this package is within four times its spread: it fails once in 15,000."""
    sigma_w, sigma_b = NETWORKS[name]
    function = activation_of(name)
    expected = theory(name, sigma_w, sigma_b, DEPTH)
    x = np.sign(wf.Stream(1, "input").normal(shape=WIDTH))  # of mean square 1
    weights = wf.VarianceScaling(sigma_w**2, "fan_in", "normal")
    spread = expected.spread(WIDTH)
    for layer in range(DEPTH):
        w = weights((WIDTH, WIDTH), seed=2, name=f"{layer}.weight")
        h = x @ w + wf.RandomNormal(0, sigma_b)(WIDTH, seed=2, name=f"{layer}.bias")
        off = np.mean(np.square(h, dtype=np.float64)) / expected.variances[layer] - 1
        assert abs(off) < 4 * spread[layer], layer
        x = function(h).astype(np.float32)


def test_gradients_grow_by_chi():
    ordered = theory("tanh", 0.9, depth=30)
    chi = [ordered.gradient_factor(q) for q in ordered.variances]
    np.testing.assert_allclose(ordered.gradients[:-1] / ordered.gradients[1:], chi[:-1])
    assert ordered.gradients[-1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("swiglu", 1.0), ValueError, "activation must have one input, got 'swiglu'"),
        (("rleu", 1.0), ValueError, "got 'rleu'; did you mean 'relu'"),
        (("relu", -1.0), ValueError, "sigma_w must be >= 0, got -1.0"),
        (("relu", 1.0, math.nan), ValueError, "sigma_b must be finite, got nan"),
        (("relu", 1.0, 0.0, 0), ValueError, "depth must be at least 1, got 0"),
        ((3, 1.0), TypeError, "activation must be a name or a function, got 3"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        theory(*arguments)


def test_refused_correlations():
    found = theory("tanh", 1.0)
    with pytest.raises(ValueError, match="correlation must be from -1 to 1, got 1.5"):
        found.correlation_map(1.5)
    with pytest.raises(ValueError, match="correlation has no meaning .* got a variance of 0.0"):
        found.correlation_map(0.5, 0.0)
    with pytest.raises(ValueError, match="variance must be >= 0, got -1"):
        found.variance_map(-1)


def test_without_weights():
    nothing = theory("tanh", 0.0, 0.5, depth=3)
    np.testing.assert_array_equal(nothing.variances, 0.25)
    assert nothing.chi == 0 and nothing.phase == "ordered"
