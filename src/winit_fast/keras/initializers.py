"""Keras' random initializers, implemented with this package's initializers."""

import math
from functools import lru_cache

import keras

import winit_fast.initializers as native
from winit_fast.initializers.fans import fans
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.truncation_correction import TRUNCATED_AT
from winit_fast.keras.mixin import Drawn, public

# Cached, because a model has many layers but few different shapes.
_fans = lru_cache(fans)
_variance_scaling = lru_cache(native.VarianceScaling)
_orthogonal = lru_cache(native.Orthogonal)


@public
class RandomNormal(Drawn, keras.initializers.RandomNormal):
    """N(mean, stddev^2)."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.RandomNormal(float(self.mean), float(self.stddev))


@public
class TruncatedNormal(Drawn, keras.initializers.TruncatedNormal):
    """N(mean, stddev^2) truncated at mean +- 2 stddev; its standard deviation is 0.8796 stddev."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        window = -TRUNCATED_AT, TRUNCATED_AT
        return native.TruncatedNormal(float(self.mean), float(self.stddev), *window)


@public
class RandomUniform(Drawn, keras.initializers.RandomUniform):
    """U[minval, maxval), in every dtype."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        return native.RandomUniform(float(self.minval), float(self.maxval))


# Keras' names of the distributions, with this package's names.
_DISTRIBUTIONS = {
    "uniform": "uniform",
    "truncated_normal": "truncated_normal",  # Keras has converted "normal" to this
    "untruncated_normal": "normal",
}


@public
class VarianceScaling(Drawn, keras.initializers.VarianceScaling):
    """Draws with variance scale / max(1, fan).

    "normal" and "truncated_normal" are truncated at 2 standard deviations, with a scale that is
    increased to give this variance; "untruncated_normal" is the plain normal. Both fans of a tensor
    with one axis are its size, those of a scalar are 1. With both ``input_axes`` and
    ``output_axes``, a fan is the product of these axes alone.
    """

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        # Older versions of Keras 3 do not have these arguments.
        inputs, outputs = getattr(self, "input_axes", None), getattr(self, "output_axes", None)
        if inputs is not None and outputs is not None:
            fan_in, fan_out = (math.prod(shape[at] for at in axes) for axes in (inputs, outputs))
        else:
            fan_in, fan_out = _fans(shape) if shape else (1, 1)
        return _variance_scaling(
            self.scale,
            self.mode,
            _DISTRIBUTIONS[self.distribution],
            # A fan is 0 only if the tensor has no elements.
            fan_in=max(1, fan_in),
            fan_out=max(1, fan_out),
        )


@public
class GlorotUniform(VarianceScaling, keras.initializers.GlorotUniform):
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out))."""


@public
class GlorotNormal(VarianceScaling, keras.initializers.GlorotNormal):
    """Truncated normal with variance 2 / (fan_in + fan_out)."""


@public
class HeUniform(VarianceScaling, keras.initializers.HeUniform):
    """U(-a, a), a = sqrt(6 / fan_in)."""


@public
class HeNormal(VarianceScaling, keras.initializers.HeNormal):
    """Truncated normal with variance 2 / fan_in."""


@public
class LecunUniform(VarianceScaling, keras.initializers.LecunUniform):
    """U(-a, a), a = sqrt(3 / fan_in)."""


@public
class LecunNormal(VarianceScaling, keras.initializers.LecunNormal):
    """Truncated normal with variance 1 / fan_in."""


@public
class Orthogonal(Drawn, keras.initializers.Orthogonal):
    """A random semi-orthogonal matrix (prod(shape[:-1]), shape[-1]), times gain."""

    def _scheme(self, shape: tuple[int, ...]) -> Initializer:
        if len(shape) < 2:
            raise ValueError  # Keras then raises its own error
        return _orthogonal(float(self.gain))
