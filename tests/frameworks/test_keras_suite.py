"""Keras' own tests of its random initializers, from the installed package, run against ours."""

import sys
from types import ModuleType, SimpleNamespace

import keras
import pytest

import winit_fast.keras as wk

# PyTorch's arrays, as Keras reads them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def _suite():
    """Import the tests; what they want of the conftest of Keras' repository is a decorator."""
    conftest = ModuleType("conftest")
    conftest.skip_if_backend = lambda backend, reason: lambda test: test  # of backends not run here
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
    """Stands for ``keras.src.initializers``: notes which of our classes are asked for."""

    def __getattribute__(self, name):
        if name in OURS:
            USED.append(name)
        return super().__getattribute__(name)


def get(identifier):
    """Find as Keras does, where a name alone is always Keras' own class: give ours for that."""
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
    """It is there, and not empty: ten tests or more, and our classes in them."""
    tests = [name for name in dir(SUITE.RandomInitializersTest) if name.startswith("test_")]
    assert len(tests) >= 10
    SUITE.RandomInitializersTest("test_random_uniform").test_random_uniform()
    assert "RandomUniform" in USED
