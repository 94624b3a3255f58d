"""Skips the adapters' doctests, which need the frameworks; `make test-frameworks` runs them."""

from winit_fast.base.frameworks import FRAMEWORKS

collect_ignore = [f"winit_fast/{framework}" for framework in FRAMEWORKS]
