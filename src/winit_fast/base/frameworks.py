"""The list of the frameworks that have an adapter.

Each framework has a folder of its name in this package, an extra in pyproject.toml, a guide in
docs/guides and tests in tests/frameworks.
"""

FRAMEWORKS = ("torch", "jax", "keras", "dask")

MEMORY = {"torch": "winit_fast.torch.memory"}
"""The modules that handle what a framework's tensors have besides memory, such as autograd."""
