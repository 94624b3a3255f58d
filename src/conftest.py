"""The adapters' examples need their frameworks: `make test-frameworks` names these files itself."""

from winit_fast.base.frameworks import FRAMEWORKS

collect_ignore = [f"winit_fast/{framework}" for framework in FRAMEWORKS]
