"""Skips doctests that need the frameworks; `make test-frameworks` runs them."""

from winit_fast.base.frameworks import FRAMEWORKS

collect_ignore = [f"winit_fast/{floor}" for floor in (*FRAMEWORKS, "sources", "gpu")]
collect_ignore += [f"winit_fast/{floor}/torch" for floor in ("diagnosis", "dynamic", "advice")]
