"""The adapters' examples need their frameworks: `make test-frameworks` names these files itself."""

collect_ignore = [f"winit_fast/{place}" for place in ("torch", "jax", "keras", "dask")]
