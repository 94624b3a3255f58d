"""What all tests share: instruction sets, and runs that repeat."""

import signal
from importlib.util import find_spec

import pytest
from hypothesis import settings

import winit_fast._core as _core
from winit_fast.base.frameworks import FRAMEWORKS

# Frameworks have a command of their own, `make test-frameworks`.
collect_ignore = [] if all(map(find_spec, FRAMEWORKS)) else ["frameworks"]

# A shell's background jobs begin with Ctrl-C ignored, and so would the tests of it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis draws the same examples in every run: a quarter of them in `make test`, all with
# `--hypothesis-profile=full`, as `make test-all` and CI do.
settings.register_profile("full", derandomize=True, deadline=None, database=None)
settings.register_profile("development", settings.get_profile("full"), max_examples=25)
settings.load_profile("development")


@pytest.fixture(params=_core.supported_isas())
def isa(request):
    """Run the test once with each instruction set that this processor has."""
    before = _core.isa()
    _core.set_isa(request.param)
    assert _core.isa() == request.param
    yield request.param
    _core.set_isa(before)
