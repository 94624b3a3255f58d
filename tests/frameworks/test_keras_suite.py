"""Keras's own tests of its random initializers, run with our classes in their place."""

import sys
from types import ModuleType, SimpleNamespace

import keras
import pytest

import winit_fast.keras as wk

# Keras reads PyTorch's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def _suite():
    """Import Keras's tests with a replacement for the conftest module of its repository."""
    conftest = ModuleType("conftest")
    # a decorator that skips a test for some backends; none is skipped here
    conftest.skip_if_backend = lambda backend, reason: lambda test: test
    ours = sys.modules.get("conftest")
    sys.modules["conftest"] = conftest
    try:
        from keras.src.initializers import random_initializers_test
    finally:
        del sys.modules["conftest"]
        if ours is not None:
            sys.modules["conftest"] = ours
    return random_initializers_test


SUITE = _suite()
OURS = {name: getattr(wk, name) for name in wk.__all__}
USED = []


class Substitute(SimpleNamespace):
    """Replaces ``keras.src.initializers``, and records which of our classes are used."""

    def __getattribute__(self, name):
        if name in OURS:
            USED.append(name)
        return super().__getattribute__(name)


def get(identifier):
    """Find an initializer as Keras does; a plain name gives our class instead of Keras's."""
    found = keras.initializers.get(identifier)
    name = type(found).__name__
    return OURS[name]() if isinstance(identifier, str) and name in OURS else found


@pytest.fixture(autouse=True)
def ours_instead_of_keras(monkeypatch):
    everything = {name: getattr(keras.initializers, name) for name in dir(keras.initializers)}
    monkeypatch.setattr(SUITE, "initializers", Substitute(**everything | OURS | {"get": get}))


class TestRandomInitializers(SUITE.RandomInitializersTest):
    pass


def test_the_suite_has_asked_for_ours():
    """The suite exists, has at least ten tests, and uses our classes."""
    tests = [name for name in dir(SUITE.RandomInitializersTest) if name.startswith("test_")]
    assert len(tests) >= 10
    SUITE.RandomInitializersTest("test_random_uniform").test_random_uniform()
    assert "RandomUniform" in USED
