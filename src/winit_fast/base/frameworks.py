"""The frameworks that have an adapter: the one list of them.

Each is a folder of this package by the framework's own name, an extra in pyproject.toml, a guide in
docs/guides and a place in tests/frameworks.
"""

FRAMEWORKS = ("torch", "jax", "keras", "dask")

MEMORY = {"torch": "winit_fast.torch.memory"}
"""Those whose tensors are more than their memory, with the module that sees to the rest."""
