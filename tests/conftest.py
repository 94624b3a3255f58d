"""Shared by all tests: the fixture `isa`, and settings that make every run the same."""

import gc
import signal
from collections import defaultdict
from importlib.util import find_spec
from zlib import crc32

import pytest
from hypothesis import settings

import winit_fast._core as _core
from winit_fast.base.frameworks import FRAMEWORKS

# Tests of the adapters run if all frameworks are installed, as in `make test-frameworks`.
collect_ignore = [] if all(map(find_spec, FRAMEWORKS)) else ["frameworks"]

# A shell starts background jobs with SIGINT ignored, and the tests of Ctrl-C would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis draws the same examples in every run. `make test` uses a quarter of them; `make
# test-all` and CI use all (`--hypothesis-profile=full`).
settings.register_profile("full", derandomize=True, deadline=None, database=None)
settings.register_profile("development", settings.get_profile("full"), max_examples=25)
settings.load_profile("development")


MANY, SOME = 12, 4
"""From so many cases of one test on, `make test` takes a quarter, or half, of them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark most cases of a test with many cases as slow; `make test` leaves these out."""
    cases = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec"):
            cases[item.path, item.originalname].append(item)
    for each in cases.values():
        if len(each) >= SOME:
            # not every fourth, which would leave out three of four values of the last parameter
            each.sort(key=lambda item: crc32(item.name.encode()))
            for item in each[len(each) // (4 if len(each) >= MANY else 2) :]:
                item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Spare the garbage collector the objects of thousands of tests, which live to the end.

    It would scan them again and again: an eighth of the time of all tests.
    """
    gc.freeze()


@pytest.fixture(params=_core.supported_isas())
def isa(request):
    """Run the test once for each instruction set that this processor has."""
    before = _core.isa()
    _core.set_isa(request.param)
    assert _core.isa() == request.param
    yield request.param
    _core.set_isa(before)
